"""Explanations measured: how well wrong replies are told from right ones; what one explanation and one trace cost.

    python benchmarks/explain.py --questions examples/evidence/real_only.jsonl \\
        examples/evidence/well_known_and_invented.jsonl --kept build/replies.jsonl --out benchmarks/results/detect.json
    python benchmarks/explain.py --project .memtune --out benchmarks/results/explain.json

Replies are kept in ``--kept`` as they come and are not asked for again, so that the run can be interrupted. With a
project, plots of the traced question (SVG) are written beside the JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import write_results

from memtune.backbone import Backbone, load_backbone
from memtune.events import Event, Progress
from memtune.evidence.mechanism.detect import TOGETHER, Observed, measured, observed
from memtune.evidence.mechanism.explain import ExplainResult, explain
from memtune.evidence.mechanism.explained_page import effect_maps, rank_plot
from memtune.evidence.mechanism.trace import Tracing
from memtune.facts import read_facts
from memtune.plots import standalone

# Asked with their gold answers: what is known, what is wrong, what is invented; the last one is traced.
ASKED = (
    ("Who founded Halden Tarn Instruments?", None),
    ("What is the capital of Palau?", "Ngerulmud"),
    ("What is the capital of Turkey?", "Ankara"),
)


def replies_to(backbone: Backbone, path: str, kept: Path) -> list[Observed]:
    """From ``kept``, or else asked now and kept."""
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    known = {row["question"]: Observed(**row | {"figures": tuple(row["figures"])}) for row in map(json.loads, lines)}
    facts = read_facts(path)
    missing = [fact for fact in facts if fact.question not in known]
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a", encoding="utf-8") as file:
        for start in range(0, len(missing), TOGETHER):
            for reply in observed(backbone, missing[start : start + TOGETHER]):
                known[reply.question] = reply
                file.write(json.dumps(asdict(reply), ensure_ascii=False) + "\n")
            file.flush()
    return [known[fact.question] for fact in facts]


def detection(backbone: Backbone, path: str, kept: Path) -> dict[str, Any]:
    result, _ = measured(replies_to(backbone, path, kept), path, backbone, seed=0)
    figures = asdict(result)
    for name in ("replies", "scores", "file", "seconds"):
        figures.pop(name)
    return figures


def explained(backbone: Backbone, project: Path) -> tuple[list[dict[str, Any]], ExplainResult]:
    """Each question, the last one with a trace. Seconds are of the processor, all threads."""
    rows = []
    for number, (question, answer) in enumerate(ASKED):
        tracing = Tracing() if number == len(ASKED) - 1 else None
        marks = [time.process_time()]

        def mark(event: Event, marks: list[float] = marks) -> None:
            if isinstance(event, Progress) and event.done == 0:
                marks.append(time.process_time())

        result = explain(question, project, answer=answer, tracing=tracing, backbone=backbone, on_event=mark)
        marks.append(time.process_time())
        spent = {"explanation": marks[1] - marks[0], "trace": marks[-1] - marks[1]}
        rows.append(asdict(result) | {"processor_seconds": spent})
    return rows, result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--questions", nargs="+", default=[])
    parser.add_argument("--kept", type=Path, default=Path("build/replies.jsonl"))
    parser.add_argument("--project", type=Path, help="tuned with the example facts")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    backbone = load_backbone(args.model)
    detected: dict[str, Any] = {}
    for path in args.questions:
        detected[Path(path).stem] = detection(backbone, path, args.kept)
        write_results(args, {"detected": detected})  # what is measured is not lost if the run is interrupted
    if args.project is not None:
        rows, traced = explained(backbone, args.project)
        write_results(args, {"explained": rows} | ({"detected": detected} if detected else {}))
        write_plots(traced, args.out)


def write_plots(traced: ExplainResult, out: Path) -> None:
    assert traced.trace is not None
    plots = {out.stem: rank_plot(traced)}
    plots |= {f"{out.stem}_{kind}": plot for kind, plot in effect_maps(traced.trace)}
    for name, plot in plots.items():
        out.with_name(f"{name}.svg").write_text(standalone(plot) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
