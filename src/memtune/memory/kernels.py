"""The kernels of ``kernels/``: at work where a GPU, Triton and the package ``memtune_kernels`` are there.

The package is no dependency of memtune's, nor of a bundle's. Without it, and on every CPU, the memory's own torch
functions compute.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from torch import Tensor

__all__ = ["kernels_for"]


def kernels_for(tensor: Tensor) -> ModuleType | None:
    """``memtune_kernels`` if its kernels run on the device of ``tensor``, else None."""
    if not tensor.is_cuda:
        return None
    try:  # by name: a bundle carries this file, and transformers insists on whatever such a file imports
        kernels, engine = import_module("memtune_kernels"), import_module("memtune_kernels.engine")
    except ImportError:
        return None
    return kernels if engine.uses_triton(tensor) else None
