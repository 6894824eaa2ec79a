"""Writes the tables of README.md and docs/benchmarks.md from the JSON in benchmarks/results.

python benchmarks/report.py            # writes them
python benchmarks/report.py --check    # exits 1 if they are stale
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")


def main_job(result: dict[str, Any]) -> str:
    """The main job as a table; every figure is read from the file."""
    near, unrelated, seconds = result["near_miss"], result["unrelated"], result["seconds"]
    forward = min(seconds["plain_forward"])
    rows = [
        ("facts accepted", f"{result['learned']} of {result['facts']}"),
        ("worst mean loss of a fact", f"{result['loss_max']:.5f} nats per answer token"),
        ("exact, the tuned wording, generated", share(result["exact"], "exact")),
        ("exact, paraphrases that no part of memtune had seen", share(result["paraphrase"], "exact")),
        ("near-miss questions answered as by the backbone", share(near, "unchanged")),
        ("unrelated questions answered as by the backbone, token for token", share(unrelated, "unchanged")),
        ("tune, verification included", f"{seconds['tune']:.1f} s"),
        ("one plain forward pass with loss over the same conversations", f"{forward:.1f} s"),
        ("tune over that pass", f"{result['tune_over_plain_forward']:.2f}"),
        ("exported bundle, fresh process, exact", share(result["bundle"], "exact")),
    ]
    lines = ["| measured | result |", "|---|---|"] + [f"| {name} | {value} |" for name, value in rows]
    on = result["on"]
    size, model = f"{result['answer_tokens']:,} answer tokens", result["command"]["model"]
    note = f"{model}, {size}, {on['threads']} threads, torch {on['torch']}."
    return "\n".join([*lines, "", note])


def share(figures: dict[str, Any], name: str) -> str:
    count, asked = figures[name], figures["asked"]
    return f"{count} of {asked} ({count / asked:.1%})"


def with_table(page: str, table: str) -> str:
    begin, end = "<!-- main job: begin -->", "<!-- main job: end -->"
    head, rest = page.split(begin)
    return head + begin + "\n" + table + "\n" + end + rest.split(end)[1]


def main() -> int:
    table = main_job(json.loads((RESULTS / "main_job.json").read_text(encoding="utf-8")))
    stale = False
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        written = with_table(page, table)
        stale |= page != written
        if "--check" not in sys.argv:
            path.write_text(written, encoding="utf-8")
    return int(stale and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
