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
from memtune.memory.index import Lists, build_lists, list_count
from memtune.memory.questions import Questions, Reader, count_words
from memtune.memory.router import CANDIDATES, Router, RouterSizes
from memtune.memory.stored import StoredQuestions
from memtune.memory.words import sentence_starts
from memtune.names import NameFinder
from memtune.prior import prior_for
from memtune.reading import Reading
from memtune.rewordings import rewordings

__all__ = ["RouterReport", "Wording", "build_router"]


CONFUSABLE = 10  # pairs that are named


@dataclass(frozen=True)
class RouterReport:
    """What the held-out scores promise. ``confusable``: pairs of facts and the score of their mix-up."""

    threshold: float
    expected_recall: float
    expected_false_fire: float
    confusable: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True)
class Wording:
    """One stored question of fact number ``fact``. Wordings of a fact stand together, its own question first."""

    fact: int
    text: str


def build_router(
    backbone: Backbone, wordings: Sequence[Wording], *, false_fire: float, seed: int, on_event: OnEvent = ignore
) -> tuple[Router, RouterReport]:
    """A router over ``wordings``; at most ``false_fire`` of near-miss questions should pass its threshold."""
    prior = prior_for(backbone, on_event)
    vocabulary = backbone.prompts.vocabulary()
    texts = [wording.text for wording in wordings]
    counts = prior.counts + count_words(map(backbone.prompts.question, texts), vocabulary)
    reading = Reading(backbone, Reader(vocabulary, prior.views, counts, float(prior.documents) + len(wordings)))
    stored = StoredQuestions.pack(_reported(reading.parts(map(backbone.prompts.question, texts)), len(texts), on_event))
    owner = torch.tensor([wording.fact for wording in wordings], dtype=torch.int64)
    # Names are rare in the lessons and the background: the user's may all share a word.
    workshop = Workshop(reading, NameFinder(prior.counts.tolist(), float(prior.documents)))
    lists = _lists(workshop, texts, stored, seed, on_event)
    router = _empty_router(reading.reader, stored, lists)
    router.store(stored, owner, lists, _sentences(backbone, texts))
    rows = training_rows(workshop, texts, stored, owner, prior.strangers, seed)
    train(router.gate, rows, (prior.features, prior.same), seed)
    found = calibrate(router.gate, rows, len(stored), false_fire)
    router.be_as_sure_as(found.threshold, found.nearness, found.caution)
    return router, _report(router, found)


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


def _sentences(backbone: Backbone, texts: Iterable[str]) -> int:
    """Of the sentence ends inside a text, the most."""
    vocabulary = backbone.prompts.vocabulary()
    ids = map(backbone.prompts.question, texts)
    return max((len(sentence_starts(question, vocabulary)) for question in ids), default=0)


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
    router = Router(sizes)
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
    pairs = nearest_others(asked, stored, owner, mine, 1)
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
