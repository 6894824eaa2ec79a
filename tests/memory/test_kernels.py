"""The kernels take over on a GPU alone, and write there what memtune's own functions write."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from memtune.memory import kernels, module
from memtune.memory.bank import ROWS, Bank
from memtune.memory.kernels import kernels_for
from memtune.memory.module import Memory

ON_GPU = SimpleNamespace(is_cuda=True, device=torch.device("cuda"))


@pytest.fixture(autouse=True)
def _looked_for_anew():
    kernels._package.cache_clear()
    yield
    kernels._package.cache_clear()


def test_a_cpu_never_takes_the_kernels():
    assert kernels_for(torch.ones(1)) is None


def test_a_gpu_takes_them_where_they_run(monkeypatch):
    memtune_kernels = pytest.importorskip("memtune_kernels")
    monkeypatch.setattr("memtune_kernels.engine.uses_triton", lambda _tensor: True)
    assert kernels_for(ON_GPU) is memtune_kernels
    monkeypatch.setattr("memtune_kernels.engine.uses_triton", lambda _tensor: False)  # no Triton, or an old GPU
    assert kernels_for(ON_GPU) is None


def test_a_gpu_does_without_them_where_the_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "memtune_kernels", None)
    assert kernels_for(ON_GPU) is None


@pytest.mark.parametrize("rows", ROWS)
def test_the_kernels_write_what_the_memory_writes(monkeypatch, rows):
    memtune_kernels = pytest.importorskip("memtune_kernels")
    torch.manual_seed(0)
    memory = _memory(facts=[3, 1, 7], hidden=40, rows=rows)
    hidden, facts, steps = torch.randn(5, 40), torch.tensor([0, 2, 2, 1, 0]), torch.tensor([0, 4, 5, 0, 2])
    expected = memory.write(hidden, facts, steps)
    monkeypatch.setattr(module, "kernels_for", lambda _tensor: memtune_kernels)
    monkeypatch.setattr(module, "expert_attention", None)
    torch.testing.assert_close(memory.write(hidden, facts, steps), expected, rtol=1e-5, atol=1e-5)


def _memory(facts, hidden, rows):
    memory = Memory.__new__(Memory)
    torch.nn.Module.__init__(memory)
    memory.bank = Bank.assigned([str(i) for i in range(len(facts))], facts, hidden, rows)
    d_key, d_value = memory.bank.sizes.d_key, memory.bank.sizes.d_value
    memory.projections = module.Projections(hidden, d_key, d_value)
    for tensor in (memory.projections.down, memory.projections.up):
        tensor.normal_()
    experts = torch.arange(sum(facts))
    memory.bank.put(experts, *(torch.randn(len(experts), width) for width in (d_key, d_value)))
    return memory
