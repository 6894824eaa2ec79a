"""What the user sees: stdout carries data alone, stderr the conversation. The only package that knows Rich.

Every text that came from a user, a file or a model passes ``visible``: no escape sequence, markup or direction mark in
it acts on the terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from memtune.events import Event, ModelLoaded, Note
from memtune.project import finite
from memtune.ui.capacity import capacity_view
from memtune.ui.explain import detect_view, explain_view
from memtune.ui.facts import audit_view, change_view, facts_view, history_lines, listing_lines, preview_view
from memtune.ui.guard import guard_view
from memtune.ui.job import eval_view, export_view, ingest_view, probe_view, shard_view, tune_view
from memtune.ui.know import compare_view, know_lines, know_view, moved_lines
from memtune.ui.parts import LIST_CAP
from memtune.ui.plan import forecast_view, plan_view
from memtune.ui.progress import LiveProgress, PlainProgress
from memtune.ui.score import score_view
from memtune.visible import visible

__all__ = [
    "LIST_CAP",
    "Ui",
    "audit_view",
    "capacity_view",
    "change_view",
    "compare_view",
    "detect_view",
    "eval_view",
    "explain_view",
    "export_view",
    "facts_view",
    "forecast_view",
    "guard_view",
    "history_lines",
    "ingest_view",
    "know_lines",
    "know_view",
    "listing_lines",
    "moved_lines",
    "plan_view",
    "preview_view",
    "probe_view",
    "score_view",
    "shard_view",
    "tune_view",
]


class Ui:
    """One command's conversation. ``as_json`` and ``quiet`` change what is written here, so that no command asks."""

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False, markup=False, emoji=False)
        self.as_json, self.quiet = as_json, quiet
        self.progress: LiveProgress | PlainProgress
        self.progress = LiveProgress(self.console) if self.console.is_interactive else PlainProgress(self._say, clock)
        self._result_written = False

    def on_event(self, event: Event) -> None:
        """Shows what a verb reports."""
        if self.quiet:
            return
        if isinstance(event, Note):
            self._note(event.text)
        elif isinstance(event, ModelLoaded):
            self._note(f"{event.name}: {event.note}; {event.reason}")
        else:
            self.progress.update(event)

    def show(self, result: Any, view: Callable[[Any], Iterable[RenderableType]], *next_commands: str) -> None:
        """The result as one JSON object on stdout, or as the view on stderr with the commands that come next."""
        self.close()
        if self.as_json:
            self._result_written = True
            self._write_json(_entries(result))
        elif not self.quiet:
            for part in view(result):
                self.console.print(part)
            for number, command in enumerate(next_commands):
                self._labelled("       " if number else "next:  ", command)

    def answer(self, result: Any, view: Callable[[Any], RenderableType] = probe_view) -> None:
        """The answer on stdout and how it came about on stderr, or both as one line of JSON."""
        self.close()
        if self.as_json:
            self._write_json(_entries(result))
            return
        self.said(result.answer)
        if not self.quiet:
            self.console.print(view(result))

    def complete(self) -> None:
        """All answers are there: what is said of them now is no object of its own."""
        self._result_written = True

    def said(self, text: str) -> None:
        """What a model said, on stdout."""
        self.close()
        _write(visible(text, keep="\n\t") if sys.stdout.isatty() else text)

    def listed(self, result: Any, lines: Iterable[str]) -> None:
        """Data of one line each, on stdout; or the result as one JSON object."""
        self.close()
        if self.as_json:
            self._result_written = True
            self._write_json(_entries(result))
            return
        for line in lines:
            _write(visible(line))

    def error(self, message: str, hint: str, exit_code: int) -> int:
        """Says what is wrong and what to do; with JSON also as an object, unless the result is already there."""
        self.close()
        self._labelled("error: ", message, "bold red")
        if hint:
            self._labelled("hint:  ", hint)
        if self.as_json and not self._result_written:
            self._write_json({"error": message, "hint": hint, "exit_code": exit_code})
        return exit_code

    def close(self) -> None:
        """Nothing on the terminal moves any more, and the last progress is shown."""
        self.progress.close()

    def _note(self, text: str) -> None:
        self.close()
        self._say(text)

    def _say(self, text: str) -> None:
        self._labelled("", text)

    def _labelled(self, label: str, text: str, style: str = "bold") -> None:
        """The text behind its label, its further lines indented as far; never wrapped, so that it can be copied."""
        lines = visible(text, keep="\n").replace("\n", "\n" + " " * len(label))
        self.console.print(Text.assemble((label, style), lines), soft_wrap=True)

    @staticmethod
    def _write_json(entries: dict[str, Any]) -> None:
        _write(json.dumps(finite(entries), allow_nan=False))


def _entries(result: Any) -> dict[str, Any]:
    """The fields of the result, with its verdict where it has one."""
    verdict = {"met": result.met} if hasattr(result, "met") else {}
    return asdict(result) | verdict


def _write(line: str) -> None:
    """One line of data on stdout, whatever its encoding."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()
