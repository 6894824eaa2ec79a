"""A token set in the tree: how scores are counted, which child is tried next, and when there must be another one."""

from __future__ import annotations

import pytest
import torch

from memtune.evidence.rewinding.tree import Limits, Node, TokenSet


class TestANode:
    def test_a_try_moves_the_value_to_the_mean_of_all_scores(self):
        node = Node()
        for score in (1.0, -1.0, -1.0, 1.0, 1.0):
            node.scored(score)
        assert (node.visits, node.tries, node.value) == (5, 5, pytest.approx(0.2))

    def test_a_lent_score_counts_as_a_part_of_a_visit(self):
        """The paper's example: score -1, similarity 0.5, gamma 1. Half a visit, which lends half of -1."""
        node = Node()
        node.lent(-1.0, 1 * 0.5)
        assert (node.visits, node.tries) == (0.5, 0)
        assert node.value * node.visits == -0.5

    def test_a_lent_score_is_weighed_against_the_visits_before(self):
        node = Node(visits=1.5, tries=1, value=0.4)
        node.lent(-1.0, 0.2 * 0.96)
        assert node.visits == pytest.approx(1.692)
        assert node.value == pytest.approx((1.5 * 0.4 - 0.192) / 1.692)

    def test_the_embedding_is_the_mean_over_the_tries(self):
        node = Node()
        for place, row in enumerate(torch.eye(3)):
            node.embedded(row)
            node.scored(0.0)
            assert node.embedding.tolist() == pytest.approx([1 / (place + 1)] * (place + 1) + [0.0] * (2 - place))

    def test_the_promise_of_a_child_is_its_value_between_0_and_1_and_what_is_not_known_of_it(self):
        known, unknown = Node((1,), prior=0.3, visits=3, value=0.5), Node((2,), prior=0.1)
        parent = Node(visits=9, children={(1,): known, (2,): unknown})
        # 1.5 / 2.00001 + 2 * 0.3 * 3 / 4 = 1.2 against 0 + 2 * p * 3 / 1
        for prior, chosen in ((0.199, known), (0.201, unknown)):
            unknown.prior = prior
            assert parent.chosen(2.0) is chosen

    def test_a_root_gives_a_quarter_of_its_priors_to_all_alike(self):
        root = Node()
        root.put([TokenSet((1,), 0.6), TokenSet((2,), 0.2), TokenSet((3,), 0.0), TokenSet((4,), 0.0)])
        root.even_out(0.25)
        assert [child.prior for child in root.children.values()] == pytest.approx([0.625, 0.25, 0.0625, 0.0625])

    def test_the_favourite_was_visited_most_and_is_the_better_of_equals(self):
        parent = Node()
        for tokens, visits, value in (((1,), 2.0, 0.1), ((2,), 2.0, 0.3), ((3,), 1.0, 1.0)):
            parent.children[tokens] = Node(tokens, visits=visits, value=value)
        assert parent.favourite is parent.children[2,]


class TestWhenAChildIsAdded:
    LIMITS = Limits(spread=0.03, most_children=4)

    def children(self, *children):
        return Node(children={c.tokens: c for c in children})

    def child(self, word, value=-0.5, at=0.5, length=1):
        return Node((word,) * length, value=value, embedding=torch.tensor([at, 0.0]))

    @pytest.mark.parametrize(
        ("children", "wanted"),
        [
            ([(1, -0.5, 0.5), (2, -0.1, 0.6)], True),  # variance 0.005
            ([(1, -0.5, 0.1), (2, -0.1, 0.9)], False),  # 0.32: they differ
            ([(1, -0.5, 0.5), (2, 0.0, 0.6)], False),  # one is no worse than nothing
            ([(1, -0.5, 0.5), (2, -0.1, 0.5), (3, -0.1, 0.5), (4, -0.1, 0.5)], False),  # there are enough
            ([(1, -0.5, 0.5)], False),  # one does not vary
            ([], False),
        ],
    )
    def test_it_is_where_all_are_bad_and_much_alike(self, children, wanted):
        assert self.children(*(self.child(*one) for one in children)).too_much_alike(self.LIMITS) is wanted

    def test_it_is_not_before_every_child_was_tried(self):
        node = self.children(self.child(1), self.child(2), Node((3,), value=-0.2))
        assert not node.too_much_alike(self.LIMITS)

    def test_longer_sets_may_vary_more(self):
        apart = [self.child(1, at=0.2, length=4), self.child(2, at=0.6, length=4)]  # 0.08
        assert self.children(*apart).too_much_alike(self.LIMITS)
        assert not self.children(*(self.child(c.tokens[0], at=float(c.embedding[0])) for c in apart)).too_much_alike(
            self.LIMITS
        )
