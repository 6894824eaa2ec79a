"""Any number of questions in flat tensors: picked out and put together again without a change."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from memtune.memory.questions import Questions, ragged_rows


@pytest.fixture
def stored(memory):
    return memory.router.stored.take(torch.arange(len(memory.router.stored)))


def same(one, other):
    names = [field.name for field in dataclasses.fields(Questions)]
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_ragged_rows_are_those_of_a_plain_loop():
    draw = random.Random(0)
    for _ in range(200):
        runs, row = [], 0
        for _ in range(draw.randrange(1, 8)):
            length = draw.randrange(4)
            runs.append(list(range(row, row + length)))
            row += length
        offsets = torch.tensor([0] + [run[-1] + 1 if run else 0 for run in runs]).cummax(0).values
        which = draw.choices(range(len(runs)), k=draw.randrange(6))
        rows, new = ragged_rows(offsets, torch.tensor(which, dtype=torch.int64))
        assert rows.tolist() == [row for i in which for row in runs[i]]
        assert new.diff().tolist() == [len(runs[i]) for i in which]


def test_questions_taken_apart_and_put_together_are_the_same(stored):
    parts = [stored.take(torch.tensor([i])) for i in range(len(stored))]
    assert [len(part) for part in parts] == [1] * len(stored)
    assert same(Questions.cat(parts), stored)


def test_questions_are_taken_in_any_order_and_as_often_as_wanted(stored):
    which = [2, 0, 2]
    taken = stored.take(torch.tensor(which))
    assert same(taken, Questions.cat([stored.take(torch.tensor([i])) for i in which]))


def test_a_question_reads_as_it_is_stored(memory, backbone, stored):
    question = backbone.prompts.question("Who built the lighthouse at Kirkby Strand?")
    read = memory.router.reader.read([question], backbone.states.early([question]))
    torch.testing.assert_close(read.vectors, stored.take(torch.tensor([0])).vectors, rtol=0, atol=1e-2)


def test_questions_read_together_are_those_read_one_by_one(memory, backbone):
    reader = memory.router.reader
    ids = [backbone.prompts.question(text) for text in ("Who built it?", "?!", "Wie lange dauert der Urlaub im Mai?")]
    states = backbone.states.early(ids)
    together = reader.read(ids, states)
    alone = Questions.cat([reader.read([question], [state]) for question, state in zip(ids, states, strict=True)])
    for name, column in vars(together).items():
        torch.testing.assert_close(column, getattr(alone, name), rtol=0, atol=1e-3, msg=name)
    assert together.offsets.diff()[1] == 0


def test_a_rare_word_weighs_more_than_a_common_one_and_none_less_than_nothing(memory):
    reader = memory.router.reader
    weights = reader.idf(torch.stack([reader.counts.argmin(), reader.counts.argmax()]))
    assert weights[0] > weights[1] >= 0
