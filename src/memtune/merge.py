"""The verb merge: the rows of all shards become the memory, as one run over all facts would have left it."""

from __future__ import annotations

from dataclasses import MISSING, fields
from itertools import chain
from pathlib import Path

from memtune.backbone import Backbone
from memtune.config import Config
from memtune.events import Note, OnEvent, ignore
from memtune.project import Project
from memtune.shards import Origin, complete, kept_shards, take_over
from memtune.state import Record
from memtune.store import backbone_of
from memtune.teaching import FailedFact
from memtune.tune import TuneResult, Tuning

__all__ = ["merge"]


def merge(
    project_dir: Path, config: Config, *, on_event: OnEvent = ignore, backbone: Backbone | None = None
) -> TuneResult:
    """Takes the rows of every shard over, confirms facts by generation as ``tune`` does, and removes the shards.

    A project that is merged already is left as it is. Raises ProjectError, which names the shards that are missing,
    not finished, or fitted for another model, other facts or another target; nothing is changed then.
    """
    project = Project(project_dir)
    origin = Origin.of(project, config)
    tuned = project.need("tune", "memtune tune") if project.state.get("tune") else None
    if tuned and _settled(tuned, config) and not kept_shards(project):
        on_event(Note("no shards are here: the memory stays as it was left"))
        return _as_recorded(tuned)
    complete(project, origin)  # or there is no need to load the model
    backbone = backbone_of(project, backbone, on_event)
    with project.writing():
        shards = complete(project, Origin.of(project, config))
        run = Tuning(project, backbone, config, on_event)
        for kept in shards:
            take_over(run.bank, kept, list(chain.from_iterable(kept.shard.part(run.chunks))))
            run.teacher.reasons.update(kept.reasons)
        run.verify()
        return run.finish()


def _settled(record: Record, config: Config) -> bool:
    """Whether every fact was tried, at this target or a tighter one."""
    return not record["interrupted"] and record.figure("until_loss") <= config.until_loss


def _as_recorded(record: Record) -> TuneResult:
    """What another version says besides is left out."""
    said = {one.name: record[one.name] for one in fields(TuneResult) if one.name in record or one.default is MISSING}
    return TuneResult(**said | {"failed": record.each("failed", FailedFact), "known": tuple(record.get("known", ()))})
