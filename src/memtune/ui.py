"""What the user sees: stdout carries data alone, stderr the conversation. The only module that knows Rich.

Every text that came from a user, a file or a model passes ``visible``: no escape sequence, markup or direction mark in
it acts on the terminal.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from memtune.events import Event, Learned, ModelLoaded, Note, Progress
from memtune.project import finite
from memtune.visible import visible

if TYPE_CHECKING:
    from memtune.audit import AuditResult
    from memtune.change import ChangeResult
    from memtune.export import ExportResult
    from memtune.ingest import Confusable, IngestResult, Preview
    from memtune.listing import Listing, Log
    from memtune.plan import PlanResult
    from memtune.probe import ProbeResult
    from memtune.report import EvalResult
    from memtune.tune import TuneResult
    from memtune.tune_shard import ShardResult

__all__ = [
    "LIST_CAP",
    "Ui",
    "audit_view",
    "change_view",
    "eval_view",
    "export_view",
    "facts_view",
    "history_lines",
    "ingest_view",
    "listing_lines",
    "plan_view",
    "preview_view",
    "probe_view",
    "shard_view",
    "tune_view",
]

LIST_CAP = 20
PAIR_CAP = 5
EXAMPLE_CAP = 600  # characters
QUESTION_CAP = 80
PLAIN_SECONDS = 5.0  # between two progress lines where no terminal redraws them


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
        self.progress: _LiveProgress | _PlainProgress
        self.progress = _LiveProgress(self.console) if self.console.is_interactive else _PlainProgress(self._say, clock)
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

    def answer(self, result: ProbeResult) -> None:
        """The answer on stdout and how it came about on stderr, or both as one line of JSON."""
        self.close()
        if self.as_json:
            self._write_json(asdict(result))
            return
        _write(visible(result.answer, keep="\n\t") if sys.stdout.isatty() else result.answer)
        if not self.quiet:
            self.console.print(probe_view(result))

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


class _PlainProgress:
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


class _LiveProgress:
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


def ingest_view(result: IngestResult) -> Iterable[RenderableType]:
    """What was read, what it takes, how sure the router is, and the first fact as the model reads it."""
    kept = f"; {result.kept:,} unchanged, kept as tuned" if result.kept else ""
    router = "" if result.rebuilt else ", as it was"
    expected = (
        f"fires on {result.expected_recall:.1%} of rewordings and {result.expected_false_fire:.1%} of near misses"
    )
    yield _fields(
        facts=f"{result.facts:,}, {result.wordings:,} wordings, {result.answer_tokens:,} answer tokens{kept}",
        memory=f"{result.experts:,} experts, {_size(result.bytes)}",
        router=f"threshold {result.threshold:.2f}{router}, expected: {expected}",
    )
    if result.confusable:
        yield Text("questions most alike:")
    for pair in result.confusable[:PAIR_CAP]:
        yield Padding(_pair(pair, result.threshold), (0, 0, 0, 2))
    yield Text("the first fact as the model reads it:")
    yield Padding(Text(_cut(visible(result.example, keep="\n"), EXAMPLE_CAP)), (0, 0, 0, 2))


def _pair(pair: Confusable, threshold: float) -> Text:
    verdict = ("warning: taken for one another", "yellow") if pair.score >= threshold else ("told apart", "")
    questions = " | ".join(visible(_cut(text, QUESTION_CAP)) for text in (pair.one, pair.other))
    return Text.assemble(f"{pair.score:.2f}  ", verdict, f": {questions}")


def tune_view(result: TuneResult) -> Iterable[RenderableType]:
    """How many facts were learned, how well, and what confirmed it; the failed ones are the error's to list."""
    before = f", {result.already:,} of them before this run" if result.already else ""
    target = f"{result.until_loss:g} nats per answer token or less"
    losses = f"median {result.loss_median:.2g}, max {result.loss_max:.2g}, worst token {result.worst_token:.2g}"
    yield _fields(
        learned=f"{result.learned:,} of {result.facts:,} facts at {target}{before}",
        loss=losses if result.learned else "no fact was learned",
        verified=f"{result.verified_exact:,} of {result.verified:,} facts said exactly by generate()",
        time=f"{result.seconds:.1f} s",
    )


