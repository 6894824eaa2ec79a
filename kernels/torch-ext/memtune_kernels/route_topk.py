"""The k nearest keys of every question, exactly, without the score matrix.

Each program keeps the k best of its share of the keys in registers. A score and its index travel as one int64: the
bits of the float, in an order that integers keep, above the index counted backwards. The larger number is the better
key, of equal scores the one with the lower index, and no two numbers are equal: any order of merging gives one answer.

Traffic floor: the keys once, ``n * d`` elements, for all questions of a batch; with the score matrix ``2 * 4 * q * n``
bytes more.
"""

import torch
from torch import Tensor

from .engine import INTERPRETED, cdiv, launch, op_name, power_of_two, processors, tl, triton, uses_triton
from .tiles import dot
from .tuning import settings

__all__ = ["route_topk"]

NOTHING = tl.constexpr(-(2**63))  # below every packed score
LAST = tl.constexpr(2**31 - 1)  # indices are counted down from here
LAST_INDEX = 2**31 - 1
PLAIN_SCORES = 1 << 22  # of the score matrix, what the plain path holds at a time


def route_topk(questions: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` keys with the largest dot product, best first; of equal scores the lower index first.

    Args:
        questions: (q, d), float32, bfloat16 or float16.
        keys: (n, d), of the same dtype. Entries are finite.
        k: at least 1 and at most n, on a GPU 128.

    Returns:
        Scores float32 (q, k), summed in float32, and indices int64 (q, k).

    Raises:
        ValueError: shapes or dtypes that do not fit each other, or a ``k`` out of range.
    """
    if questions.ndim != 2 or keys.ndim != 2 or questions.shape[1] != keys.shape[1]:
        raise ValueError(f"questions {tuple(questions.shape)} and keys {tuple(keys.shape)} are not (q, d) and (n, d)")
    if questions.dtype != keys.dtype:
        raise ValueError(f"questions are {questions.dtype}, keys {keys.dtype}")
    if not 1 <= k <= len(keys) or len(keys) > LAST_INDEX:
        raise ValueError(f"k = {k} of {len(keys)} keys")
    scores, indices = _op(questions.contiguous(), keys.contiguous(), k)
    return scores, indices


@torch.library.custom_op(op_name("route_topk"), mutates_args=())
def _op(questions: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    found = (_triton if uses_triton(questions) else _plain)(questions, keys, k)
    return _unpack(found)


@_op.register_fake
def _(questions: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (len(questions), k)
    return questions.new_empty(shape, dtype=torch.float32), questions.new_empty(shape, dtype=torch.int64)


def _pack(scores: Tensor, indices: Tensor) -> Tensor:
    bits = torch.where(scores == 0, 0.0, scores).view(torch.int32)  # -0.0 equals 0.0, but not as bits
    ordered = torch.where(bits < 0, bits ^ LAST_INDEX, bits)
    return (ordered.long() << 32) | (LAST_INDEX - indices)


def _unpack(packed: Tensor) -> tuple[Tensor, Tensor]:
    ordered = (packed >> 32).to(torch.int32)
    bits = torch.where(ordered < 0, ordered ^ LAST_INDEX, ordered)
    return bits.view(torch.float32), LAST_INDEX - (packed & LAST_INDEX)


def _plain(questions: Tensor, keys: Tensor, k: int) -> Tensor:
    """Packed int64 (q, k). Some rows of the score matrix at a time."""
    indices = torch.arange(len(keys), device=keys.device)
    wide = keys.float()
    rows = questions.float().split(max(1, PLAIN_SCORES // len(keys)))
    return torch.cat([_pack(row @ wide.T, indices).topk(k).values for row in rows])


def _triton(questions: Tensor, keys: Tensor, k: int) -> Tensor:
    """Packed int64 (q, k): the best of each share of the keys, then the best of those."""
    (q, d), n = questions.shape, len(keys)
    s = settings("route_topk", keys.device, keys.dtype)
    block_q, kept = s["block_questions"], power_of_two(k)
    block_n = max(s["block_keys"], kept)
    blocks, tiles = cdiv(q, block_q), cdiv(n, block_n)
    wanted = s["programs_per_processor"] * processors(keys.device)
    tiles_each = cdiv(tiles, max(1, min(tiles, wanted // max(1, blocks))))
    shares = cdiv(tiles, tiles_each)
    found = torch.empty(q, shares * kept, dtype=torch.int64, device=keys.device)
    launch(
        _best_of_share,
        (blocks, shares),  # questions first: programs that run side by side read the same keys
        *(questions, keys, found, q, n, shares, tiles_each),
        DEPTH=d,
        KEPT=kept,
        BLOCK_Q=block_q,
        BLOCK_N=block_n,
        BLOCK_D=min(s["block_depth"], power_of_two(d, 16)),
        PRECISION=s["precision"],
        UPCAST=INTERPRETED,
        num_warps=s["num_warps"],
        num_stages=s["num_stages"],
    )
    return found.topk(k).values


@triton.jit
def _ordered(scores):
    """int32 in the order of the float32 ``scores``."""
    bits = tl.where(scores == 0, 0.0, scores).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ LAST, bits)


@triton.jit
def _best_of_share(
    questions,  # (q, DEPTH)
    keys,  # (n, DEPTH)
    found,  # int64 (q, shares, KEPT)
    q,
    n,
    shares,
    tiles_each,
    DEPTH: tl.constexpr,
    KEPT: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    share = tl.program_id(1)
    best = tl.full((BLOCK_Q, KEPT), NOTHING, tl.int64)
    worst = tl.full((BLOCK_Q,), NOTHING >> 32, tl.int64)
    scores = tl.zeros((BLOCK_Q, BLOCK_N), tl.float32)
    parts = tl.cdiv(DEPTH, BLOCK_D)
    # Tiles and the parts of their depth in one loop: the next tile's keys are on their way while this one's are ranked.
    for step in range(tiles_each * parts):
        columns = (share * tiles_each + step // parts) * BLOCK_N + tl.arange(0, BLOCK_N)
        depth = (step % parts) * BLOCK_D + tl.arange(0, BLOCK_D)
        inside = columns < n
        a_inside = (rows[:, None] < q) & (depth[None, :] < DEPTH)
        a = tl.load(questions + rows[:, None].to(tl.int64) * DEPTH + depth[None, :], mask=a_inside, other=0.0)
        # A million keys of 4,096 do not fit 32-bit offsets.
        b_inside = inside[None, :] & (depth[:, None] < DEPTH)
        b = tl.load(keys + columns[None, :].to(tl.int64) * DEPTH + depth[:, None], mask=b_inside, other=0.0)
        scores = dot(a, b, scores, PRECISION, UPCAST)
        if step % parts == parts - 1:
            ordered = tl.where(inside[None, :], _ordered(scores).to(tl.int64), NOTHING >> 32)
            # Most tiles hold nothing better, and one comparison sees it. An equal score further on is no better.
            if tl.max((ordered > worst[:, None]).to(tl.int32)) > 0:
                new = tl.topk((ordered << 32) | (columns[None, :] ^ LAST).to(tl.int64), KEPT)
                # Largest of one against smallest of the other: what is left holds the KEPT best of both.
                best = tl.sort(tl.maximum(best, tl.flip(new, 1)), descending=True)
                worst = tl.min(best, 1) >> 32
            scores = tl.zeros((BLOCK_Q, BLOCK_N), tl.float32)
    place = rows[:, None].to(tl.int64) * (shares * KEPT) + share * KEPT + tl.arange(0, KEPT)[None, :]
    tl.store(found + place, best, mask=rows[:, None] < q)
