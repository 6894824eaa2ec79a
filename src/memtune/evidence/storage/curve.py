"""How the loss falls while facts are learned: the points of a curve, and what listens to a fit and draws one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memtune.evidence.training import Epoch, Reached
from memtune.teaching import certain

__all__ = ["Point", "Recorder", "epochs_as_points", "rounds_to"]


@dataclass(frozen=True)
class Point:
    """Where all facts stand after ``round`` steps of the fit, or passes over them. Losses in nats per answer token.

    ``mean`` and ``worst`` are over the facts, each the mean of its answer tokens. ``certain``: facts of which every
    token is above one half, so that greedy generation says them; None where single tokens were not looked at.
    """

    round: int
    mean: float
    worst: float
    certain: int | None = None


class Recorder:
    """Listens to a fit (``fit_values``), which tells of tokens by their experts. ``offsets`` (facts + 1,): the bank's.

    Of a token that is fitted again, towards a smaller loss, the first fit counts: the second begins at nothing.
    """

    def __init__(self, offsets: Tensor) -> None:
        self._runs = offsets.diff()
        self._fits = torch.zeros(int(offsets[-1]), dtype=torch.int64)
        self._told: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, done: int, tokens: Tensor, losses: Tensor) -> None:
        self._fits[tokens] += done == 0
        first = self._fits[tokens] == 1
        self._told.setdefault(done, []).append((tokens[first], losses[first]))

    @property
    def again(self) -> int:
        """Facts that one fit was not enough for."""
        return sum(bool((fits > 1).any()) for fits in self._fits.split(self._runs.tolist()))

    def points(self) -> tuple[Point, ...]:
        """A token that has reached its goal stays where it was; a fact that was never fitted is in no point."""
        now = torch.full(self._fits.shape, math.nan)
        fitted = self._fits > 0
        points = []
        for done in sorted(self._told):
            for tokens, losses in self._told[done]:
                now[tokens] = losses
            parts = [part for part in now.split(self._runs.tolist()) if not part.isnan().any()]
            points.append(_point(done, parts))
        return tuple(points) if fitted.any() else ()


def _point(done: int, facts: Sequence[Tensor]) -> Point:
    """``facts``: of each the losses of its answer tokens."""
    means = torch.stack([losses.mean() for losses in facts])
    return Point(done, float(means.mean()), float(means.max()), sum(map(certain, facts)))


def epochs_as_points(epochs: Sequence[Epoch], reached: Reached) -> tuple[Point, ...]:
    """An epoch's losses are those that it met, so they stand where the epoch before it ended."""
    met = [Point(epoch.number - 1, epoch.loss_mean, epoch.loss_max) for epoch in epochs]
    return (*met, Point(reached.rounds, reached.loss_mean, reached.loss_max))


def rounds_to(points: Sequence[Point], target: float) -> int | None:
    """Rounds until every fact was at the target and stayed there; None if that never was."""
    open_ = [place for place, point in enumerate(points) if point.worst > target]
    after = open_[-1] + 1 if open_ else 0
    return points[after].round if after < len(points) else None
