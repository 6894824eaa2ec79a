"""memtune beside what one would use instead: the same facts, the same machine, one run.

    python benchmarks/side_by_side.py --facts zsre_dev.jsonl --limit 100 --near-miss zsre_near_miss.jsonl \
        --unrelated unrelated_dev.jsonl --out benchmarks/results/side_by_side.json

The facts' own ``paraphrases`` are taken out before any method sees the file; they are what recall is measured on.
"Unchanged" compares whole greedy outputs token for token with the untouched backbone's, which are generated once.
Every method runs in a process of its own, one after the other. Beside OUT.json a plot, OUT.svg, is written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import NEW_TOKENS, questions_of, timed, write_results
from plot import plot
from rivals import METHODS
from rivals.base import plain_prompts

from memtune.asking import greedy
from memtune.backbone import Backbone, load_backbone
from memtune.evidence.training import Goal
from memtune.facts import read_facts

WORKER = Path(__file__).with_name("one_rival.py")


def make_job(args: argparse.Namespace) -> dict[str, Any]:
    """All that a method needs, the untouched backbone's outputs with it."""
    facts = read_facts(args.facts)[: args.limit]
    backbone = load_backbone(args.model)
    return {
        "model": args.model,
        "target": args.target,
        "epochs": args.epochs,
        "facts": [
            {"id": f.id, "question": f.question, "answer": f.answer, "paraphrases": f.paraphrases} for f in facts
        ],
        "near_miss": untouched(backbone, questions_of(args.near_miss)[: args.questions]),
        "unrelated": untouched(backbone, questions_of(args.unrelated)[: args.questions]),
    }


def untouched(backbone: Backbone, questions: list[str]) -> dict[str, Any]:
    answers, seconds = timed(lambda: greedy(backbone, plain_prompts(backbone, questions), NEW_TOKENS))
    return {"questions": questions, "before": [answer.ids for answer in answers], "seconds": seconds}


def measure(name: str, job: Path) -> dict[str, Any]:
    """The figures of one method, or what went wrong with it: the others still count."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    out = job.with_name(f"{name}.json")
    done = subprocess.run([sys.executable, str(WORKER), name, str(job), str(out)], check=False)
    if done.returncode:
        return {"failed": f"exit code {done.returncode}"}
    figures: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return figures


def run(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """The results again after each method: what is done stays done if a later one is stopped."""
    job = make_job(args)
    path = folder / "job.json"
    path.write_text(json.dumps(job, ensure_ascii=False), encoding="utf-8")
    asked = {kind: len(job[kind]["questions"]) for kind in ("near_miss", "unrelated")}
    spent = {kind: job[kind]["seconds"] / max(1, asked[kind]) for kind in asked}
    paraphrases = sum(len(fact["paraphrases"]) for fact in job["facts"])
    results: dict[str, Any] = {
        "facts": len(job["facts"]),
        "asked": {"paraphrases": paraphrases} | asked,
        "backbone_seconds_per_question": spent,
        "methods": {},
    }
    for name in args.methods:
        results["methods"][name] = measure(name, path)
        yield results


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--facts", required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--near-miss")
    parser.add_argument("--unrelated")
    parser.add_argument("--questions", type=int, default=100, help="near-miss and unrelated questions, of each at most")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--target", type=float, default=Goal.target, help="loss of every fact at which training stops")
    parser.add_argument("--epochs", type=int, default=Goal.epochs, help="of the methods that train, at most")
    parser.add_argument("--out", type=Path, help="the figures as JSON; the plot is written beside them")
    parser.add_argument("--failures", type=Path, help="the figures with every single failure, as JSON")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        for results in run(args, Path(folder)):
            figures = write_results(args, results)
            if args.out:
                args.out.with_suffix(".svg").write_text(plot(figures), encoding="utf-8")
    return int(any("failed" in method for method in figures["methods"].values()))


if __name__ == "__main__":
    sys.exit(main())
