"""A sequence whose items are made when they are asked for: of a large file there is no room for all of them at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

__all__ = ["Numbered"]

Item = TypeVar("Item", covariant=True)


class Numbered(Sequence[Item]):
    """Its subclass says how many there are and makes the one with a number."""

    @abstractmethod
    def _made(self, number: int) -> Item:
        """``number`` is at least 0 and below ``len(self)``."""

    @overload
    def __getitem__(self, number: int) -> Item: ...
    @overload
    def __getitem__(self, number: slice) -> list[Item]: ...
    def __getitem__(self, number: int | slice) -> Item | list[Item]:
        if isinstance(number, slice):
            return [self._made(i) for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return self._made(number % len(self))

    def __iter__(self) -> Iterator[Item]:
        return map(self._made, range(len(self)))
