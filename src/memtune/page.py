"""One self-contained HTML page of what eval found: no script, no network, every text escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from memtune.markup import document, shown, table, verdict
from memtune.measures import wilson
from memtune.plots import Marker, Series, Share, histograms, shares

__all__ = ["render"]

Record = Mapping[str, Any]
DISTANCE_BIN = 0.1
LEAST_LOSS = 1e-8  # nats; a loss of 0 has no place on a logarithmic axis
GROUPS = (
    ("recall", "Recall", "The whole output is the fact's answer, and stops."),
    ("unchanged", "Everything else", "The output's token ids are the backbone's own, with the memory on and off."),
    ("robustness", "Robustness", "The same questions, as asked and in other surroundings."),
)


def render(record: Record) -> str:
    """The page of an EvalResult, given as plain data."""
    return document(f"memtune eval: {record['project']}", (part for section in _SECTIONS for part in section(record)))


def _head(record: Record) -> Iterator[str]:
    yield f"<h1>memtune eval: {shown(record['project'])}</h1>"
    learned = f"{record['learned']:,} of {record['facts']:,} facts learned"
    yield f"<p>{shown(record['model'])}, {learned}, threshold {record['threshold']:.2f}, seed {record['seed']}</p>"


def _verdicts(record: Record) -> Iterator[str]:
    """What ingest promised, and the floors that were asked for."""
    if record["promises"]:
        yield "<h2>What ingest promised</h2>"
        rows = [
            [
                p["name"],
                f"{p['expected']:.1%}",
                _share(p, "measured"),
                p["measure"],
                verdict(p["held"], "held", "not held"),
            ]
            for p in record["promises"]
        ]
        yield table(("", "expected", "measured (95 % interval)", "on", ""), rows, numbers=(1, 2))
    if record["floors"]:
        yield "<h2>Floors</h2>"
        rows = [
            [
                f["option"],
                f"{f['wanted']:g}",
                f"{f['share']:.2%}",
                _of(f),
                f["measure"],
                verdict(f["met"], "met", "missed"),
            ]
            for f in record["floors"]
        ]
        yield table(("floor", "asked for", "measured", "", "on", ""), rows, numbers=(1, 2, 3))


def _measures(record: Record) -> Iterator[str]:
    for group, name, meaning in GROUPS:
        found = [measure for measure in record["measures"] if measure["group"] == group]
        if found:
            yield f"<h2>{name}</h2><p>{meaning}</p>"
            rows = [[m["name"], m["source"], _of(m), _share(m, "share"), f"{m['generated']:,}"] for m in found]
            head = ("measure", "wordings", "as wanted", "share (95 % interval)", "generated")
            yield table(head, rows, numbers=(2, 3, 4))
    if record["notes"]:
        notes = "".join(f"<li>{shown(note)}</li>" for note in record["notes"])
        yield f'<h3>Left out</h3><ul class="soft">{notes}</ul>'


def _baseline(record: Record) -> Iterator[str]:
    """The same questions, answered by retrieval, and what either costs."""
    if found := record["baseline"]:
        yield f"<h2>Beside retrieval ({shown(found['name'])})</h2><p>The untouched backbone with the "
        yield f"{found['notes']:,} best facts of a full-text search as earlier turns, on the same questions. Seconds "
        yield f"are of a question, both ways on the same batches. The index takes {found['bytes']:,} bytes.</p>"
        rows = [
            [
                m["name"],
                m["source"],
                m["wanted"],
                f"{m['memtune_share']:.1%}",
                _share(m, "share"),
                *("" if m[name] is None else f"{m[name]:.1%}" for name in ("contained", "found")),
                f"{m['extra_tokens']:,.0f}",
                f"{m['seconds']:.2f}",
                f"{m['memtune_seconds']:.2f}",
            ]
            for m in found["measures"]
        ]
        head = ("measure", "wordings", "wanted", "memtune", "retrieval (95 % interval)", "contained", "fact found")
        yield table((*head, "extra tokens", "seconds", "seconds, memtune"), rows, numbers=range(3, 10))


def _by_distance(record: Record) -> Iterator[str]:
    """Recall of wordings that are not stored, by how far they are from the stored one."""
    points = [
        (distance, hit)
        for measure in record["measures"]
        if measure["key"] in ("paraphrase", "reworded")
        for distance, hit in zip(measure["distances"], measure["hits"], strict=True)
        if distance is not None
    ]
    bins: dict[int, list[bool]] = {}
    for distance, hit in points:
        bins.setdefault(min(9, int(distance / DISTANCE_BIN)), []).append(hit)
    found = []
    for number, hits in sorted(bins.items()):
        label = f"{number * DISTANCE_BIN:.1f} to {(number + 1) * DISTANCE_BIN:.1f}"
        found.append(Share(label, sum(hits) / len(hits), *wilson(sum(hits), len(hits)), len(hits)))
    if found:
        title = "Recall by distance of the wording"
        yield f"<h2>{title}</h2><p>Given paraphrases and synthetic rewordings. The distance is 1 minus difflib's ratio "
        yield "between the question and the nearest stored wording of its fact: 0 is the same letters.</p>"
        yield shares(found, title=title, x="distance from the nearest stored wording", y="exact answers")


def _scores(record: Record) -> Iterator[str]:
    groups: tuple[tuple[str, str, Callable[[Record], bool]], ...] = (
        ("questions on facts", "right", lambda m: m["group"] == "recall"),
        ("near misses", "near", lambda m: m["key"].startswith("near-miss")),
        ("unrelated", "unrelated", lambda m: m["key"].startswith("unrelated")),
    )
    series = []
    for name, style, wanted in groups:
        values = tuple(score for measure in record["measures"] if wanted(measure) for score in measure["scores"])
        if values:
            series.append(Series(name, values, style))
    title = "Scores of the router"
    marker = Marker(record["threshold"], f"threshold {record['threshold']:.2f}")
    plot = histograms(series, title=title, x="score of the best candidate (log-odds)", y="questions", marker=marker)
    if plot:
        yield f"<h2>{title}</h2><p>A fact fires at the threshold and to the right of it.</p>{plot}"


def _losses(record: Record) -> Iterator[str]:
    finite = [loss for loss in record["losses"] if math.isfinite(loss)]
    values = tuple(math.log10(max(loss, LEAST_LOSS)) for loss in finite)
    marker = Marker(math.log10(record["until_loss"]), f"target {record['until_loss']:g}")
    series = [Series("facts", values, "right")]
    title = "Losses of the bank"
    plot = histograms(series, title=title, x="mean loss, nats per answer token", y="facts", marker=marker, log=True)
    if values and plot:
        never = len(record["losses"]) - len(finite)
        missing = f" {never:,} facts were never fitted." if never else ""
        yield f"<h2>{title}</h2><p>As acceptance measured them.{missing}</p>{plot}"


def _failures(record: Record) -> Iterator[str]:
    yield "<h2>Every output that was not as wanted</h2>"
    failed = [measure for measure in record["measures"] if measure["failures"]]
    if not failed:
        yield "<p>None.</p>"
    for measure in failed:
        wanted = "expected" if measure["wanted"] == "exact" else "backbone"
        rows = [_failure(failure) for failure in measure["failures"]]
        yield f"<details open><summary>{shown(measure['name'])} ({shown(measure['source'])}): {len(rows):,}</summary>"
        yield table(("question", wanted, "said", "fired", "score", "why"), rows, numbers=(4,))
        yield "</details>"


def _failure(failure: Record) -> list[str]:
    said = "not generated" if failure["said"] is None else failure["said"]
    fired, score = failure["fired"] or "none", _score(failure["score"])
    return [failure["question"], failure["expected"], said, fired, score, failure["why"]]


def _foot(record: Record) -> Iterator[str]:
    yield "<h2>How it was measured</h2>"
    sample = f"at most {record['sample']:,} questions a measure" if record["sample"] else "all questions"
    rows = [[f"--{file['role']}", f"{file['path']} ({file['bytes']:,} bytes)"] for file in record["files"]]
    rows += [[name, version] for name, version in record["versions"].items()]
    rows += [["model", f"{record['model']} {record['fingerprint']}"], ["sample", sample]]
    rows += [["unchanged outputs", f"{record['longest']:,} tokens, verify {record['verify']}"]]
    rows += [["time", f"{record['seconds']:.0f} s"]]
    yield table(("", ""), rows, numbers=())


_SECTIONS = (_head, _verdicts, _measures, _baseline, _by_distance, _scores, _losses, _failures, _foot)


def _share(row: Record, name: str) -> str:
    return f"{row[name]:.1%} ({row['low']:.1%} to {row['high']:.1%})"


def _of(row: Record) -> str:
    return f"{row['good']:,} of {row['asked']:,}"


def _score(score: float) -> str:
    return f"{score:.2f}" if math.isfinite(score) else "none"
