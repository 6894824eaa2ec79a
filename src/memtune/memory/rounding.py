"""Rows in eight bits a figure or fewer. A unit row keeps its direction and needs no scale beside it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["quantised", "rounded"]

LEVELS = 127  # of eight bits


def rounded(rows: Tensor, most: int = LEVELS) -> Tensor:
    """int8 ``(rows, d)`` from -most to most: what stands for a row but for its length."""
    level = rows.abs().amax(1, keepdim=True) / most
    return (rows / level.clamp_min(torch.finfo(torch.float32).tiny)).round().char()


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """``rows`` (n, d) as int8 (n, d) and float32 scales (n,): ``int8 * scales[:, None]`` is about ``rows``."""
    return rounded(rows), rows.float().abs().amax(1) / LEVELS
