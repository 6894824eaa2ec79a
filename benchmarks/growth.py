"""How the cost of a memory grows with the number of facts, measured on synthetic ones.

    python benchmarks/growth.py --sizes 100 300 1000 --out benchmarks/results/growth.json
    python benchmarks/growth.py --model tiny --sizes 1000 10000 100000 --out benchmarks/results/growth_tiny.json

Every verb of every size is a process of its own, so that its peak memory is its own. An exponent of 1 means that ten
times the facts take ten times as long. Loading the model and preparing the router for it, once, are in no time.
Beside OUT.json a plot, OUT.svg, is written. ``--model tiny`` is a checkpoint that is made on the spot.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, linear_regression
from typing import Any

from common import NEW_TOKENS, in_a_process, peak_bytes, print_nothing, timed, write_bare, write_results
from plot import growth_plot
from tiny_backbone import save_tiny

from memtune.asking import Asker
from memtune.backbone import Backbone, load_backbone
from memtune.bench import Bench
from memtune.config import Config
from memtune.events import ignore
from memtune.evidence import synthetic
from memtune.export import export
from memtune.ingest import ingest
from memtune.measures import Case, drawn
from memtune.prior import prior_for
from memtune.project import Project
from memtune.store import load_facts, load_memory
from memtune.tune import tune

GROWING = (
    "ingest_seconds",
    "tune_seconds",
    "lookup_seconds_per_question",
    "export_seconds",
    "ingest_peak_bytes",
    "tune_peak_bytes",
    "project_bytes",
)
FACTS, PROJECT, BUNDLE = "facts.jsonl", "project", "bundle"

Row = dict[str, Any]


def ingested(folder: Path, model: str) -> Row:
    backbone = load_backbone(model)
    prior_for(backbone, ignore)
    loaded = peak_bytes()
    config = Config(model=model, verify="none")
    result, seconds = timed(lambda: ingest(folder / FACTS, folder / PROJECT, config, backbone=backbone))
    return {
        "ingest_seconds": seconds,
        "loaded_bytes": loaded,
        "ingest_peak_bytes": peak_bytes(),
        "answer_tokens": result.answer_tokens,
        "expected_recall": result.expected_recall,
    }


def tuned(folder: Path, model: str) -> Row:
    result = tune(folder / PROJECT, Config(model=model, verify="none"), backbone=load_backbone(model))
    return {"tune_seconds": result.seconds, "tune_peak_bytes": peak_bytes(), "learned": result.learned}


def asked(folder: Path, model: str, sample: int) -> Row:
    """Other wordings of ``sample`` facts from all over the file: read, looked up, answered."""
    backbone, project = load_backbone(model), Project(folder / PROJECT)
    memory, facts = load_memory(project), load_facts(project)
    numbers = drawn(range(len(facts)), sample, "growth")
    wordings = [(i, text) for i in numbers for text in synthetic.fact(i).paraphrases]
    cases = drawn([Case.alone(text, i, facts[i].answer) for i, text in wordings], sample, "growth")
    bench = Bench(Asker(backbone, memory), facts, NEW_TOKENS)
    looked_up = _looked_up(backbone, memory.router, [case.question for case in cases])
    outcomes, answering = timed(lambda: bench.recall(cases, print_nothing))
    return looked_up | {
        "answer_seconds_per_question": answering / len(cases),
        "paraphrase_recall": fmean(outcome.good for outcome in outcomes),
        "asked": len(cases),
        "ask_peak_bytes": peak_bytes(),
    }


def _looked_up(backbone: Backbone, router: Any, texts: Sequence[str]) -> Row:
    questions = [backbone.prompts.question(text) for text in texts]
    states, reading = timed(lambda: backbone.states.early(questions))
    router.route(questions[:1], states[:1])  # what it makes on first use is not the lookup
    _, looking = timed(lambda: [router.route([ids], [state]) for ids, state in zip(questions, states, strict=True)])
    return {
        "read_seconds_per_question": reading / len(texts),
        "lookup_seconds_per_question": looking / len(texts),
    }


def exported(folder: Path, model: str) -> Row:
    backbone = load_backbone(model)
    result, seconds = timed(lambda: export(folder / PROJECT, folder / BUNDLE, backbone=backbone))
    return {
        "export_seconds": seconds,
        "bundle_bytes": result.bytes,
        "bundle_asked": result.asked,
        "bundle_exact": result.exact,
        "export_peak_bytes": peak_bytes(),
    }


def kept(folder: Path, size: int, answer_tokens: int) -> Row:
    files = {path.name.partition("-")[0]: path.stat().st_size for path in (folder / PROJECT).iterdir()}
    total = sum(files.values())
    return {
        "project_bytes": total,
        "bytes_per_fact": total / size,
        "router_bytes_per_fact": files["router"] / size,
        "bank_bytes_per_answer_token": files["bank"] / answer_tokens,
    }


def measure(size: int, model: str, sample: int, call: Callable[..., Row], told: Callable[[Row], object]) -> Row:
    """One size, from the fact file to answers. ``call`` runs a verb, ``told`` hears the figures after each."""
    row: Row = {"facts": size}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_bare(synthetic.facts(size), folder / FACTS)
        for verb, more in ((ingested, ()), (tuned, ()), (asked, (sample,)), (exported, ())):
            row |= call(verb, folder, model, *more)
            row |= kept(folder, size, row["answer_tokens"])
            told(row)
    return row


def exponents(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The slope of each figure over the number of facts, both as logarithms."""
    sizes = [math.log(row["facts"]) for row in rows]
    return {key: linear_regression(sizes, [math.log(row[key]) for row in rows]).slope for key in GROWING}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--sample", type=int, default=100, help="paraphrases that are asked")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, help="the figures as JSON; the plot is written beside them")
    args = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        model = save_tiny(Path(folder)) if args.model == "tiny" else args.model
        for size in args.sizes:
            rows.append(measure(size, model, args.sample, in_a_process, print))
            figures = write_results(args, {"sizes": rows, "exponents": exponents(rows) if len(rows) > 1 else {}})
            if args.out:
                args.out.with_suffix(".svg").write_text(growth_plot(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