def shard_view(result: ShardResult) -> Iterable[RenderableType]:
    """How many of its facts a shard has learned, and where they are until all shards are merged."""
    yield _fields(
        shard=result.shard,
        learned=f"{result.learned:,} of {result.facts:,} facts at {result.until_loss:g} nats per answer token or less",
        kept=result.file,
        time=f"{result.seconds:.1f} s",
    )


def plan_view(result: PlanResult) -> Iterable[RenderableType]:
    """What each shard takes, and how that was measured."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("shard", "facts", "answer tokens", "size", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("first and last fact")
    for shard in result.shards[:LIST_CAP]:
        numbers = (shard.shard, f"{shard.facts:,}", f"{shard.answer_tokens:,}", _size(shard.bytes))
        ends = f"{shard.first}, {shard.last}" if shard.facts else "none"
        table.add_row(*map(Text, (*numbers, f"{shard.seconds:,.0f}", visible(ends))))
    yield table
    if len(result.shards) > LIST_CAP:
        yield Text(f"and {len(result.shards) - LIST_CAP:,} more")
    yield _fields(
        facts=f"{result.facts:,}, {result.already:,} of them learned already",
        time=f"{result.seconds:,.0f} s for the slowest shard, {result.alone:,.0f} s for one process",
        measured=f"{result.timed:,} facts in {result.timed_seconds:.1f} s here; loading the model took "
        f"{result.load_seconds:.1f} s more",
    )


def probe_view(result: ProbeResult) -> RenderableType:
    """Which fact fired and how surely, each token's probability, and what the backbone says by itself."""
    score = f"score {result.score:.2f}, threshold {result.threshold:.2f}"
    fired = f"no fact ({score}): the backbone's own answer"
    if result.experts is not None:
        first, last = result.experts
        fired = f"{result.fact_id} ({score}), experts {first:,} to {last:,}"
    tokens = " ".join(f"{piece.token.replace(' ', '␣')}={piece.probability:.1%}" for piece in result.token_probs)
    return _fields(question=result.question, fired=fired, tokens=tokens, backbone=_cut(result.base_answer, EXAMPLE_CAP))


