"""The questions of the capacity tests: those of a file in a drawn order, or made-up ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from memtune.evidence import synthetic
from memtune.fact import Fact

__all__ = ["Pool"]

HELD_SHARE = 5  # of a small file at most one question in five is held out


class Pool:
    """``facts`` in an order that the seed draws; None: synthetic ones. Where they end, synthetic ones go on."""

    def __init__(self, facts: Sequence[Fact] | None, seed: int) -> None:
        self._facts, self._seed = facts, seed
        self._order = list(range(len(facts or ())))
        random.Random(seed).shuffle(self._order)

    def first(self, count: int) -> list[Fact]:
        """The first ``count`` facts of the order."""
        own = [self._facts[number] for number in self._order[:count]] if self._facts else []
        made = islice(synthetic.facts(synthetic.NAMES, self._seed), count - len(own))
        return [*own, *(replace(fact, paraphrases=()) for fact in made)]

    def split(self, count: int, held_out: int) -> tuple[list[Fact], list[str]]:
        """At most ``count`` facts to teach, and at most ``held_out`` questions of the same kind that nobody is taught.

        No synthetic one stands beside those of a file.
        """
        most = len(self._order) if self._facts else count + held_out
        taught = min(count, most - min(held_out, most // HELD_SHARE))
        drawn = self.first(min(taught + held_out, most))
        return drawn[:taught], [fact.question for fact in drawn[taught:]]
