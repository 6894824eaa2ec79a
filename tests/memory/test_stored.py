"""Questions packed into a kilobyte each: they come back about as they were read, and their words exactly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from memtune.memory.questions import Questions
from memtune.memory.stored import NO_WORDS, StoredQuestions, digests

TEXTS = ["Who built the lighthouse at Kirkby Strand?", "What is part HT-4471?", "?!", "WHO built the lighthouse?"]


@pytest.fixture(scope="module")
def read(backbone, memory):
    ids = [backbone.prompts.question(text) for text in TEXTS]
    return memory.router.reader.read(ids, backbone.states.early(ids))


@pytest.fixture(scope="module")
def packed(read):
    parts = [read.take(torch.tensor(which)) for which in ([0, 1], [2], [3])]
    return StoredQuestions.pack(parts)


def unpacked(packed, which):
    return packed.take(torch.tensor(which))


def test_the_words_come_back_as_they_were(read, packed):
    again = unpacked(packed, [0, 1, 2, 3])
    for name in ("offsets", "sketch", "buckets", "kind", "tokens"):
        assert torch.equal(getattr(again, name), getattr(read, name)), name


def test_the_views_come_back_rounded(read, packed):
    again = unpacked(packed, [0, 1, 2, 3])
    asks = read.offsets.diff() > 0
    assert F.cosine_similarity(again.vectors, read.vectors)[asks].min() > 0.9999
    for name in ("meaning", "relation"):
        mine, theirs = getattr(again, name).float(), getattr(read, name).float()
        assert F.cosine_similarity(mine, theirs).min() > 0.97, name
        torch.testing.assert_close(mine.norm(dim=1), theirs.norm(dim=1), rtol=1e-2, atol=1e-3)


def test_questions_are_taken_in_any_order_and_as_often_as_wanted(packed):
    which = [3, 0, 3]
    one_by_one = Questions.cat([unpacked(packed, [i]) for i in which])
    for name, column in vars(unpacked(packed, which)).items():
        assert torch.equal(column, getattr(one_by_one, name)), name


def test_a_word_is_spelt_once_for_all_questions_that_hold_it(read, packed):
    assert len(packed.spelling) == len(read.buckets)
    assert len(packed.sketch) == len(packed.buckets) == len({bytes(row.tolist()) for row in read.sketch})


def test_a_digest_stands_for_the_words_in_their_order(read, backbone, memory):
    same = ["who built the lighthouse at kirkby strand", "at Kirkby Strand, who built the lighthouse?", "..."]
    ids = [backbone.prompts.question(text) for text in same]
    found = digests(memory.router.reader.read(ids, backbone.states.early(ids)))
    assert found[0] == digests(read)[0] != found[1]
    assert found[2] == digests(read)[2] == NO_WORDS


def test_nothing_packs_into_nothing_but_its_shape(read):
    nothing = StoredQuestions.pack([read.take(torch.tensor([2]))])
    assert len(nothing) == 1 and len(nothing.spelling) == len(nothing.sketch) == 0
    assert len(unpacked(nothing, [0, 0])) == 2


def test_a_stored_question_of_nine_words_takes_at_most_a_kilobyte_and_a_fifth():
    """The sizes of SmolLM2: 384 figures of the index, 64 of each view; two of the words are in no other question."""
    words, draw = 9, torch.Generator().manual_seed(0)
    question = Questions(
        vectors=torch.randn(1, 384, generator=draw),
        offsets=torch.tensor([0, words]),
        meaning=torch.randn(words, 64, generator=draw).half(),
        relation=torch.randn(words, 64, generator=draw).half(),
        task=torch.zeros(words).half(),
        sketch=torch.randint(256, (words, 32), generator=draw, dtype=torch.uint8),
        buckets=torch.arange(words, dtype=torch.int32),
        kind=torch.zeros(words, dtype=torch.uint8),
        tokens=torch.ones(words, dtype=torch.uint8),
    )
    columns = vars(StoredQuestions.pack([question])).items()
    spelt = sum(column.nbytes for name, column in columns if name in ("sketch", "buckets"))
    rest = sum(column.nbytes for name, column in columns if name not in ("sketch", "buckets"))
    assert rest + spelt * 2 / words <= 1200
