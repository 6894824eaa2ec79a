"""The page of what capacity found, and its plots: Figures 1 and 5 of Lamini-1 from a run of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memtune.markup import document, shown, table, verdict
from memtune.plots import Curve, Marker, curves, standalone

__all__ = ["plots_of", "render"]

Record = Mapping[str, Any]
STYLES = {"random": "near", "true": "right"}
LEAST = 1e-8  # nats; a loss of 0 has no place on a logarithmic axis
ARM_HEAD = (
    "learner", "answers", "exact", "rounds to target", "loss, worst fact", "seconds a fact", "bits", "bits / parameter",
    "bits / byte", "bytes", "bytes in all", "set to",
)  # fmt: skip
FIGURES = (
    ("memory", "Figure 5: the memory", "steps of the fit"),
    ("LoRA", "Figure 1: LoRA", "epochs"),
)


def render(record: Record) -> str:
    """The page of a CapacityResult, given as plain data."""
    return document(f"memtune capacity: {record['model']}", (part for section in _SECTIONS for part in section(record)))


def plots_of(record: Record) -> dict[str, str]:
    """File names and plots; a learner that was not asked for has none."""
    drawn = {f"{learner.lower()}.svg": _figure(record, learner, title, x) for learner, title, x in FIGURES}
    return {name: standalone(plot) for name, plot in drawn.items() if plot}


def _figure(record: Record, learner: str, title: str, x: str) -> str:
    series = [
        Curve(f"{arm['answers']} answers", tuple((p["round"], max(p["mean"], LEAST)) for p in arm["points"]), style)
        for arm in record["arms"]
        if arm["learner"] == learner
        for style in [STYLES[arm["answers"]]]
    ]
    target = Marker(record["until_loss"], f"target {record['until_loss']:g}")
    return curves(series, title=title, x=x, y="nats per answer token", marker=target)


def _head(record: Record) -> Iterator[str]:
    yield f"<h1>memtune capacity: {shown(record['model'])}</h1>"
    questions = f"{record['facts']:,} questions of {record['source']}, seed {record['seed']}"
    yield f"<p>{shown(questions)}, target {record['until_loss']:g} nats per answer token</p>"
    if record["missed"]:
        items = "".join(f"<li>{shown(text)}</li>" for text in record["missed"])
        yield f'<p class="no">Not as it has to be:</p><ul>{items}</ul>'
    else:
        yield '<p class="yes">Everything was learned, and nothing else changed.</p>'


def _learning(record: Record) -> Iterator[str]:
    yield "<h2>Randomization test</h2><p>The same questions with their answers, and with 32 random characters each, of "
    yield f"{record['bits_each']:.1f} bits. A loss is the mean over the facts, before each step or epoch.</p>"
    for learner, title, x in FIGURES:
        if plot := _figure(record, learner, title, x):
            yield f"<h3>{title}</h3>{plot}"
    yield _arms(record["arms"])


def _arms(arms: Sequence[Record]) -> str:
    return table(ARM_HEAD, [_arm(arm) for arm in arms], numbers=range(2, len(ARM_HEAD) - 1))


def _arm(arm: Record) -> list[str | tuple[str, str]]:
    stored, bits = arm["stored"], arm["bits"]
    whole = arm["exact"] == arm["facts"]
    ratios = [f"{bits / stored[name]:.4f}" for name in ("parameters", "bytes")] if bits is not None else ["", ""]
    return [
        arm["learner"],
        f"{arm['answers']}, {arm['tokens']:,} tokens",
        verdict(whole, f"{arm['exact']:,} of {arm['facts']:,}", f"{arm['exact']:,} of {arm['facts']:,}"),
        "not reached" if arm["rounds"] is None else f"{arm['rounds']:,}",
        f"{arm['loss_max']:.2g}",
        f"{arm['seconds'] / arm['facts']:.2f}",
        "" if bits is None else f"{bits:,.0f}",
        *ratios,
        f"{stored['bytes']:,}",
        f"{stored['whole']:,}",
        arm["details"],
    ]


def _rest(record: Record) -> Iterator[str]:
    asked = record["asked"]
    yield "<h2>Regularization test</h2><p>What is left of the backbone's own answers to questions of the same kind "
    yield "that nobody was taught, and to questions on anything else; how many options it picks right; how perplexed a "
    yield "text leaves it.</p>"
    rows = [_effect(effect, asked) for effect in record["effects"]]
    head = ("model", "held-out answers unchanged", "control answers unchanged", "options right", "perplexity")
    yield table((*head, "all logits unchanged", "the same, switched off"), rows, numbers=(1, 2, 3, 4))


def _effect(effect: Record, asked: Record) -> list[str | tuple[str, str]]:
    same, off = effect["identical"], effect["off_identical"]
    return [
        f"{effect['learner']}, {effect['answers']} answers" if effect["answers"] else effect["learner"],
        f"{effect['held_out']:,} of {asked['held_out']:,}",
        f"{effect['control']:,} of {asked['control']:,}",
        f"{effect['right']:,} of {asked['choices']:,}",
        f"{effect['perplexity']:.2f}",
        verdict(same, "bit for bit", "no"),
        "" if off is None else verdict(off, "bit for bit", "no"),
    ]


def _sweep(record: Record) -> Iterator[str]:
    if record["sweep"]:
        yield "<h2>Sweep</h2><p>Memories of more and more random answers, each with a router of its own.</p>"
        yield _arms(record["sweep"])


def _foot(record: Record) -> Iterator[str]:
    yield "<h2>How it was measured</h2>"
    rows = [*record["versions"].items(), ("model", f"{record['model']} {record['fingerprint']}")]
    yield table(("", ""), [*rows, ("time", f"{record['seconds']:.0f} s")], numbers=())


_SECTIONS = (_head, _learning, _rest, _sweep, _foot)
