"""One place of a reply, layer by layer: the gold answer, what the backbone says instead, and how undecided it is."""

from __future__ import annotations

from dataclasses import dataclass

from memtune.evidence.mechanism.lens import Curve, Lens
from memtune.evidence.mechanism.places import Place

__all__ = ["Depth", "curve_of", "depth_at"]

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Depth:
    """``layers + 1`` figures each: before the first layer and behind each.

    ``behind``: the backbone's own words that stand there. ``said``: the token that it says there. ``gold``: the first
    token of the gold answer; ``likelihood``: the mean log-probability of all its tokens, nats. Without a gold answer
    they are None and empty. ``above``: those of the three likeliest tokens behind the last layer that are likelier than
    the gold one.
    """

    behind: str
    said: Curve
    gold: Curve | None
    likelihood: tuple[float, ...]
    entropy: tuple[float, ...]  # nats
    above: tuple[str, ...]


def depth_at(lens: Lens, place: Place) -> Depth:
    """One pass over the place and the gold answer behind it."""
    piece = lens.backbone.prompts.piece
    first = len(place.row) - 1
    row = place.row + place.gold[:-1]
    targets = [[place.said, token] for token in place.gold] or [[place.said, place.said]]
    seen = lens.read(row, range(first, first + len(targets)), targets)
    curves = [
        Curve.of(piece(token), seen.ranks[:, 0, i], seen.log_probabilities[:, 0, i])
        for i, token in enumerate(targets[0])
    ]
    return Depth(
        behind=place.behind,
        said=curves[0],
        gold=curves[1] if place.gold else None,
        likelihood=tuple(seen.log_probabilities[:, :, 1].mean(1).tolist()) if place.gold else (),
        entropy=tuple(seen.entropy[:, 0].tolist()),
        above=tuple(map(piece, seen.top[-1, 0, : curves[1].rank - 1].tolist())) if place.gold else (),
    )


def curve_of(lens: Lens, row: Ids, token: int) -> Curve:
    """One token behind the end of ``row``."""
    seen = lens.read(row, [len(row) - 1], [[token]])
    return Curve.of(lens.backbone.prompts.piece(token), seen.ranks[:, 0, 0], seen.log_probabilities[:, 0, 0])
