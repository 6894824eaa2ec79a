"""Builds the router for a set of facts: whitening, word counts, stored questions, a trained gate and its threshold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from memtune.backbone import Backbone
from memtune.calibration import Calibration, calibrate
from memtune.events import Note, OnEvent, Progress, ignore
from memtune.gate_training import COMPARED_FACTS, REWORDED_FACTS, Workshop, nearest_others, spread, train, training_rows
from memtune.memory.compare import gate_features
from memtune.memory.gate import Gate
from memtune.memory.index import Lists, build_lists, list_count
from memtune.memory.questions import Questions, Reader, count_words
from memtune.memory.router import CANDIDATES, Router, RouterSizes
from memtune.memory.stored import StoredQuestions
from memtune.memory.words import sentence_starts
from memtune.names import NameFinder
from memtune.prior import Prior, prior_for
from memtune.reading import Reading
from memtune.rewordings import rewordings
from memtune.wordings import Wordings

__all__ = ["RouterReport", "build_router"]

CONFUSABLE = 10  # pairs that are named


@dataclass(frozen=True)
class RouterReport:
    """What the held-out scores promise. ``confusable``: pairs of facts and the score of their mix-up."""

    threshold: float
    expected_recall: float
    expected_false_fire: float
    confusable: tuple[tuple[int, int, float], ...]


def build_router(
    backbone: Backbone, wordings: Wordings, *, false_fire: float, seed: int, on_event: OnEvent = ignore
) -> tuple[Router, RouterReport]:
    """A router over ``wordings``; at most ``false_fire`` of near-miss questions should pass its threshold."""
    prior = prior_for(backbone, on_event)
    vocabulary = backbone.prompts.vocabulary()
    own, documents = count_words(wordings.ids(), vocabulary), float(prior.documents)
    reading = Reading(backbone, Reader(vocabulary, prior.views, prior.counts + own, documents + len(wordings)))
    # Names are rare in the lessons and the background: the user's may all share a word.
    workshop = Workshop(reading, NameFinder(prior.counts.tolist(), documents, own.tolist(), len(wordings)))
    router = _stored(workshop, wordings, seed, on_event)
    found = _taught(router, workshop, wordings, prior, false_fire, seed)
    router.be_as_sure_as(found.threshold, found.nearness, found.caution)
    return router, _report(router, found)


def _stored(workshop: Workshop, wordings: Wordings, seed: int, on_event: OnEvent) -> Router:
    """A router that holds the wordings; its gate has learned nothing yet."""
    reading = workshop.reading
    stored = StoredQuestions.pack(_reported(reading.parts(wordings.ids()), len(wordings), on_event))
    lists = _lists(workshop, wordings, stored, seed, on_event)
    router = _empty_router(reading.reader, stored, lists)
    ends = (len(sentence_starts(ids, reading.reader.vocabulary)) for ids in wordings.ids())
    router.store(stored, wordings.owner, lists, max(ends, default=0))
    return router


def _taught(
    router: Router, workshop: Workshop, wordings: Wordings, prior: Prior, false_fire: float, seed: int
) -> Calibration:
    """Trains its gate, on rows that are let go here, and says how sure it must be."""
    rows = training_rows(workshop, wordings, router.stored, prior.strangers, seed)
    train(router.gate, rows, (prior.features, prior.same), seed)
    return calibrate(router.gate, rows, len(wordings), false_fire)


def _reported(parts: Iterable[Questions], total: int, on_event: OnEvent) -> Iterator[Questions]:
    done = 0
    for part in parts:
        done += len(part)
        on_event(Progress("read", done, total))
        yield part


def _lists(workshop: Workshop, texts: Sequence[str], stored: StoredQuestions, seed: int, on_event: OnEvent) -> Lists:
    """The lists of the index, probed as often as rewordings of the stored questions call for."""
    count = list_count(len(stored))
    if not count:
        return Lists.none(stored.vectors.shape[1])
    chosen = spread(len(texts), REWORDED_FACTS)
    asked = workshop.reading.texts(text for i in chosen for text in rewordings(texts[i], workshop.names, 1, seed))
    lists, found = build_lists(stored.vectors, asked.vectors, CANDIDATES, seed, count)
    said = f"the index looks into {found.probes} of {len(lists.centroids)} lists"
    on_event(Note(f"{said}: {found.best:.2%} of rewordings find there what comparing with all finds first"))
    return lists


def _empty_router(reader: Reader, stored: StoredQuestions, lists: Lists) -> Router:
    hidden, d_index = reader.views.index.map.shape
    sizes = RouterSizes(
        wordings=len(stored),
        lists=len(lists.centroids),
        words=len(stored.spelling),
        spellings=len(stored.sketch),
        hidden=hidden,
        d_index=d_index,
        d_gate=reader.views.relation.shape[1],
        vocabulary=len(reader.vocabulary.offsets) - 1,
        pieces=len(reader.vocabulary.data),
    )
    with torch.device("meta"):  # all of it is replaced
        router = Router(sizes)
    router.gate = Gate()
    router.set_reader(reader)
    return router


def _report(router: Router, found: Calibration) -> RouterReport:
    confusable = tuple(_confusable(router)[:CONFUSABLE])
    return RouterReport(found.threshold, found.expected_recall, found.expected_false_fire, confusable)


def _confusable(router: Router) -> list[tuple[int, int, float]]:
    """The pairs of different facts whose questions are most alike, with their score against each other.

    Of a large file an even share is compared, each question with all others.
    """
    stored, owner = router.stored, router.get_buffer("owner")
    mine = torch.tensor(spread(len(stored), COMPARED_FACTS))
    asked = stored.take(mine)
    pairs = nearest_others(asked, stored, owner, mine, 1, router.lists)
    if not len(pairs):
        return []
    with torch.inference_mode():
        scores = router.gate(gate_features(asked, stored, pairs, router.reader.idf))
    facts = torch.stack([owner[mine[pairs[:, 0]]], owner[pairs[:, 1]]], 1)
    best: dict[tuple[int, int], float] = {}
    for (one, two), score in zip(facts.tolist(), scores.tolist(), strict=True):
        key = (min(one, two), max(one, two))
        best[key] = max(score, best.get(key, score))
    return sorted(((*pair, score) for pair, score in best.items()), key=lambda row: -row[2])
