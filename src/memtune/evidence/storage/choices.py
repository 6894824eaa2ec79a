"""Multiple choice: easy questions with four options, of which a model picks the one that it finds likeliest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["Choice", "shipped_choices"]


@dataclass(frozen=True)
class Choice:
    """A question and its options, the right one first. No option is shown to the model: each is one it might say."""

    question: str
    options: tuple[str, ...]


@cache
def shipped_choices() -> tuple[Choice, ...]:
    """Everyday knowledge, written for memtune: no row of any test set is in it."""
    lines = files("memtune.evidence.storage").joinpath("choices.jsonl").read_text(encoding="utf-8").splitlines()
    rows = (json.loads(line) for line in lines)
    return tuple(Choice(row["question"], (row["right"], *row["wrong"])) for row in rows)
