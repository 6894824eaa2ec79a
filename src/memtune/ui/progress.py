"""How far a verb is: a bar and the hardest facts on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from memtune.events import Learned, Progress
from memtune.visible import visible

__all__ = ["LiveProgress", "PlainProgress"]

PLAIN_SECONDS = 5.0  # between two progress lines where no terminal redraws them


class PlainProgress:
    """A line every few seconds at most, and the last one: for logs and pipes."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say, self._clock = say, clock
        self._said = -math.inf
        self._pending = ""

    def update(self, event: Progress | Learned) -> None:
        self._pending = _progress_line(event)
        if self._clock() - self._said >= PLAIN_SECONDS:
            self.close()

    def close(self) -> None:
        if self._pending:
            self._say(self._pending)
            self._pending, self._said = "", self._clock()


class LiveProgress:
    """A bar and the hardest facts, redrawn by Rich; it leaves nothing behind."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._bar = Bar(*columns, console=console)
        self._task = self._bar.add_task("")
        self._stage = ""
        self._below: RenderableType = ""
        # stdout stays as it is: Rich would send what is written there to stderr.
        self._live = Live(
            get_renderable=lambda: Group(self._bar, self._below),
            console=console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
        )

    def update(self, event: Progress | Learned) -> None:
        stage = "learned" if isinstance(event, Learned) else event.stage
        if stage != self._stage:
            self._stage = stage
            self._bar.reset(self._task, description=visible(stage))
        self._bar.update(self._task, completed=event.done, total=event.total)
        self._below = _hardest(event) if isinstance(event, Learned) else ""
        self._live.start()

    def close(self) -> None:
        self._live.stop()


def _losses(event: Learned) -> str:
    return f"loss median {event.median:.2g}, p90 {event.p90:.2g}, max {event.worst:.2g}"


def _progress_line(event: Progress | Learned) -> str:
    if isinstance(event, Progress):
        return f"{event.stage} {event.done:,}/{event.total:,}"
    hardest = "".join(f", hardest {name} ({loss:.2g})" for loss, name, _ in event.hardest[:1])
    return f"learned {event.done:,}/{event.total:,}, {_losses(event)}{hardest}"


def _hardest(event: Learned) -> RenderableType:
    """The losses, and one line for each of the hardest facts, cut where the terminal ends."""
    lines = [f"{loss:.2g}  {name}  {question}" for loss, name, question in event.hardest]
    shown = [f"{_losses(event)} nats per answer token", *(f"hardest  {line}" for line in lines)]
    return Group(*(Text(visible(line), no_wrap=True, overflow="ellipsis") for line in shown))
