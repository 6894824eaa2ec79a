"""The default tile sizes fit a GPU, which needs none at hand: Triton brings its own assembler.

What the compiler knows is checked: the types, that no register spills to memory, and shared memory. How fast a kernel
is, only a GPU tells.
"""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import pytest
import torch
from memtune_kernels import engine, expert_attention, fit_step, gate_maxsim, route_topk
from problems import attention_problem, fit_problem, words

pytestmark = pytest.mark.skipif(not engine.HAS_TRITON or engine.INTERPRETED, reason="needs Triton's compiler")
CPU = torch.device("cpu")
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}
POINTERS |= {torch.int32: "*i32", torch.int8: "*i8", torch.uint8: "*u8"}
SHARED = {(8, 0): 163 * 1024, (9, 0): 227 * 1024}  # bytes that a program may have


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def _route(dtype, questions=64):
    route_topk(torch.randn(questions, 128).to(dtype), torch.randn(500, 128).to(dtype), 32)


def _route_one(dtype):
    _route(dtype, questions=1)


def _gate(dtype):
    gate_maxsim(words([5], dtype, CPU, 64, 256), words([7], dtype, CPU, 64, 256), torch.tensor([[0, 0]]))


def _attend(dtype, stored):
    expert_attention(**attention_problem(dtype, stored, CPU, hidden=4096, d_key=32, d_value=128))


def _fit(dtype, stored):
    fit_step(**fit_problem(dtype, stored, CPU, hidden=4096, width=128))


f32, bf16, f16, i8 = torch.float32, torch.bfloat16, torch.float16, torch.int8


@pytest.mark.parametrize(
    ("name", "call", "dtypes", "capability"),
    [
        ("route_topk", _route, (f32,), (9, 0)),
        ("route_topk", _route_one, (bf16,), (9, 0)),
        ("gate_maxsim", _gate, (f16,), (9, 0)),
        ("expert_attention", _attend, (f32, f32), (8, 0)),
        ("expert_attention", _attend, (bf16, i8), (9, 0)),
        ("fit_step", _fit, (f32, f32), (8, 0)),
        ("fit_step", _fit, (bf16, f32), (9, 0)),
        ("fit_step", _fit, (bf16, bf16), (9, 0)),
    ],
    ids=lambda x: "-".join(str(d).removeprefix("torch.") for d in x) if isinstance(x, tuple) else None,
)
def test_default_tiles_compile_and_spill_nothing(name, call, dtypes, capability, tmp_path, monkeypatch):
    module = importlib.import_module(f"memtune_kernels.{name}")
    launched = []

    def keep(kernel, _grid, *arguments, **constants):
        launched.append((kernel, arguments, constants))

    monkeypatch.setattr(module, "launch", keep)
    monkeypatch.setattr(module, "uses_triton", lambda _tensor: True)
    call(*dtypes)

    assert launched
    for kernel, arguments, constants in launched:
        compiled = _compiled(kernel, arguments, constants, capability)
        assert _spilled(compiled, tmp_path) == 0, kernel.__name__
        assert compiled.metadata.shared <= SHARED[capability], kernel.__name__


def _compiled(kernel, arguments, constants, capability):
    """What a launch with these arguments would run on a GPU of that compute capability."""
    from triton import compile as assemble
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    signature = {name: _type(value) for name, value in zip(kernel.arg_names, arguments, strict=False)}
    signature |= dict.fromkeys(constants, "constexpr")
    constants |= {path: value for path, value in _leaves(arguments) if _type(value) == "constexpr"}
    pointers = [path for path, value in _leaves(arguments) if isinstance(value, torch.Tensor)]
    aligned = {path: [["tt.divisibility", 16]] for path in pointers}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    return assemble(source, target=GPUTarget("cuda", capability[0] * 10 + capability[1], 32), options=options)


def _type(value):
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, tuple):
        return tuple(_type(entry) for entry in value)
    if value is None or (isinstance(value, int) and value == 1):  # Triton compiles these anew, as constants
        return "constexpr"
    return {int: "i32", float: "fp32"}[type(value)]


def _leaves(arguments, path=()):
    """Every argument with its path, those inside tuples as well."""
    for number, value in enumerate(arguments):
        if isinstance(value, tuple):
            yield from _leaves(value, (*path, number))
        else:
            yield (*path, number), value


def _spilled(compiled, folder: Path) -> int:
    """Bytes of a thread's registers that the assembler had to put into memory."""
    import triton

    binary = folder / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    usage = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", usage).group(1))
