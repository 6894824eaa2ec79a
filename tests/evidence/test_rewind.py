"""The search on a scripted language: what is tried, what is counted, what is fixed, and when."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from memtune.evidence.rewinding.rewind import Judgement, search
from memtune.evidence.rewinding.tree import Limits, TokenSet

STOP = 0
GOOD, BAD, UGLY = 1, 2, 3
SHORT = Limits(tries=8, new_tries=2, least=3, lengths=(1,), children=3)


class Scripted:
    """A language of three words, each as probable as the script says; an answer is two words and the stop."""

    def __init__(self, chances=(0.2, 0.5, 0.3), alike=(), length=2):
        self.chances, self.alike, self.length = dict(zip((GOOD, BAD, UGLY), chances, strict=True)), alike, length
        self.asked = []

    def sets(self, text, length, count):
        self.asked.append((text, length, count))
        if len(text) == self.length:
            return [TokenSet((STOP,), 1.0)]
        ranked = sorted(self.chances, key=self.chances.get, reverse=True)
        return [TokenSet((word,) * length, self.chances[word]) for word in ranked[:count]]

    def finish(self, text):
        return text if self.ended(text) else (*text, *[BAD] * (self.length - len(text)), STOP)

    def states(self, text) -> Tensor:
        """Every word is a direction of its own, but those that are alike."""
        rows = [UGLY if token in self.alike else token for token in text]
        return torch.eye(4)[torch.tensor(rows)]

    def ended(self, text):
        return STOP in text


def judged_by(score):
    return lambda text: Judgement(float(score(text)), "because")


def first_word(text):
    return 1 if text[0] == GOOD else -1


class TestASearch:
    def test_it_finds_the_improbable_answer_that_stands(self):
        found = search(Scripted(), judged_by(first_word), SHORT)
        assert found.text[0] == GOOD and found.text[-1] == STOP

    def test_without_an_objection_the_likeliest_words_stand(self):
        found = search(Scripted(), judged_by(lambda text: 1), SHORT)
        assert found.text == (BAD, BAD, STOP)

    def test_every_try_visits_the_nodes_of_its_path_once(self):
        limits = Limits(tries=7, new_tries=1, least=99, lengths=(1,), alike=2.0)
        found = search(Scripted(length=1), judged_by(first_word), limits)
        # The root's own try, then 6 over its children; BAD and UGLY are left for GOOD as soon as they fail.
        assert [one.text[0] for one in found.tries[:7]] == [BAD, BAD, UGLY, GOOD, GOOD, GOOD, GOOD]
        assert (found.fixed[0].tokens, found.fixed[0].visits, found.fixed[0].value) == ((GOOD,), 4, 1.0)

    def test_a_set_is_fixed_early_once_it_is_good_and_was_tried_enough(self):
        found = search(Scripted(length=1), judged_by(lambda text: 1), Limits(tries=50, least=6, lengths=(1,)))
        assert found.fixed[0].early
        assert sum(one.fixed == () for one in found.tries) == 6

    def test_a_set_that_is_never_good_has_all_tries(self):
        found = search(
            Scripted(length=1), judged_by(lambda text: 0), Limits(tries=9, new_tries=1, least=3, lengths=(1,))
        )
        assert not found.fixed[0].early
        assert sum(one.fixed == () for one in found.tries) == 9

    @pytest.mark.parametrize(("good", "early"), [(0.8, False), (0.0, True)])
    def test_how_good_is_good_enough_is_a_limit(self, good, early):
        limits = Limits(tries=9, new_tries=1, least=3, good=good, lengths=(1,))
        assert search(Scripted(length=1), judged_by(lambda text: 0), limits).fixed[0].early is early

    def test_the_next_set_goes_on_with_the_tries_that_went_through_it(self):
        limits = Limits(tries=8, new_tries=2, least=99, lengths=(1,))
        found = search(Scripted(), judged_by(lambda text: 1 if text[0] == GOOD else -1), limits)
        first = [one for one in found.tries if one.fixed == ()]
        second = [one for one in found.tries if one.fixed == (GOOD,)]
        carried = sum(one.text[0] == GOOD for one in first[1:])  # the root's own try went through no child
        assert len(first) == 8
        assert len(second) == max(8 - carried, 2)
        assert found.fixed[1].visits >= carried - 1  # its children keep theirs

    def test_a_set_has_some_new_tries_however_many_it_inherits(self):
        limits = Limits(tries=8, new_tries=3, least=99, lengths=(1,))
        found = search(Scripted((1.0, 0.0, 0.0)), judged_by(lambda text: 1), limits)
        for fixed in {one.fixed for one in found.tries} - {()}:
            assert sum(one.fixed == fixed for one in found.tries) == 3

    def test_siblings_that_say_the_same_share_their_scores(self):
        limits = Limits(tries=6, new_tries=1, least=99, lengths=(1,))
        apart = search(Scripted(length=1), judged_by(lambda text: -1), limits)
        assert apart.lent == 0
        alike = search(Scripted(length=1, alike=(BAD, UGLY, GOOD)), judged_by(lambda text: -1), limits)
        assert alike.lent > 0
        shared = 0.2 * 1.0  # gamma times the cosine
        whole = alike.fixed[0].visits % 1
        assert math.isclose(whole % shared, 0, abs_tol=1e-6) or math.isclose(whole % shared, shared, abs_tol=1e-6)

    def test_the_next_likely_token_is_added(self):
        limits = Limits(tries=12, new_tries=1, least=12, lengths=(1,), children=2, alike=2.0)
        apart = search(Scripted(length=1), judged_by(lambda text: -1), limits)
        assert apart.added == 0
        language = Scripted(alike=(GOOD, BAD, UGLY), length=1)
        found = search(language, judged_by(lambda text: -1), limits)
        assert found.added == 1
        assert ((), 1, 3) in language.asked  # one more than there were

    def test_a_text_is_judged_once(self):
        judged = []

        def judge(text):
            judged.append(text)
            return Judgement(-1.0, "no")

        search(Scripted(), judge, SHORT)
        assert len(judged) == len(set(judged))

    def test_every_try_is_kept_with_what_stood_and_why_it_was_taken_back(self):
        found = search(Scripted(), judged_by(first_word), SHORT)
        assert found.tries[0].judged == Judgement(-1.0, "because")
        assert all(one.text[: len(one.fixed)] == one.fixed for one in found.tries)
        assert len(found.tries) >= len(found.fixed)

    def test_sets_grow_longer_with_their_depth(self):
        language = Scripted(length=7)
        search(language, judged_by(lambda text: 1), Limits(tries=4, new_tries=1, least=2, lengths=(1, 2, 4)))
        lengths = {len(text): length for text, length, _ in language.asked}
        assert (lengths[0], lengths[1], lengths[3]) == (1, 2, 4)

    def test_an_answer_that_ends_at_once_is_an_answer(self):
        found = search(Scripted(length=0), judged_by(lambda text: 1), SHORT)
        assert found.text == (STOP,)


class TestAnOffer:
    OFFER = (GOOD, GOOD, GOOD, STOP)

    def test_it_is_tried_beside_what_the_model_says_and_stands_if_it_is_better(self):
        found = search(Scripted((0.0, 0.5, 0.5)), judged_by(first_word), SHORT, [self.OFFER])
        assert found.text == self.OFFER
        assert len(found.fixed) == 1 and found.fixed[0].early

    def test_it_is_left_where_the_guard_objects_to_it_too(self):
        found = search(Scripted(), judged_by(lambda text: -1 if text == self.OFFER else 1), SHORT, [self.OFFER])
        assert found.text == (BAD, BAD, STOP)

    def test_it_is_as_probable_as_all_the_others_together(self):
        language = Scripted((0.1, 0.2, 0.3))
        tried = search(language, judged_by(lambda text: 1), Limits(tries=2, least=2, lengths=(1,)), [self.OFFER]).tries
        assert tried[1].text == self.OFFER
