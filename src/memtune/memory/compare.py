"""Compares the words of an asked question with those of a stored one: what the gate decides on.

Each word looks for its best partner on the other side: by spelling, by meaning and by relation. What it found, how rare
it is and whether it looks like a name is its row of evidence; a question's weightiest rows go to the gate one by one.
Beside them stand figures of the pair as a whole: how much of each side found a partner, and how near the relations are
that are asked of the names. Whether what is left over of the asked question speaks of another task is no matter of the
gate's: a stored question that is meant otherwise is not heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from .questions import Questions, run_lengths
from .stored import StoredQuestions
from .words import CAPITAL, DIGIT, NAME, sketch_marks

__all__ = ["EVIDENCE", "FEATURES", "PER_PAIR", "RARITY", "WORDS", "Idf", "gate_features", "heard", "kin", "left_over"]

Idf = Callable[[Tensor], Tensor]
AnyQuestions = Questions | StoredQuestions

WORDS = 12  # of each side: the rarest that found least; a long question's others are common words
EVIDENCE = 19  # figures of a word
RARITY = 9  # which of them is its IDF
COVERAGE = 8  # figures of a side
PER_PAIR = 1 + 2 + 2 + 2 + 2 * COVERAGE  # cosine, relations, has a side no name?, lengths, coverage
RAREST_FOUND = 1 + 2 + 2 + 2 + 2  # which of them says how well the asked question's rarest word is spelt in the other
FEATURES = PER_PAIR + 2 * WORDS * EVIDENCE + 1  # the last one is the task, which the gate is not shown
WORDS_PER_CHUNK = 32_768  # of a side, padding included: some 1.5 KB each
CELLS_PER_CHUNK = 1 << 22  # words of one side times words of the other, some 50 bytes each
GRID = 4096.0  # figures are rounded to 1/4096: their last bits depend on what is read and compared beside them
SPELT_ALIKE = 0.5  # Jaccard of a name and its inflected or misspelt form
LEAST_MISSING = 0.05  # in words without any likeness that only one question holds
RAREST = 8.0  # nats; about the IDF of a word that only one question holds


def gate_features(asked: AnyQuestions, stored: AnyQuestions, pairs: Tensor, idf: Idf) -> Tensor:
    """Features float32 ``(pairs, FEATURES)`` of the pairs ``(asked number, stored number)``, int64 ``(pairs, 2)``."""
    if not len(pairs):
        return torch.zeros(0, FEATURES)
    return torch.cat([_rounded(_features(*sides)) for sides in _sides(asked, stored, pairs, idf)])


def left_over(asked: AnyQuestions, stored: AnyQuestions, pairs: Tensor, idf: Idf) -> Tensor:
    """Of each of the pairs, at least one, the relation of those words of the asked question that found no partner,
    summed, rare words counting more: float32 ``(pairs, d)``.
    """
    sides = _sides(asked, stored, pairs, idf)
    return torch.cat([(a.relation * _missing(_Grid.of(a, b), a)[..., None]).sum(1) for a, b in sides])


def _sides(asked: AnyQuestions, stored: AnyQuestions, pairs: Tensor, idf: Idf) -> Iterator[tuple[_Side, _Side]]:
    """As many pairs at a time as there is room for."""
    sides = zip((asked, stored), pairs.T, strict=True)
    longest, other = (max(1, int(run_lengths(side.offsets, number).max())) for side, number in sides)
    together = min(WORDS_PER_CHUNK // max(longest, other), CELLS_PER_CHUNK // (longest * other))
    for chunk in pairs.split(max(1, together)):
        yield _Side.of(asked.take(chunk[:, 0]), idf), _Side.of(stored.take(chunk[:, 1]), idf)


def _rounded(figures: Tensor) -> Tensor:
    """Also done before the highest figure is looked for: or the last bits would choose among equals."""
    return figures.mul(GRID).round_().div_(GRID)


def kin(features: Tensor) -> Tensor:
    """Bool ``(pairs,)``: the rarest word of the asked question stands in the stored one; they speak of one thing."""
    return features[:, RAREST_FOUND] == 1


def heard(features: Tensor, nearness: float | Tensor) -> Tensor:
    """Bool ``(pairs,)``: the two are near enough, or kin, and the asked question is not one about another task."""
    return ((features[:, 0] >= nearness) | kin(features)) & (features[:, -1] < 1.0)


@dataclass(frozen=True)
class _Side:
    """One question of each pair, its words padded to the longest: tensors ``(pairs, words, ...)``."""

    vector: Tensor  # (pairs, d_index)
    real: Tensor  # bool
    meaning: Tensor
    relation: Tensor
    task: Tensor
    sketch: Tensor
    bucket: Tensor
    kind: Tensor
    tokens: Tensor  # log(1 + tokens) / 2
    idf: Tensor  # nats, 0 where padded

    @classmethod
    def of(cls, questions: Questions, idf: Idf) -> _Side:
        lengths = questions.offsets.diff()
        place = torch.arange(max(1, int(lengths.max())))
        real = place < lengths[:, None]
        words = len(questions.buckets)
        index = (questions.offsets[:-1, None] + place).clamp_max(max(0, words - 1))

        def padded(column: Tensor) -> Tensor:
            # Questions of punctuation alone have no words at all: they compare as padding.
            return column[index] if words else column.new_zeros(index.shape + column.shape[1:])

        meaning, relation, task = (
            padded(column).float() for column in (questions.meaning, questions.relation, questions.task)
        )
        sketch, bucket, kind = sketch_marks(padded(questions.sketch)), padded(questions.buckets), padded(questions.kind)
        tokens = padded(questions.tokens).float().log1p() / 2  # about as large as the other figures
        return cls(
            questions.vectors, real, meaning, relation, task, sketch, bucket, kind, tokens, _rounded(idf(bucket)) * real
        )

    @property
    def name(self) -> Tensor:
        return (self.kind >= NAME) & self.real

    @cached_property
    def marks(self) -> Tensor:
        """Of each word's sketch."""
        return self.sketch.sum(-1)


