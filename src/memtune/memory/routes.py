"""The routes of user turns, as whoever follows a conversation asks for them: turn by turn, again at every token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from .router import Route, Router

__all__ = ["Routes"]

Ids = tuple[int, ...]
ROUTES_KEPT = 4096


class Routes:
    """A router with what reads for it. Decisions are kept: a decode step looks its question up.

    ``read`` gives the early states of questions read alone, float32 (taps, tokens, hidden) each: ``StateReader.early``.
    """

    def __init__(self, router: Router, read: Callable[[list[Ids]], list[Tensor]]) -> None:
        self._router, self._read = router, read
        self._kept: dict[Ids, Route] = {}

    def clear(self) -> None:
        self._kept.clear()

    def of(self, questions: Sequence[Ids]) -> list[Route]:
        """A turn is routed as a whole and by its last sentences, each read alone; the surest of them decides."""
        new = [q for q in dict.fromkeys(questions) if q not in self._kept]
        if len(self._kept) + len(new) > ROUTES_KEPT:
            self._kept.clear()
            new = list(dict.fromkeys(questions))
        if new:
            parts = [self._router.parts(question) for question in new]
            flat = list(dict.fromkeys(part for part_of in parts for part in part_of))
            found = dict(zip(flat, self._router.route(flat, self._read(flat)), strict=True))
            for question, part_of in zip(new, parts, strict=True):
                self._kept[question] = max((found[part] for part in part_of), key=lambda route: route.score)
        return [self._kept[q] for q in questions]
