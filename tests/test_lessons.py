"""What the gate learns before it sees a fact: pairs of texts that ask the same, and pairs that do not."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import pytest

from memtune.lessons import FOLDS, NO_FAMILY, lessons


@pytest.fixture(scope="module")
def learned():
    return lessons()


@pytest.fixture(scope="module")
def ways(learned):
    """The words that stand around a text, by the fold of its family: task? -> fold -> {(before, behind)}."""
    texts = defaultdict(list)
    for text, family in zip(learned.texts, learned.family, strict=True):
        texts[family].append(text)
    found = {False: defaultdict(set), True: defaultdict(set)}
    for one in learned.wrapped:
        family = learned.family[one.stored]
        inside = max((text for text in texts[family] if text in one.text), key=len)
        found[one.task][family % FOLDS].add(tuple(one.text.split(inside, 1)))
    return found


def test_they_are_the_same_at_every_call(learned):
    lessons.cache_clear()
    assert lessons().digest == learned.digest


def test_pairs_that_ask_the_same_are_of_one_family(learned):
    assert all(learned.family[one] == learned.family[other] != NO_FAMILY for one, other in learned.same)


def test_words_around_a_question_either_ask_for_something_else_or_change_nothing(ways):
    tasks, harmless = (set().union(*ways[kind].values()) for kind in (True, False))
    assert len(tasks) > 200 and len(harmless) > 200
    assert not tasks & harmless


@pytest.mark.parametrize("task", [True, False])
def test_no_fold_of_the_families_knows_the_words_around_those_of_another(ways, task):
    assert all(not one & other for one, other in combinations(ways[task].values(), 2))