def eval_view(result: EvalResult) -> Iterable[RenderableType]:
    """Every measure with its interval, whether what ingest promised held, and where the failures are listed."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("measure", "wordings"):
        table.add_column(column)
    for column in ("as wanted", "share", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for measure in result.measures:
        bounds = f"{measure.low:.1%} to {measure.high:.1%}"
        counts = (f"{measure.good:,} of {measure.asked:,}", f"{measure.share:.1%}", bounds)
        table.add_row(*map(Text, (measure.name, measure.source, *counts)))
    yield table
    for promise in result.promises:
        said = f"ingest expected {promise.expected:.1%}, measured {promise.measured:.1%} ({promise.measure})"
        yield Text.assemble(
            (f"{promise.name}  ", "bold"), f"{said}: ", ("held", "") if promise.held else ("not held", "yellow")
        )
    yield _fields(page=result.page, json=result.json, time=f"{result.seconds:.0f} s")


def export_view(result: ExportResult) -> Iterable[RenderableType]:
    """Where it is, and what it answered in another process."""
    without = " without memtune" if result.format == "bundle" else ""
    yield _fields(
        **{result.format: f"{result.directory}, {_size(result.bytes)}, {_size(result.memory_bytes)} of it memory"},
        asked=f"{result.asked:,} of {result.facts:,} facts, in a fresh process{without}",
        exact=f"{result.exact:,} of {result.asked:,}",
    )


def listing_lines(result: Listing) -> Iterable[str]:
    """One line a fact."""
    for fact in result.facts:
        state = {True: " (learned)", False: " (not learned)", None: ""}[fact.learned]
        yield f"{fact.id}  {fact.question} -> {fact.answer}{state}"
    yield from (f"{name}  forgotten since" for name in result.lost)


def facts_view(result: Listing) -> Iterable[RenderableType]:
    """All that is known of each."""
    for fact in result.facts:
        state = "learned" if fact.learned else "not learned"
        loss = "" if fact.loss is None else f", {fact.loss:.2g} nats per answer token"
        entries = {"id": fact.id, "question": fact.question, "answer": fact.answer, "source": fact.source}
        wordings = {"wordings": " | ".join(fact.paraphrases)} if fact.paraphrases else {}
        yield _fields(**entries, **wordings, state=f"{state}{loss}")


def history_lines(result: Log) -> Iterable[str]:
    """One line a change, the first one first."""
    for entry in result.changes:
        said = ", ".join(_counted(added=entry.added, changed=entry.changed, removed=entry.removed))
        file = f" {entry.file}" if entry.file else ""
        yield f"{entry.number}  {entry.at}  {entry.command}{file}: {entry.facts:,} facts; {said or 'all new'}"


def change_view(result: ChangeResult) -> Iterable[RenderableType]:
    """What changed and what did not, and what is out of date now."""
    said = ", ".join(_counted(added=result.added, changed=result.changed, removed=result.removed))
    fields = {"change": f"{said or 'nothing'}; {result.untouched:,} untouched"}
    fields["learned"] = f"{result.learned:,} of {result.facts:,} facts"
    if result.verified:
        fields["verified"] = f"{result.verified_exact:,} of {result.verified:,} new ones said exactly by generate()"
    if result.conflicts:
        fields["alike"] = "; ".join(map(str, result.conflicts[:PAIR_CAP]))
    if result.stale:
        fields["stale"] = ", ".join(result.stale)
    yield _fields(**fields, time=f"{result.seconds:.1f} s")


def preview_view(result: Preview) -> Iterable[RenderableType]:
    """What ingest would do."""
    for name in ("added", "changed", "removed"):
        if ids := getattr(result, name):
            yield _fields(**{name: f"{len(ids):,}: {_few(ids)}"})
    router = "made anew" if result.rebuilt else "stays as it is"
    yield _fields(untouched=f"{result.untouched:,}", router=router)


def audit_view(result: AuditResult) -> Iterable[RenderableType]:
    """The figures; what is wrong is the error's to list."""
    fields = {
        "facts": f"{result.facts:,}, {result.learned:,} of them learned",
        "root": result.root,
        "files": f"{len(result.files)}, each with the bytes that were written",
        "history": f"{result.changes_recorded:,} changes, {'unbroken' if result.broken is None else 'BROKEN'}",
    }
    if result.exports:
        fields["exports"] = ", ".join(f"{export.directory} ({export.state})" for export in result.exports)
    if result.since:
        changes = _counted(added=result.since.added, changed=result.since.changed, gone=result.since.gone)
        fields["since"] = ", ".join([f"{result.since.same:,} facts the same, byte for byte", *changes])
    if result.absent:
        fields["absent"] = f"{len(result.absent)} texts looked for, {len(result.found)} found"
    yield _fields(**fields)


def _counted(**names: tuple[str, ...]) -> list[str]:
    return [f"{len(ids):,} {word} ({_few(ids)})" for word, ids in names.items() if ids]


def _few(ids: tuple[str, ...]) -> str:
    more = f" and {len(ids) - PAIR_CAP:,} more" if len(ids) > PAIR_CAP else ""
    return ", ".join(ids[:PAIR_CAP]) + more


def _fields(**entries: str) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in entries.items():
        table.add_row(Text(name, "bold"), Text(visible(value)))
    return table


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text) - limit:,} more characters)"


def _size(count: int) -> str:
    """Bytes in the largest unit that keeps at least one before the point."""
    power = min(int(math.log(max(count, 1), 1024)), 3)
    return f"{count / 1024**power:.1f} {('B', 'KiB', 'MiB', 'GiB')[power]}" if power else f"{count} B"


def _entries(result: Any) -> dict[str, Any]:
    """The fields of the result, with its verdict where it has one."""
    verdict = {"met": result.met} if hasattr(result, "met") else {}
    return asdict(result) | verdict


def _write(line: str) -> None:
    """One line of data on stdout, whatever its encoding."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()
