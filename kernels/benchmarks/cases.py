"""The problems that are timed, and the least that each has to read, write and compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from memtune_kernels import Words, expert_attention, fit_step, gate_maxsim, route_topk
from torch import Tensor


class Case(NamedTuple):
    kernel: str
    what: str
    dtype: torch.dtype  # of the products: what matmul rate it is held against
    stored: torch.dtype  # of the rows that it reads: by it the kernel looks up its tile sizes
    call: Callable[[], Any]
    bytes: int  # everything once
    flops: int


def cases(device: torch.device) -> Iterator[Case]:
    """Made one at a time, so that only one problem is in memory."""
    large = device.type == "cuda"
    f32, bf16 = torch.float32, torch.bfloat16
    for questions in (1, 64, 1024) if large else (1, 64):
        for dtype in (f32, bf16) if large else (f32,):
            yield _route(questions, 1_000_000 if large else 50_000, dtype, device)
    yield _gate(1024 if large else 16, device)
    for positions in (1, 10):
        for stored in (f32, torch.int8):
            yield _attend(20_000 if large else 200, positions, stored, device)
    for dtype in (f32, bf16) if large else (f32,):
        yield _fit(4096 if large else 64, dtype, device)


def _route(q: int, n: int, dtype: torch.dtype, device: torch.device, d: int = 128, k: int = 32) -> Case:
    questions, keys = (torch.randn(rows, d, device=device).to(dtype) for rows in (q, n))
    moved = questions.nbytes + keys.nbytes + q * k * 12
    what, flops = f"{q} of {n}, d {d}, k {k}", 2 * q * n * d
    return Case("route_topk", what, dtype, dtype, lambda: route_topk(questions, keys, k), moved, flops)


def _gate(q: int, device: torch.device, candidates: int = 32, words: int = 12, stored: int = 100_000) -> Case:
    stored = stored if device.type == "cuda" else 2000
    sides = [_words(count, words, device) for count in (q, stored)]
    asked = torch.arange(q, device=device).repeat_interleave(candidates)
    pairs = torch.stack([asked, torch.randint(stored, (len(asked),), device=device)], 1)
    row = sum(column[0].nbytes for column in sides[0][1:])  # bytes of a word
    moved = q * words * row + len(pairs) * words * (row + 2 * 44)  # each asked question is read once for all its pairs
    flops = 2 * len(pairs) * words**2 * (256 + 64 + 64)
    half = torch.float16
    dtype = half if device.type == "cuda" else torch.float32  # a CPU has no products of halves
    what = f"{q} questions, {candidates} candidates, {words} words"

    def call() -> Any:
        return gate_maxsim(*sides, pairs, longest=(words, words))

    return Case("gate_maxsim", what, dtype, half, call, moved, flops)


def _words(questions: int, each: int, device: torch.device) -> Words:
    count = questions * each
    views = [torch.randn(count, 64, device=device).half() for _ in range(2)]
    sketch = torch.rand(count, 256, device=device) < 0.05
    bucket = torch.randint(1 << 16, (count,), device=device, dtype=torch.int32)
    offsets = torch.arange(0, count + 1, each, device=device)
    return Words(offsets, *views, sketch, bucket, torch.rand(count, device=device) < 0.3)


def _attend(s: int, positions: int, stored: torch.dtype, device: torch.device, run: int = 10) -> Case:
    h, d_key, d_value, p = 4096, 32, 128, s * positions
    hidden = torch.randn(p, h, device=device, dtype=torch.bfloat16)
    queries, steps = F.normalize(torch.randn(p, d_key, device=device), dim=1), torch.arange(p, device=device) % run
    offsets, first = (torch.arange(0, s * each + 1, each, device=device) for each in (positions, run))
    runs = torch.stack([first[torch.randperm(s, device=device)], torch.full((s,), run, device=device)], 1)
    keys, values = (_rows(s * run, width, stored, device) for width in (d_key, d_value))
    scales = torch.rand(s * run, device=device) if stored is torch.int8 else None
    up = torch.randn(h, d_value, device=device)

    def call() -> Tensor:
        return expert_attention(hidden, queries, steps, offsets, runs, keys, values, up, scales, longest=positions)

    moved = 2 * hidden.nbytes + sum(t.nbytes for t in (queries, steps, offsets, runs, keys, values, up))
    what = f"{s} sequences of {positions}, {run} experts, rows {str(stored).removeprefix('torch.')}"
    flops = 2 * p * (run * (d_key + d_value) + d_value * h)
    return Case("expert_attention", what, torch.float32, stored, call, moved, flops)


def _rows(count: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    if dtype is torch.int8:
        return torch.randint(-127, 128, (count, width), dtype=dtype, device=device)
    return torch.randn(count, width, device=device).to(dtype)


def _fit(t: int, dtype: torch.dtype, device: torch.device, r: int = 128) -> Case:
    v, h = (128_256, 4096) if device.type == "cuda" else (49_152, 576)  # an 8B model; SmolLM2-135M
    head, seen = (torch.randn(v, width, device=device).to(dtype) for width in (h, r))
    hidden, values = torch.randn(t, h, device=device), torch.randn(t, r, device=device)
    targets = torch.randint(v, (t,), device=device)
    moved = head.nbytes + seen.nbytes + hidden.nbytes + 2 * values.nbytes
    what = f"{t} tokens, vocabulary {v}, hidden {h}"
    flops = 2 * t * v * (h + 2 * r)
    return Case("fit_step", what, dtype, dtype, lambda: fit_step(hidden, values, targets, head, seen), moved, flops)
