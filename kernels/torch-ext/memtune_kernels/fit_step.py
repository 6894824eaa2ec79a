"""One step of the fit: what the LM head says at many answer tokens, in one pass over the vocabulary, without logits.

The logits of a token are ``head @ hidden + seen @ values``, where ``seen = head @ up`` is the head as value rows see
it. The pass keeps, online, the log-sum-exp and the expected row of ``seen`` **among all tokens but the target**, and
the target's own logit. Log-odds are their difference: near certainty ``p`` is 1 and all of ``1 - p`` is lost in
rounding, while the odds go on, and so does the direction. For the same reason nothing is filtered: kernels for training
drop blocks whose probabilities are below their dtype's epsilon, and a loss then stalls near 2e-4 nats.

Work floor: ``2 * v * (h + 2 * r)`` FLOPs a token. Traffic floor: ``head`` and ``seen`` once.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .engine import INTERPRETED, cdiv, launch, op_name, power_of_two, tl, triton, uses_triton
from .tiles import dot
from .tuning import settings

__all__ = ["FitStep", "fit_step"]

TOKENS = 16384  # at a time: each share of the vocabulary keeps an expected row of each of them until they are merged
PLAIN_TOKENS, PLAIN_VOCABULARY = 512, 8192  # rows and columns of the logits that the plain path holds at a time


class FitStep(NamedTuple):
    """All float32. ``loss`` is ``-log_prob``; ``seen[targets] - expected`` is the direction that raises the odds."""

    log_sum_exp: Tensor  # (t,) of all logits
    log_prob: Tensor  # (t,) of the target
    odds: Tensor  # (t,) log-odds of the target
    expected: Tensor  # (t, r) mean row of ``seen`` under the distribution of the other tokens


def fit_step(hidden: Tensor, values: Tensor | None, targets: Tensor, head: Tensor, seen: Tensor) -> FitStep:
    """Loss, odds and expected row of every answer token.

    Args:
        hidden: (t, h); taken in the dtype of ``head``.
        values: (t, r), the value rows so far, taken in the dtype of ``seen``; None for the head alone.
        targets: int64 (t,), in the vocabulary.
        head: (v, h), float32, bfloat16 or float16; v is at least 2.
        seen: (v, r), float32 or bfloat16. ``seen = head`` and no ``values`` gives expected head rows.

    Raises:
        ValueError: shapes or dtypes that do not fit each other.
    """
    (t, h), (v, r) = hidden.shape, seen.shape
    if head.shape != (v, h) or targets.shape != (t,) or v < 2 or (values is not None and values.shape != (t, r)):
        shapes = [None if x is None else tuple(x.shape) for x in (hidden, values, targets, head, seen)]
        raise ValueError(f"hidden, values, targets, head and seen do not fit each other: {shapes}")
    if seen.dtype not in (torch.float32, torch.bfloat16):  # small probabilities vanish in float16
        raise ValueError(f"seen is {seen.dtype}, not float32 or bfloat16")
    values = None if values is None else values.to(seen.dtype).contiguous()
    own, others, expected = _op(
        hidden.to(head.dtype).contiguous(), values, targets, head.contiguous(), seen.contiguous()
    )
    odds = own - others
    return FitStep(torch.logaddexp(own, others), -F.softplus(-odds), odds, expected)


@torch.library.custom_op(op_name("fit_step"), mutates_args=())
def _op(
    hidden: Tensor, values: Tensor | None, targets: Tensor, head: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The target's logit (t,), log-sum-exp of the others (t,), their expected row (t, r)."""
    shares_of, tokens = (_triton, TOKENS) if uses_triton(hidden) else (_plain, PLAIN_TOKENS)
    parts = []
    for start in range(0, max(1, len(hidden)), tokens):
        some = slice(start, start + tokens)
        z = None if values is None else values[some]
        parts.append(_merged(*shares_of(hidden[some], z, targets[some], head, seen)))
    own, others, expected = (torch.cat(column) for column in zip(*parts, strict=True))
    return own, others, expected


