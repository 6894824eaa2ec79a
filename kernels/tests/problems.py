"""Random problems of every kernel, with the edges in them: tails of tiles, empty runs, ties, the null route."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from memtune_kernels import Words
from torch import Tensor

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
Problem = dict[str, Any]


def rows(count: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Rows of experts: int8 ones use their whole range."""
    if dtype is torch.int8:
        return torch.randint(-127, 128, (count, width), dtype=dtype).to(device)
    return torch.randn(count, width).to(device, dtype)


def words(lengths: list[int], dtype: torch.dtype, device: torch.device, width: int = 24, buckets: int = 40) -> Words:
    """Questions of so many words each."""
    count = sum(lengths)
    columns = [torch.tensor([0, *lengths]).cumsum(0), torch.randn(count, width), torch.randn(count, width)]
    columns += [torch.rand(count, buckets) < 0.3, torch.randint(0, 6, (count,)), torch.rand(count) < 0.4]
    dtypes = (torch.int64, dtype, dtype, torch.bool, torch.int32, torch.bool)
    return Words(*(column.to(device, kind) for column, kind in zip(columns, dtypes, strict=True)))


def attention_problem(
    dtype: torch.dtype, stored: torch.dtype, device: torch.device, hidden: int = 50, d_key: int = 12, d_value: int = 20
) -> Problem:
    """Four sequences: one position, more than a tile of them, one on the null route, one with a single expert."""
    positions, experts = 27, 60
    steps = torch.randint(0, 40, (positions,))  # the likeliest expert stands in any tile of the run
    steps[0] = 7
    problem = {
        "hidden": torch.randn(positions, hidden).to(device, dtype),
        "queries": F.normalize(torch.randn(positions, d_key), dim=1).to(device),
        "steps": steps.to(device),
        "offsets": torch.tensor([0, 1, 20, 23, 27], device=device),
        "runs": torch.tensor([[5, 9], [14, 40], [0, 0], [54, 1]], device=device),
        "keys": rows(experts, d_key, stored, device),
        "values": rows(experts, d_value, stored, device),
        "up": torch.randn(hidden, d_value).to(device),
        "value_scales": (torch.rand(experts) / 50).to(device) if stored is torch.int8 else None,
        "beta": 4.0,  # a softer softmax than memtune's: every expert of the run has a say
        "slope": 0.1,
    }
    problem["hidden"][21] = -0.0
    return problem


def fit_problem(
    dtype: torch.dtype, stored: torch.dtype, device: torch.device, hidden: int = 36, width: int = 20
) -> Problem:
    """21 answer tokens over a vocabulary of 100, its first and last token among the targets."""
    tokens, vocabulary = 21, 100
    targets = torch.randint(0, vocabulary, (tokens,))
    targets[:2] = torch.tensor([0, vocabulary - 1])
    return {
        "hidden": torch.randn(tokens, hidden).to(device, dtype),
        "values": torch.randn(tokens, width).to(device, stored),
        "targets": targets.to(device),
        "head": torch.randn(vocabulary, hidden).to(device, dtype),
        "seen": torch.randn(vocabulary, width).to(device, stored),
    }
