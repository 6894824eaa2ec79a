"""How the cost of a memory grows with the number of facts, measured on synthetic ones.

    python benchmarks/growth.py --sizes 100 300 1000 3000 --out benchmarks/results/growth.json

Each size is a process of its own, so that its peak memory is its own. An exponent of 1 means that ten times the facts
take ten times as long. Loading the model and preparing the router for it, once, are in no time.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, linear_regression
from typing import Any

import synthetic
from common import NEW_TOKENS, peak_bytes, print_nothing, timed, write_bare, write_results

from memtune.asking import Asker
from memtune.backbone import load_backbone
from memtune.bench import Bench
from memtune.config import Config
from memtune.events import ignore
from memtune.ingest import ingest
from memtune.measures import Case, drawn
from memtune.prior import prior_for
from memtune.project import Project
from memtune.store import load_memory
from memtune.tune import tune

GROWING = ("ingest_seconds", "tune_seconds", "lookup_seconds_per_question", "peak_bytes", "project_bytes")


def measure(size: int, model: str, sample: int) -> dict[str, Any]:
    """One size, from the fact file to answers."""
    config = Config(model=model, verify="none")
    backbone = load_backbone(model)
    prior_for(backbone, ignore)
    facts = list(synthetic.facts(size))
    loaded = peak_bytes()
    with tempfile.TemporaryDirectory() as folder:
        project, file = Path(folder) / "project", write_bare(facts, Path(folder) / "facts.jsonl")
        ingested, ingest_seconds = timed(lambda: ingest(file, project, config, backbone=backbone))
        tuned = tune(project, config, backbone=backbone)
        memory = load_memory(Project(project))
        project_bytes = sum(path.stat().st_size for path in project.iterdir())
    taught = peak_bytes()
    cases = [Case.alone(text, number, fact.answer) for number, fact in enumerate(facts) for text in fact.paraphrases]
    asked = drawn(cases, sample, "growth")
    questions = [backbone.prompts.question(case.question) for case in asked]
    states, reading = timed(lambda: backbone.states.early(questions))
    memory.router.route(questions[:1], states[:1])  # what it makes on first use is not the lookup
    _, looking = timed(
        lambda: [memory.router.route([ids], [state]) for ids, state in zip(questions, states, strict=True)]
    )
    bench = Bench(Asker(backbone, memory), facts, NEW_TOKENS)
    outcomes, answering = timed(lambda: bench.recall(asked, print_nothing))
    return {
        "facts": size,
        "learned": tuned.learned,
        "answer_tokens": ingested.answer_tokens,
        "ingest_seconds": ingest_seconds,
        "tune_seconds": tuned.seconds,
        "read_seconds_per_question": reading / len(asked),
        "lookup_seconds_per_question": looking / len(asked),
        "answer_seconds_per_question": answering / len(asked),
        "paraphrase_recall": fmean(outcome.good for outcome in outcomes),
        "project_bytes": project_bytes,
        "bytes_per_fact": project_bytes / size,
        "loaded_bytes": loaded,
        "peak_bytes": taught,
    }


def exponents(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The slope of each figure over the number of facts, both as logarithms."""
    sizes = [math.log(row["facts"]) for row in rows]
    return {key: linear_regression(sizes, [math.log(row[key]) for row in rows]).slope for key in GROWING}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000, 3000])
    parser.add_argument("--sample", type=int, default=100, help="paraphrases that are asked")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, help="the figures as JSON, written again after each size")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for size in args.sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as worker:
            rows.append(worker.submit(measure, size, args.model, args.sample).result())
        write_results(args, {"sizes": rows} | ({"exponents": exponents(rows)} if len(rows) > 1 else {}))


if __name__ == "__main__":
    main()
