"""What the benchmarks share: where and how a figure was measured, and how a benchmark's results are written."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import transformers

from memtune import __version__
from memtune.facts import Fact, facts_to_jsonl, read_questions

NEW_TOKENS = 32  # of an output that is compared with the backbone's
LISTS = {"missed", "changed", "used"}  # single questions: they belong to the data set, not to the results


def machine() -> dict[str, Any]:
    revision = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    versions = {
        "memtune": __version__,
        "commit": revision.stdout.strip(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return {"machine": platform.machine(), "processor": processor(), "threads": torch.get_num_threads(), **versions}


def processor() -> str:
    """Figures of one processor say little of another: those with AMX multiply in bfloat16 several times as fast."""
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return f"{able.get('cpu_name') or platform.processor()}{', AMX' if able.get('amx_bf16') else ''}"


def command(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments as they are kept: files by name, because a path is of one machine."""
    return {name: Path(value).name if isinstance(value, str | Path) else value for name, value in vars(args).items()}


def peak_bytes() -> int:
    """The most memory that this process has held.

    ``ru_maxrss`` cannot say it for a child: across fork and exec Linux carries the parent's peak over.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_a_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What ``work`` returns from a fresh process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as worker:
        return worker.submit(work, *arguments).result()


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.monotonic()
    return work(), time.monotonic() - started


def timed_twice(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, its seconds, and the processor seconds of all threads: those hold on a busy machine."""
    spent = time.process_time()
    done, seconds = timed(work)
    return done, seconds, time.process_time() - spent


def print_nothing(_count: int) -> None:
    """Progress is of no use in a benchmark."""


def write_bare(facts: Iterable[Fact], path: Path) -> Path:
    """The facts without their paraphrases, which are what recall is measured on; any number of them, one by one."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(facts_to_jsonl([Fact(f.id, f.question, f.answer)]) for f in facts)
    return path


def questions_of(path: str | None) -> list[str]:
    return read_questions(path) if path else []


def without_lists(value: Any) -> Any:
    """The figures alone, without the questions that failed."""
    if isinstance(value, dict):
        return {k: without_lists(v) for k, v in value.items() if k not in LISTS}
    return value


def write_results(args: argparse.Namespace, results: Mapping[str, Any]) -> dict[str, Any]:
    """Prints the figures; keeps them in ``args.out``, and with every single failure in ``args.failures``, if any."""
    figures = {"command": command(args), "on": machine()} | {k: without_lists(v) for k, v in results.items()}
    text = json.dumps(figures, indent=1, default=str)
    print(text)
    for path, content in (
        (args.out, text),
        (getattr(args, "failures", None), json.dumps(results, indent=1, ensure_ascii=False)),
    ):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n", encoding="utf-8")
    return figures
