"""The verbs that change single facts of a tuned project: add, update, forget, and rollback to an earlier state.

Only what changes is read by the model, fitted and verified; the rows of every other fact stay as they are, byte for
byte. The router stays too: what it learned from the facts that were there holds for a few more or fewer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from memtune.additions import Conflict, settled
from memtune.backbone import Backbone
from memtune.config import Config
from memtune.difference import Difference, difference
from memtune.errors import DataError, ProjectError
from memtune.events import OnEvent, ignore
from memtune.exported import mark_stale
from memtune.fact import Fact, PackedFacts
from memtune.history import FORGET, History
from memtune.memory.module import Memory
from memtune.project import Project
from memtune.store import (
    backbone_of,
    check_backbone,
    keep_facts,
    load_facts,
    load_memory,
    memory_record,
    numbers_of,
    save_memory,
    still_confusable,
)
from memtune.teaching import FailedFact, Teacher
from memtune.tune import CHUNK, TuneResult, summary

__all__ = ["ChangeResult", "add", "forget", "rollback", "update"]


@dataclass(frozen=True)
class ChangeResult:
    """What changed, by ids. ``conflicts``: facts that are taken for one another now, because that was asked for.

    ``lost``: what rollback could not bring back, because it was forgotten. ``stale``: exported directories that hold
    what was there before.
    """

    command: str
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    untouched: int
    facts: int
    learned: int  # of all facts
    verified: int  # of those that are new, by real generation
    verified_exact: int
    conflicts: tuple[Conflict, ...]
    failed: tuple[FailedFact, ...]
    lost: tuple[str, ...]
    stale: tuple[str, ...]
    seconds: float  # loading the model is not in it

    @property
    def met(self) -> bool:
        return not self.failed and not self.lost


def add(
    facts: Sequence[Fact],
    project_dir: Path,
    config: Config,
    *,
    file: str = "",
    replace: bool = False,
    keep_both: bool = False,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> ChangeResult:
    """Facts that the project does not hold yet are learned; one that it holds word for word is left alone.

    A new fact that a stored one would be taken for is refused; with ``replace`` the stored one goes, with ``keep_both``
    they stay side by side. ``file`` is named in the history. Raises DataError for conflicts and for ids that are taken.
    """
    request = _Request("add", file, lambda change: change.with_new(facts), replace=replace, keep_both=keep_both)
    return _carry_out(request, project_dir, config, on_event, backbone)


def update(
    facts: Sequence[Fact],
    project_dir: Path,
    config: Config,
    *,
    file: str = "",
    replace: bool = False,
    keep_both: bool = False,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> ChangeResult:
    """The facts with the ids of these say what these say; the rest as for ``add``. Raises DataError for unknown ids."""
    request = _Request("update", file, lambda change: change.with_these(facts), replace=replace, keep_both=keep_both)
    return _carry_out(request, project_dir, config, on_event, backbone)


def forget(
    ids: Sequence[str],
    project_dir: Path,
    config: Config,
    *,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> ChangeResult:
    """The facts are gone from every file of the project, from its history as well: no rollback brings them back.

    The files that held them are overwritten before they are removed, among them the reports of eval in the project's
    directory. Exports are marked as stale. What was forgotten before is left alone: a command that was killed may be
    given again. Raises DataError for unknown ids.
    """
    request = _Request(FORGET, "", lambda change: change.without(change.numbers_of(change.left_of(ids))), forget=True)
    return _carry_out(request, project_dir, config, on_event, backbone)


def rollback(
    moment: str, project_dir: Path, config: Config, *, on_event: OnEvent = ignore, backbone: Backbone | None = None
) -> ChangeResult:
    """The facts are again what they were at ``moment``: a time, or the number of a change.

    What was forgotten since stays forgotten and is named in the result. Raises ProjectError if there was nothing yet.
    """
    # What stood side by side then does so again.
    request = _Request("rollback", moment, lambda change: change.as_at(moment), keep_both=True)
    return _carry_out(request, project_dir, config, on_event, backbone)


@dataclass(frozen=True)
class _Wanted:
    """The facts that there shall be, and how they differ from those that there are."""

    facts: PackedFacts
    found: Difference
    lost: tuple[str, ...] = ()

    def without(self, ids: set[str]) -> _Wanted:
        """All but the facts with these ids, each of which is there already and stays as it is in this one."""
        stays = [number for number, fact in enumerate(self.facts) if fact.id not in ids]
        found = replace(self.found, origin=self.found.origin[stays], removed=(*self.found.removed, *sorted(ids)))
        return replace(self, facts=self.facts.only(stays), found=found)


@dataclass(frozen=True)
class _Request:
    """What is wanted, what is done about stored facts that are in the way, and whether what goes may come back."""

    command: str
    file: str
    wanted: Callable[[_Change], _Wanted]
    replace: bool = False
    keep_both: bool = False
    forget: bool = False


def _carry_out(
    request: _Request, project_dir: Path, config: Config, on_event: OnEvent, backbone: Backbone | None
) -> ChangeResult:
    project = Project(project_dir)
    project.need("model", "memtune ingest FACTS")
    if not request.forget:  # what was ingested by mistake need not be learned to be forgotten
        project.need("tune", "memtune tune")
    backbone = backbone_of(project, backbone, on_event)
    with project.writing():
        check_backbone(project, backbone)  # another ingest may have come in between
        return _Change(project, backbone, config, on_event).carried_out(request)


class _Change:
    """One change of one project, which is held for it."""

    def __init__(self, project: Project, backbone: Backbone, config: Config, on_event: OnEvent) -> None:
        self.project, self.backbone, self.config, self.on_event = project, backbone, config, on_event
        self.started = time.monotonic()
        self.facts, self.memory = load_facts(project), load_memory(project)
        self.history = History(project)

    def numbers_of(self, ids: Sequence[str]) -> list[int]:
        return numbers_of(self.project, self.memory.bank, ids)

    def left_of(self, ids: Sequence[str]) -> list[str]:
        """Without those that are there no longer because they were forgotten."""
        gone = self.history.forgotten - self.memory.bank.numbers_of(ids).keys()
        return [name for name in ids if name not in gone]

    def with_new(self, facts: Sequence[Fact]) -> _Wanted:
        known = self.memory.bank.numbers_of(fact.id for fact in facts)
        taken = [fact for fact in facts if fact.id in known and self.facts[known[fact.id]].digest != fact.digest]
        if taken:
            problems = [f"{fact.source}: the id {fact.id!r} is taken by another fact" for fact in taken]
            raise DataError(problems, hint="change what it says with: memtune facts update")
        new = [fact for fact in facts if fact.id not in known]
        origin = torch.cat([torch.arange(len(self.facts)), torch.full((len(new),), -1)])
        found = Difference(origin, tuple(fact.id for fact in new), (), ())
        return _Wanted(self.facts.joined(PackedFacts.pack(new)), found)

    def with_these(self, facts: Sequence[Fact]) -> _Wanted:
        numbers = zip(self.numbers_of([fact.id for fact in facts]), facts, strict=True)
        new = {number: fact for number, fact in numbers if self.facts[number].digest != fact.digest}
        origin = torch.arange(len(self.facts))
        origin[list(new)] = -1
        return _Wanted(self.facts.with_these(new), Difference(origin, (), tuple(fact.id for fact in new.values()), ()))

    def without(self, numbers: Sequence[int]) -> _Wanted:
        gone = sorted(set(numbers))  # an id may have been given twice
        stays = torch.ones(len(self.facts), dtype=torch.bool)
        stays[gone] = False
        origin = torch.nonzero(stays).squeeze(1)
        found = Difference(origin, (), (), tuple(self.facts[number].id for number in gone))
        return _Wanted(self.facts.only(origin.tolist()), found)

    def as_at(self, moment: str) -> _Wanted:
        facts, lost = self.history.facts_after(self.history.entry_at(moment), self.facts)
        wanted = PackedFacts.pack(facts)
        return _Wanted(wanted, difference(self.facts, wanted), tuple(lost))

    def carried_out(self, request: _Request) -> ChangeResult:
        wanted = request.wanted(self)
        memory, in_the_way = self._settled(wanted)
        if in_the_way and request.replace:
            new = {*wanted.found.added, *wanted.found.changed}  # of two new ones neither is to go for the other
            wanted = wanted.without({conflict.stored for conflict in in_the_way} - new)
            memory, in_the_way = self._settled(wanted)
        if in_the_way and not request.keep_both:
            problems = [str(conflict) for conflict in in_the_way]
            raise DataError(problems, hint="reword the new fact, or decide with --replace or --keep-both")
        if not len(wanted.facts):
            raise ProjectError("no fact would be left", hint=f"remove the directory instead: {self.project.root}")
        teacher = self._taught(wanted, memory)
        tuned = summary(teacher, already=wanted.found.untouched, seconds=time.monotonic() - self.started)
        stale = self._written(request, wanted, memory, tuned) if len(wanted.found) else ()
        return self._result(request.command, wanted, tuned, tuple(in_the_way), stale)

    def _settled(self, wanted: _Wanted) -> tuple[Memory, list[Conflict]]:
        """The memory of the wanted facts, not yet taught, and what gets in the way of the new ones."""
        return settled(self.memory, wanted.facts, wanted.found, self.backbone, self.on_event)

    def _taught(self, wanted: _Wanted, memory: Memory) -> Teacher:
        teacher = Teacher(wanted.facts, memory, self.backbone, self.config, self.on_event)
        teacher.known |= self._still_known(wanted, memory)
        new = wanted.found.new
        for start in range(0, len(new), CHUNK):
            teacher.chunk(new[start : start + CHUNK])
        teacher.verify(new)
        return teacher

    def _still_known(self, wanted: _Wanted, memory: Memory) -> set[int]:
        """Of the facts that tune left to the backbone, which says them by itself, those that are as they were."""
        names = (self.project.state.get("tune") or {}).get("known", ())
        numbers = memory.bank.numbers_of(map(str, names)).values()
        return {number for number in numbers if wanted.found.origin[number] >= 0}

    def _written(self, request: _Request, wanted: _Wanted, memory: Memory, tuned: TuneResult) -> tuple[str, ...]:
        """Everything in one commit; returns the exports that are stale now."""
        project, found = self.project, wanted.found
        replaced = self.facts.only(found.replaced(len(self.facts)))
        files = save_memory(project, memory) | keep_facts(project, wanted.facts)
        files |= self.history.record(request.command, request.file, found, replaced, forget=request.forget)
        made, ingested = project.state.get("router", {}), project.need("ingest", "memtune ingest FACTS")
        shown = {
            "confusable": [asdict(pair) for pair in still_confusable(project, wanted.facts)],
            "example": self.backbone.prompts.shown(wanted.facts[0]),
        }
        records = {
            "ingest": ingested | memory_record(memory) | shown,
            "router": made | {"changed": made.get("changed", 0) + len(found)},
            "tune": asdict(tuned) if project.state.get("tune") else None,  # what is not tuned yet has yet to be
            "memory": memory.config.to_dict(),
        }
        project.commit(files, erase=request.forget, **records)
        return mark_stale(project)

    def _result(
        self,
        command: str,
        wanted: _Wanted,
        tuned: TuneResult,
        side_by_side: tuple[Conflict, ...],
        stale: tuple[str, ...],
    ) -> ChangeResult:
        found = wanted.found
        mine = {*found.added, *found.changed}
        return ChangeResult(
            command=command,
            added=found.added,
            changed=found.changed,
            removed=found.removed,
            untouched=found.untouched,
            facts=tuned.facts,
            learned=tuned.learned,
            verified=tuned.verified,
            verified_exact=tuned.verified_exact,
            conflicts=side_by_side,
            failed=tuple(one for one in tuned.failed if one.id in mine),
            lost=wanted.lost,
            stale=stale,
            seconds=time.monotonic() - self.started,
        )
