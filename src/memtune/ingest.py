"""The verb ingest: read the facts, check them against the model, build their router, assign their experts.

Over a project that holds facts already it does the difference: what did not change keeps its fitted experts, and where
little changed the router stays too.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from memtune.additions import Conflict, settled
from memtune.backbone import Backbone, load_backbone
from memtune.checkpoints import lasting_name
from memtune.config import Config
from memtune.difference import Difference, difference
from memtune.events import Note, OnEvent, ignore
from memtune.exported import mark_stale
from memtune.fact import PackedFacts
from memtune.facts import read_facts
from memtune.history import History
from memtune.making import made_memory
from memtune.memory.module import Memory
from memtune.project import Project, in_project
from memtune.routing import RouterReport
from memtune.sketch import sketch_of
from memtune.state import SETTINGS, made_with
from memtune.store import (
    Confusable,
    keep_facts,
    load_facts,
    load_memory,
    memory_record,
    save_memory,
    still_confusable,
)

__all__ = ["Confusable", "IngestResult", "Preview", "ingest", "preview"]

LITTLE = 0.1  # of the facts that the router was made for: while no more has changed it judges the rest as well


@dataclass(frozen=True)
class IngestResult:
    """What ingest found and made. ``kept``: facts whose experts an earlier tune had fitted and that did not change.

    ``rebuilt``: the router was made for these facts, and not for those that were there before.
    """

    facts: int
    wordings: int
    answer_tokens: int
    experts: int
    bytes: int
    added: int
    changed: int
    removed: int
    kept: int
    rebuilt: bool
    model: str
    model_reason: str
    threshold: float
    expected_recall: float
    expected_false_fire: float
    confusable: tuple[Confusable, ...]
    example: str  # the first fact as the model reads it


@dataclass(frozen=True)
class Preview:
    """What ingest would do: ids of facts, and whether it would make the router anew."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    untouched: int
    rebuilt: bool


def preview(
    path: str | Path,
    project_dir: Path,
    config: Config,
    rebuild: bool = False,
    *,
    question_key: str | None = None,
    answer_key: str | None = None,
) -> Preview:
    """What ``ingest`` would do with this file; no model is loaded. Raises DataError, ProjectError."""
    project = Project(project_dir)
    again = _again(project, config, "--rebuild" * rebuild, "--dry-run")
    facts, config = _facts_of(path, again, question_key, answer_key), _lasting(config)
    found = difference(_before(project), facts)
    kept = not rebuild and _router_stays(project, found, config)
    return Preview(found.added, found.changed, found.removed, found.untouched, not kept)


def ingest(
    path: str | Path,
    project_dir: Path,
    config: Config,
    *,
    rebuild: bool = False,
    question_key: str | None = None,
    answer_key: str | None = None,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> IngestResult:
    """The project holds the facts, their router and an empty or carried-over bank.

    ``rebuild``: the router is made anew, however little has changed. Nothing is written before all is checked.

    Raises DataError (every problem of the file at once), ModelError, ProjectError.
    """
    project = Project(project_dir)
    again = _again(project, config, "--rebuild" * rebuild)
    facts, config = _facts_of(path, again, question_key, answer_key), _lasting(config)
    project.check_writable()
    backbone = backbone or load_backbone(config.model, device=config.device, dtype=config.dtype, on_event=on_event)
    found = difference(_before(project), facts)
    same_model = project.exists and project.need("model", "memtune ingest FACTS")["fingerprint"] == backbone.fingerprint
    if not rebuild and same_model and _router_stays(project, found, config):
        on_event(Note(f"{len(found)} of {len(facts)} facts are not what they were; the router stays"))
        memory, in_the_way = settled(load_memory(project), facts, found, backbone, on_event)
        result = _with_old_router(project, facts, memory, found, backbone, in_the_way)
        before = project.need("router", "memtune ingest FACTS")
        made = before | {"changed": before["changed"] + len(found)}
    else:
        memory, report = made_memory(facts, backbone, config, on_event)
        kept = _carry_over(project, found, memory) if same_model else 0
        result = _result(facts, memory, found, backbone, report, kept)
        made = {"facts": len(facts), "false_fire": config.false_fire, "changed": 0}
    seen = project.state
    with project.writing():
        if project.state != seen:
            raise project.changed_meanwhile()
        _save(project, facts, memory, backbone, config, result, made, str(path), found)
        mark_stale(project, on_event)
    return result


def _again(project: Project, config: Config, *flags: str) -> str:
    """The command that does the same with a mended file: the project, and every setting that is not the usual one."""
    usual = asdict(Config()) | made_with(project.state)
    unusual = {name: getattr(config, name) for name in SETTINGS if getattr(config, name) != usual[name]}
    options = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in unusual.items()]
    return " ".join(["memtune ingest" + in_project(project.root), *options, *filter(None, flags)])


