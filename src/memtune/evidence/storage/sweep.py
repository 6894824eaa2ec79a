"""How many random answers a memory holds: twice as many questions each time, until recall breaks."""

from __future__ import annotations

from collections.abc import Iterator

from memtune.backbone import Backbone
from memtune.config import Config
from memtune.events import Note, OnEvent
from memtune.evidence.storage.pool import Pool
from memtune.evidence.storage.randomization import RANDOM, Arm, random_answers, teach_memory
from memtune.making import made_memory

__all__ = ["FLOOR", "sweep"]

FLOOR = 0.99  # of the answers: below it, recall is broken


def sweep(first: Arm, pool: Pool, most: int, backbone: Backbone, config: Config, on_event: OnEvent) -> Iterator[Arm]:
    """``first``, then memories of twice as many facts each, at most ``most``; the one that breaks is the last."""
    arm = first
    yield arm
    while arm.recall >= FLOOR and arm.facts < most:
        count = min(2 * arm.facts, most)
        on_event(Note(f"sweep: {count:,} random answers"))
        facts = random_answers(pool.first(count), config.seed)
        memory, _ = made_memory(facts, backbone, config, on_event)
        arm = teach_memory(RANDOM, facts, memory, backbone, config, on_event)
        yield arm
