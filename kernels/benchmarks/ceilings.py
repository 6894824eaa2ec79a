"""What the device can do at most, measured here and now: bytes copied and products summed, per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

SECONDS = 0.5  # how long a measurement goes on
COPIED = {"cpu": 1 << 26, "cuda": 1 << 31}  # bytes: beyond every cache
SIDE = {"cpu": 1024, "cuda": 8192}


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """The median time of one call, after two that do not count."""
    for _ in range(2):
        work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        times.append(_gpu_seconds(work) if device.type == "cuda" else _cpu_seconds(work))
    return sorted(times)[len(times) // 2]


def _cpu_seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _gpu_seconds(work: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def copy_rate(device: torch.device) -> float:
    """Bytes read and written per second by a copy."""
    source = torch.empty(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs per second of a square product of ``dtype``, float32 without TF32."""
    side = SIDE[device.type]
    one, two = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: one @ two, device)
