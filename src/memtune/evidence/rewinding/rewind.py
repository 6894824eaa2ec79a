"""Rewindable generation (RAIN, Li et al. 2024, arXiv 2309.07124): token sets are tried, judged and taken back.

A tree of token sets stands behind the text that is fixed so far. Each try goes down it, ends the text in some way, has
it judged, and takes all of it back; after some tries the set that most of them went through is fixed, and its part of
the tree serves the next set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from memtune.evidence.rewinding.tree import Limits, Node, TokenSet

__all__ = ["Fixed", "Judgement", "Language", "Searched", "Try", "search"]

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Judgement:
    """What a guard thinks of an answer: ``value`` from -1 (no) over 0 (nothing to say) to 1 (yes), and why.

    ``fact_id``: the stored fact that decided, where one did.
    """

    value: float
    why: str
    fact_id: str | None = None


class Language(Protocol):
    """A model that writes an answer. Texts are the answer's ids so far, without the prompt."""

    def sets(self, text: Ids, length: int, count: int) -> list[TokenSet]:
        """At most ``count`` different continuations, the likeliest token by token first; cut where the answer ends."""

    def finish(self, text: Ids) -> Ids:
        """The text written on to where it can be judged."""

    def states(self, text: Ids) -> Tensor:
        """What the model makes of each token: float32 ``(tokens, hidden)``."""

    def ended(self, text: Ids) -> bool: ...


@dataclass(frozen=True)
class Try:
    """One way that was gone and taken back: ``fixed`` stood already, ``text`` is all that was judged."""

    fixed: Ids
    text: Ids
    judged: Judgement


@dataclass(frozen=True)
class Fixed:
    """A token set that stays. ``early``: it was good enough before the tries ran out."""

    tokens: Ids
    visits: float
    value: float
    early: bool


@dataclass(frozen=True)
class Searched:
    """What a search found, and all that it did."""

    text: Ids
    tries: tuple[Try, ...]
    fixed: tuple[Fixed, ...]
    nodes: int
    lent: int  # scores that a sibling shared
    added: int  # children that were added because the others were too much alike


def search(
    language: Language,
    judge: Callable[[Ids], Judgement],
    limits: Limits,
    offers: Sequence[Ids] = (),
) -> Searched:
    """The answer that stands up to ``judge``, set by set. ``offers``: whole answers to be tried beside the model's."""
    tree = _Tree(language, judge, limits, offers)
    root = Node()
    text: Ids = ()
    fixed: list[Fixed] = []
    while not language.ended(text):
        early = tree.settle(root, text)
        if (child := root.favourite) is None:
            break
        fixed.append(Fixed(child.tokens, child.visits, child.value, early))
        text += child.tokens
        root, child.parent = child, None
        root.even_out(limits.even)
    return Searched(text, tuple(tree.tries), tuple(fixed), tree.nodes, tree.lent, tree.added)


class _Tree:
    """What a search does to its tree, and a count of it."""

    def __init__(
        self, language: Language, judge: Callable[[Ids], Judgement], limits: Limits, offers: Sequence[Ids]
    ) -> None:
        self.language, self.judge, self.limits, self.offers = language, judge, limits, offers
        self.tries: list[Try] = []
        self.nodes, self.lent, self.added = 1, 0, 0
        self._judged: dict[Ids, Judgement] = {}

    def settle(self, root: Node, text: Ids) -> bool:
        """Tries until a child of the root is good enough, which is True, or there were enough of them."""
        most = max(self.limits.tries, root.tries + self.limits.new_tries)
        while root.tries < most:
            self._try(root, text)
            best = root.favourite
            if root.tries >= self.limits.least and best is not None and best.value >= self.limits.good:
                return True
        return False

    def _try(self, root: Node, fixed: Ids) -> None:
        node, text, path = root, fixed, [root]
        while node.children:
            if node.too_much_alike(self.limits):
                self._add(node, text)
            node = node.chosen(self.limits.exploration)
            text += node.tokens
            path.append(node)
        finished = self.language.finish(text)
        states = self.language.states(finished)
        if finished not in self._judged:
            self._judged[finished] = self.judge(finished)
        judged = self._judged[finished]
        self.tries.append(Try(fixed, finished, judged))
        if not self.language.ended(text):
            self._expand(node, text)
        self._back(path, len(text), states, judged.value)

    def _expand(self, leaf: Node, text: Ids) -> None:
        likeliest, *others = self.language.sets(text, self._length(leaf), self.limits.children)
        sets = [likeliest if len(likeliest.tokens) == 1 else _clamped(likeliest, others), *others]
        sets += [_clamped(TokenSet(offer, 1.0), sets) for offer in self.offers if not text]
        leaf.put(sets)
        self.nodes += len(leaf.children)
        if leaf.parent is None:
            leaf.even_out(self.limits.even)

    def _add(self, node: Node, text: Ids) -> None:
        """One child more: the next likely token, or else a set that the model happens to write."""
        length, have = self._length(node), len(node.children)
        sets = self.language.sets(text, length, have + 1 if length == 1 else 2)
        total = sum(child.probability for child in node.children.values())
        for one in [s for s in sets if s.tokens not in node.children][:1]:
            prior = one.probability / (total + one.probability or 1.0)
            node.children[one.tokens] = Node(one.tokens, one.probability, prior, node.depth + 1, node)
            self.nodes, self.added = self.nodes + 1, self.added + 1

    def _back(self, path: Sequence[Node], end: int, states: Tensor, score: float) -> None:
        """From the leaf to the root: what was thought of the text counts for every set in it, and for those alike."""
        for node in reversed(path):
            if node.parent is not None:
                end -= len(node.tokens)
                node.embedded(F.normalize(states[end:].mean(0), dim=0))  # as sentence encoders give it
                for sibling, cosine in self._alike(node):
                    sibling.lent(score, self.limits.alike_weight * cosine)
                    self.lent += 1
            node.scored(score)

    def _alike(self, node: Node) -> Iterator[tuple[Node, float]]:
        for sibling in node.siblings:
            if node.embedding is not None and sibling.embedding is not None:
                cosine = float(F.cosine_similarity(node.embedding, sibling.embedding, dim=0))
                if cosine >= self.limits.alike:
                    yield sibling, cosine

    def _length(self, node: Node) -> int:
        return self.limits.lengths[min(node.depth, len(self.limits.lengths) - 1)]


def _clamped(one: TokenSet, others: Sequence[TokenSet]) -> TokenSet:
    """As probable as the best and the worst of the others together at least, and as all of them at most.

    So a set that greedy writing made, or that was offered, is tried, and does not drive out what was sampled.
    """
    if not others:
        return one
    chances = [other.probability for other in others]
    return TokenSet(one.tokens, max(min(one.probability, sum(chances)), max(chances) + min(chances)))
