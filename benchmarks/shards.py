"""What cutting a project into shards gains, and that the memory is the same, byte for byte.

    python benchmarks/shards.py --facts 512 --shards 2 --out benchmarks/results/shards.json

Synthetic facts are ingested once. One process with one thread tunes them, then as many processes as there are shards,
with one thread each, fit them at the same time, and merge puts them together. Loading the model, which every process
does, has a time of its own. Processor seconds are beside seconds, because a machine may have other work. Nothing is
verified by generation: that is a few facts of merge, however many shards there are.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from common import timed_twice, write_bare, write_results
from tiny_backbone import save_tiny

from memtune.backbone import load_backbone
from memtune.config import Config
from memtune.evidence import synthetic
from memtune.ingest import ingest
from memtune.merge import merge
from memtune.plan import plan
from memtune.project import Project
from memtune.shards import Shard
from memtune.tune import tune
from memtune.tune_shard import tune_shard

Row = dict[str, Any]
Work = tuple[Any, ...]  # what one_thread takes


def one_thread(work: Callable[..., Any], project: Path, config: Config, *more: Any) -> Row:
    """``work`` over the project with one thread, in a process of its own."""
    torch.set_num_threads(1)
    backbone, loading, loading_processor = timed_twice(lambda: load_backbone(config.model))
    result, seconds, processor = timed_twice(lambda: work(project, config, *more, backbone=backbone))
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "loading_seconds": loading,
        "loading_processor_seconds": loading_processor,
        "learned": getattr(result, "learned", None),
        "planned_seconds": getattr(result, "seconds", None),
    }


def planned(project: Path, config: Config, shards: int, **given: Any) -> Any:
    return plan(project, config, shards=shards, **given)


def files_of(project: Path) -> dict[str, str]:
    return {kind: record["sha256"] for kind, record in Project(project).state["files"].items()}


def at_once(works: Sequence[Work]) -> list[Row]:
    """Each in a process of its own, all at the same time."""
    with ProcessPoolExecutor(len(works), mp_context=get_context("spawn")) as pool:
        return [row.result() for row in [pool.submit(one_thread, *work) for work in works]]


def measure(project: Path, config: Config, shards: int, run: Callable[[Sequence[Work]], list[Row]]) -> Row:
    """One process over a copy of the project, then shards and merge over the project itself. ``run``: ``at_once``."""
    one = Path(shutil.copytree(project, project.with_name("one")))
    row: Row = {}
    [row["plan"]] = run([(planned, project, config, shards)])
    [row["alone"]] = run([(tune, one, config)])
    row["shards"] = run([(tune_shard, project, config, Shard(shards, number)) for number in range(1, shards + 1)])
    [row["merge"]] = run([(merge, project, config)])
    row["same_bytes"] = files_of(project) == files_of(one)
    for kind in ("seconds", "processor_seconds"):
        slowest = max(shard[kind] for shard in row["shards"])
        row[f"speed_up_in_{kind}"] = row["alone"][kind] / slowest
        row[f"speed_up_with_merge_in_{kind}"] = row["alone"][kind] / (slowest + row["merge"][kind])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--facts", type=int, default=512)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = Config(model=save_tiny(folder) if args.model == "tiny" else args.model, verify="none")
        file = write_bare(synthetic.facts(args.facts), folder / "facts.jsonl")
        ingested = ingest(file, folder / "project", config)
        figures = {"facts": ingested.facts, "answer_tokens": ingested.answer_tokens}
        write_results(args, figures | measure(folder / "project", config, args.shards, at_once))


if __name__ == "__main__":
    main()
