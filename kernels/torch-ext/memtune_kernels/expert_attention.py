"""The memory's write: a sequence attends to the experts of its fact, and what they say is added to its hidden states.

A sequence is a run of positions that answer with one fact; the fact owns a run of experts. The first kernel gathers
that run once for all positions of the sequence and mixes its value rows, the weights being a softmax of
``beta * (cosine - slope * |expert's place - answer step|)``. The second takes the mixtures up to the hidden width and
adds them. A sequence without experts took the null route: its states are handed back bit for bit.

Traffic floor: the key and value rows of each run once, the up-projection once, the hidden states twice.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .engine import INTERPRETED, cdiv, launch, op_name, power_of_two, tl, triton, uses_triton
from .tiles import dot
from .tuning import settings

__all__ = ["expert_attention"]

SMALL = tl.constexpr(1e-12)  # the length that normalisation divides by at least, as in torch
STORED = (torch.float32, torch.bfloat16, torch.float16, torch.int8)


class _Memory(NamedTuple):
    hidden: Tensor
    queries: Tensor
    steps: Tensor
    offsets: Tensor
    runs: Tensor
    keys: Tensor
    values: Tensor
    up: Tensor
    value_scales: Tensor | None
    longest: int


def expert_attention(
    hidden: Tensor,
    queries: Tensor,
    steps: Tensor,
    offsets: Tensor,
    runs: Tensor,
    keys: Tensor,
    values: Tensor,
    up: Tensor,
    value_scales: Tensor | None = None,
    *,
    beta: float = 40.0,
    slope: float = 0.3,
    longest: int | None = None,
) -> Tensor:
    """``hidden`` with the memory's write added, in a new tensor.

    Args:
        hidden: (p, h), float32, bfloat16 or float16.
        queries: float32 (p, d_key), unit rows.
        steps: int64 (p,), answer tokens already given.
        offsets: int64 (s + 1,): sequence i is the positions ``offsets[i]:offsets[i + 1]``.
        runs: int64 (s, 2), first expert and number of experts; 0 experts is the null route.
        keys: (n, d_key), float32, bfloat16, float16 or int8. Only their directions count: rows that were divided by a
            scale need none here.
        values: (n, d_value), likewise.
        up: float32 (h, d_value).
        value_scales: float32 (n,), what the value rows are multiplied by; without it 1.
        longest: positions of the longest sequence. Without it they are read from the offsets, which on a GPU waits.

    Returns:
        (p, h) in the dtype of ``hidden``; positions of the null route and of no sequence are equal to it in every bit.

    Raises:
        ValueError: shapes that do not fit each other, or rows of another dtype.
    """
    (p, h), (n, d_key), d_value = hidden.shape, keys.shape, values.shape[1]
    _expect(queries=(queries, (p, d_key)), steps=(steps, (p,)), runs=(runs, (len(offsets) - 1, 2)))
    _expect(values=(values, (n, d_value)), up=(up, (h, d_value)))
    if value_scales is not None:
        _expect(value_scales=(value_scales, (n,)))
    if keys.dtype not in STORED or values.dtype not in STORED:
        raise ValueError(f"keys are {keys.dtype} and values {values.dtype}: no rows of experts")
    if longest is None:
        longest = int(offsets.diff().max()) if len(runs) else 0
    tensors = [t.contiguous() for t in (hidden, queries, steps, offsets, runs, keys, values, up)]
    scales = None if value_scales is None else value_scales.contiguous()
    written: Tensor = _op(*tensors, scales, float(beta), float(slope), longest)
    return written


def _expect(**shaped: tuple[Tensor, tuple[int, ...]]) -> None:
    for name, (tensor, shape) in shaped.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, expected {shape}")


@torch.library.custom_op(op_name("expert_attention"), mutates_args=())
def _op(
    hidden: Tensor,
    queries: Tensor,
    steps: Tensor,
    offsets: Tensor,
    runs: Tensor,
    keys: Tensor,
    values: Tensor,
    up: Tensor,
    value_scales: Tensor | None,
    beta: float,
    slope: float,
    longest: int,
) -> Tensor:
    memory = _Memory(hidden, queries, steps, offsets, runs, keys, values, up, value_scales, longest)
    return (_triton if uses_triton(hidden) else _plain)(memory, beta, slope)


@_op.register_fake
def _(hidden, queries, steps, offsets, runs, keys, values, up, value_scales, beta, slope, longest):
    return torch.empty_like(hidden)


def _plain(m: _Memory, beta: float, slope: float) -> Tensor:
    written = m.hidden.clone()
    lengths = m.offsets.diff()
    sequence = torch.arange(len(m.runs), device=lengths.device).repeat_interleave(lengths)
    fired = m.runs[sequence, 1] > 0
    at = m.offsets[0] + torch.nonzero(fired).squeeze(1)
    if not len(at):
        return written
    first, count = m.runs[sequence[fired]].unbind(1)
    place = torch.arange(int(count.max()), device=lengths.device)
    inside = place < count[:, None]
    rows = torch.where(inside, first[:, None] + place, first[:, None])
    cosine = torch.einsum("pk,ptk->pt", m.queries[at], F.normalize(m.keys[rows].float(), dim=-1))
    score = beta * (cosine - slope * (place - m.steps[at, None]).abs())
    weight = torch.softmax(score.masked_fill(~inside, float("-inf")), dim=-1)
    if m.value_scales is not None:
        weight = weight * m.value_scales[rows]
    mixed = torch.einsum("pt,ptv->pv", weight, m.values[rows].float())
    written[at] += (mixed @ m.up.T).to(written.dtype)
    return written


def _triton(m: _Memory, beta: float, slope: float) -> Tensor:
    (p, h), d_value = m.hidden.shape, m.values.shape[1]
    s = settings("expert_attention", m.hidden.device, m.values.dtype)
    shared = {
        "D_VALUE": d_value,
        "BLOCK_P": s["block_positions"],
        "BLOCK_V": power_of_two(d_value, 16),
        "PRECISION": s["precision"],
        "UPCAST": INTERPRETED,
        "num_warps": s["num_warps"],
        "num_stages": s["num_stages"],
    }
    mixed = m.hidden.new_empty(p, d_value, dtype=torch.float32)
    fired = m.hidden.new_zeros(p, dtype=torch.int8)
    launch(
        _mix,
        (len(m.runs), cdiv(m.longest, s["block_positions"])),
        *(m.queries, m.steps, m.offsets, m.runs, m.keys, m.values, m.value_scales, mixed, fired, beta, slope),
        D_KEY=m.keys.shape[1],
        BLOCK_K=power_of_two(m.keys.shape[1], 16),
        BLOCK_T=s["block_experts"],
        **shared,
    )
    written = torch.empty_like(m.hidden)
    grid = (cdiv(p, s["block_positions"]), cdiv(h, s["block_hidden"]))
    launch(_add, grid, m.hidden, mixed, fired, m.up, written, p, HIDDEN=h, BLOCK_H=s["block_hidden"], **shared)
    return written


@triton.jit
def _mix(
    queries,  # float32 (p, D_KEY)
    steps,  # int64 (p,)
    offsets,  # int64 (s + 1,)
    runs,  # int64 (s, 2)
    keys,  # (n, D_KEY)
    values,  # (n, D_VALUE)
    value_scales,  # float32 (n,) or None
    mixed,  # float32 (p, D_VALUE), out
    fired,  # int8 (p,), out
    beta,
    slope,
    D_KEY: tl.constexpr,
    D_VALUE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    sequence = tl.program_id(0)
    rows = tl.load(offsets + sequence) + tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = rows < tl.load(offsets + sequence + 1)
    first = tl.load(runs + sequence * 2)
    count = tl.load(runs + sequence * 2 + 1).to(tl.int32)
    key_at = tl.arange(0, BLOCK_K)
    value_at = tl.arange(0, BLOCK_V)
    query_inside = inside[:, None] & (key_at < D_KEY)[None, :]
    query = tl.load(queries + rows[:, None] * D_KEY + key_at[None, :], mask=query_inside, other=0.0)
    step = tl.load(steps + rows, mask=inside, other=0).to(tl.int32)
    top = tl.full((BLOCK_P,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_P,), tl.float32)
    mixture = tl.zeros((BLOCK_P, BLOCK_V), tl.float32)
    for start in range(0, count, BLOCK_T):
        place = start + tl.arange(0, BLOCK_T)
        real = place < count
        row = first + place
        key_inside = real[None, :] & (key_at < D_KEY)[:, None]
        key = tl.load(keys + row[None, :] * D_KEY + key_at[:, None], mask=key_inside, other=0).to(tl.float32)
        length = tl.maximum(tl.sqrt(tl.sum(key * key, 0)), SMALL)
        cosine = dot(query, key, tl.zeros((BLOCK_P, BLOCK_T), tl.float32), PRECISION, UPCAST) / length[None, :]
        distance = tl.abs(place[None, :] - step[:, None]).to(tl.float32)
        score = tl.where(real[None, :], beta * (cosine - slope * distance), float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp(score - higher[:, None])
        keep = tl.exp(top - higher)
        total = total * keep + tl.sum(weight, 1)
        if value_scales is not None:
            weight *= tl.load(value_scales + row, mask=real, other=0.0)[None, :]
        value_inside = real[:, None] & (value_at < D_VALUE)[None, :]
        value = tl.load(values + row[:, None] * D_VALUE + value_at[None, :], mask=value_inside, other=0).to(tl.float32)
        mixture = dot(weight, value, mixture * keep[:, None], PRECISION, UPCAST)
        top = higher
    if count > 0:
        out = mixed + rows[:, None] * D_VALUE + value_at[None, :]
        tl.store(out, mixture / total[:, None], mask=inside[:, None] & (value_at < D_VALUE)[None, :])
        tl.store(fired + rows, tl.full((BLOCK_P,), 1, tl.int8), mask=inside)


@triton.jit
def _add(
    hidden,  # (p, HIDDEN)
    mixed,  # float32 (p, D_VALUE)
    fired,  # int8 (p,)
    up,  # float32 (HIDDEN, D_VALUE)
    written,  # (p, HIDDEN), out
    p,
    HIDDEN: tl.constexpr,
    D_VALUE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    columns = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    value_at = tl.arange(0, BLOCK_V)
    writes = tl.load(fired + rows, mask=rows < p, other=0) != 0
    inside = (rows < p)[:, None] & (columns < HIDDEN)[None, :]
    state = tl.load(hidden + rows[:, None] * HIDDEN + columns[None, :], mask=inside, other=0.0)
    if tl.max(writes.to(tl.int32)) > 0:
        mix_inside = writes[:, None] & (value_at < D_VALUE)[None, :]
        mix = tl.load(mixed + rows[:, None] * D_VALUE + value_at[None, :], mask=mix_inside, other=0.0)
        up_inside = (columns < HIDDEN)[None, :] & (value_at < D_VALUE)[:, None]
        weight = tl.load(up + columns[None, :] * D_VALUE + value_at[:, None], mask=up_inside, other=0.0)
        delta = dot(mix, weight, tl.zeros((BLOCK_P, BLOCK_H), tl.float32), PRECISION, UPCAST)
        # Rounded before it is added, as the plain path does; and selected, because -0.0 + 0.0 has another sign.
        sums = state.to(tl.float32) + delta.to(state.dtype).to(tl.float32)
        state = tl.where(writes[:, None], sums.to(state.dtype), state)
    tl.store(written + rows[:, None] * HIDDEN + columns[None, :], state, mask=inside)
