"""The verb tune for one shard: fits its part of the facts beside the project, at the same time as other shards do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch

from memtune.backbone import Backbone
from memtune.config import Config
from memtune.events import Note, OnEvent, ignore
from memtune.project import Project, erase
from memtune.shards import Kept, Origin, Shard, keep_shard, kept_shards, take_over
from memtune.store import backbone_of
from memtune.tune import Tuning

__all__ = ["ShardResult", "tune_shard"]


@dataclass(frozen=True)
class ShardResult:
    """What one shard has done. ``merge`` says which facts failed."""

    shard: str
    facts: int
    learned: int
    until_loss: float
    seconds: float  # of fitting, those of earlier runs included; loading the model is not in it
    finished: bool
    file: str

    @property
    def met(self) -> bool:
        return self.finished


def tune_shard(
    project_dir: Path, config: Config, shard: Shard, *, on_event: OnEvent = ignore, backbone: Backbone | None = None
) -> ShardResult:
    """Fits and certifies the facts of ``shard`` and keeps them in a file beside the project's; nothing else is written.

    What an earlier run of it had done is not done again; Ctrl-C keeps what was done. Raises ProjectError, ModelError.
    """
    project = Project(project_dir)
    project.settle()
    origin = Origin.of(project, config)
    kept = next((kept for kept in kept_shards(project) if (kept.shard, kept.origin) == (shard, origin)), None)
    if kept and kept.finished:
        on_event(Note(f"shard {shard} is finished already"))
    else:
        run = Tuning(project, backbone_of(project, backbone, on_event), config, on_event)
        kept = _Part(run, kept or Kept.nothing(shard, origin, project.root)).rest()
    return ShardResult(
        shard=str(shard),
        facts=kept.facts,
        learned=kept.learned,
        until_loss=config.until_loss,
        seconds=kept.seconds,
        finished=kept.finished,
        file=str(kept.path),
    )


class _Part:
    """The part of ``run`` that a shard fits, and what is ``kept`` of it."""

    def __init__(self, run: Tuning, kept: Kept) -> None:
        self.run, self.before = run, kept
        self.chunks = kept.shard.part(run.chunks)
        self.facts = list(chain.from_iterable(self.chunks))
        self.numbers = torch.tensor(self.facts, dtype=torch.int64)
        if kept.done:
            take_over(run.bank, kept, self.facts)
            run.teacher.reasons.update(kept.reasons)

    def rest(self) -> Kept:
        """Fits what is not done yet; Ctrl-C ends it early."""
        try:
            self.run.fit(self.chunks[self.before.done :], among=self.numbers, save=self.save)
        except KeyboardInterrupt:
            self.run.on_event(
                Note(f"interrupted: {self.before.done + self.run.done} of {len(self.chunks)} chunks are kept")
            )
        return self.save()

    def save(self) -> Kept:
        run, teacher = self.run, self.run.teacher
        now = replace(
            self.before,
            facts=len(self.facts),
            learned=int(run.bank.accepted[self.numbers].sum()),
            chunks=len(self.chunks),
            done=self.before.done + run.done,
            seconds=self.before.seconds + run.seconds,
            reasons={number: teacher.reasons[number] for number in self.facts if number in teacher.reasons},
        )
        kept = keep_shard(run.project, now, run.bank.take(self.numbers))
        self._check(kept.path)
        return kept

    def _check(self, path: Path) -> None:
        """That the project is what it was. Asked when the shard is written: what changes the project later removes it.

        Raises ProjectError, and what was written is overwritten: it may hold what was forgotten.
        """
        now = Project(self.run.project.root)
        if Origin.of(now, self.run.teacher.config) != self.before.origin:
            erase(path)
            raise now.changed_meanwhile()
