"""What an explanation shows, in words: nothing is said of a model's insides that was not observed in this run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memtune.evidence.mechanism.lens import ENTRIES, Curve

if TYPE_CHECKING:
    from memtune.evidence.mechanism.depth import Depth
    from memtune.evidence.mechanism.explain import ExplainResult
    from memtune.evidence.mechanism.injection import Injection
    from memtune.evidence.mechanism.trace import TraceResult

__all__ = ["quoted", "verdict"]


def verdict(found: ExplainResult, holds_gold: bool) -> Iterator[str]:
    """One sentence or two on each part. ``holds_gold``: the backbone's own reply has the gold answer in it."""
    place = found.best or found.start
    if place.gold is None:
        yield "No gold answer is known, so this shows only how the backbone comes to what it says."
    else:
        yield _on_the_reply(place, place.gold, holds_gold)
        yield _on_the_gold(found.start, place, place.gold, holds_gold)
    if found.memory is not None:
        yield _on_the_memory(found.memory, found.layers)
    if found.trace is not None:
        yield from _on_the_trace(found.trace)


def _on_the_reply(place: Depth, gold: Curve, holds_gold: bool) -> str:
    if holds_gold:
        return "The backbone's own reply holds the gold answer."
    return (
        f"The backbone's own reply does not hold the gold answer: {_where(place)} it says {quoted(place.said.token)}."
    )


def _on_the_gold(start: Depth, place: Depth, gold: Curve, holds_gold: bool) -> str:
    token, (most, *_) = quoted(gold.token), ENTRIES
    seen = [depth.gold.enters[most] for depth in (start, place) if depth.gold]
    if all(layer is None for layer in seen):
        both = "where the reply begins" if start is place else f"where the reply begins or {_where(place)}"
        return (
            f"The gold answer's first token, {token}, never enters the top {most} at any layer, {both}: no sign that "
            "the backbone holds this fact."
        )
    entered = "; ".join(f"top {best}: {_layer(gold.enters[best])}" for best in ENTRIES)
    at = f"{_where(place)} the gold answer's first token, {token}, ends at rank {gold.rank:,} ({gold.probability:.1%})"
    behind = "" if gold.rank == 1 else f", after {', '.join(map(quoted, place.above))}"
    whole = f"All of the gold answer has {place.likelihood[-1]:.2f} nats a token there."
    warning = "" if holds_gold else " Other answers may begin with the same token."
    return f"{at[0].upper()}{at[1:]}{behind}. First layers: {entered}. {whole}{warning}"


def _on_the_memory(memory: Injection, layers: int) -> str:
    below = "is bit for bit the same" if memory.untouched else "is NOT the same"
    return (
        f"The memory puts the stored answer in behind the last layer: {quoted(memory.token)} goes from rank "
        f"{memory.rank_before:,} ({memory.probability_before:.2%}) to rank {memory.rank_after:,} "
        f"({memory.probability_after:.2%}). The residual stream of all {layers} layers {below} with the memory on and "
        "off."
    )


def _on_the_trace(trace: TraceResult) -> Iterator[str]:
    lowered = f"Noise on {quoted(trace.subject)} lowered y in {trace.valid} of {trace.drawn} draws"
    if not trace.valid:
        yield f"{lowered}: the rule for a valid noise never held, and nothing can be read from the effects."
        return
    yield f"{lowered}; over {trace.used} of them it changes y by {trace.total_effect:+.2f} (total effect)."
    for kind, rows in trace.effects.items():
        most, window, place = max(
            (effect, window, place) for window, row in enumerate(rows) for place, effect in enumerate(row)
        )
        name = "MLP" if kind == "mlp" else kind
        yield (
            f"Putting {name} back brings y up most ({most:+.2f}) around layer {trace.centres[window] + 1}, "
            f"{trace.positions[place]}."
        )


def _where(place: Depth) -> str:
    return f"behind its own words {quoted(place.behind)}" if place.behind else "at the start of the reply"


def _layer(layer: int | None) -> str:
    return "never" if layer is None else f"{layer}"


def quoted(token: str) -> str:
    """A text as it reads in a sentence; a space at its ends belongs to it, but a line break is spelt out."""
    return '"' + token.replace("\n", "\\n") + '"'