@_op.register_fake
def _(
    hidden: Tensor, values: Tensor | None, targets: Tensor, head: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    one = hidden.new_empty(len(hidden), dtype=torch.float32)
    return one, torch.empty_like(one), hidden.new_empty(len(hidden), seen.shape[1], dtype=torch.float32)


def _merged(own: Tensor, top: Tensor, total: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of the vocabulary put together: ``own``, ``top`` and ``total`` (shares, t), ``rows`` (shares, t, r).

    Each share summed ``exp(logit - top)``; one that held the target alone has a top of -inf and a total of 0.
    """
    highest = top.amax(0)
    weight = torch.exp(top - highest)
    total = (total * weight).sum(0)
    return own.sum(0), highest + total.log(), (rows * weight[..., None]).sum(0) / total[:, None]


Shares = tuple[Tensor, Tensor, Tensor, Tensor]


def _plain(hidden: Tensor, values: Tensor | None, targets: Tensor, head: Tensor, seen: Tensor) -> Shares:
    parts = []
    for start in range(0, len(head), PLAIN_VOCABULARY):
        head_rows, rows = (m[start : start + PLAIN_VOCABULARY].float() for m in (head, seen))
        logits = hidden.float() @ head_rows.T
        if values is not None:
            logits = torch.addmm(logits, values.float(), rows.T)
        hit = targets[:, None] == torch.arange(start, start + len(rows), device=targets.device)
        own = logits.masked_fill(~hit, 0.0).sum(1)
        logits = logits.masked_fill(hit, float("-inf"))
        top = logits.amax(1)
        share = torch.exp(logits - top.masked_fill(top.isinf(), 0.0)[:, None])
        parts.append((own, top, share.sum(1), share @ rows))
    return tuple(torch.stack(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def _triton(hidden: Tensor, values: Tensor | None, targets: Tensor, head: Tensor, seen: Tensor) -> Shares:
    (t, h), (v, r) = hidden.shape, seen.shape
    s = settings("fit_step", hidden.device, seen.dtype)
    block_r = min(s["block_seen"], power_of_two(r, 16))
    blocks, columns, tiles = cdiv(t, s["block_tokens"]), cdiv(r, block_r), cdiv(v, s["block_vocabulary"])
    # As many shares whatever the number of tokens: a token's sums, and so its fact's bytes, know of no other token.
    tiles_each = cdiv(tiles, s["shares"])
    shares = cdiv(tiles, tiles_each)
    out = [hidden.new_empty(shares, t, dtype=torch.float32) for _ in range(3)]
    rows = hidden.new_empty(shares, t, r, dtype=torch.float32)
    launch(
        _pass,
        (blocks, columns, shares),  # tokens first: programs that run side by side read the same head rows
        *(hidden, values, targets, head, seen, *out, rows, t, v, tiles_each),
        HIDDEN=h,
        SEEN=r,
        BLOCK_T=s["block_tokens"],
        BLOCK_V=s["block_vocabulary"],
        BLOCK_D=min(s["block_depth"], power_of_two(max(h, r), 16)),
        BLOCK_R=block_r,
        PRECISION=s["precision"],
        UPCAST=INTERPRETED,
        num_warps=s["num_warps"],
        num_stages=s["num_stages"],
    )
    return *out, rows  # type: ignore[return-value]


@triton.jit
def _add_product(
    logits,
    one,
    rows,
    inside,
    two,
    columns,
    real,
    WIDTH: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """``logits`` (BLOCK_T, BLOCK_V) plus the products of the rows of ``one`` with those of ``two``."""
    for start in range(0, WIDTH, BLOCK_D):
        depth = start + tl.arange(0, BLOCK_D)
        a_inside = inside[:, None] & (depth < WIDTH)[None, :]
        b_inside = real[None, :] & (depth < WIDTH)[:, None]
        a = tl.load(one + rows[:, None] * WIDTH + depth[None, :], mask=a_inside, other=0.0)
        b = tl.load(two + columns[None, :] * WIDTH + depth[:, None], mask=b_inside, other=0.0)
        logits = dot(a, b, logits, PRECISION, UPCAST)
    return logits


@triton.jit
def _pass(
    hidden,  # (t, HIDDEN)
    values,  # (t, SEEN) or None
    targets,  # int64 (t,)
    head,  # (v, HIDDEN)
    seen,  # (v, SEEN)
    own,  # float32 (shares, t), out, as the two below
    top,
    total,
    expected,  # float32 (shares, t, SEEN), out
    t,
    v,
    tiles_each,
    HIDDEN: tl.constexpr,
    SEEN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    seen_at = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    share = tl.program_id(2)
    inside = rows < t
    target = tl.load(targets + rows, mask=inside, other=-1)
    mine = tl.zeros((BLOCK_T,), tl.float32)
    highest = tl.full((BLOCK_T,), float("-inf"), tl.float32)
    mass = tl.zeros((BLOCK_T,), tl.float32)
    mean = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
    for tile in range(share * tiles_each, (share + 1) * tiles_each):
        columns = (tile * BLOCK_V + tl.arange(0, BLOCK_V)).to(tl.int64)
        real = columns < v
        logits = tl.zeros((BLOCK_T, BLOCK_V), tl.float32)
        logits = _add_product(logits, hidden, rows, inside, head, columns, real, HIDDEN, BLOCK_D, PRECISION, UPCAST)
        if values is not None:
            logits = _add_product(logits, values, rows, inside, seen, columns, real, SEEN, BLOCK_D, PRECISION, UPCAST)
        hit = columns[None, :] == target[:, None]
        mine += tl.sum(tl.where(hit, logits, 0.0), 1)
        logits = tl.where(hit | (columns >= v)[None, :], float("-inf"), logits)
        higher = tl.maximum(highest, tl.max(logits, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # so far the target alone: -inf - -inf is no number
        share_of = tl.exp(logits - base[:, None])
        keep = tl.exp(highest - base)
        mass = mass * keep + tl.sum(share_of, 1)
        row_inside = real[:, None] & (seen_at < SEEN)[None, :]
        row = tl.load(seen + columns[:, None] * SEEN + seen_at[None, :], mask=row_inside, other=0.0)
        mean = dot(share_of.to(row.dtype), row, mean * keep[:, None], PRECISION, UPCAST)
        highest = higher
    at = share.to(tl.int64) * t + rows
    if tl.program_id(1) == 0:
        tl.store(own + at, mine, mask=inside)
        tl.store(top + at, highest, mask=inside)
        tl.store(total + at, mass, mask=inside)
    out = expected + at[:, None] * SEEN + seen_at[None, :]
    tl.store(out, mean, mask=inside[:, None] & (seen_at < SEEN)[None, :])
