"""The kernels of ``kernels/``: at work where a GPU, Triton and the package ``memtune_kernels`` are there.

The package is no dependency of memtune's. Without it, and on every CPU, memtune's own torch functions compute.
"""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

__all__ = ["kernels_for"]


def kernels_for(tensor: Tensor) -> ModuleType | None:
    """``memtune_kernels`` if its kernels run on the device of ``tensor``, else None."""
    if not tensor.is_cuda:
        return None
    try:
        import memtune_kernels
        from memtune_kernels.engine import uses_triton
    except ImportError:
        return None
    return memtune_kernels if uses_triton(tensor) else None
