"""The verb plan: what the facts would take, in one process or in shards, and what they would take otherwise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from memtune.backbone import Backbone
from memtune.config import Config
from memtune.events import Note, OnEvent, ignore
from memtune.evidence import cost
from memtune.evidence.cost import Cost, Work
from memtune.project import Project
from memtune.shards import Shard
from memtune.store import backbone_of, bytes_of
from memtune.tune import Tuning

__all__ = ["PlanResult", "PlannedShard", "plan"]

TIMED = 128  # facts that are fitted to time it, at most


@dataclass(frozen=True)
class PlannedShard:
    """One part. ``first`` and ``last``: ids of facts; ``bytes``: of its file; ``seconds``: of fitting, expected."""

    shard: str
    facts: int
    first: str
    last: str
    answer_tokens: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class PlanResult:
    """What fitting takes on machines like this one, the model being loaded.

    ``seconds`` for the slowest shard, ``alone`` for one process. ``timed`` facts were fitted to know it. ``costs``:
    memtune, then what one would do instead; none where no fact is left. ``watts``: what the machine is said to draw.
    ``bank_bytes``: of the rows of all facts, those that are learned already among them.
    """

    facts: int
    already: int
    shards: tuple[PlannedShard, ...]
    seconds: float
    alone: float
    timed: int
    timed_seconds: float
    load_seconds: float
    bank_bytes: int
    costs: tuple[Cost, ...] = ()
    watts: float | None = None


def plan(
    project_dir: Path,
    config: Config,
    *,
    shards: int = 1,
    against_lora: bool = False,
    watts: float | None = None,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> PlanResult:
    """How the facts that are not learned yet fall into ``shards`` parts, and what they cost. Nothing is written.

    ``against_lora``: a step of LoRA is timed beside it, which takes several times the model's memory. Raises
    ProjectError, ModelError.
    """
    started = time.monotonic()
    project = Project(project_dir)
    backbone = backbone_of(project, backbone, on_event)
    loaded = time.monotonic() - started
    run = Tuning(project, backbone, config, on_event)
    timed = run.chunks[0][:TIMED] if run.chunks else []
    on_event(Note(f"timing {len(timed)} facts"))
    started = time.monotonic()
    if timed:
        run.teacher.chunk(timed)
    seconds = time.monotonic() - started
    a_token = seconds / max(1, sum(map(run.bank.experts_of, timed)))
    planned = [_planned(run, Shard(shards, number), a_token) for number in range(1, shards + 1)]
    alone = sum(shard.seconds for shard in planned)
    size = sum(shard.bytes for shard in planned)
    return PlanResult(
        facts=len(run.teacher.facts),
        already=len(run.teacher.facts) - len(run.todo),
        shards=tuple(planned),
        seconds=max(shard.seconds for shard in planned),
        alone=alone,
        timed=len(timed),
        timed_seconds=seconds,
        load_seconds=loaded,
        bank_bytes=bytes_of(run.bank.state_dict().values()),
        costs=tuple(_costs(run, backbone, timed, alone, size, against_lora)) if timed else (),
        watts=watts,
    )


def _costs(
    run: Tuning, backbone: Backbone, timed: Sequence[int], alone: float, size: int, against_lora: bool
) -> Iterator[Cost]:
    """What the facts that are left take, each way."""
    seen = Work.of(backbone, [backbone.prompts.fact(run.teacher.facts[i]) for i in timed])
    left = run.bank.take(torch.tensor(run.todo)).sizes.experts
    work = Work(len(run.todo), round(seen.tokens * left / seen.answer_tokens), left)
    few = timed[: cost.COUNTED]
    counted = Work(len(few), 0, sum(map(run.bank.experts_of, few)))
    yield cost.memory(lambda: run.teacher.chunk(few), counted, work, alone, size)
    if against_lora:
        yield cost.lora(backbone, [run.teacher.facts[i] for i in timed], work)
    yield cost.full_tuning(backbone, work)


def _planned(run: Tuning, shard: Shard, seconds_per_token: float) -> PlannedShard:
    facts: Sequence[int] = list(chain.from_iterable(shard.part(run.chunks)))
    bank = run.bank.take(torch.tensor(facts, dtype=torch.int64))
    return PlannedShard(
        shard=str(shard),
        facts=len(facts),
        first=bank.id_of(0) if facts else "",
        last=bank.id_of(len(facts) - 1) if facts else "",
        answer_tokens=bank.sizes.experts,
        bytes=bytes_of(bank.state_dict().values()),
        seconds=bank.sizes.experts * seconds_per_token,
    )
