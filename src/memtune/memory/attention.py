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
    ``scales`` are the bank's, of which only the rows in ``runs`` are read.
    """
    first, count = runs.unbind(1)
    place = torch.arange(int(count.max()), device=queries.device)
    inside = place < count[:, None]
    rows = torch.where(inside, first[:, None] + place, first[:, None])
    cosine = torch.einsum("pk,ptk->pt", queries, F.normalize(keys[rows].float(), dim=-1))
    score = BETA * (cosine - SLOPE * (place - steps[:, None]).abs())
    weight = torch.softmax(score.masked_fill(~inside, float("-inf")), dim=-1) * scales[rows]
    return torch.einsum("pt,ptv->pv", weight, values[rows].float())
