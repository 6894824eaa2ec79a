"""Builds the router for a set of facts: whitening, word counts, stored questions, a trained gate and its threshold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memtune.backbone import Backbone
from memtune.calibration import calibrate
from memtune.events import Note, OnEvent, Progress, ignore
from memtune.gate_training import NEIGHBOUR, REWORDED_FACTS, Rows, Workshop, compared, train, training_rows
from memtune.lessons import spread
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
    return router, _taught(router, workshop, wordings, prior, false_fire, seed)


def _stored(workshop: Workshop, wordings: Wordings, seed: int, on_event: OnEvent) -> Router:
    """A router that holds the wordings; its gate has learned nothing yet."""
    reading = workshop.reading
    stored = StoredQuestions.pack(_reported(reading.parts(wordings.ids()), len(wordings), on_event))
    lists = _lists(workshop, wordings, stored, seed, on_event)
    router = _empty_router(reading.reader, stored, lists)
    ends = (len(sentence_starts(ids, reading.reader.vocabulary)) for ids in wordings.ids())
    router.store(stored, wordings.owner, lists, max(ends, default=0))
    return router


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
    if len(lists.centroids):
        said = f"the index looks into {found.probes} of {count} lists"
        on_event(Note(f"{said}: {found.best:.2%} of rewordings find there what comparing with all finds first"))
    else:
        on_event(Note(f"the index compares with all: rewordings lie in {found.probes} of {count} lists around them"))
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


def _taught(
    router: Router, workshop: Workshop, wordings: Wordings, prior: Prior, false_fire: float, seed: int
) -> RouterReport:
    """Trains its gate and sets its threshold, on rows that are let go here: they take far more room than it does."""
    rows = training_rows(workshop, wordings, router.stored, prior.strangers, seed)
    train(router.gate, rows, (prior.features, prior.same), seed)
    found = calibrate(router.gate, rows, len(wordings), false_fire)
    router.be_as_sure_as(found.threshold, found.nearness, found.caution)
    confusable = tuple(_confusable(router.gate, rows, wordings.owner)[:CONFUSABLE])
    return RouterReport(found.threshold, found.expected_recall, found.expected_false_fire, confusable)


@torch.inference_mode()
def _confusable(gate: Gate, rows: Rows, owner: Tensor) -> list[tuple[int, int, float]]:
    """The pairs of different facts whose questions are most alike, with their score against each other.

    Of a large file an even share is compared, each question with all others.
    """
    neighbours = rows.kind == NEIGHBOUR
    if not neighbours.any():
        return []
    asked, stored = rows.pairs[neighbours].unbind(1)
    facts = torch.stack([owner[compared(len(owner))[asked]], owner[stored]], 1)
    best: dict[tuple[int, int], float] = {}
    for (one, two), score in zip(facts.tolist(), gate(rows.features[neighbours]).tolist(), strict=True):
        key = (min(one, two), max(one, two))
        best[key] = max(score, best.get(key, score))
    return sorted(((*pair, score) for pair, score in best.items()), key=lambda row: -row[2])