@dataclass(frozen=True)
class _Grid:
    """Every asked word against every stored word: ``(pairs, asked words, stored words)``, 0 where either is padding."""

    shared: Tensor  # marks that both sketches hold
    spelling: Tensor  # Jaccard index of the sketches
    equal: Tensor
    meaning: Tensor  # cosine, 0 where negative: no partner is no worse than padding
    relation: Tensor  # the same

    @cached_property
    def found(self) -> Tensor:
        """How alike each asked word's best partner is, by spelling or by meaning: ``(pairs, asked words)``."""
        return torch.maximum(self.spelling.amax(2), self.meaning.amax(2))

    @classmethod
    def of(cls, a: _Side, b: _Side) -> _Grid:
        real = a.real[:, :, None] & b.real[:, None, :]
        shared = a.sketch @ b.sketch.transpose(1, 2) * real
        return cls(
            shared=shared,
            spelling=shared / (a.marks[:, :, None] + b.marks[:, None, :] - shared).clamp_min(1.0),
            equal=((a.bucket[:, :, None] == b.bucket[:, None, :]) & real).float(),
            meaning=_alike(a.meaning, b.meaning) * real,
            relation=_alike(a.relation, b.relation) * real,
        )

    def turned(self) -> _Grid:
        """Every stored word against every asked word."""
        return _Grid(*(getattr(self, field.name).transpose(1, 2).contiguous() for field in fields(self)))


def _alike(one: Tensor, two: Tensor) -> Tensor:
    return _rounded((F.normalize(one, dim=-1) @ F.normalize(two, dim=-1).transpose(1, 2)).clamp_min_(0.0))


def _features(a: _Side, b: _Side) -> Tensor:
    forth = _Grid.of(a, b)
    back = forth.turned()
    whole = [(a.vector * b.vector).sum(-1, keepdim=True), _relations(forth.spelling, a, b)]
    whole += [(~side.name.any(1, keepdim=True)).float() for side in (a, b)]
    whole += [side.real.sum(1, keepdim=True).float().log1p() / 3 for side in (a, b)]
    whole += [_coverage(forth, a), _coverage(back, b)]
    words = [_evidence(forth, a, b), _evidence(back, b, a)]
    task = (_missing(forth, a) * a.task).sum(1, keepdim=True)
    return torch.cat([*whole, *(rows.flatten(1) for rows in words), task], 1)


