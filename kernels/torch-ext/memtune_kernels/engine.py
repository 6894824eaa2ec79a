"""Where Triton is, and which tensors it may run on.

Without Triton the kernels stay undecorated functions that nobody calls, so that the plain torch paths import anywhere.
Triton's interpreter is chosen by its own variable, TRITON_INTERPRET=1, which has to be set before the first import; the
tests do that in a process of their own.
"""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton, tl = SimpleNamespace(jit=lambda function: function), SimpleNamespace(constexpr=int)

__all__ = [
    "HAS_TRITON",
    "INTERPRETED",
    "cdiv",
    "launch",
    "op_name",
    "power_of_two",
    "processors",
    "tl",
    "triton",
    "uses_triton",
]

HAS_TRITON: bool = hasattr(tl, "topk")  # not in the first releases of Triton 3
# In the interpreter tl.dot takes bfloat16 for the integers that NumPy keeps it in: operands go to float32 first there.
INTERPRETED: bool = HAS_TRITON and bool(triton.knobs.runtime.interpret)

try:  # kernel-builder writes this file: a name of its own for each build, so that two versions can be loaded at once
    from ._ops import add_op_namespace_prefix as op_name
except ImportError:

    def op_name(name: str) -> str:
        return f"memtune_kernels::{name}"


def uses_triton(tensor: Tensor) -> bool:
    """Triton runs on NVIDIA GPUs from Ampere on, and anywhere in its interpreter; all else takes plain torch."""
    return HAS_TRITON and (INTERPRETED or (tensor.is_cuda and _is_ampere(tensor.device)))


@lru_cache
def _is_ampere(device: torch.device) -> bool:
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)


def processors(device: torch.device) -> int:
    """Streaming multiprocessors of a GPU; 1 elsewhere."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def cdiv(total: int, part: int) -> int:
    return -(-total // part)


def power_of_two(least: int, floor: int = 1) -> int:
    """The smallest power of two that is at least ``least`` and ``floor``."""
    return max(floor, 1 << max(0, least - 1).bit_length())


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Runs ``kernel`` on ``grid``, on the GPU of its tensors; an empty grid is no launch, which CUDA would refuse."""
    if all(grid):
        with torch.cuda.device_of(next(a for a in arguments if isinstance(a, Tensor))):
            kernel[grid](*arguments, **constants)
