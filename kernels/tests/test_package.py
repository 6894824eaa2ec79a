"""The package around the kernels: custom ops, tile sizes from files, and the layout that kernel-builder reads."""

from __future__ import annotations

import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import memtune_kernels
import pytest
import torch
from memtune_kernels import engine, tuning
from problems import attention_problem, fit_problem, words

PACKAGE = Path(memtune_kernels.__file__).parent
KERNELS = ("expert_attention", "fit_step", "gate_maxsim", "route_topk")
CPU = torch.device("cpu")


def _calls():
    """One call of every op, with the arguments that its public function passes on."""
    f32 = torch.float32
    a = attention_problem(f32, torch.int8, CPU)
    names = ("hidden", "queries", "steps", "offsets", "runs", "keys", "values", "up", "value_scales", "beta", "slope")
    asked, stored = words([3, 2], f32, CPU), words([4], f32, CPU)
    return {
        "expert_attention": (*(a[name] for name in names), 19),
        "fit_step": tuple(fit_problem(f32, f32, CPU).values()),
        "gate_maxsim": ([*asked, *stored], torch.tensor([[0, 0], [1, 0]]), 3, 4),
        "route_topk": (torch.randn(3, 8), torch.randn(9, 8), 2),
    }


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_op_is_one_that_torch_can_trace(kernel):
    """Its schema says what it mutates, its fake knows the shapes, and no output is an input."""
    torch.library.opcheck(getattr(torch.ops.memtune_kernels, kernel).default, _calls()[kernel])


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_the_interpreter_a_cpu_takes_the_plain_path(kernel, monkeypatch):
    module = importlib.import_module(f"memtune_kernels.{kernel}")
    monkeypatch.setattr(engine, "INTERPRETED", False)
    taken = []
    plain = module._plain
    monkeypatch.setattr(module, "_plain", lambda *arguments: taken.append(kernel) or plain(*arguments))
    getattr(torch.ops.memtune_kernels, kernel)(*_calls()[kernel])
    assert taken == [kernel]


@pytest.fixture
def built(monkeypatch):
    """The package as kernel-builder ships it: under any name, its ops in a namespace of that build, and no Triton."""
    name = "memtune_kernels_of_another_build"
    operations = ModuleType(f"{name}._ops")
    operations.add_op_namespace_prefix = lambda op: f"{name}::{op}"
    monkeypatch.setitem(sys.modules, f"{name}._ops", operations)
    monkeypatch.setitem(sys.modules, "triton", None)
    spec = importlib.util.spec_from_file_location(
        name, PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
    )
    package = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, package)
    spec.loader.exec_module(package)
    yield package
    for module in [m for m in sys.modules if m.startswith(name + ".")]:
        sys.modules.pop(module)


def test_it_loads_beside_another_build_and_without_triton(built):
    assert not sys.modules[f"{built.__name__}.engine"].HAS_TRITON
    assert built.__all__ == memtune_kernels.__all__
    questions, keys = torch.randn(3, 8), torch.randn(9, 8)
    assert torch.equal(built.route_topk(questions, keys, 2)[1], memtune_kernels.route_topk(questions, keys, 2)[1])
    assert hasattr(torch.ops.memtune_kernels_of_another_build, "route_topk")


def test_build_file_names_this_package_and_ships_its_configs():
    build = tomllib.loads((PACKAGE.parents[1] / "build.toml").read_text())
    assert build["general"]["name"].replace("-", "_") == PACKAGE.name
    shipped = {file.suffix.removeprefix(".") for file in PACKAGE.rglob("*") if file.is_file()} - {"pyc"}
    assert shipped == set(build["torch-noarch"]["pyext"])


def test_a_devices_file_overrides_what_it_names_and_a_dtype_what_is_its_own(tmp_path, monkeypatch):
    default = {"fit_step": {"num_warps": 4, "num_stages": 3, "bfloat16": {"num_stages": 2}}}
    (tmp_path / "default.json").write_text(json.dumps(default))
    (tmp_path / "cpu.json").write_text(json.dumps({"fit_step": {"num_warps": 8}}))
    monkeypatch.setattr(tuning, "CONFIGS", tmp_path)
    tuning._stored.cache_clear()
    try:
        assert tuning.settings("fit_step", CPU, torch.float32) == {"num_warps": 8, "num_stages": 3}
        assert tuning.settings("fit_step", CPU, torch.bfloat16) == {"num_warps": 8, "num_stages": 2}
    finally:
        tuning._stored.cache_clear()


def test_an_override_ends_with_its_block_and_knows_the_names():
    before = tuning.settings("fit_step", CPU, torch.float32)
    with tuning.override("fit_step", num_warps=1):
        assert tuning.settings("fit_step", CPU, torch.float32) == before | {"num_warps": 1}
    assert tuning.settings("fit_step", CPU, torch.float32) == before
    with pytest.raises(ValueError, match="fit_step has no setting num_wraps"), tuning.override("fit_step", num_wraps=1):
        pass


def test_device_files_are_named_like_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA H200 (MIG 1g)")
    assert tuning.device_name(torch.device("cuda")) == "NVIDIA_H200__MIG_1g_"
