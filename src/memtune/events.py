"""What the verbs report while they work.

The library prints nothing; a caller passes ``on_event`` and shows what it likes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Event", "Learned", "ModelLoaded", "Note", "OnEvent", "Progress", "ignore"]


@dataclass(frozen=True)
class Note:
    """One sentence for the user."""

    text: str


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` items of a stage."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class ModelLoaded:
    """``reason`` says which dtype and device were chosen, and why."""

    name: str
    note: str
    reason: str


@dataclass(frozen=True)
class Learned:
    """How far tuning is. Losses in nats per answer token; ``hardest`` are (loss, fact id, question), worst first."""

    done: int
    total: int
    median: float
    p90: float
    worst: float
    hardest: tuple[tuple[float, str, str], ...]


Event = Note | Progress | ModelLoaded | Learned
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The default: nobody listens."""
