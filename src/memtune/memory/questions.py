"""Questions as the router reads them: one vector for the index, and a row for each word for the gate.

A word's row holds two views of its early state, pooled over its tokens: *meaning*, whitened, and *relation*, a
projection learned so that wordings of one relation fall together; beside them how much it speaks of another *task*,
such as translating, and what its letters say: sketch, rarity, and whether it looks like a name. Words rather than
tokens, because the two sides of a comparison then line up on the unit that is replaced when somebody rewords a
question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from .words import BUCKETS, Vocabulary, sketches, word_bucket, words_of

__all__ = ["Questions", "Reader", "Views", "Whitening", "count_words"]

Ids = tuple[int, ...]
PUNCTUATION_WEIGHT = 0.05
WORD_COLUMNS = ("meaning", "relation", "task", "sketch", "buckets", "kind", "tokens")


@dataclass(frozen=True)
class Whitening:
    """Centres and equalises states: ``(x - mean) @ map``. ``mean`` (hidden,), ``map`` (hidden, kept)."""

    mean: Tensor
    map: Tensor

    @classmethod
    def of(cls, states: Tensor, kept: int, floor: float = 1e-2) -> Whitening:
        """From states ``(tokens, hidden)``: the ``kept`` strongest directions, each with unit variance."""
        mean = states.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((states - mean).T.double()))
        values, vectors = values[-kept:], vectors[:, -kept:]
        return cls(mean, (vectors / (values + floor * values[-1]).sqrt()).float())

    def __call__(self, states: Tensor) -> Tensor:
        """Unit rows ``(..., kept)``."""
        return F.normalize((states - self.mean) @ self.map, dim=-1)


@dataclass(frozen=True)
class Questions:
    """Any number of questions, ragged: the words of question i are rows ``offsets[i]:offsets[i + 1]``."""

    vectors: Tensor  # float32 (questions, d_index), unit rows
    offsets: Tensor  # int64 (questions + 1,)
    meaning: Tensor  # float16 (words, d_gate), unit rows
    relation: Tensor  # float16 (words, d_gate), summed over words before they are compared
    task: Tensor  # float16 (words,), summed over the words that another question does not have
    sketch: Tensor  # uint8 (words, SKETCH / 8), a bit for each mark
    buckets: Tensor  # int32 (words,), where the counts of the word stand
    kind: Tensor  # uint8 (words,): PLAIN, CAPITAL, NAME or DIGIT
    tokens: Tensor  # uint8 (words,): how many spell the word; what a tokenizer splits is rare, in any language

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def cat(cls, parts: list[Questions]) -> Questions:
        columns = {f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls) if f.name != "offsets"}
        lengths = torch.cat([p.offsets.diff() for p in parts])
        return cls(offsets=F.pad(lengths.cumsum(0), (1, 0)), **columns)

    def take(self, which: Tensor) -> Questions:
        """The questions numbered ``which`` (any order, repeats allowed)."""
        rows, offsets = ragged_rows(self.offsets, which)
        words = {name: getattr(self, name)[rows] for name in WORD_COLUMNS}
        return Questions(vectors=self.vectors[which], offsets=offsets, **words)


def run_lengths(offsets: Tensor, which: Tensor) -> Tensor:
    """Rows in each of the runs ``which``; the other runs, up to a million, are not looked at."""
    return offsets[which + 1] - offsets[which]


def ragged_rows(offsets: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers of the runs ``which``, one after the other, and their new offsets, on the device of ``offsets``.

    >>> ragged_rows(torch.tensor([0, 2, 5]), torch.tensor([1, 0]))
    (tensor([2, 3, 4, 0, 1]), tensor([0, 3, 5]))
    """
    which = which.to(offsets.device)
    lengths = run_lengths(offsets, which)
    new = F.pad(lengths.cumsum(0), (1, 0))
    starts = offsets[which] - new[:-1]
    return torch.arange(int(new[-1]), device=new.device) + starts.repeat_interleave(lengths), new


