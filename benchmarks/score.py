"""A tuned model and its backbone, asked the same and scored by ``memtune score``: ``results/score.json``.

    python benchmarks/score.py examples/evidence/asked.jsonl --project .memtune

The project holds the facts of the examples.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from common import command, machine

from memtune.backbone import Backbone
from memtune.evidence.truth.score import Prompt, ScoreResult, Setting, score
from memtune.facts import read_asked
from memtune.project import Project
from memtune.store import backbone_of

RESULTS = Path(__file__).parent / "results" / "score.json"


def measure(prompts: Path, project: Path, longest: int, backbone: Backbone) -> dict[str, Any]:
    """The figures with the memory on and off."""
    asked = [Prompt(row.question) for row in read_asked(prompts, command="python benchmarks/score.py")]
    found = {}
    for name, memory in (("memory_on", True), ("memory_off", False)):
        setting = Setting(memory=memory, longest=longest)
        found[name] = figures(score(asked, project, setting=setting, backbone=backbone))
    return found


def figures(result: ScoreResult) -> dict[str, Any]:
    """The sums, the means, and the answers that hold any statement of a kind."""
    kinds = ("supported", "contradicted", "no_evidence")
    return {
        "answers": len(result.answers),
        "facts": result.facts,
        **{kind: getattr(result, kind) for kind in kinds},
        **{name: getattr(result, name) for name in ("precision", "recall", "f1")},
        "answers_with": {kind: sum(getattr(answer, kind) > 0 for answer in result.answers) for kind in kinds},
        "seconds_asking": result.seconds_asking,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--project", type=Path, default=Path(".memtune"))
    parser.add_argument("--longest", type=int, default=32, help="tokens of an answer")
    args = parser.parse_args()
    model = backbone_of(Project(args.project), None, lambda event: None)
    out = {"command": command(args), "on": machine(), **measure(args.prompts, args.project, args.longest, model)}
    RESULTS.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(out, indent=1))
