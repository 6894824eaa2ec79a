"""The gate: cross attention between the words of an asked question and those of a stored one, then yes or no.

Every word's evidence (``compare.py``) goes through one small layer; its mean and its strongest signals say what the
words of each side amount to, in any number and order. A second layer weighs that against the figures of the pair.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .compare import EVIDENCE, PER_PAIR, RARITY, WORDS

__all__ = ["MEMBERS", "Gate", "verdict"]

MEMBERS = 9
PER_WORD, WIDTH = 16, 32
TOGETHER = 2048  # pairs that are scored at once, some 30 KB for each
COMMON = 0.02  # weight of a word that every question holds; the rarest have about 1


class Gate(nn.Module):
    """Scores a pair of questions: above the threshold they ask for the same fact.

    Several networks vote. Their mean less their spread is the score: a pair unlike anything they learned from divides
    them, and what divides them should not fire.
    """

    mean: Tensor  # (PER_PAIR,)
    scale: Tensor
    word: Tensor  # (members, EVIDENCE, PER_WORD), the layer that every word goes through
    word_bias: Tensor
    inner: Tensor  # (members, pooled, WIDTH)
    inner_bias: Tensor
    outer: Tensor  # (members, WIDTH)
    outer_bias: Tensor

    def __init__(self, members: int = MEMBERS) -> None:
        super().__init__()
        pooled = PER_PAIR + 2 * 2 * PER_WORD
        self.register_buffer("mean", torch.zeros(PER_PAIR, dtype=torch.float32))
        self.register_buffer("scale", torch.ones(PER_PAIR, dtype=torch.float32))
        shapes = {"word": (EVIDENCE, PER_WORD), "word_bias": (PER_WORD,), "inner": (pooled, WIDTH)}
        shapes |= {"inner_bias": (WIDTH,), "outer": (WIDTH,), "outer_bias": ()}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(members, *shape, dtype=torch.float32)))

    def reset(self, features: Tensor) -> None:
        """Draws new weights and takes the standardisation of whole-pair figures from ``features`` (rows, features)."""
        whole = features[:, :PER_PAIR]
        self.mean.copy_(whole.mean(0))
        self.scale.copy_(whole.std(0).nan_to_num(1.0).clamp_min(1e-3))
        for weight in (self.word, self.inner, self.outer):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)

    def members(self, features: Tensor) -> Tensor:
        """Scores ``(members, pairs)`` in log-odds."""
        count, (members, _, width) = len(features), self.word.shape
        rows = features[:, PER_PAIR : PER_PAIR + 2 * WORDS * EVIDENCE].view(count, 2, WORDS, EVIDENCE)
        # One product for all networks: theirs are narrow, and many narrow products take longer than a wide one.
        words = rows.flatten(0, 2) @ self.word.transpose(0, 1).flatten(1) + self.word_bias.flatten()
        words = torch.tanh(words).view(count, 2, WORDS, members * width) * rows[..., :1]
        weight = rows[..., :1] * (rows[..., RARITY : RARITY + 1] + COMMON)  # or many common words outvote the name
        mean = (words * (weight / weight.sum(2, keepdim=True).clamp_min(COMMON))).sum(2)
        pooled = torch.cat([mean, words.amax(2)], 1).view(count, 4, members, width)
        pooled = pooled.permute(2, 0, 1, 3).flatten(2)
        whole = ((features[:, :PER_PAIR] - self.mean) / self.scale).expand(members, -1, -1)
        inner = torch.einsum("mpf,mfw->mpw", torch.cat([whole, pooled], -1), self.inner)
        inner = torch.tanh(inner + self.inner_bias[:, None])
        return torch.einsum("mpw,mw->mp", inner, self.outer) + self.outer_bias[:, None]

    def votes(self, features: Tensor) -> Tensor:
        """As ``members``, of any number of pairs."""
        return torch.cat([self.members(part) for part in features.split(TOGETHER)], 1)

    def forward(self, features: Tensor) -> Tensor:
        """Scores ``(pairs,)``."""
        return verdict(self.votes(features))


def verdict(scores: Tensor) -> Tensor:
    """One score ``(pairs,)`` of the votes ``(members, pairs)``: mean less standard deviation."""
    return scores.mean(0) - scores.std(0)