@dataclass(frozen=True)
class Views:
    """What is read from the early states: index vectors from the first tap, the rest from the second."""

    index: Whitening
    meaning: Whitening
    relation: Tensor  # (hidden, d_gate), applied to centred states
    task: Tensor  # (hidden,), the same


class Reader:
    """Turns ids and early states into ``Questions``. ``counts`` float32 (BUCKETS,): documents that hold a word."""

    def __init__(self, vocabulary: Vocabulary, views: Views, counts: Tensor, documents: float) -> None:
        self.vocabulary, self.views = vocabulary, views
        self.counts, self.documents = counts, documents

    def idf(self, buckets: Tensor) -> Tensor:
        """Rarity in nats: ln of documents over documents with the word, at least 0."""
        return torch.log((self.documents + 1) / (self.counts[buckets.long()] + 0.5)).clamp_min(0.0)

    def read(self, ids: Sequence[Ids], states: Sequence[Tensor]) -> Questions:
        """``states``: float32 (taps, tokens, hidden) of each question."""
        found = [words_of(question, self.vocabulary) for question in ids]
        words = [word for words, _ in found for word in words]
        offsets = F.pad(torch.tensor([len(words) for words, _ in found]).cumsum(0), (1, 0))
        firsts = zip(offsets.tolist(), (owners for _, owners in found), strict=False)
        owner = torch.tensor([first + word if word >= 0 else -1 for first, owners in firsts for word in owners])
        buckets = torch.tensor([word_bucket(word.text) for word in words], dtype=torch.int32)
        early, late = (torch.cat([state[tap] for state in states]) for tap in (0, -1))
        meaning, relation, task = self._views(late, owner, len(words))
        return Questions(
            vectors=self._vectors(early, owner, self.idf(buckets), torch.tensor([len(question) for question in ids])),
            offsets=offsets,
            meaning=F.normalize(meaning, dim=-1).half(),
            relation=relation.half(),
            task=task.squeeze(1).half(),
            sketch=sketches(words),
            buckets=buckets,
            kind=torch.tensor([word.kind for word in words], dtype=torch.uint8),
            tokens=torch.bincount(owner[owner >= 0], minlength=len(words)).clamp_max(255).to(torch.uint8),
        )

    def _views(self, states: Tensor, owner: Tensor, words: int) -> tuple[Tensor, ...]:
        """Meaning, relation ``(words, d_gate)`` and task ``(words, 1)`` of each word: the mean over its tokens."""
        views, inside = self.views, owner >= 0  # punctuation belongs to no word
        maps = torch.cat([views.relation, views.task[:, None]], 1)
        rows = torch.cat([views.meaning(states), (states - views.meaning.mean) @ maps], 1)
        sums = torch.zeros(words, rows.shape[1]).index_add_(0, owner[inside], rows[inside])
        means = sums / torch.bincount(owner[inside], minlength=words).clamp_min(1)[:, None]
        return means.tensor_split([views.meaning.map.shape[1], means.shape[1] - 1], dim=1)

    def _vectors(self, states: Tensor, owner: Tensor, idf: Tensor, lengths: Tensor) -> Tensor:
        """Index vectors (questions, d_index): whitened token states, weighed by the rarity of their word."""
        weight = F.pad(idf, (0, 1), value=PUNCTUATION_WEIGHT)[owner]  # owner -1 is the last entry
        rows = self.views.index(states) * weight[:, None]
        question = torch.arange(len(lengths)).repeat_interleave(lengths)
        return F.normalize(torch.zeros(len(lengths), rows.shape[1]).index_add_(0, question, rows), dim=-1)


def count_words(documents: Iterable[Ids], vocabulary: Vocabulary) -> Tensor:
    """How many of the documents hold a word, by bucket: float32 (BUCKETS,)."""
    counts = torch.zeros(BUCKETS)
    for ids in documents:
        buckets = {word_bucket(word.text) for word in words_of(ids, vocabulary)[0]}
        counts[list(buckets)] += 1
    return counts
