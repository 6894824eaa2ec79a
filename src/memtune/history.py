"""What was changed and when: a log that is only added to, and the texts that a change replaced.

Each line of the log holds the SHA-256 of the line above it, so that none can be altered or left out unseen. It names
facts by their ids and holds no text. What a changed or removed fact said is kept beside the log, so that an earlier
state can be brought back, until the fact is forgotten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from memtune.difference import Difference
from memtune.errors import RESTORE, ProjectError
from memtune.fact import Fact
from memtune.project import Project, in_project
from memtune.visible import spelt

__all__ = ["FORGET", "Entry", "History"]

FORGET = "forget"  # the command whose entry names what no rollback brings back


@dataclass(frozen=True)
class Entry:
    """One change, numbered from 1. ``at`` is UTC, ``facts`` how many there were afterwards, ``above`` the SHA-256 of
    the line before. The first entry names no facts: all of them were new.
    """

    number: int
    at: str
    command: str
    file: str
    facts: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    above: str

    @property
    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.line.encode()).hexdigest()


@dataclass(frozen=True)
class _Past:
    """What a fact said before the change with this number."""

    change: int
    fact: Fact


class History:
    """The history of one project, as its last finished state has it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        try:
            self.entries = [_entry(values) for values in _rows(project, "log")]
            self._past = [_Past(values.pop("change"), _fact(values)) for values in _rows(project, "past")]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # lines of another making
            raise ProjectError(f"{project.root} holds no sound history: {error}", hint=RESTORE) from error

    def broken(self) -> Entry | None:
        """The first entry that does not stand behind the one it was written after."""
        above = ""
        for number, entry in enumerate(self.entries, 1):
            if entry.above != above or entry.number != number:
                return entry
            above = entry.digest
        return None

    @property
    def forgotten(self) -> set[str]:
        """The ids of facts that were forgotten, whatever has become of these ids since."""
        return {name for entry in self.entries if entry.command == FORGET for name in entry.removed}

    def record(
        self, command: str, file: str, found: Difference, replaced: Iterable[Fact], *, forget: bool = False
    ) -> dict[str, dict[str, Any]]:
        """The files of the history with one more entry, to be committed with the change itself.

        ``replaced``: what the changed and the removed facts said. With ``forget`` nothing that a removed fact ever said
        is kept.
        """
        entry = self._next(command, file, found)
        past = [*self._past, *(_Past(entry.number, fact) for fact in replaced)]
        gone = set(found.removed) if forget else set()
        kept = ({"change": one.change} | vars(one.fact) for one in past if one.fact.id not in gone)
        return {
            "log": self._keep("log", [one.line for one in (*self.entries, entry)]),
            "past": self._keep("past", [json.dumps(values, ensure_ascii=False) for values in kept]),
        }

    def _next(self, command: str, file: str, found: Difference) -> Entry:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        names = (found.added, found.changed, found.removed) if self.entries else ((), (), ())
        above = self.entries[-1].digest if self.entries else ""
        return Entry(len(self.entries) + 1, at, command, spelt(file), len(found.origin), *names, above)

    def _keep(self, kind: str, lines: list[str]) -> dict[str, Any]:
        data = "".join(f"{line}\n" for line in lines).encode()
        return self.project.keep(kind, "jsonl", lambda path: path.write_bytes(data))

    def entry_at(self, time: str) -> Entry:
        """The last change at or before ``time``: an ISO 8601 time, local where it names no zone, or a change's number.

        Raises ProjectError where there was none yet, or no time can be read from it.
        """
        log = f"memtune facts log{in_project(self.project.root)}"
        if time.isdecimal():
            found = [entry for entry in self.entries if entry.number == int(time)]
            missing = f"there was no change {time}; the last is {len(self.entries)}"
        else:
            moment = _moment(time, log)
            found = [entry for entry in self.entries if datetime.fromisoformat(entry.at) <= moment]
            missing = f"there were no facts yet at {time}"
        if not found:
            raise ProjectError(missing, hint=log)
        return found[-1]

    def facts_after(self, entry: Entry, now: Sequence[Fact]) -> tuple[list[Fact], list[str]]:
        """The facts as they were after that change, and the ids of those that have been forgotten since.

        Every later change is undone, the last one first. The facts come in no particular order.
        """
        facts = {fact.id: fact for fact in now}
        lost: set[str] = set()
        for later in reversed(self.entries[entry.number :]):
            said = {past.fact.id: past.fact for past in self._past if past.change == later.number}
            for name in later.added:
                facts.pop(name, None)
                lost.discard(name)
            for name in (*later.changed, *later.removed):
                if name in said:
                    facts[name] = said[name]
                    lost.discard(name)
                else:
                    facts.pop(name, None)
                    lost.add(name)
        return list(facts.values()), sorted(lost)


def _moment(time: str, log: str) -> datetime:
    try:
        return datetime.fromisoformat(time).astimezone(UTC)
    except (ValueError, OverflowError):  # the first and the last year may have no such moment in UTC
        hint = f"write 2026-11-25T18:30, or the number of a change: {log}"
        raise ProjectError(f"{time!r} is no time", hint=hint) from None


def _rows(project: Project, kind: str) -> list[dict[str, Any]]:
    if kind not in project.state.get("files", {}):
        return []
    return [json.loads(line) for line in project.path(kind).read_bytes().split(b"\n") if line]


def _entry(values: dict[str, Any]) -> Entry:
    names = {key: tuple(values[key]) for key in ("added", "changed", "removed")}
    return Entry(**{**values, **names})


def _fact(values: dict[str, Any]) -> Fact:
    return Fact(**{**values, "paraphrases": tuple(values["paraphrases"])})
