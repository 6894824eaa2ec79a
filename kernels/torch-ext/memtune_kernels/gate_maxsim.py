"""Every word of a question against every word of each of its candidates, kept as the best partner of each word.

Three similarities at once: spelling (Jaccard index of two sketches), meaning and relation (cosines). Questions are
ragged, candidates are gathered by number, and both directions of a pair come from one launch: what each asked word
found in the stored question, and what each stored word found in the asked one. No grid of words is written.

Traffic floor: the rows of both sides of every pair once, ``sketch + d_meaning + d_relation`` elements a word, and
``4 * (FIGURES + PARTNERS)`` bytes written for each.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .engine import INTERPRETED, launch, op_name, tl, triton, uses_triton
from .tiles import dot
from .tuning import settings

__all__ = ["FIGURES", "PARTNERS", "Best", "Words", "gate_maxsim"]

# What a word is told of the other side, in the order of ``Best.figures``.
FIGURES = ("spelling", "meaning", "relation", "equal", "inside", "together", "meaning_spelt", "spelling_meant", "named")
PARTNERS = ("spelling", "meaning")
SMALL = tl.constexpr(1e-12)  # the length that normalisation divides by at least, as in torch


class Words(NamedTuple):
    """The words of any number of questions; those of question i are rows ``offsets[i]:offsets[i + 1]``."""

    offsets: Tensor  # int64 (questions + 1,)
    meaning: Tensor  # float32, float16 or bfloat16 (words, d), any length
    relation: Tensor  # likewise, and of the same dtype
    sketch: Tensor  # bool (words, buckets)
    bucket: Tensor  # int32 (words,): equal words have equal numbers
    name: Tensor  # bool (words,): does it look like a name?


class Best(NamedTuple):
    """What each word of one side found on the other: 0 where a question has no such word, or the other side has none.

    ``figures`` float32 (pairs, longest, 9), of the real words of the other side, none below 0 but ``meaning_spelt``:
    the largest ``spelling``, ``meaning``, ``relation``, ``equal`` (1 or 0), ``inside`` (share of its own sketch) and
    ``together`` (mean of spelling and meaning); the meaning of the best partner by spelling, and the other way round;
    ``named``, the largest spelling among words that look like names.
    ``partners`` int32 (pairs, longest, 2): the place in its question of the best by spelling, and by meaning; of equal
    ones the first.
    """

    figures: Tensor
    partners: Tensor


def gate_maxsim(
    asked: Words, stored: Words, pairs: Tensor, longest: tuple[int, int] | None = None
) -> tuple[Best, Best]:
    """What the words of asked and stored questions find in each other, for ``pairs`` int64 (pairs, 2) of their numbers.

    Args:
        longest: words of the longest asked and stored question. Without it they are read from the offsets, which on a
            GPU waits for it.

    Returns:
        ``Best`` of the asked words, then of the stored words.

    Raises:
        ValueError: shapes or dtypes that do not fit each other.
    """
    _check(asked, stored, pairs)
    if longest is None:
        longest = (_longest(asked.offsets), _longest(stored.offsets))
    columns = [column.contiguous() for side in (asked, stored) for column in side]
    out = _op(columns, pairs.contiguous(), *longest)
    return Best(*out[:2]), Best(*out[2:])


def _check(asked: Words, stored: Words, pairs: Tensor) -> None:
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != torch.int64:
        raise ValueError(f"pairs are {pairs.dtype} {tuple(pairs.shape)}, not int64 (pairs, 2)")
    for name in ("meaning", "relation", "sketch"):
        one, two = getattr(asked, name), getattr(stored, name)
        if one.shape[1:] != two.shape[1:] or one.dtype != two.dtype:
            raise ValueError(f"{name}: asked {one.dtype} {tuple(one.shape)}, stored {two.dtype} {tuple(two.shape)}")


def _longest(offsets: Tensor) -> int:
    return int(offsets.diff().max()) if len(offsets) > 1 else 0


@torch.library.custom_op(op_name("gate_maxsim"), mutates_args=())
def _op(columns: list[Tensor], pairs: Tensor, longest_asked: int, longest_stored: int) -> list[Tensor]:
    asked, stored = Words(*columns[:6]), Words(*columns[6:])
    best_of = _triton if uses_triton(pairs) else _plain
    return best_of(asked, stored, pairs, longest_asked, longest_stored)


@_op.register_fake
def _(columns: list[Tensor], pairs: Tensor, longest_asked: int, longest_stored: int) -> list[Tensor]:
    return _empty(pairs, longest_asked) + _empty(pairs, longest_stored)


def _empty(pairs: Tensor, longest: int) -> list[Tensor]:
    figures = pairs.new_zeros(len(pairs), longest, len(FIGURES), dtype=torch.float32)
    return [figures, pairs.new_zeros(len(pairs), longest, len(PARTNERS), dtype=torch.int32)]


def _plain(asked: Words, stored: Words, pairs: Tensor, longest_asked: int, longest_stored: int) -> list[Tensor]:
    there, back = _one_way_plain(asked, stored, pairs, longest_asked, longest_stored), pairs.flip(1)
    return there + _one_way_plain(stored, asked, back, longest_stored, longest_asked)


def _one_way_plain(mine: Words, other: Words, pairs: Tensor, longest: int, longest_other: int) -> list[Tensor]:
    if not len(pairs) or not longest or not longest_other:
        return _empty(pairs, longest)
    (a, a_real), (b, b_real) = _padded(mine, pairs[:, 0], longest), _padded(other, pairs[:, 1], longest_other)
    both = a.sketch.float() @ b.sketch.float().mT
    size, size_other = a.sketch.sum(-1)[:, :, None], b.sketch.sum(-1)[:, None, :]
    spelling, inside = both / (size + size_other - both).clamp_min(1), both / size.clamp_min(1)
    meaning, relation = _cosine(a.meaning, b.meaning), _cosine(a.relation, b.relation)
    equal = (a.bucket[:, :, None] == b.bucket[:, None, :]).float()

    def among(grid: Tensor, allowed: Tensor = b_real) -> Tensor:
        return grid.masked_fill(~allowed[:, None, :], float("-inf"))

    by_spelling, by_meaning = (_first_best(among(grid)) for grid in (spelling, meaning))
    best = [among(grid).amax(2) for grid in (spelling, meaning, relation, equal, inside, (spelling + meaning) / 2)]
    best += [grid.gather(2, at[..., None]).squeeze(2) for grid, at in ((meaning, by_spelling), (spelling, by_meaning))]
    best += [among(spelling, b_real & b.name).amax(2)]
    figures = torch.stack([f if i == 6 else f.clamp_min(0) for i, f in enumerate(best)], 2)
    real = a_real & b_real.any(1, keepdim=True)
    partners = torch.stack([by_spelling, by_meaning], 2).to(torch.int32)
    return [figures.masked_fill(~real[..., None], 0.0), partners.masked_fill(~real[..., None], 0)]


def _padded(words: Words, which: Tensor, longest: int) -> tuple[Words, Tensor]:
    """The questions ``which``, their words padded to ``longest``, and which of them are real."""
    first, after = words.offsets[which, None], words.offsets[which + 1, None]
    row = first + torch.arange(longest, device=which.device)
    real = row < after
    row = torch.where(real, row, 0)
    return Words(row, *(column[row] for column in words[1:])), real


def _cosine(one: Tensor, two: Tensor) -> Tensor:
    one, two = (F.normalize(side.float(), dim=-1) for side in (one, two))
    return one @ two.mT


def _first_best(grid: Tensor) -> Tensor:
    return (grid == grid.amax(2, keepdim=True)).to(torch.uint8).argmax(2)


def _triton(asked: Words, stored: Words, pairs: Tensor, longest_asked: int, longest_stored: int) -> list[Tensor]:
    there, back = _empty(pairs, longest_asked), _empty(pairs, longest_stored)
    s = settings("gate_maxsim", pairs.device, asked.meaning.dtype)
    sides = [tuple(c.view(torch.uint8) if c.dtype is torch.bool else c for c in side) for side in (asked, stored)]
    launch(
        _best_partners,
        (2 * len(pairs),),  # both directions of a pair side by side: the second finds the rows in the cache
        *(*sides, pairs, (*there, longest_asked), (*back, longest_stored)),
        MEANING=asked.meaning.shape[1],
        RELATION=asked.relation.shape[1],
        SKETCH=asked.sketch.shape[1],
        BLOCK=s["block_words"],
        BLOCK_D=s["block_depth"],
        PRECISION=s["precision"],
        UPCAST=INTERPRETED,
        num_warps=s["num_warps"],
        num_stages=s["num_stages"],
    )
    return there + back


@triton.jit
def _best_partners(
    asked,  # pointers, as in Words
    stored,
    pairs,  # int64 (pairs, 2)
    there,  # figures float32 (pairs, longest, 9), partners int32 (pairs, longest, 2), longest
    back,
    MEANING: tl.constexpr,
    RELATION: tl.constexpr,
    SKETCH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    pair = (tl.program_id(0) // 2).to(tl.int64)
    a = tl.load(pairs + pair * 2)
    b = tl.load(pairs + pair * 2 + 1)
    if tl.program_id(0) % 2 == 0:
        _one_way(asked, a, stored, b, pair, there, MEANING, RELATION, SKETCH, BLOCK, BLOCK_D, PRECISION, UPCAST)
    else:
        _one_way(stored, b, asked, a, pair, back, MEANING, RELATION, SKETCH, BLOCK, BLOCK_D, PRECISION, UPCAST)


@triton.jit
def _one_way(
    words,
    mine,
    others,
    other,
    pair,
    out,
    MEANING: tl.constexpr,
    RELATION: tl.constexpr,
    SKETCH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """What the words of question ``mine`` find among those of question ``other``."""
    offsets, meaning, relation, sketch, bucket, _ = words
    other_offsets, other_meaning, other_relation, other_sketch, other_bucket, other_name = others
    figures, partners, longest = out
    VIEW: tl.constexpr = meaning.dtype.element_ty
    first = tl.load(offsets + mine)
    count = (tl.load(offsets + mine + 1) - first).to(tl.int32)
    other_first = tl.load(other_offsets + other)
    other_count = (tl.load(other_offsets + other + 1) - other_first).to(tl.int32)
    if other_count == 0:
        count = 0  # nothing to find: the zeros that are there stay
    for start in range(0, count, BLOCK):
        a = start + tl.arange(0, BLOCK)
        a_real = a < count
        a_bucket = tl.load(bucket + first + a, mask=a_real, other=0)
        spelt = tl.full((BLOCK,), float("-inf"), tl.float32)
        meant, related, named, inside, equal, together = spelt, spelt, spelt, spelt, spelt, spelt
        meaning_spelt, spelling_meant = spelt, spelt
        by_spelling = tl.zeros((BLOCK,), tl.int32)
        by_meaning = tl.zeros((BLOCK,), tl.int32)
        for other_start in range(0, other_count, BLOCK):
            b = other_start + tl.arange(0, BLOCK)
            b_real = b < other_count
            here = (first + a, a_real, other_first + b, b_real)
            both, size, other_size = _products(
                sketch, other_sketch, here, SKETCH, tl.float16, BLOCK, BLOCK_D, PRECISION, UPCAST
            )
            dots, square, other_square = _products(
                meaning, other_meaning, here, MEANING, VIEW, BLOCK, BLOCK_D, PRECISION, UPCAST
            )
            meanings = _among(dots / _lengths(square, other_square), b_real)
            dots, square, other_square = _products(
                relation, other_relation, here, RELATION, VIEW, BLOCK, BLOCK_D, PRECISION, UPCAST
            )
            related = tl.maximum(related, tl.max(_among(dots / _lengths(square, other_square), b_real), 1))
            spellings = _among(both / tl.maximum(size[:, None] + other_size[None, :] - both, 1.0), b_real)
            inside = tl.maximum(inside, tl.max(_among(both / tl.maximum(size[:, None], 1.0), b_real), 1))
            together = tl.maximum(together, tl.max((spellings + meanings) / 2, 1))
            b_bucket = tl.load(other_bucket + other_first + b, mask=b_real, other=0)
            same = (a_bucket[:, None] == b_bucket[None, :]) & b_real[None, :]
            equal = tl.maximum(equal, tl.max(same.to(tl.float32), 1))
            b_name = tl.load(other_name + other_first + b, mask=b_real, other=0) != 0
            named = tl.maximum(named, tl.max(_among(spellings, b_name), 1))
            # A later word takes the place of an earlier one only if it is better.
            best, place = _best(spellings, other_start)
            meaning_spelt = tl.where(best > spelt, _at(meanings, b, place), meaning_spelt)
            by_spelling = tl.where(best > spelt, place, by_spelling)
            spelt = tl.maximum(spelt, best)
            best, place = _best(meanings, other_start)
            spelling_meant = tl.where(best > meant, _at(spellings, b, place), spelling_meant)
            by_meaning = tl.where(best > meant, place, by_meaning)
            meant = tl.maximum(meant, best)
        kept = a_real & (a < longest)
        row = pair * longest + a
        at = figures + row * 9
        tl.store(at, tl.maximum(spelt, 0.0), mask=kept)
        tl.store(at + 1, tl.maximum(meant, 0.0), mask=kept)
        tl.store(at + 2, tl.maximum(related, 0.0), mask=kept)
        tl.store(at + 3, equal, mask=kept)
        tl.store(at + 4, inside, mask=kept)
        tl.store(at + 5, tl.maximum(together, 0.0), mask=kept)
        tl.store(at + 6, meaning_spelt, mask=kept)
        tl.store(at + 7, spelling_meant, mask=kept)
        tl.store(at + 8, tl.maximum(named, 0.0), mask=kept)
        tl.store(partners + row * 2, by_spelling, mask=kept)
        tl.store(partners + row * 2 + 1, by_meaning, mask=kept)


@triton.jit
def _products(
    one,
    two,
    here,
    WIDTH: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Dot products (BLOCK, BLOCK) of two sets of rows, and their squared lengths: their sums, if all are 0 or 1."""
    a_rows, a_real, b_rows, b_real = here
    products = tl.zeros((BLOCK, BLOCK), tl.float32)
    a_square = tl.zeros((BLOCK,), tl.float32)
    b_square = tl.zeros((BLOCK,), tl.float32)
    for start in tl.static_range(0, WIDTH, BLOCK_D):
        depth = start + tl.arange(0, BLOCK_D)
        a_inside = a_real[:, None] & (depth < WIDTH)[None, :]
        b_inside = b_real[:, None] & (depth < WIDTH)[None, :]
        a = tl.load(one + a_rows[:, None] * WIDTH + depth[None, :], mask=a_inside, other=0).to(DTYPE)
        b = tl.load(two + b_rows[:, None] * WIDTH + depth[None, :], mask=b_inside, other=0).to(DTYPE)
        products = dot(a, tl.trans(b), products, PRECISION, UPCAST)
        a, b = a.to(tl.float32), b.to(tl.float32)
        a_square += tl.sum(a * a, 1)
        b_square += tl.sum(b * b, 1)
    return products, a_square, b_square


@triton.jit
def _lengths(a_square, b_square):
    return tl.maximum(tl.sqrt(a_square), SMALL)[:, None] * tl.maximum(tl.sqrt(b_square), SMALL)[None, :]


@triton.jit
def _among(grid, allowed):
    return tl.where(allowed[None, :], grid, float("-inf"))


@triton.jit
def _best(grid, start):
    """The largest of each row, and the first place that holds it."""
    return tl.max(grid, 1), start + tl.argmax(grid, 1, tie_break_left=True).to(tl.int32)


@triton.jit
def _at(grid, columns, place):
    """``grid[i, j]`` where ``columns[j] == place[i]``."""
    return tl.sum(tl.where(columns[None, :] == place[:, None], grid, 0.0), 1)
