"""What it takes to add, change and forget one fact in memories of many sizes, on synthetic facts and a tiny backbone.

    python benchmarks/changes.py --sizes 1000 10000 100000 --out benchmarks/results/changes.json

Every size is ingested and tuned once; each change is a process of its own. Loading the model is in no time; reading the
project, checking every file against its checksum and writing what changed are.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import in_a_process, peak_bytes, timed, write_bare, write_results
from tiny_backbone import save_tiny

from memtune.backbone import load_backbone
from memtune.change import ChangeResult, add, forget, update
from memtune.config import Config
from memtune.events import ignore
from memtune.evidence import synthetic
from memtune.ingest import ingest
from memtune.prior import prior_for
from memtune.tune import tune

VERBS = ("add", "update", "forget")
PROJECT, FACTS = "project", "facts.jsonl"


def built(folder: Path, model: str) -> dict[str, Any]:
    """A tuned project of the facts in the folder."""
    backbone = load_backbone(model)
    prior_for(backbone, ignore)
    config = Config(model=model, verify="none")
    _, ingesting = timed(lambda: ingest(folder / FACTS, folder / PROJECT, config, backbone=backbone))
    result = tune(folder / PROJECT, config, backbone=backbone)
    return {"learned": result.learned, "ingest_seconds": ingesting, "tune_seconds": result.seconds}


def changed(verb: str, folder: Path, model: str, number: int) -> dict[str, Any]:
    """One change to the fact that the file of facts would have next."""
    backbone = load_backbone(model)
    fact = synthetic.fact(number)
    where = (folder / PROJECT, Config(model=model, verify="all"))

    def carry_out() -> ChangeResult:
        if verb == "forget":
            return forget([fact.id], *where, backbone=backbone)
        said = replace(fact, paraphrases=(), answer=fact.answer if verb == "add" else f"not {fact.answer}")
        return (add if verb == "add" else update)([said], *where, backbone=backbone)

    result, seconds = timed(carry_out)
    return {
        f"{verb}_seconds": seconds,
        f"{verb}_verified": result.verified_exact,
        f"{verb}_untouched": result.untouched,
        f"{verb}_peak_bytes": peak_bytes(),
    }


def measure(size: int, model: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_bare(synthetic.facts(size), folder / FACTS)
        row = {"facts": size} | in_a_process(built, folder, model)
        for verb in VERBS:
            row |= in_a_process(changed, verb, folder, model, size)
        row["project_bytes"] = sum(path.stat().st_size for path in (folder / PROJECT).iterdir())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = save_tiny(Path(folder))
        for size in args.sizes:
            rows.append(measure(size, model))
            write_results(args, {"sizes": rows})


if __name__ == "__main__":
    main()
