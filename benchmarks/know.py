"""What a model knows before it is taught some facts, and what of it memtune and LoRA change.

    python benchmarks/know.py --taught examples/evidence/parts.jsonl \
        --held-out examples/evidence/parts_held_out.jsonl --unrelated examples/evidence/capitals.jsonl \
        --out benchmarks/results/know.json

Facts to teach, facts of the same kind that nobody teaches, and facts about something else are sorted by what the
backbone knows of them (``memtune know``). Then the first of them are taught, by memtune and by LoRA, each on the
untouched backbone, and all are asked again. ``--plot`` draws what the JSON says.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from common import write_results
from plot import knowledge_plot

from memtune import ui
from memtune.backbone import load_backbone
from memtune.config import Config
from memtune.evidence.knowledge.know import CompareResult, FactFiles, KnowResult, Method, Subject, compare, know
from memtune.evidence.knowledge.slick import CATEGORIES
from memtune.ingest import ingest
from memtune.tune import tune


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    shown = ui.Ui()
    config, backbone = Config(model=args.model), load_backbone(args.model, on_event=shown.on_event)
    files = FactFiles(args.taught, args.held_out, args.unrelated)
    alone, project, record = Subject(folder, args.model), folder / "project", folder / "before.json"
    method = Method(args.sets, args.shots, args.format, args.sampled)
    before = know(files, alone, config, method=method, save=record, on_event=shown.on_event, backbone=backbone)
    shown.show(before, ui.know_view)
    ingest(args.taught, project, config, on_event=shown.on_event, backbone=backbone)
    tune(project, config, on_event=shown.on_event, backbone=backbone)
    after = compare(record, Subject(project), config, control=True, on_event=shown.on_event, backbone=backbone)
    shown.show(after, ui.compare_view)
    return figures(before, after)


def figures(before: KnowResult, after: CompareResult) -> dict[str, Any]:
    """Counts of each group, and of each fact its category and its chances in every state of the model."""
    survey = before.survey
    states = {"before": before.measured.known} | {arm.name: arm.measured.known for arm in after.arms}
    return {
        "categories": CATEGORIES,
        "groups": {one.group: one.facts for one in after.arms[0].transitions},
        "counts": {
            state: {
                group: Counter(known[i].category for i in survey.group(group)) for group in dict.fromkeys(survey.groups)
            }
            for state, known in states.items()
        },
        "said_alone": {
            state: {group: sum(known[i].alone for i in survey.group(group)) for group in dict.fromkeys(survey.groups)}
            for state, known in states.items()
        },
        "transitions": {arm.name: {one.group: one.counts for one in arm.transitions} for arm in after.arms},
        "damage": {arm.name: len(arm.damage) for arm in after.arms},
        "facts": [
            {"id": fact.id, "group": group} | {state: vars(known[i]) for state, known in states.items()}
            for i, (fact, group) in enumerate(zip(survey.facts, survey.groups, strict=True))
        ],
        "seconds": {"before": before.seconds, "after": after.seconds},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("taught", "held-out", "unrelated"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="a file of facts")
    parser.add_argument("--sets", type=int, default=4)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--format", default="template")
    parser.add_argument("--sampled", action="store_true")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    parser.add_argument("--plot", type=Path, help="the figures as SVG")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = write_results(args, measure(args, Path(folder)))
    if args.plot:
        args.plot.write_text(knowledge_plot(results), encoding="utf-8")


if __name__ == "__main__":
    main()
