"""What a piece of work asks of a model: passes, tokens, seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

__all__ = ["Meter", "Spent"]


@dataclass(frozen=True)
class Spent:
    """``tokens`` are those that the model read, in all rows; ``seconds`` of the clock on the wall."""

    calls: int
    tokens: int
    seconds: float


class Meter:
    """Counts while it is open. Use it as a context manager; ``cost`` is what was counted so far.

    >>> # with Meter(backbone.model) as meter:
    >>> #     greedy(backbone, prompts, 64)
    >>> # meter.cost.calls
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._calls = self._tokens = 0
        self._seconds = 0.0

    @property
    def cost(self) -> Spent:
        return Spent(self._calls, self._tokens, self._seconds)

    def _count(self, _model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        self._calls += 1
        self._tokens += 0 if ids is None else ids.numel()

    def __enter__(self) -> Meter:
        self._hook = self._model.register_forward_pre_hook(self._count, with_kwargs=True)
        self._started = time.monotonic()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._seconds += time.monotonic() - self._started
        self._hook.remove()
