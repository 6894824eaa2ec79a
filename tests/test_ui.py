"""What is shown: nothing in a user's text acts on a terminal, and a log grows by a line every few seconds."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from memtune.events import Learned, ModelLoaded, Note, Progress
from memtune.ui import Ui

HOSTILE = "[/b] [str] :100: \x1b[31m"
SHOWN = "[/b] [str] :100: \\x1b[31m"


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def console(*, terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=60,
        markup=False,
        highlight=False,
        _environ={"TERM": "xterm" if terminal else "dumb"},
    )


def written(ui: Ui) -> str:
    assert isinstance(ui.console.file, io.StringIO)
    return ui.console.file.getvalue()


def learned(done: int, question: str = "q") -> Learned:
    return Learned(done, 9, 0.004, 0.021, 0.43, ((0.43, "f-1", question), (0.3, "f-2", question)))


def line(done: int) -> str:
    return f"learned {done}/9, loss median 0.004, p90 0.021, max 0.43, hardest f-1 (0.43)\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_hostile_text_is_shown_as_it_is_everywhere(terminal: bool) -> None:
    ui = Ui(console=console(terminal=terminal))
    ui.on_event(Note(HOSTILE))
    ui.on_event(ModelLoaded(HOSTILE, "note", "reason"))
    ui.on_event(learned(1, HOSTILE))
    ui.on_event(Progress(HOSTILE, 1, 2))
    ui.error(HOSTILE, HOSTILE, 2)
    assert "\x1b[31m" not in written(ui)
    assert written(ui).count(SHOWN) >= 4


def test_in_a_log_a_line_comes_every_few_seconds_and_the_last_one_always() -> None:
    clock = Clock()
    ui = Ui(console=console(), clock=clock)
    for done in range(1, 9):
        ui.on_event(learned(done))
        clock.now += 2
    assert written(ui) == line(1) + line(4) + line(7)
    ui.close()
    ui.close()
    assert written(ui).endswith(line(7) + line(8))


def test_a_note_comes_after_the_progress_before_it() -> None:
    ui = Ui(console=console(), clock=Clock())
    for event in (learned(1), learned(9), Note("verifying"), Progress("verified", 1, 2), Progress("verified", 2, 2)):
        ui.on_event(event)
    ui.close()
    assert written(ui) == line(1) + line(9) + "verifying\nverified 2/2\n"


def test_a_terminal_shows_a_bar_the_losses_and_the_hardest_facts_and_clears_them() -> None:
    ui = Ui(console=console(terminal=True))
    ui.on_event(learned(4, "When was it built?"))
    ui.close()
    shown = written(ui)
    assert "4/9" in shown and "median 0.004, p90 0.021, max 0.43" in shown
    assert "0.43  f-1  When was it built?" in shown
    assert shown.rstrip().endswith("\x1b[2K")
    ui.on_event(Note("done"))
    assert written(ui).endswith("done\n")


def test_quiet_shows_errors_alone() -> None:
    ui = Ui(console=console(), quiet=True)
    for event in (Note("n"), learned(1), Progress("p", 1, 2)):
        ui.on_event(event)
    ui.show(Result(1.0), view, "memtune tune")
    assert written(ui) == ""
    assert ui.error("one\ntwo", "do this", 2) == 2
    assert written(ui) == "error: one\n       two\nhint:  do this\n"


def test_a_long_path_in_an_error_is_not_broken() -> None:
    ui = Ui(console=console())
    ui.error("/data/" + "x" * 200 + ":17: bad", "", 2)
    assert "x" * 200 + ":17: bad" in written(ui)


@dataclass(frozen=True)
class Result:
    """What a verb could return."""

    loss: float

    @property
    def met(self) -> bool:
        return self.loss < 1


def view(result: Result) -> Iterable[RenderableType]:
    yield Text(f"loss {result.loss}")


def test_a_result_is_a_view_and_the_commands_that_come_next() -> None:
    ui = Ui(console=console())
    ui.show(Result(0.5), view, "memtune probe", "memtune export OUT")
    assert written(ui) == "loss 0.5\nnext:  memtune probe\n       memtune export OUT\n"


def test_as_json_a_result_is_one_object_and_what_is_not_finite_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    ui = Ui(console=console(), as_json=True)
    ui.show(Result(math.inf), view, "memtune tune")
    ui.error("target not met", "", 3)
    assert json.loads(capsys.readouterr().out) == {"loss": None, "met": False}
    assert written(ui) == "error: target not met\n"
