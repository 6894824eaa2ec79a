"""A GPU for machines that have none: tensors that say they lie on one, and refuse what a real one would.

Their numbers lie on the CPU and are computed there. What they show is that no code mixes the two devices.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

__all__ = ["PretendGpu"]


class _Backend(_DummyBackendModule):
    """What torch asks of any kind of accelerator: it draws no random numbers of its own."""

    def get_rng_state(self, device):
        return torch.get_rng_state()

    def set_rng_state(self, state, device):
        pass


_setup_privateuseone_for_python_backend("gpu", _Backend())
GPU = torch.device("gpu", 0)
CROSSES = {torch.ops.aten.to, torch.ops.aten._to_copy, torch.ops.aten.copy_}  # between devices
INDEXED = {torch.ops.aten.index, torch.ops.aten.index_put_, torch.ops.aten.index_put, torch.ops.aten._index_put_impl_}


class _OnGpu(Tensor):
    """``cpu`` holds the numbers. Two of them share their storage where those do."""

    cpu_tensor: Tensor

    @staticmethod
    def __new__(cls, cpu: Tensor) -> _OnGpu:
        like = {"strides": cpu.stride(), "storage_offset": cpu.storage_offset(), "dtype": cpu.dtype, "device": GPU}
        with torch.inference_mode(False):  # what is made in that mode is no more to be used as an ordinary one
            made = Tensor._make_wrapper_subclass(cls, cpu.shape, **like)
        made.cpu_tensor = cpu
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def tolist(self):
        return self.cpu_tensor.tolist()

    def __repr__(self) -> str:
        return f"on a GPU: {self.cpu_tensor!r}"


class PretendGpu(TorchDispatchMode):
    """Within it ``gpu`` is a device."""

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="gpu") is made here, and moved
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(False)
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    """Computes with the numbers, and puts what comes out where it belongs."""
    leaves = tree_leaves((args, kwargs))
    given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if func.overloadpacket not in CROSSES:
        _check(func, args, given)
    held = {id(tensor.cpu_tensor): tensor for tensor in given if isinstance(tensor, _OnGpu)}
    there = _ends_there(func, given, [leaf for leaf in leaves if isinstance(leaf, torch.device)])
    args, kwargs = tree_map(_bare, (args, kwargs))

    def placed(leaf):
        if not there or not isinstance(leaf, Tensor):
            return leaf
        return held[id(leaf)] if id(leaf) in held else _OnGpu(leaf)

    return tree_map(placed, func(*args, **kwargs))


def _ends_there(func, given, wanted):
    if wanted:
        return wanted[0].type == GPU.type
    deciding = given[:1] if func.overloadpacket is torch.ops.aten.copy_ else given
    return any(isinstance(tensor, _OnGpu) for tensor in deciding)


def _bare(leaf):
    if isinstance(leaf, torch.device):
        return torch.device("cpu") if leaf.type == GPU.type else leaf
    return leaf.cpu_tensor if isinstance(leaf, _OnGpu) else leaf


def _check(func, args, given):
    """As CUDA does: a number without dimensions may lie anywhere, and so may what indexes a tensor on the GPU."""
    if not any(isinstance(tensor, _OnGpu) for tensor in given):
        return
    indices = tree_leaves(args[1]) if func.overloadpacket in INDEXED and isinstance(args[0], _OnGpu) else []
    free = {id(index) for index in indices}
    if any(not isinstance(tensor, _OnGpu) and tensor.dim() and id(tensor) not in free for tensor in given):
        raise RuntimeError(f"Expected all tensors to be on the same device, gpu:0 and cpu: {func}")
