"""A plan beside what happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtune.errors import DataError, ProjectError
from memtune.project import Project
from memtune.store import bytes_of, load_memory

__all__ = ["Forecast", "Held", "forecast"]

FIGURES = ("facts", "already", "alone", "bank_bytes")
LARGEST = 2**63  # of any figure: more than this is no count of facts or bytes


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
    """``facts`` were planned and then tuned. Seconds of fitting in one process; bytes of the whole bank, with the facts
    that were learned before: nothing says afterwards which those were.
    """

    facts: int
    figures: tuple[Held, ...]


def forecast(project_dir: Path, plan_file: Path) -> Forecast:
    """What a plan, as ``memtune plan --json`` wrote it, said, beside what ``tune`` then took.

    Raises DataError for a file that is no plan, ProjectError where another set of facts, or not all, were tuned.
    """
    plan = _read(plan_file)
    project = Project(project_dir)
    tuned = project.need("tune", "memtune tune")
    planned, done = _left(plan), _left(tuned)
    if planned != done or not tuned.get("fit_seconds"):
        raise ProjectError(
            f"the last tune fitted {done} in one process, {plan_file} planned {planned}"
            if planned != done
            else "the last tune fitted nothing itself: its shards did",
            hint="memtune plan --json > plan.json, then memtune tune, then memtune plan --check plan.json",
        )
    bank = load_memory(project).bank
    size = bytes_of(bank.state_dict().values())
    seconds = Held("seconds", plan["alone"], tuned["fit_seconds"])
    return Forecast(plan["facts"] - plan["already"], (seconds, Held("bytes", plan["bank_bytes"], size)))


def _left(figures: Mapping[str, Any]) -> str:
    """How many facts there were to fit, of how many: only where both are the same is the bank of the same facts."""
    return f"{figures['facts'] - figures['already']:,} of {figures['facts']:,} facts"


def _read(path: Path) -> dict[str, Any]:
    hint = "--check takes what was written by: memtune plan --json > plan.json"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError([f"{path}: {error}"], hint=hint) from error
    if not isinstance(plan, dict) or not all(_is_figure(plan.get(name)) for name in FIGURES):
        raise DataError([f"{path}: no plan is in it"], hint=hint)
    return plan


def _is_figure(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < LARGEST
