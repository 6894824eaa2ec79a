"""The exceptions that a user can cause, as a tree.

MemtuneError            what is wrong, with the value and the place; ``hint`` is the next command to run
├── DataError           a fact file that cannot be used: every problem in it, in one pass
├── ConfigError         an option or a key of memtune.yaml
├── ModelError          a checkpoint that cannot be loaded, or whose LM head cannot be reproduced
├── ProjectError        the project directory: missing, of another model, damaged, or in use
└── TargetNotMet        everything ran, but facts failed or recall dropped (exit code 3)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["ANEW", "RESTORE", "ConfigError", "DataError", "MemtuneError", "ModelError", "ProjectError", "TargetNotMet"]

PROBLEM_CAP = 20
# What comes next where a project cannot be read: ingest over it would read it too, and stop at the same place.
ANEW = "start anew in another directory: memtune ingest FACTS --project DIR"
RESTORE = f"restore it from a backup, or {ANEW}"


class MemtuneError(Exception):
    """A failure that the user can mend. ``str(error)`` is the message; ``hint`` says what to do next."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class DataError(MemtuneError):
    """Problems in a fact file, each one line ``path:line: problem``; the first 20 are shown, all are kept."""

    def __init__(self, problems: Sequence[str], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        shown = list(self.problems[:PROBLEM_CAP])
        if len(self.problems) > PROBLEM_CAP:
            shown.append(f"... and {len(self.problems) - PROBLEM_CAP} more problems")
        super().__init__("\n".join(shown), hint=hint)

    def __reduce__(self) -> tuple[Any, ...]:
        """Made again from its problems: ``Exception`` would do it from the message, each letter a problem."""
        return type(self), (self.problems,), self.__dict__


class ConfigError(MemtuneError):
    """An option or configuration key that is unknown or has an impossible value."""


class ModelError(MemtuneError):
    """A checkpoint that cannot be found, loaded or taught."""


class ProjectError(MemtuneError):
    """The project directory is missing, damaged, in use, or belongs to another model."""


class TargetNotMet(MemtuneError):
    """The work was done and saved, but its target was not met."""

    exit_code = 3
