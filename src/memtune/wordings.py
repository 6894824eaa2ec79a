"""The questions of a file of facts: read into ids once, kept at fifty bytes each, their texts left in the facts."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from memtune.fact import Fact
from memtune.numbered import Numbered

__all__ = ["Wordings"]

Ids = tuple[int, ...]


class Wordings(Numbered[str]):
    """Fact by fact all its wordings, its own question first: texts by number, and their ids one after the other.

    ``owner`` int64 (wordings,): the fact that a wording asks for. ``encode`` is asked for each text once.
    """

    def __init__(self, facts: Sequence[Fact], encode: Callable[[str], Ids]) -> None:
        self._facts, self._ids, self._ends, owner = facts, array("i"), array("q", [0]), array("q")
        self._first = array("q")
        for number, fact in enumerate(facts):
            self._first.append(len(owner))
            for text in fact.wordings:
                self._ids.extend(encode(text))
                self._ends.append(len(self._ids))
                owner.append(number)
        self.owner: Tensor = torch.tensor(owner, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.owner)

    def _made(self, number: int) -> str:
        fact = int(self.owner[number])
        return self._facts[fact].wordings[number - self._first[fact]]

    def ids(self) -> Iterator[Ids]:
        return map(self.ids_of, range(len(self)))

    def ids_of(self, number: int) -> Ids:
        return tuple(self._ids[self._ends[number] : self._ends[number + 1]])

    def question_of(self, fact: int) -> Ids:
        """The ids of the fact's own question."""
        return self.ids_of(self._first[fact])
