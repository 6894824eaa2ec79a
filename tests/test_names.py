"""Which words of a question are names: by capital, digit or, where nothing tells, by rarity."""

from __future__ import annotations

import pytest

from memtune.memory.words import BUCKETS, word_bucket
from memtune.names import NameFinder

COMMON = ("who", "built", "the", "is", "what", "where", "in", "how", "long", "can", "be", "returned", "opened", "i")


@pytest.fixture
def names():
    counts = [0.0] * BUCKETS
    for word in COMMON:
        counts[word_bucket(word)] = 500.0
    return NameFinder(counts, 1000.0)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Who built the Old Mill?", ["Old", "Mill?"]),
        ("what is ht-4471", ["ht-4471"]),
        ("Antarctica is in", ["Antarctica"]),
        ("where is the Chinese bahaba in", ["Chinese", "bahaba"]),
        ("Antarctica premieres in the", ["Antarctica"]),
        ("how long can Zembla opened be", ["Zembla"]),
        ("Who is who?", []),
        ("How long can I be?", []),
        ("Who built the I Tower?", ["I", "Tower?"]),
        ("how long can opened software be returned", ["software"]),
        ("", []),
    ],
)
def test_the_words_that_name_something(names, question, expected):
    words = question.split()
    assert [word for word, name in zip(words, names(words), strict=True) if name] == expected


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Wer leitet das Archiv von Maulbeerbach?", ["Archiv", "Maulbeerbach?"]),
        ("wer leitet das archiv", ["archiv"]),
        ("Wer Archiv?", ["Archiv?"]),
        ("Who built the Maulbeerbacher Archiv?", ["Maulbeerbacher", "Archiv?"]),
    ],
)
def test_in_a_language_that_no_lesson_speaks_a_rare_word_is_one_of_few_own_questions(names, question, expected):
    own = [0.0] * BUCKETS
    for word in ("wer", "leitet", "das", "von"):
        own[word_bucket(word)] = 9.0
    own[word_bucket("archiv")] = 1.0
    finder = NameFinder(names.counts, names.documents, own, 40.0)
    words = question.split()
    assert [word for word, name in zip(words, finder(words), strict=True) if name] == expected
