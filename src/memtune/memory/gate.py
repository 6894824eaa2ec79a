"""The gate: cross attention between the words of an asked question and those of a stored one, then yes or no.

Each asked word looks for its best partner among the stored words and the other way round: by spelling (trigram
Jaccard), by meaning and by relation. What stays without a partner is what tells two questions apart; a name without a
partner counts otherwise than another word. What is left when the names are taken out is the relation that is asked of
them, and is compared as a whole. A small network, trained on shipped lessons and the user's own facts, weighs all this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .questions import WORD_COLUMNS, Questions, ragged_rows

__all__ = ["Gate", "gate_features"]

Idf = Callable[[Tensor], Tensor]

PAIRS_PER_CHUNK = 4096
GRID = 4096.0  # features are rounded to 1/4096: the last bits of a state depend on the batch it was read in
SPELT_ALIKE = 0.5  # trigram Jaccard of a name and its inflected or misspelt form
FEATURES = 1 + 3 * 2 * 6 + 2 + 2  # cosine; two sides of three channels; relation; has either side a name?


def gate_features(asked: Questions, stored: Questions, pairs: Tensor, idf: Idf) -> Tensor:
    """Features float32 ``(pairs, features)`` of the pairs ``(asked number, stored number)``, int64 ``(pairs, 2)``."""
    if not len(pairs):
        return torch.zeros(0, FEATURES)
    features = torch.cat([_chunk_features(asked, stored, chunk, idf) for chunk in pairs.split(PAIRS_PER_CHUNK)])
    return torch.round(features * GRID) / GRID


def _padded(questions: Questions, which: Tensor, idf: Idf) -> dict[str, Any]:
    """The words of the questions ``which`` as ``(pairs, longest, ...)``, with a mask of what is real."""
    rows, offsets = ragged_rows(questions.offsets, which)
    lengths = offsets.diff()
    longest = max(1, int(lengths.max()))
    place = torch.arange(longest)
    mask = place < lengths[:, None]
    index = (offsets[:-1, None] + place).clamp_max(max(0, len(rows) - 1))
    columns = {}
    for name in WORD_COLUMNS:
        column: Tensor = getattr(questions, name)
        # Questions of punctuation alone have no words at all: they compare as padding.
        padding = column.new_zeros(index.shape + column.shape[1:])
        columns[name] = column[rows[index]] if len(rows) else padding
    return columns | {"mask": mask, "vectors": questions.vectors[which], "idf": idf(columns["buckets"])}


def _chunk_features(asked: Questions, stored: Questions, pairs: Tensor, idf: Idf) -> Tensor:
    a, b = _padded(asked, pairs[:, 0], idf), _padded(stored, pairs[:, 1], idf)
    grid = a["mask"][:, :, None] & b["mask"][:, None, :]
    letters = _jaccard(a["sketch"].float(), b["sketch"].float()).masked_fill(~grid, 0.0)
    features = [(a["vectors"] * b["vectors"]).sum(-1, keepdim=True)]
    for channel in (letters, _cosine(a["meaning"], b["meaning"]), _cosine(a["relation"], b["relation"])):
        sim = channel.masked_fill(~grid, 0.0)
        features += [_coverage(sim.amax(2), a), _coverage(sim.amax(1), b)]
    features += [_relation(letters, a, b)]
    features += [(~(side["entity"] & side["mask"]).any(1, keepdim=True)).float() for side in (a, b)]
    return torch.cat(features, 1)


def _cosine(one: Tensor, two: Tensor) -> Tensor:
    """``(pairs, words, d)`` twice to cosines ``(pairs, words, words)``."""
    return F.normalize(one.float(), dim=-1) @ F.normalize(two.float(), dim=-1).transpose(1, 2)


def _relation(letters: Tensor, a: dict[str, Any], b: dict[str, Any]) -> Tensor:
    """Cosines ``(pairs, 2)`` of what is asked: without the names of either side, and with all words.

    A question typed in lower case shows no names; there a word is one if it is spelt like a name of the other side.
    """
    a_name = a["entity"] | ((letters * b["entity"][:, None, :]).amax(2) > SPELT_ALIKE)
    b_name = b["entity"] | ((letters * a["entity"][:, :, None]).amax(1) > SPELT_ALIKE)
    without = (_summed(a, a["mask"] & ~a_name) * _summed(b, b["mask"] & ~b_name)).sum(-1)
    whole = (_summed(a, a["mask"]) * _summed(b, b["mask"])).sum(-1)
    return torch.stack([without, whole], 1)


def _summed(side: dict[str, Any], words: Tensor) -> Tensor:
    """Unit sums ``(pairs, d)`` of the relation view over ``words``, rare words counting more."""
    return F.normalize((side["relation"].float() * (side["idf"] * words)[..., None]).sum(1), dim=-1)


def _jaccard(one: Tensor, two: Tensor) -> Tensor:
    """Overlap over union of sketch rows: ``(pairs, words, SKETCH)`` twice to ``(pairs, words, words)``."""
    both = one @ two.transpose(1, 2)
    return both / (one.sum(-1)[:, :, None] + two.sum(-1)[:, None, :] - both).clamp_min(1.0)


def _coverage(best: Tensor, side: dict[str, Any]) -> Tensor:
    """For names and for other words: the weighted share that found a partner, and the two worst weighted misses."""
    columns = []
    for group in (side["mask"] & side["entity"], side["mask"] & ~side["entity"]):
        weight = side["idf"] * group
        total = weight.sum(1)
        share = torch.where(total > 0, (best * weight).sum(1) / total.clamp_min(1e-6), 1.0)
        misses = ((1 - best) * weight).topk(min(2, best.shape[1]), 1).values
        columns += [share[:, None], F.pad(misses, (0, 2 - misses.shape[1]))]
    return torch.cat(columns, 1)


class Gate(nn.Module):
    """Scores a pair of questions: above the threshold they ask for the same fact. The mean of a few small networks."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int = FEATURES, width: int = 48, members: int = 9) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float32))
        self.register_buffer("scale", torch.ones(features, dtype=torch.float32))
        self.inner = nn.Parameter(torch.zeros(members, features, width, dtype=torch.float32))
        self.inner_bias = nn.Parameter(torch.zeros(members, width, dtype=torch.float32))
        self.outer = nn.Parameter(torch.zeros(members, width, dtype=torch.float32))
        self.outer_bias = nn.Parameter(torch.zeros(members, dtype=torch.float32))

    def reset(self, features: Tensor) -> None:
        """Draws new weights and takes the standardisation from ``features`` (rows, features)."""
        self.mean.copy_(features.mean(0))
        self.scale.copy_(features.std(0).nan_to_num(1.0).clamp_min(1e-3))
        for weight in (self.inner, self.outer):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)

    def members(self, features: Tensor) -> Tensor:
        """Scores ``(members, pairs)`` in log-odds."""
        x = (features - self.mean) / self.scale
        inner = torch.tanh(torch.einsum("pf,mfw->mpw", x, self.inner) + self.inner_bias[:, None])
        return torch.einsum("mpw,mw->mp", inner, self.outer) + self.outer_bias[:, None]

    def forward(self, features: Tensor) -> Tensor:
        """Scores ``(pairs,)`` in log-odds."""
        return self.members(features).mean(0)
