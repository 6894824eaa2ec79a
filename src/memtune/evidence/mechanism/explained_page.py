"""One self-contained HTML page of an explanation: curves by layer, the memory on and off, the heat maps of a trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from memtune import plots
from memtune.evidence.mechanism.lens import Curve
from memtune.markup import document, shown, table
from memtune.plots import curves, heat_map
from memtune.project import write_beside

if TYPE_CHECKING:
    from memtune.evidence.mechanism.depth import Depth
    from memtune.evidence.mechanism.explain import ExplainResult
    from memtune.evidence.mechanism.trace import TraceResult

__all__ = ["effect_maps", "rank_plot", "write_page"]

LAYERS = "layer (0: the embedding)"


def write_page(result: ExplainResult, path: Path) -> None:
    """The page, whole or as it was before. Raises OSError."""
    parts = (part for section in _SECTIONS for part in section(result))
    page = document(f"memtune probe --explain: {result.probed.question}", parts)
    write_beside(path, page.encode("utf-8", "backslashreplace"))


def rank_plot(result: ExplainResult) -> str:
    """Ranks by layer at the place that is read; a curve that falls to 1 is what the model says there."""
    place = result.best or result.start
    lines = [_line("said", place.said, "near", place.said.ranks)]
    if place.gold:
        lines.append(_line("gold", place.gold, "right", place.gold.ranks))
    if result.best and result.start.gold:
        lines.append(_line("gold, at the start", result.start.gold, "unrelated", result.start.gold.ranks))
    return curves(lines, title="Rank by layer", x=LAYERS, y="rank")


def _line(name: str, curve: Curve, style: str, values: Sequence[float]) -> plots.Curve:
    return plots.Curve(f"{name}: {curve.token}", tuple(enumerate(values)), style)


def effect_maps(trace: TraceResult) -> Iterator[tuple[str, str]]:
    """One heat map for each kind of part, with its name, on one scale of colours."""
    strongest = max(abs(effect) for rows in trace.effects.values() for row in rows for effect in row)
    columns = [f"{centre + 1}" for centre in trace.centres]
    for kind, rows in trace.effects.items():
        named = list(zip(trace.positions, zip(*rows, strict=True), strict=True))
        name = "MLP" if kind == "mlp" else kind
        title, x = f"Indirect effect of {name}", f"middle of the window of {trace.window} layers"
        yield kind, heat_map(named, columns, title=title, x=x, strongest=strongest)


def _head(result: ExplainResult) -> Iterator[str]:
    yield f"<h1>{shown(result.probed.question)}</h1>"
    yield "<ul>" + "".join(f"<li>{shown(sentence)}</li>" for sentence in result.verdict) + "</ul>"
    rows = [["answer", result.probed.answer], ["the backbone's own reply", result.probed.base_answer]]
    if result.gold:
        rows.append([f"gold ({result.gold.source})", result.gold.answer])
    rows.append(["subject", result.subject or "none found"])
    if result.doubt:
        auroc, of = result.doubt.auroc, f"{result.doubt.asked:,} questions of {result.doubt.facts}"
        known = f"AUROC {auroc.value:.2f} ({auroc.low:.2f} to {auroc.high:.2f}) on {of}"
        rows.append(["detector", f"{result.doubt.wrong:.0%} that the backbone's own reply is wrong; {known}"])
    yield table(("", ""), rows, numbers=())


def _depths(result: ExplainResult) -> Iterator[str]:
    place = result.best or result.start
    where = f'behind the backbone\'s own words "{place.behind}"' if place.behind else "where the reply begins"
    yield f"<h2>Layer by layer</h2><p>What each layer would say {shown(where)}, read with the final norm and the LM "
    yield "head. Early layers were not trained to be read so; of the last one it is what the model says.</p>"
    yield rank_plot(result)
    lines = [_line("said", place.said, "near", place.said.probabilities)]
    lines += [_line("gold", place.gold, "right", place.gold.probabilities)] if place.gold else []
    yield "<h3>Probability</h3>" + curves(lines, title="Probability by layer", x=LAYERS, y="probability")
    yield f"<details><summary>The figures</summary>{_figures(place)}</details>"


def _figures(place: Depth) -> str:
    gold = place.gold
    rows = [
        [
            f"{layer}",
            *([f"{gold.ranks[layer]:,}", f"{gold.probabilities[layer]:.3%}"] if gold else ["", ""]),
            f"{place.likelihood[layer]:.2f}" if place.likelihood else "",
            f"{place.said.ranks[layer]:,}",
            f"{place.said.probabilities[layer]:.3%}",
            f"{place.entropy[layer]:.2f}",
        ]
        for layer in range(len(place.entropy))
    ]
    head = (
        "layer",
        "gold rank",
        "probability",
        "whole answer, nats a token",
        "said rank",
        "probability",
        "entropy, nats",
    )
    return table(head, rows, numbers=tuple(range(len(head))))


def _memory(result: ExplainResult) -> Iterator[str]:
    memory = result.memory
    if memory is None:
        return
    yield "<h2>The memory, off and on</h2><p>At the LM head's input, behind the last layer, where the reply begins.</p>"
    same = "the same, bit for bit" if memory.untouched else "not the same"
    yield table(
        ("", "off", "on"),
        [
            [f"rank of {memory.token}", f"{memory.rank_before:,}", f"{memory.rank_after:,}"],
            ["its probability", f"{memory.probability_before:.4%}", f"{memory.probability_after:.4%}"],
            ["the whole answer, nats a token", f"{memory.likelihood_before:.4f}", f"{memory.likelihood_after:.4f}"],
            [f"residual stream of {result.layers} layers", "", same],
            ["length of what is added, of the state's", "", f"{memory.share:.1%}"],
        ],
        numbers=(1, 2),
    )


def _traced(result: ExplainResult) -> Iterator[str]:
    trace = result.trace
    if trace is None:
        return
    yield f"<h2>Trace</h2><p>y is the {trace.measure}, nats. Noise stands on the subject's embeddings; a cell says how "
    yield "much y rises when what a part gave without noise is put back there. The numbers are raw: no kind of "
    yield "hallucination follows from them.</p>"
    yield table(
        ("", ""),
        [
            ["said, gold", f"{trace.said}, {trace.gold or 'none'}"],
            ["y without noise, with noise", f"{trace.clean:.3f}, {trace.corrupted:.3f}"],
            ["total effect", f"{trace.total_effect:+.3f}"],
            ["noises that lowered y", f"{trace.valid} of {trace.drawn}, {trace.used} used"],
        ],
        numbers=(),
    )
    for kind, plot in effect_maps(trace):
        yield f"<h3>{'MLP' if kind == 'mlp' else kind.capitalize()}</h3>{plot}"


def _foot(result: ExplainResult) -> Iterator[str]:
    traced = f", trace {result.trace_seconds:.1f} s" if result.trace else ""
    yield f'<p class="soft">{result.seconds:.1f} s{traced}</p>'


_SECTIONS = (_head, _depths, _memory, _traced, _foot)
