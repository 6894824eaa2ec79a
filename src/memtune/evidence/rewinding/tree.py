"""The tree of a rewindable generation: token sets, how often each was tried, and what was thought of it.

RAIN (Li et al. 2024, arXiv 2309.07124). The constants are those of the released code, which differs from the paper in
that values are put between 0 and 1 before they are compared, and in that the visits of the parent stand for those of
the siblings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Limits", "Node", "TokenSet"]

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Limits:
    """How far a search goes. In brackets the letters of the paper."""

    tries: int = 50  # for one set at most, those that it inherits included (T)
    new_tries: int = 15  # that a set may have in any case, however many it inherits
    least: int = 6  # before a set may be fixed early (T_m)
    good: float = 0.8  # the value that lets it (V)
    exploration: float = 2.0  # c
    alike_weight: float = 0.2  # gamma
    alike: float = 0.95  # the cosine from which a sibling shares a score
    children: int = 10  # q
    most_children: int = 20
    spread: float = 0.03  # children that vary less, a token, are too much alike to hold a better one
    lengths: tuple[int, ...] = (1, 2, 4, 10)  # tokens of a set, by depth; the last one from there on
    even: float = 0.25  # of a root's priors, spread evenly over its children


@dataclass(frozen=True)
class TokenSet:
    """Some tokens that may come next, and how probable the model finds them together."""

    tokens: Ids
    probability: float


@dataclass(eq=False)
class Node:
    """A token set behind all those above it. ``visits`` counts those lent by siblings too, ``tries`` whole ones."""

    tokens: Ids = ()
    probability: float = 1.0
    prior: float = 1.0
    depth: int = 0
    parent: Node | None = field(default=None, repr=False)
    children: dict[Ids, Node] = field(default_factory=dict)
    visits: float = 0.0
    tries: int = 0
    value: float = 0.0
    embedding: Tensor | None = field(default=None, repr=False)

    @property
    def favourite(self) -> Node | None:
        """The child that was visited most, the better one of equals."""
        return max(self.children.values(), key=lambda child: (child.visits, child.value), default=None)

    @property
    def siblings(self) -> list[Node]:
        return [] if self.parent is None else [n for n in self.parent.children.values() if n is not self]

    def chosen(self, exploration: float) -> Node:
        """The child to try next: the best by what is known of it and what is not (PUCT)."""

        def promise(child: Node) -> float:
            # The released code scales by the extremes seen, but begins with -1 and 1, which no value leaves.
            known = (child.value + 1) / (2 + 1e-5) if child.visits else 0.0
            return known + exploration * child.prior * math.sqrt(self.visits) / (1 + child.visits)

        return max(self.children.values(), key=promise)

    def put(self, sets: Sequence[TokenSet]) -> None:
        """New children, their priors in proportion to their probabilities."""
        total = sum(s.probability for s in sets) or 1.0
        for one in sets:
            child = Node(one.tokens, one.probability, one.probability / total, self.depth + 1, self)
            self.children.setdefault(one.tokens, child)

    def even_out(self, share: float) -> None:
        """At a root no child is out of reach."""
        total = sum(child.prior for child in self.children.values()) or 1.0
        for child in self.children.values():
            child.prior = (1 - share) * child.prior / total + share / len(self.children)

    def scored(self, score: float) -> None:
        """One try more: the value is the mean of their scores."""
        self.visits += 1
        self.tries += 1
        self.value += (score - self.value) / self.visits

    def embedded(self, embedding: Tensor) -> None:
        """The mean over the tries, this one included, which is not counted yet."""
        old = torch.zeros_like(embedding) if self.embedding is None else self.embedding
        self.embedding = old + (embedding - old) / (self.tries + 1)

    def lent(self, score: float, weight: float) -> None:
        """A sibling's score, as a part of a visit (equation 2)."""
        self.value = (self.value * self.visits + weight * score) / (self.visits + weight)
        self.visits += weight

    def too_much_alike(self, limits: Limits) -> bool:
        """All children were tried, none is any good, and they say nearly the same: another one is needed."""
        children = list(self.children.values())
        seen = [child.embedding for child in children if child.embedding is not None]
        if not 1 < len(seen) == len(children) < limits.most_children or max(child.value for child in children) >= 0:
            return False
        return float(torch.stack(seen).var(0).norm()) < limits.spread * len(children[0].tokens)
