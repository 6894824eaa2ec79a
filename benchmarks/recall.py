"""Recall and silence on one set of facts: exact, paraphrases, near misses, unrelated prompts, and context in front.

    python benchmarks/recall.py --facts zsre_dev.jsonl --near-miss zsre_near_miss.jsonl \\
        --unrelated unrelated_dev.jsonl --out benchmarks/results/recall_zsre.json

The facts' own ``paraphrases`` are taken out before anything else sees the file; they are what recall is measured on.
A row's ``near_miss`` list is used as well, without questions that hold a stored row's ``subject``: those may fire.
``--hold-out N`` keeps the last N rows out of the memory and asks them as near misses. Outputs are whole and greedy.
Where no fact fires the memory writes nothing, so "unchanged" generates what fired, and a sample of the rest as a check.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import NEW_TOKENS, peak_bytes, print_nothing, questions_of, timed, write_bare, write_results

from memtune.asking import Asker
from memtune.backbone import load_backbone
from memtune.bench import Bench
from memtune.conditions import CONDITIONS, Surroundings
from memtune.config import Config
from memtune.facts import read_facts
from memtune.ingest import ingest
from memtune.measures import Case, Measure, Outcome, drawn
from memtune.project import Project
from memtune.store import load_memory
from memtune.tune import tune

SAMPLE = 300  # questions asked behind 200 tokens of other text
CHECKED = 32  # null routes that are generated nevertheless


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file as they stand; none of a file of another format."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else []
    return [json.loads(line) for line in lines]


def near_misses(path: str) -> list[str]:
    """The rows' own near misses, without those that ask about the subject of any row."""
    rows = rows_of(Path(path))
    subjects = {row["subject"].casefold() for row in rows if "subject" in row}
    asked = [question for row in rows for question in row.get("near_miss", ())]
    return [question for question in asked if not any(name in question.casefold() for name in subjects)]


def unambiguous(path: Path, folder: Path) -> Path:
    """A copy of the file without paraphrases that two of its rows answer differently: neither answer would be wrong."""
    rows = rows_of(path)
    if not rows:
        return path
    answers: dict[str, set[str]] = {}
    for row in rows:
        for text in (row.get("question"), *row.get("paraphrases", ())):
            answers.setdefault(text, set()).add(row.get("answer"))
    for row in rows:
        if "paraphrases" in row:
            row["paraphrases"] = [text for text in row["paraphrases"] if len(answers[text]) == 1]
    copy = folder / path.name
    copy.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return copy


def figures(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    measure = Measure.of(name, name, "unchanged" if "silent" in name else "recall", "given", outcomes)
    entries = {key: getattr(measure, key) for key in ("asked", "good", "share", "low", "high", "fired", "generated")}
    missed = [vars(outcome.failure) for outcome in outcomes if outcome.failure]
    return entries | {"missed": missed}


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows = read_facts(unambiguous(Path(args.facts), folder))[: args.limit or None]
    facts, held = (rows[: -args.hold_out], rows[-args.hold_out :]) if args.hold_out else (rows, [])
    config, project = Config(model=args.model, verify="none", dtype=args.dtype), folder / "project"
    backbone = load_backbone(args.model, dtype=args.dtype)
    ingested, ingest_seconds = timed(
        lambda: ingest(write_bare(facts, folder / "facts.jsonl"), project, config, backbone=backbone)
    )
    tuned = tune(project, config, backbone=backbone)
    memory = load_memory(Project(project))
    bench = Bench(Asker(backbone, memory), facts, NEW_TOKENS)
    results: dict[str, Any] = {
        "facts": len(facts),
        "learned": tuned.learned,
        "answer_tokens": ingested.answer_tokens,
        "loss_max": tuned.loss_max,
        "threshold": ingested.threshold,
        "expected_recall": ingested.expected_recall,
        "expected_false_fire": ingested.expected_false_fire,
        "seconds": {"ingest": ingest_seconds, "tune": tuned.seconds},
    }
    tuned_cases = [Case.alone(fact.question, i, fact.answer) for i, fact in enumerate(facts)]
    reworded = [Case.alone(text, i, fact.answer) for i, fact in enumerate(facts) for text in fact.paraphrases]
    around = Surroundings.of(backbone.prompts, facts, memory.router.reader)
    behind = next(condition for condition in CONDITIONS if condition.key == "text-200")

    def in_context(cases: Sequence[Case]) -> list[Case]:
        built = (behind.build(case, number, around) for number, case in enumerate(cases))
        return [case for case in built if case is not None]

    sample = drawn(reworded or tuned_cases, SAMPLE, "context")
    near = [*questions_of(args.near_miss), *near_misses(args.facts), *(fact.question for fact in held)]
    asked = {
        "exact": drawn(tuned_cases, args.sample, "exact"),
        "paraphrase": drawn(reworded, args.sample, "paraphrase"),
        "without_context": sample,
        "behind_200_tokens": in_context(sample),
        "near_miss_silent": [Case.alone(question) for question in near],
        "unrelated_silent": [Case.alone(question) for question in questions_of(args.unrelated)],
    }
    for name, cases in asked.items():
        silent = name.endswith("silent")
        outcomes = bench.unchanged(cases, CHECKED, print_nothing) if silent else bench.recall(cases, print_nothing)
        if cases:
            results[name] = figures(name, outcomes)
            print(name, {k: v for k, v in results[name].items() if k != "missed"}, flush=True)
    return results | {"peak_bytes": peak_bytes()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--facts", required=True)
    parser.add_argument("--limit", type=int, default=0, help="the first rows of the file; 0 for all")
    parser.add_argument("--hold-out", type=int, default=0, help="last rows that are asked as near misses instead")
    parser.add_argument("--near-miss")
    parser.add_argument("--unrelated")
    parser.add_argument("--sample", type=int, default=0, help="tuned wordings and paraphrases asked; 0 for all")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default=Config.dtype, help="of the backbone's weights and states")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    parser.add_argument("--failures", type=Path, help="the figures with every single failure, as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(args, Path(folder))
    write_results(args, results)


if __name__ == "__main__":
    main()
