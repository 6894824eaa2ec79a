"""The projections of the prior: what they were fitted to tell apart, they tell apart."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from memtune.lessons import Lessons, Wrapped
from memtune.memory.compare import left_over
from memtune.memory.questions import Reader
from memtune.prior_maps import task_map

STORED = ("Who built the lighthouse at Kirkby Strand?", "What is part HT-4471?", "How long is leave?")
SAME = ("Tell me please: {}", "Good morning. {}", "My boss wants to know: {}", "{} Thank you!")
TASKS = ("Translate this question: {}", "How many words has: {}", "Write a poem about this: {}", "Repeat after me: {}")


def learned():
    """The stored questions, a family each, and each of them in each of the ways."""
    wrapped = tuple(
        Wrapped(way.format(text), number, way in TASKS) for way in SAME + TASKS for number, text in enumerate(STORED)
    )
    return Lessons(STORED, (0, 1, 2), ("", "", ""), ((0, 0), (1, 1), (2, 2)), (), wrapped)


@pytest.fixture(scope="module")
def fitted(backbone, memory):
    """How much of another task the map sees in what is left over of each of the texts."""
    reader, taught = memory.router.reader, learned()
    unmapped = replace(reader.views, relation=torch.eye(backbone.hidden))

    def read(texts):
        ids = [backbone.prompts.question(text) for text in texts]
        raw = Reader(reader.vocabulary, unmapped, reader.counts, reader.documents)
        return raw.read(ids, backbone.states.early(ids))

    stored, wrapped = read(taught.texts), read([one.text for one in taught.wrapped])
    found = task_map(stored, wrapped, taught, reader.idf)
    around = torch.tensor([(number, one.stored) for number, one in enumerate(taught.wrapped)])
    seen = left_over(wrapped, stored, around, reader.idf) @ found
    is_task = torch.tensor([one.task for one in taught.wrapped])
    same = left_over(stored, stored, torch.tensor(taught.same), reader.idf) @ found
    return SimpleNamespace(tasks=seen[is_task], harmless=seen[~is_task], same=same)


def test_the_task_map_puts_the_lessons_on_two_sides(fitted):
    assert (fitted.tasks[:, None] > fitted.harmless).float().mean() > 0.9


def test_words_that_change_nothing_are_no_task_and_of_a_question_in_the_stored_words_nothing_is_left(fitted):
    assert (fitted.harmless < 1.0).float().mean() > 0.9
    assert fitted.same.abs().max() < 1e-2