def _evidence(grid: _Grid, mine: _Side, other: _Side) -> Tensor:
    """Rows ``(pairs, WORDS, EVIDENCE)`` of the weightiest words of one side; the first figure marks a real one."""
    spelt, by_spelling = grid.spelling.max(2)
    meant, by_meaning = grid.meaning.max(2)

    def at(channel: Tensor, partner: Tensor) -> Tensor:
        return channel.gather(2, partner[..., None]).squeeze(2)

    def of_partner(column: Tensor) -> Tensor:
        return column.float().gather(1, by_spelling)

    inside = grid.shared.amax(2) / mine.marks.clamp_min(1.0)  # the share of its sketch that one other word holds
    columns = [mine.real.float(), spelt, meant, grid.relation.amax(2), grid.equal.amax(2), inside]
    columns += [at(grid.meaning, by_spelling), at(grid.spelling, by_meaning)]
    columns += [(grid.spelling + grid.meaning).amax(2) / 2, mine.idf / RAREST, of_partner(other.idf) / RAREST]
    columns += [mine.tokens, of_partner(other.tokens)]
    for least, most in ((NAME, DIGIT), (CAPITAL, CAPITAL), (DIGIT, DIGIT)):
        own, theirs = ((side.kind >= least) & (side.kind <= most) for side in (mine, other))
        columns += [own.float(), of_partner(theirs)]
    rows = torch.stack(columns, 2) * mine.real[..., None]
    weight = (mine.idf * (1.2 - torch.maximum(spelt, meant))).masked_fill(~mine.real, -1.0)
    # Of words that weigh the same the first: which of them topk takes depends on the padding.
    kept = weight.sort(dim=1, descending=True, stable=True).indices[:, :WORDS]
    rows = rows.gather(1, kept[..., None].expand(-1, -1, EVIDENCE))
    return F.pad(rows, (0, 0, 0, WORDS - rows.shape[1]))


def _coverage(grid: _Grid, side: _Side) -> Tensor:
    """``(pairs, COVERAGE)``: how much of one side found a partner, rare words counting more, and the worst misses."""
    spelt, meant, either = grid.spelling.amax(2), grid.meaning.amax(2), grid.found
    names = side.idf * (side.kind >= CAPITAL)
    rarest = side.idf.argmax(1, keepdim=True)
    columns = [_share(spelt, side.idf**2), _share(either, side.idf**2)]
    columns += [found.gather(1, rarest).squeeze(1) for found in (spelt, meant)]
    columns += [_share(spelt, names**2)]
    misses = ((1 - spelt) * names, (1 - spelt) * side.idf, (1 - either) * side.idf)
    return torch.stack([*columns, *(miss.amax(1) / RAREST for miss in misses)], 1)


def _missing(grid: _Grid, side: _Side) -> Tensor:
    """How far each word is from a partner, times its rarity: ``(pairs, words)``, 0 where padded.

    Over the root of their sum: what many words say by chance then weighs no more than what few do.
    """
    weight = (1 - grid.found) * side.idf / RAREST
    return weight / weight.sum(1, keepdim=True).clamp_min(LEAST_MISSING).sqrt()


def _share(found: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum(1)
    return torch.where(total > 0, (found * weight).sum(1) / total.clamp_min(1e-6), 1.0)


def _relations(spelling: Tensor, a: _Side, b: _Side) -> Tensor:
    """Cosines ``(pairs, 2)`` of what is asked: without the names of either side, and with all words.

    A question typed in lower case shows no names; there a word is one if it is spelt like a name of the other side.
    """
    a_name = a.name | ((spelling * b.name[:, None, :]).amax(2) > SPELT_ALIKE)
    b_name = b.name | ((spelling * a.name[:, :, None]).amax(1) > SPELT_ALIKE)
    without = (_summed(a, ~a_name) * _summed(b, ~b_name)).sum(-1)
    whole = (_summed(a, a.real) * _summed(b, b.real)).sum(-1)
    return torch.stack([without, whole], 1)


def _summed(side: _Side, words: Tensor) -> Tensor:
    """Unit sums ``(pairs, d)`` of the relation view over ``words``, rare words counting more."""
    return F.normalize((side.relation * (side.idf * words)[..., None]).sum(1), dim=-1)
