"""A plan beside what happened."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtune.errors import DataError, ProjectError
from memtune.project import Project
from memtune.store import bytes_of, load_memory

__all__ = ["Forecast", "Held", "forecast"]

FIELDS = ("facts", "already", "alone", "shards")


@dataclass(frozen=True)
class Held:
    """One figure of a plan, and what it became."""

    what: str
    planned: float
    measured: float

    @property
    def ratio(self) -> float:
        """Measured over planned."""
        return self.measured / self.planned if self.planned else float("nan")


@dataclass(frozen=True)
class Forecast:
    """``facts`` were planned and then tuned. Seconds of fitting in one process; bytes of the bank."""

    facts: int
    figures: tuple[Held, ...]


def forecast(project_dir: Path, plan_file: Path) -> Forecast:
    """What a plan, as ``memtune plan --json`` wrote it, said, beside what ``tune`` then took.

    Raises DataError for a file that is no plan, ProjectError where another set of facts, or not all, were tuned.
    """
    plan = _read(plan_file)
    project = Project(project_dir)
    tuned = project.need("tune", "memtune tune")
    planned, done = plan["facts"] - plan["already"], tuned["facts"] - tuned["already"]
    if planned != done or not tuned.get("fit_seconds"):
        raise ProjectError(
            f"the last tune fitted {done:,} facts in one process, {plan_file} planned {planned:,}"
            if planned != done
            else "the last tune fitted nothing itself: its shards did",
            hint="memtune plan --json > plan.json, then memtune tune, then memtune plan --check plan.json",
        )
    bank = load_memory(project).bank
    size = bytes_of(bank.state_dict().values())
    seconds = Held("seconds", plan["alone"], tuned["fit_seconds"])
    return Forecast(planned, (seconds, Held("bytes", sum(shard["bytes"] for shard in plan["shards"]), size)))


def _read(path: Path) -> dict[str, Any]:
    hint = "--check takes what was written by: memtune plan --json > plan.json"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError([f"{path}: {error}"], hint=hint) from error
    if not isinstance(plan, dict) or any(name not in plan for name in FIELDS):
        raise DataError([f"{path}: no plan is in it"], hint=hint)
    return plan
