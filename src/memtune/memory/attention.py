"""Attention among the experts of one fact.

At answer step s the query attends to the fact's key rows: softmax of beta * (cosine - slope * |row - s|). The position
slope keeps a long answer on its track; the cosine decides when the position alone would not. Measured with slope 0.3:
120 of 120 facts greedy exact behind 200 tokens of other text; with 0.03 a neighbouring expert was chosen now and then.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BETA", "SLOPE", "expert_attention"]

BETA = 40.0
SLOPE = 0.3


def expert_attention(
    queries: Tensor, steps: Tensor, runs: Tensor, keys: Tensor, values: Tensor, scales: Tensor
) -> Tensor:
    """Mixed value rows float32 ``(positions, d_value)``.

    ``queries`` (positions, d_key) unit rows; ``steps`` (positions,) answer tokens already given; ``runs``
    (positions, 2) first expert and number of experts of the fact that fired; ``keys``, ``values`` and
    ``scales`` are the bank's, of which only the rows in ``runs`` are read. Neighbouring positions of one fact are
    computed together, and beside no other: what comes out does not depend on how long other answers are.
    """
    which, counts = runs.unique_consecutive(dim=0, return_counts=True)
    parts = zip(which.tolist(), *(column.split(counts.tolist()) for column in (queries, steps)), strict=True)
    mixed = []
    for (first, experts), asked, given in parts:
        own = slice(first, first + experts)
        far = (torch.arange(experts, device=given.device) - given[:, None]).abs()
        score = BETA * (asked @ F.normalize(keys[own].float(), dim=-1).T - SLOPE * far)
        mixed.append((torch.softmax(score, dim=-1) * scales[own]) @ values[own].float())
    return torch.cat(mixed)
