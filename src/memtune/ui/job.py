"""What the verbs of the main job and eval found, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from memtune.ui.parts import PAIR_CAP, cut, few, fields, plain_table, size
from memtune.visible import visible

if TYPE_CHECKING:
    from memtune.baseline import BaselineResult
    from memtune.export import ExportResult
    from memtune.ingest import Confusable, IngestResult
    from memtune.probe import ProbeResult
    from memtune.report import EvalResult
    from memtune.tune import TuneResult
    from memtune.tune_shard import ShardResult

__all__ = ["eval_view", "export_view", "ingest_view", "probe_view", "shard_view", "tune_view"]

EXAMPLE_CAP = 600  # characters
QUESTION_CAP = 80


def ingest_view(result: IngestResult) -> Iterable[RenderableType]:
    """What was read, what it takes, how sure the router is, and the first fact as the model reads it."""
    kept = f"; {result.kept:,} unchanged, kept as tuned" if result.kept else ""
    router = "" if result.rebuilt else ", as it was"
    expected = (
        f"fires on {result.expected_recall:.1%} of rewordings and {result.expected_false_fire:.1%} of near misses"
    )
    yield fields(
        facts=f"{result.facts:,}, {result.wordings:,} wordings, {result.answer_tokens:,} answer tokens{kept}",
        memory=f"{result.experts:,} experts, {size(result.bytes)}",
        router=f"threshold {result.threshold:.2f}{router}, expected: {expected}",
    )
    if result.confusable:
        yield Text("questions most alike:")
    for pair in result.confusable[:PAIR_CAP]:
        yield Padding(_pair(pair, result.threshold), (0, 0, 0, 2))
    yield Text("the first fact as the model reads it:")
    yield Padding(Text(cut(visible(result.example, keep="\n"), EXAMPLE_CAP)), (0, 0, 0, 2))


def _pair(pair: Confusable, threshold: float) -> Text:
    verdict = ("warning: taken for one another", "yellow") if pair.score >= threshold else ("told apart", "")
    questions = " | ".join(visible(cut(text, QUESTION_CAP)) for text in (pair.one, pair.other))
    return Text.assemble(f"{pair.score:.2f}  ", verdict, f": {questions}")


def tune_view(result: TuneResult) -> Iterable[RenderableType]:
    """How many facts were learned, how well, and what confirmed it; the failed ones are the error's to list."""
    before = f", {result.already:,} of them before this run" if result.already else ""
    target = f"{result.until_loss:g} nats per answer token or less"
    losses = f"median {result.loss_median:.2g}, max {result.loss_max:.2g}, worst token {result.worst_token:.2g}"
    known = f"{len(result.known):,} facts, left to the backbone: {few(result.known)}"
    yield fields(
        **({"known": known} if result.known else {}),
        learned=f"{result.learned:,} of {result.facts:,} facts at {target}{before}",
        loss=losses if result.learned else "no fact was learned",
        verified=f"{result.verified_exact:,} of {result.verified:,} facts said exactly by generate()",
        time=f"{result.seconds:.1f} s",
    )


def shard_view(result: ShardResult) -> Iterable[RenderableType]:
    """How many of its facts a shard has learned, and where they are until all shards are merged."""
    yield fields(
        shard=result.shard,
        learned=f"{result.learned:,} of {result.facts:,} facts at {result.until_loss:g} nats per answer token or less",
        kept=result.file,
        time=f"{result.seconds:.1f} s",
    )


def probe_view(result: ProbeResult) -> RenderableType:
    """Which fact fired and how surely, each token's probability, and what the backbone says by itself."""
    score = f"score {result.score:.2f}, threshold {result.threshold:.2f}"
    fired = f"no fact ({score}): the backbone's own answer"
    if result.experts is not None:
        first, last = result.experts
        fired = f"{result.fact_id} ({score}), experts {first:,} to {last:,}"
    tokens = " ".join(f"{piece.token.replace(' ', '␣')}={piece.probability:.1%}" for piece in result.token_probs)
    return fields(question=result.question, fired=fired, tokens=tokens, backbone=cut(result.base_answer, EXAMPLE_CAP))


def eval_view(result: EvalResult) -> Iterable[RenderableType]:
    """Every measure with its interval, whether what ingest promised held, and where the failures are listed."""
    table = plain_table()
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
    if result.baseline:
        yield from _baseline_view(result.baseline)
    yield fields(page=result.page, json=result.json, time=f"{result.seconds:.0f} s")


def _baseline_view(found: BaselineResult) -> Iterable[RenderableType]:
    """The same questions by retrieval: how many are right, and what they cost."""
    yield Text(f"the same questions by {found.name}, {found.notes} facts in the prompt of the untouched backbone:")
    table = plain_table()
    for column in ("measure", "wordings"):
        table.add_column(column)
    for column in (
        "memtune",
        found.name,
        "contained",
        "fact found",
        "extra tokens",
        f"seconds, {found.name}",
        "seconds, memtune",
    ):
        table.add_column(column, justify="right")
    for m in found.measures:
        right = [f"{m.memtune_share:.1%}", f"{m.share:.1%}"]
        right += ["" if share is None else f"{share:.1%}" for share in (m.contained, m.found)]
        costs = (f"{m.extra_tokens:,.0f}", f"{m.seconds:.2f}", f"{m.memtune_seconds:.2f}")
        table.add_row(*map(Text, (m.name, m.source, *right, *costs)))
    yield table


def export_view(result: ExportResult) -> Iterable[RenderableType]:
    """Where it is, and what it answered in another process."""
    without = " without memtune" if result.format == "bundle" else ""
    yield fields(
        **{result.format: f"{result.directory}, {size(result.bytes)}, {size(result.memory_bytes)} of it memory"},
        asked=f"{result.asked:,} of {result.facts:,} facts, in a fresh process{without}",
        exact=f"{result.exact:,} of {result.asked:,}",
    )
