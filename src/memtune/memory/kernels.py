"""The kernels of ``kernels/``: at work where a GPU, Triton and the package ``memtune_kernels`` are there.

The package is no dependency of memtune's, nor of a bundle's. Without it, and on every CPU, the memory's own torch
functions compute.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from torch import Tensor

__all__ = ["kernels_for"]


def kernels_for(tensor: Tensor) -> ModuleType | None:
    """``memtune_kernels`` if its kernels run on the device of ``tensor``, else None."""
    package = _package() if tensor.is_cuda else None
    return package if package and package.engine.uses_triton(tensor) else None


@cache
def _package() -> ModuleType | None:
    """Looked for once: a decode step asks each time, and Python would search for what is not there each time."""
    try:  # by name: a bundle carries this file, and transformers insists on whatever such a file imports
        import_module("memtune_kernels.engine")
        return import_module("memtune_kernels")
    except ImportError:
        return None
