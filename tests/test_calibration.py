"""How sure the router must be: what near misses, strangers and the nearest stranger of a question each ask for."""

from __future__ import annotations

import math

import pytest
import torch

from memtune.calibration import CAREFUL, FAR, MARGIN, calibrate
from memtune.gate_training import BACKGROUND, NEAR_MISS, NEIGHBOUR, REWORDED, Rows
from memtune.memory.compare import FEATURES, RAREST_FOUND
from memtune.memory.gate import MEMBERS

WORDINGS = 4


class Told:
    """A gate whose networks all say the second feature."""

    def votes(self, features):
        return features[:, 1].expand(MEMBERS, -1)


def rows(*groups):
    """Each group: kind, then (asked, stored, cosine, score) of every row."""
    kind = torch.tensor([kind for kind, *pairs in groups for _ in pairs])
    pairs = [pair for _, *pairs in groups for pair in pairs]
    features = torch.zeros(len(pairs), FEATURES)
    features[:, :2] = torch.tensor([[cosine, score] for _, _, cosine, score in pairs])
    numbers = torch.tensor([[asked, stored] for asked, stored, _, _ in pairs])
    return Rows(features, kind, torch.zeros(len(kind), dtype=torch.int64), numbers)


def near(scores):
    return (NEAR_MISS, *((i, i % WORDINGS, 0.9, score) for i, score in enumerate(scores)))


def reworded(scores, cosine=0.9):
    return (REWORDED, *((i, i % WORDINGS, cosine, score) for i, score in enumerate(scores)))


def strangers(count, score=-5.0):
    """``count`` strangers, the nearest stored question of each at a cosine from 0 to 0.5."""
    return [(i, i % WORDINGS, 0.5 * i / count, score) for i in range(count)]


@pytest.mark.parametrize("share", [0.3, 0.03])
def test_the_promised_share_of_near_misses_fires_at_most(share):
    scores = torch.linspace(-8, 2, 200).tolist()
    found = calibrate(Told(), rows(near(scores), (BACKGROUND, *strangers(30))), WORDINGS, share)
    assert sum(score >= found.threshold for score in scores) <= share * len(scores)
    assert 0 < found.expected_false_fire <= share + 1e-6


def test_the_threshold_follows_how_fast_the_highest_near_misses_fall_off():
    """Of log-odds that fall off by a factor e each unit, a share p lies above -log(p)."""
    scores = -torch.linspace(1 / 4000, 1 - 1 / 4000, 2000).log()
    for share in (0.05, 0.01):
        found = calibrate(Told(), rows(near(scores.tolist())), WORDINGS, share)
        assert found.threshold == pytest.approx(-math.log(share), abs=0.15)


def test_one_near_miss_more_or_less_moves_the_threshold_little():
    scores = (-torch.linspace(1 / 600, 1 - 1 / 600, 300).log()).tolist()
    without, with_one = (
        calibrate(Told(), rows(near(some)), WORDINGS, 0.01).threshold for some in (scores, [*scores, 6.0])
    )
    assert 0 < with_one - without < 0.3


def test_of_few_near_misses_none_comes_near_the_threshold():
    found = calibrate(Told(), rows(near([0.1 * i for i in range(40)])), WORDINGS, 0.01)
    assert found.threshold > 4.5


def test_a_lone_question_that_names_nothing_fires_where_it_is_likelier_than_not():
    """It has no near misses, and every stranger that is near it makes it cautious itself."""
    found = calibrate(Told(), rows((BACKGROUND, *((i, 0, 0.5 * i / 40, -5.0) for i in range(40)))), 1, 0.01)
    assert found.threshold == 0.0 and found.caution.tolist() == [0.0]


def test_near_misses_that_all_score_the_same_stay_silent():
    found = calibrate(Told(), rows(near([-3.0] * 50)), WORDINGS, 0.01)
    assert found.threshold > -3.0 and found.expected_false_fire == 0.0


def test_recall_is_what_of_the_rewordings_would_fire():
    found = calibrate(Told(), rows(near([-1.0] * 50), reworded([-2.0, 3.0, 4.0, 5.0])), WORDINGS, 0.01)
    assert found.expected_recall == pytest.approx(0.75)


def test_a_rewording_no_nearer_than_most_strangers_are_does_not_count():
    groups = [near([-1.0] * 50), (BACKGROUND, *strangers(300)), reworded([5.0, 5.0], cosine=0.01)]
    found = calibrate(Told(), rows(*groups), WORDINGS, 0.01)
    assert found.nearness == pytest.approx(0.5 * FAR, abs=0.01)
    assert found.expected_recall == 0.0


def test_one_stranger_close_to_a_question_makes_that_question_alone_cautious():
    groups = [near([-3.0] * 50), (BACKGROUND, *strangers(5000), (5000, 2, 0.8, -2.0))]
    found = calibrate(Told(), rows(*groups), WORDINGS, 0.01)
    assert found.threshold == pytest.approx(-3.0)
    assert found.caution.tolist() == pytest.approx([0, 0, 1.0 + MARGIN, 0])


def test_caution_has_its_bounds_for_the_stranger_may_have_asked_for_the_very_fact():
    groups = [near([-3.0] * 50), (BACKGROUND, *strangers(5000), (5000, 2, 0.8, 9.0))]
    assert calibrate(Told(), rows(*groups), WORDINGS, 0.01).caution.max() == CAREFUL


def test_kin_makes_questions_cautious_and_leaves_the_threshold():
    close = [(i, i, 0.8, float(i % 7)) for i in range(5000)]
    of_kin = rows(near([-3.0] * 50), (BACKGROUND, *close))
    of_kin.features[of_kin.kind == BACKGROUND, RAREST_FOUND] = 1.0
    found = calibrate(Told(), of_kin, len(close), 0.01)
    assert found.threshold == pytest.approx(-3.0) and found.caution.min() == CAREFUL


def test_kin_is_heard_from_any_distance():
    groups = rows(near([-1.0] * 50), (BACKGROUND, *strangers(300)), reworded([5.0, 5.0], cosine=0.01))
    groups.features[torch.nonzero(groups.kind == REWORDED)[0], RAREST_FOUND] = 1.0
    assert calibrate(Told(), groups, WORDINGS, 0.01).expected_recall == pytest.approx(0.5)


def test_a_question_is_as_near_a_miss_as_the_best_of_its_pairs():
    pairs = [(i, i % WORDINGS, 0.9, score) for i in range(100) for score in (-6.0, -3.0, -5.0)]
    found = calibrate(Told(), rows((NEIGHBOUR, *pairs), (BACKGROUND, *strangers(30))), WORDINGS, 0.01)
    assert found.threshold == pytest.approx(-3.0)


def test_where_each_question_has_a_stranger_of_its_own_they_raise_the_threshold():
    close = [(i, i, 0.8, float(i % 7)) for i in range(5000)]
    found = calibrate(Told(), rows(near([-3.0] * 50), (BACKGROUND, *close)), len(close), 0.01)
    assert found.threshold > 0


def test_where_there_is_nothing_to_go_by_fires_what_is_likelier_than_not():
    found = calibrate(Told(), rows(reworded([-4.0, 1.0])), WORDINGS, 0.01)
    assert found.threshold == 0.0 and found.expected_recall == 0.5 and found.expected_false_fire == 0.0
