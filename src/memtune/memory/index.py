"""The index: the stored vectors that are nearest to an asked one, by cosine, and their numbers.

Up to MANY stored questions every vector is compared. Beyond, they are sorted into lists around centroids; a question is
compared with the vectors of the nearest lists alone, as many as find what comparing with all of them finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .questions import ragged_rows
from .rounding import rounded

__all__ = [
    "MANY",
    "Agreement",
    "Lists",
    "all_pairs",
    "build_lists",
    "lengths_of",
    "list_count",
    "nearest_lists",
    "search",
]

MANY = 200_000  # from here on comparing with all of them takes longer than the gate
TOGETHER = 256  # asked vectors whose scores are held at once, each with
SPAN = 1 << 16  # so many stored ones
BLOCK = 4096  # stored rows that are made float at once: 6 MB, which stay in the cache
RUN = 64  # neighbouring scores that are looked through by their largest
SAMPLE = 32  # vectors for each list that the centroids are fitted to
ROUNDS = 6
AGREEMENT = 0.999
USEFUL = 0.25  # of the lists: to fetch what more of them hold takes about as long as to compare with all

Found = tuple[Tensor, Tensor]  # cosines, numbers


@dataclass(frozen=True)
class Agreement:
    """How often the lists find what exact search finds. Shares of the questions that the probes were measured with."""

    probes: int  # lists that a question is compared with
    best: float  # the nearest of all
    candidates: float  # of all candidates


@dataclass(frozen=True)
class Lists:
    """Which stored vectors stand near each other. Without centroids every vector is compared."""

    centroids: Tensor  # int8 (lists, d_index), of any length
    order: Tensor  # int32 (stored,): numbers of the stored vectors, list by list
    offsets: Tensor  # int32 (lists + 1,): list i is order[offsets[i]:offsets[i + 1]]
    probes: Tensor  # int32 (1,)

    @classmethod
    def none(cls, d_index: int) -> Lists:
        order = torch.zeros(0, dtype=torch.int32)
        return cls(torch.zeros(0, d_index, dtype=torch.int8), order, order.new_zeros(1), order.new_zeros(1))

    @classmethod
    def of(cls, centroids: Tensor, member: Tensor, probes: Tensor) -> Lists:
        """``member`` int64 (stored,): the list that each stored vector stands in."""
        sizes = member.bincount(minlength=len(centroids))
        offsets = F.pad(sizes.cumsum(0), (1, 0)).to(torch.int32)
        return cls(centroids, member.argsort(stable=True).to(torch.int32), offsets, probes)

    def members(self) -> Tensor:
        """The list that each stored vector stands in, int64 (stored,)."""
        lists = torch.arange(len(self.centroids)).repeat_interleave(self.offsets.diff())
        return torch.empty_like(lists).scatter_(0, self.order.long(), lists)

    def search(self, asked: Tensor, stored: Tensor, count: int, lengths: Tensor | None = None) -> Found:
        """As ``search``; a few of the furthest candidates may be others, and the nearest in one of a thousand."""
        if not len(self.centroids) or not len(asked):
            return search(asked, stored, count, lengths)
        lengths = lengths_of(stored) if lengths is None else lengths
        nearest = search(asked, self.centroids, int(self.probes))[1]
        parts = zip(asked.split(1), nearest, strict=True)
        return _joined([self._inside(row, which, stored, min(count, len(stored)), lengths) for row, which in parts])

    def _inside(self, asked: Tensor, which: Tensor, stored: Tensor, count: int, lengths: Tensor) -> Found:
        """The nearest of one asked vector (1, d_index) in the lists ``which`` (probes,)."""
        numbers = self.order.index_select(0, ragged_rows(self.offsets, which)[0])
        if len(numbers) < count:
            return search(asked, stored, count, lengths)
        cosines, places = search(asked, stored.index_select(0, numbers), count, lengths.index_select(0, numbers))
        return cosines, numbers[places].long()


def search(asked: Tensor, stored: Tensor, count: int, lengths: Tensor | None = None) -> Found:
    """Exact: the ``count`` nearest stored vectors of each asked one, nearest first.

    ``asked`` float32 ``(asked, d)``, unit rows. ``stored`` ``(stored, d)``: float32 unit rows, or int8 rows of any
    length; whoever asks often keeps their ``lengths_of``, which take as long as the rest of a search for one.
    Returns cosines float32 and numbers int64, both ``(asked, count)``, fewer where fewer are stored.
    """
    count = min(count, len(stored))
    lengths = lengths_of(stored) if lengths is None else lengths
    return _joined([_nearest(rows, stored, count, lengths) for rows in asked.split(TOGETHER)])


def lengths_of(stored: Tensor) -> Tensor:
    """Of int8 rows, float32 ``(stored,)``, at least 1. Float rows are unit rows."""
    if stored.is_floating_point():
        return torch.ones(len(stored))
    blocks = (torch.linalg.vector_norm(block.float(), dim=1).clamp_min(1) for block in stored.split(BLOCK))
    return torch.cat(list(blocks))


def _joined(found: list[Found]) -> Found:
    cosines, numbers = zip(*found, strict=True)
    return torch.cat(cosines), torch.cat(numbers)


def _nearest(asked: Tensor, stored: Tensor, count: int, lengths: Tensor) -> Found:
    """The largest of each span, then the largest of those."""
    spans = [_largest(scores, min(count, scores.shape[1])) for scores in _scores(asked, stored, lengths)]
    numbers = torch.cat([number + SPAN * span for span, (_, number) in enumerate(spans)], 1)
    cosines, places = torch.cat([cosine for cosine, _ in spans], 1).topk(count)
    return cosines, numbers.gather(1, places)


def _scores(asked: Tensor, stored: Tensor, lengths: Tensor) -> Iterator[Tensor]:
    """Cosines with the stored rows, span by span; the next span takes the place of the last."""
    scores = torch.empty(len(asked), min(SPAN, len(stored)))
    room = torch.empty(min(BLOCK, len(stored)), stored.shape[1])
    for span, long in zip(stored.split(SPAN), lengths.split(SPAN), strict=True):
        for block, columns in zip(span.split(BLOCK), scores[:, : len(span)].split(BLOCK, 1), strict=True):
            rows = block if block.is_floating_point() else room[: len(block)].copy_(block)
            columns.copy_(asked @ rows.T)
        yield scores[:, : len(span)].div_(long)


def _largest(scores: Tensor, count: int) -> Found:
    """As ``topk``, of wide rows: the ``count`` largest stand in the ``count`` runs whose own largest are largest."""
    whole = scores.shape[1] // RUN
    if whole <= 2 * count or scores.shape[1] % RUN:
        largest = scores.topk(count)
        return largest.values, largest.indices
    runs = scores.unflatten(1, (whole, RUN))
    which = runs.amax(2).topk(count).indices
    found = runs.gather(1, which[:, :, None].expand(-1, -1, RUN)).flatten(1).topk(count)
    return found.values, which.gather(1, found.indices // RUN) * RUN + found.indices % RUN


def all_pairs(candidates: Tensor) -> Tensor:
    """``(asked, candidate)`` for every entry of ``candidates`` (asked, k): int64 (asked * k, 2).

    >>> all_pairs(torch.tensor([[5, 6], [7, 8]])).tolist()
    [[0, 5], [0, 6], [1, 7], [1, 8]]
    """
    asked = torch.arange(len(candidates)).repeat_interleave(candidates.shape[1])
    return torch.stack([asked, candidates.flatten()], 1)


def list_count(stored: int) -> int:
    """Some 4 times the root of ``stored``; 0 where comparing with all vectors is fast enough."""
    return RUN * round(stored**0.5 / 16) if stored > MANY else 0


def build_lists(
    stored: Tensor, asked: Tensor, count: int, seed: int, lists: int | None = None
) -> tuple[Lists, Agreement]:
    """Lists over ``stored`` int8 (stored, d_index), probed as often as ``asked`` float32 (asked, d_index) calls for;
    none where that is too often to be of use.

    ``asked`` should be questions as people will ask them, some thousands, each in other words than a stored one.
    """
    lists = list_count(len(stored)) if lists is None else lists
    if not lists or not len(asked):
        return Lists.none(stored.shape[1]), Agreement(0, 1.0, 1.0)
    centroids = _centroids(stored, lists, seed)
    member = nearest_lists(stored, centroids)
    found = _agreement(_depth(asked, stored, centroids, member, count), lists)
    if found.probes > USEFUL * lists:
        return Lists.none(stored.shape[1]), found
    return Lists.of(centroids, member, torch.tensor([found.probes], dtype=torch.int32)), found


def nearest_lists(stored: Tensor, centroids: Tensor) -> Tensor:
    """The list that each row of ``stored`` int8 (stored, d_index) belongs in, int64 (stored,)."""
    return torch.cat([search(rows, centroids, 1)[1] for rows in _unit(stored)]).squeeze(1)


def _unit(rows: Tensor) -> Iterator[Tensor]:
    return (F.normalize(part.float(), dim=1) for part in rows.split(SPAN))


def _centroids(stored: Tensor, lists: int, seed: int) -> Tensor:
    """Spherical k-means on a sample: int8 (lists, d_index)."""
    drawn = torch.randperm(len(stored), generator=torch.Generator().manual_seed(seed))[: SAMPLE * lists]
    sample = stored.index_select(0, drawn)
    centroids = sample[:lists]
    for _ in range(ROUNDS):
        sums = 1e-6 * centroids.float()  # what is left of a centroid that nothing is nearest to
        for rows in _unit(sample):
            sums.index_add_(0, search(rows, centroids, 1)[1].squeeze(1), rows)
        centroids = rounded(sums)
    return centroids


def _depth(asked: Tensor, stored: Tensor, centroids: Tensor, member: Tensor, count: int) -> Tensor:
    """For each exact candidate, how many lists are probed before its own: int64 (asked, count)."""
    parts = []
    for rows in asked.split(TOGETHER):
        nearest = search(rows, stored, count)[1]
        turn = search(rows, centroids, len(centroids))[1].argsort(1)
        parts.append(turn.gather(1, member[nearest]))
    return torch.cat(parts)


def _agreement(depth: Tensor, lists: int) -> Agreement:
    """The smallest power of two that reaches AGREEMENT."""
    probes = 1
    while probes < lists and (depth[:, 0] < probes).double().mean() < AGREEMENT:
        probes *= 2
    inside = (depth < probes).double()
    return Agreement(min(probes, lists), float(inside[:, 0].mean()), float(inside.mean()))
