"""SliCK: what a model knows of a fact, in four categories (Gekhman et al. 2024, arXiv 2405.05904, section 3).

The model is asked behind several sets of exemplars, questions with their answers. P(T=0) is the share of the sets
behind which its greedy answer is right, P(T>0) the share of right answers among those that are drawn at temperature 0.5
from the 40 likeliest tokens. The paper draws 160 of them; the chance that none of so many is right can be read from one
teacher-forced pass behind each set.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CATEGORIES", "SAMPLES", "TEMPERATURE", "TOP", "Knowledge", "Reading", "category_of", "read"]

TEMPERATURE, TOP = 0.5, 40
SAMPLES = 160  # answers that the paper draws for a fact, all sets together
LIKELY = 0.5  # the chance of a right one among them above which a fact counts as weakly known

CATEGORIES = HIGHLY, MAYBE, WEAKLY, UNKNOWN = "HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown"


@dataclass(frozen=True)
class Reading:
    """One fact behind one set: whether the greedy answer is right, and the chance (or share) of a right sample."""

    greedy: bool
    sampled: float


@dataclass(frozen=True)
class Knowledge:
    """What a model knows of one fact. ``greedy`` is P(T=0), ``sampled`` P(T>0), ``any`` the chance that one of 160
    samples is right (1 or 0 where they were drawn). ``alone``: asked without exemplars, its greedy answer is right.
    """

    category: str
    greedy: float
    sampled: float
    any: float
    alone: bool

    @classmethod
    def exact(cls, readings: Sequence[Reading], alone: bool) -> Knowledge:
        """From the chances of an answer behind each set, as if the 160 samples were shared out among the sets."""
        none = sum(math.log1p(-min(reading.sampled, 1 - 1e-12)) for reading in readings) * SAMPLES / len(readings)
        return cls._of(readings, 1 - math.exp(none), alone)

    @classmethod
    def drawn(cls, readings: Sequence[Reading], alone: bool) -> Knowledge:
        """From shares of answers that were really drawn behind each set."""
        return cls._of(readings, float(any(reading.sampled > 0 for reading in readings)), alone)

    @classmethod
    def _of(cls, readings: Sequence[Reading], any_right: float, alone: bool) -> Knowledge:
        greedy = sum(reading.greedy for reading in readings) / len(readings)
        sampled = sum(reading.sampled for reading in readings) / len(readings)
        return cls(category_of(greedy, any_right), greedy, sampled, any_right, alone)


def category_of(greedy: float, any_right: float) -> str:
    """The category of P(T=0) and of the chance that any sample is right.

    >>> [category_of(*p) for p in [(1.0, 1.0), (0.5, 1.0), (0.0, 0.9), (0.0, 0.1)]]
    ['HighlyKnown', 'MaybeKnown', 'WeaklyKnown', 'Unknown']
    """
    if greedy > 0:
        return HIGHLY if greedy == 1 else MAYBE
    return WEAKLY if any_right > LIKELY else UNKNOWN


def read(logits: Tensor, answer: Sequence[int], ends: Collection[int]) -> Reading:
    """What predicts an answer, ``logits`` (answer tokens + 1, vocabulary), says of it; last the token that ends it.

    ``ends``: the ids of which any ends an answer.
    """
    wanted = [[token] for token in answer] + [list(ends)]
    best = logits.argmax(-1).tolist()
    top, places = (logits / TEMPERATURE).topk(min(TOP, logits.shape[-1]))
    chances = top.softmax(-1)
    right = [torch.isin(row, torch.tensor(ids)) for row, ids in zip(places, wanted, strict=True)]
    sampled = math.prod(float(row[mask].sum()) for row, mask in zip(chances, right, strict=True))
    return Reading(all(token in ids for token, ids in zip(best, wanted, strict=True)), min(sampled, 1.0))
