"""Float32 products on a CPU by oneDNN, which torch ships beside the library that it gives them to.

MKL keeps its fastest code for one maker's processors; oneDNN makes its own for whatever it runs on. Measured on an AMD
EPYC, one core: 96 and 106 GFLOP/s in a decoder layer, 75 and 101 at the LM head. The weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["by_onednn"]

PLAIN = (Tensor, nn.Parameter)  # quantised, faked and traced tensors are other kinds


class _OneDnn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs and _fits(*args):
            states, weight, *bias = args
            return torch.ops.mkldnn._linear_pointwise(states, weight, *(bias or [None]), "none", [], "")
        return func(*args, **(kwargs or {}))


def _fits(*operands: Tensor | None) -> bool:
    """Plain float32 on the CPU, none of it empty, with no gradient to follow and no other dtype asked for."""
    given = [one for one in operands if one is not None]
    return (
        torch.is_inference_mode_enabled()
        and not torch.is_autocast_enabled("cpu")
        and all(type(one) in PLAIN and one.dtype == torch.float32 and one.is_cpu and one.numel() > 0 for one in given)
    )


@contextmanager
def by_onednn() -> Iterator[None]:
    """Linear layers called within are computed by oneDNN where they can be; as ever where this torch has none."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        yield
        return
    with _OneDnn():
        yield