def _facts_of(path: str | Path, again: str, question_key: str | None, answer_key: str | None) -> PackedFacts:
    keys = {"--question-key": question_key, "--answer-key": answer_key}
    named = "".join(f" {option} {shlex.quote(key)}" for option, key in keys.items() if key is not None)
    return read_facts(path, command=f"{again}{named}", question_key=question_key, answer_key=answer_key)


def _lasting(config: Config) -> Config:
    """What is kept of these settings is read again from other directories."""
    return config.with_flags(model=lasting_name(config.model))


def _before(project: Project) -> PackedFacts:
    return load_facts(project) if project.exists else PackedFacts(b"")


def _router_stays(project: Project, found: Difference, config: Config) -> bool:
    """Whether so little has changed since the router was made, settings included, that it would become the same."""
    was = made_with(project.state)
    if any(was.get(name) != getattr(config, name) for name in ("model", "seed", "rows", "false_fire")):
        return False
    made = project.need("router", "memtune ingest FACTS")
    return bool(made["changed"] + len(found) <= LITTLE * made["facts"])


def _carry_over(project: Project, found: Difference, memory: Memory) -> int:
    """Copies the fitted rows of facts that did not change, byte for byte, and counts them."""
    before = load_memory(project)
    if not before.projections.same_as(memory.projections) or before.bank.rows != memory.bank.rows:
        return 0
    numbers = torch.nonzero(found.origin >= 0).squeeze(1)
    numbers = numbers[before.bank.accepted[found.origin[numbers]]]
    memory.bank.put_back(numbers, before.bank.take(found.origin[numbers]))
    return len(numbers)


def _result(
    facts: PackedFacts, memory: Memory, found: Difference, backbone: Backbone, report: RouterReport, kept: int
) -> IngestResult:
    return IngestResult(
        **_counts(facts, memory, found, backbone),
        kept=kept,
        rebuilt=True,
        threshold=report.threshold,
        expected_recall=report.expected_recall,
        expected_false_fire=report.expected_false_fire,
        confusable=tuple(Confusable(facts[a].question, facts[b].question, score) for a, b, score in report.confusable),
    )


def _with_old_router(
    project: Project,
    facts: PackedFacts,
    memory: Memory,
    found: Difference,
    backbone: Backbone,
    in_the_way: Sequence[Conflict],
) -> IngestResult:
    """Of the router it says what was said when it was made; what new facts are taken for is known beside that."""
    record = project.need("ingest", "memtune ingest FACTS")
    promised = {name: record[name] for name in ("threshold", "expected_recall", "expected_false_fire")}
    kept = int(memory.bank.accepted.sum())
    return IngestResult(
        **_counts(facts, memory, found, backbone),
        **promised,
        kept=kept,
        rebuilt=False,
        confusable=(*_taken(in_the_way, facts, memory), *still_confusable(project, facts)),
    )


def _taken(in_the_way: Sequence[Conflict], facts: PackedFacts, memory: Memory) -> list[Confusable]:
    number = memory.bank.numbers_of(name for conflict in in_the_way for name in (conflict.new, conflict.stored))
    asked = {name: facts[number[name]].question for name in number}
    pairs = [Confusable(asked[one.new], asked[one.stored], one.score) for one in in_the_way]
    return sorted(pairs, key=lambda pair: -pair.score)


def _counts(facts: PackedFacts, memory: Memory, found: Difference, backbone: Backbone) -> dict[str, Any]:
    return memory_record(memory) | {
        "added": len(found.added),
        "changed": len(found.changed),
        "removed": len(found.removed),
        "model": backbone.checkpoint.name,
        "model_reason": backbone.reason,
        "example": backbone.prompts.shown(facts[0]),
    }


def _save(
    project: Project,
    facts: PackedFacts,
    memory: Memory,
    backbone: Backbone,
    config: Config,
    result: IngestResult,
    made: dict[str, Any],
    path: str,
    found: Difference,
) -> None:
    before = _before(project)
    gone = before.only(found.replaced(len(before)))
    files = save_memory(project, memory) | keep_facts(project, facts)
    files |= History(project).record("ingest", path, found, gone)
    model: dict[str, Any] = {"name": config.model, "location": backbone.checkpoint.location}
    model |= {"fingerprint": backbone.fingerprint, "sketch": sketch_of(backbone.model)}
    # The device is found anew on every machine. Facts are learned in one dtype, and hold in that one wherever they go.
    model |= {"device": config.device, "dtype": str(backbone.dtype).removeprefix("torch.")}
    sizes = memory.config.to_dict()
    project.commit(files, model=model, seed=config.seed, memory=sizes, router=made, ingest=asdict(result), tune=None)
