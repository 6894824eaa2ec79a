"""Builds the router for a set of facts: whitening, word counts, stored questions, a trained gate and its threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memtune.backbone import Backbone
from memtune.calibration import Calibration, calibrate
from memtune.events import OnEvent, ignore
from memtune.gate_training import Wording, Workshop, nearest_others, train, training_rows
from memtune.memory.compare import gate_features
from memtune.memory.questions import Questions, Reader, count_words
from memtune.memory.router import Router, RouterSizes
from memtune.names import NameFinder
from memtune.prior import prior_for

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
    ids = [w.ids for w in wordings]
    stored = workshop.read(ids)
    owner = torch.tensor([w.fact for w in wordings], dtype=torch.int64)
    router = _empty_router(reader, stored)
    router.store(ids, stored, owner)
    rows = training_rows(workshop, wordings, stored, owner, prior.strangers, seed)
    train(router.gate, rows, (prior.features, prior.same), seed)
    found = calibrate(router.gate, rows, len(stored), false_fire)
    router.be_as_sure_as(found.threshold, found.nearness, found.caution)
    return router, _report(router, found, stored, owner)


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


def _report(router: Router, found: Calibration, stored: Questions, owner: Tensor) -> RouterReport:
    confusable = tuple(_confusable(router, stored, owner)[:10])
    return RouterReport(found.threshold, found.expected_recall, found.expected_false_fire, confusable)


def _confusable(router: Router, stored: Questions, owner: Tensor) -> list[tuple[int, int, float]]:
    """The pairs of different facts whose questions are most alike, with their score against each other."""
    pairs = nearest_others(stored, stored, owner, torch.arange(len(stored)), 1)
    if not len(pairs):
        return []
    with torch.inference_mode():
        scores = router.gate(gate_features(stored, stored, pairs, router.reader.idf))
    best: dict[tuple[int, int], float] = {}
    for (one, two), score in zip(owner[pairs].tolist(), scores.tolist(), strict=True):
        key = (min(one, two), max(one, two))
        best[key] = max(score, best.get(key, score))
    return sorted(((*pair, score) for pair, score in best.items()), key=lambda row: -row[2])
