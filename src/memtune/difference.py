"""What makes one set of facts another: which are new, which say something else now, which are gone."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memtune.fact import Fact

__all__ = ["Difference", "difference"]


@dataclass(frozen=True)
class Difference:
    """Ids of the facts that are not what they were. ``origin`` int64 (facts,): the number that a fact had before, -1
    where it is new or has changed.
    """

    origin: Tensor
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.added) + len(self.changed) + len(self.removed)

    @property
    def untouched(self) -> int:
        return int((self.origin >= 0).sum())

    @property
    def new(self) -> list[int]:
        """The numbers of the facts that are new or have changed."""
        return torch.nonzero(self.origin < 0).squeeze(1).tolist()

    def replaced(self, before: int) -> list[int]:
        """Of ``before`` facts the numbers of those that are no more, or say something else now."""
        stays = torch.zeros(before, dtype=torch.bool)
        stays[self.origin[self.origin >= 0]] = True
        return torch.nonzero(~stays).squeeze(1).tolist()

    def order(self, before: int) -> Tensor:
        """Each fact by the number it had; the new ones are counted on from ``before``, the number of facts then."""
        order, new = self.origin.clone(), self.origin < 0
        order[new] = before + torch.arange(int(new.sum()))
        return order


def difference(before: Sequence[Fact], after: Sequence[Fact]) -> Difference:
    """A fact is the same if everything that is taught of it is; one with the id of another has changed."""
    origin = torch.full((len(after),), -1)
    for number, place in _unchanged(after, before):
        origin[number] = place
    was = {fact.id for fact in before}
    mine = {fact.id for fact in after}
    new = [after[i].id for i in torch.nonzero(origin < 0).squeeze(1).tolist()]
    return Difference(
        origin,
        added=tuple(name for name in new if name not in was),
        changed=tuple(name for name in new if name in was),
        removed=tuple(fact.id for fact in before if fact.id not in mine),
    )


def _unchanged(facts: Sequence[Fact], before: Sequence[Fact]) -> Iterator[tuple[int, int]]:
    """The numbers that a fact has now and had before, for every fact that is the same."""
    if not len(before) or not len(facts):
        return
    marks, order = _marks(before).sort()
    mine = _marks(facts)
    found = torch.searchsorted(marks, mine).clamp_max(len(marks) - 1)
    for number in torch.nonzero(marks[found] == mine).squeeze(1).tolist():
        place = int(order[found[number]])
        if facts[number].digest == before[place].digest:
            yield number, place


def _marks(facts: Sequence[Fact]) -> Tensor:
    """The first 60 bits of each fact's digest, int64 ``(facts,)``."""
    return torch.tensor(array("q", (int(fact.digest[:15], 16) for fact in facts)))
