"""Builds the router for a set of facts: whitening, word counts, stored questions, a trained gate and its threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memtune.backbone import Backbone
from memtune.events import OnEvent, ignore
from memtune.gate_training import (
    BACKGROUND,
    FOLDS,
    NEAR_MISS,
    NEIGHBOUR,
    REWORDED,
    Rows,
    Wording,
    Workshop,
    nearest_others,
    train,
    training_rows,
)
from memtune.memory.compare import gate_features
from memtune.memory.gate import verdict
from memtune.memory.questions import Questions, Reader, count_words
from memtune.memory.router import Router, RouterSizes
from memtune.names import NameFinder
from memtune.prior import prior_for

UNRELATED = 10  # what has nothing to do with any fact may fire so many times less often than a near miss

__all__ = ["RouterReport", "Wording", "build_router"]


@dataclass(frozen=True)
class RouterReport:
    """What the held-out scores promise. ``confusable``: pairs of facts and the score of their mix-up."""

    threshold: float
    expected_recall: float
    expected_false_fire: float
    confusable: tuple[tuple[int, int, float], ...]


def build_router(
    backbone: Backbone, wordings: Sequence[Wording], *, false_fire: float, seed: int, on_event: OnEvent = ignore
) -> tuple[Router, RouterReport]:
    """A router over ``wordings``; at most ``false_fire`` of near-miss questions should pass its threshold."""
    prior = prior_for(backbone, on_event)
    vocabulary = backbone.prompts.vocabulary()
    counts = prior.counts + count_words([w.ids for w in wordings], vocabulary)
    reader = Reader(vocabulary, prior.views, counts, float(prior.documents) + len(wordings))
    # Names are rare in the lessons and the background: the user's may all share a word.
    workshop = Workshop(backbone, reader, NameFinder(prior.counts.tolist(), float(prior.documents)))
    stored = workshop.read([w.ids for w in wordings])
    owner = torch.tensor([w.fact for w in wordings], dtype=torch.int64)
    router = _empty_router(reader, stored)
    router.store(stored, owner)
    rows = training_rows(workshop, wordings, stored, owner, prior.strangers, seed)
    train(router.gate, rows, (prior.features, prior.same), seed)
    report = _calibrate(router, rows, false_fire)
    return router, _with_confusable(router, report, stored, owner)


def _empty_router(reader: Reader, stored: Questions) -> Router:
    hidden, d_index = reader.views.index.map.shape
    sizes = RouterSizes(
        wordings=len(stored),
        words=len(stored.buckets),
        hidden=hidden,
        d_index=d_index,
        d_gate=reader.views.relation.shape[1],
        vocabulary=len(reader.vocabulary.offsets) - 1,
        pieces=len(reader.vocabulary.data),
    )
    router = Router(sizes)
    router.set_reader(reader)
    return router


@torch.inference_mode()
def _calibrate(router: Router, rows: Rows, false_fire: float) -> RouterReport:
    """Sets the threshold from scores of rows that the scoring network was not trained on."""
    members = router.gate.members(rows.features)
    held_out = torch.stack([verdict(members[fold::FOLDS]) for fold in range(FOLDS)])
    scores = held_out.gather(0, rows.fold[None]).squeeze(0)
    near = scores[(rows.kind == NEIGHBOUR) | (rows.kind == NEAR_MISS)]
    other = scores[rows.kind == BACKGROUND]
    reworded = scores[rows.kind == REWORDED]
    threshold = max(_quantile(near, 1 - false_fire), _quantile(other, 1 - false_fire / UNRELATED))
    router.get_buffer("threshold").fill_(threshold)
    return RouterReport(
        threshold,
        float((reworded >= threshold).float().mean()),
        float((near >= threshold).float().mean()) if len(near) else 0.0,
        (),
    )


def _quantile(scores: Tensor, share: float) -> float:
    """Minus infinity where there is nothing to go by: a lone fact without a name has no near misses."""
    return float(scores.quantile(share)) if len(scores) else -math.inf


def _with_confusable(router: Router, report: RouterReport, stored: Questions, owner: Tensor) -> RouterReport:
    """Adds the pairs of different facts whose questions score highest against each other."""
    pairs = nearest_others(stored, stored, owner, torch.arange(len(stored)), 1)
    if not len(pairs):
        return report
    with torch.inference_mode():
        scores = router.gate(gate_features(stored, stored, pairs, router.reader.idf))
    best: dict[tuple[int, int], float] = {}
    for (one, two), score in zip(owner[pairs].tolist(), scores.tolist(), strict=True):
        key = (min(one, two), max(one, two))
        best[key] = max(score, best.get(key, score))
    ranked = sorted(((*pair, score) for pair, score in best.items()), key=lambda row: -row[2])
    return RouterReport(report.threshold, report.expected_recall, report.expected_false_fire, tuple(ranked[:10]))
