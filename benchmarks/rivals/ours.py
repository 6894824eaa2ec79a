"""memtune itself, through its public verbs: ingest, tune, and asking with the memory attached."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import timed, timed_twice, write_bare

from memtune.asking import Asker
from memtune.backbone import Backbone
from memtune.config import Config
from memtune.events import ignore
from memtune.facts import Fact
from memtune.ingest import ingest
from memtune.memory.module import Memory
from memtune.prior import prior_for
from memtune.project import Project
from memtune.store import load_memory
from memtune.tune import tune

from .base import Goal, Reply


class Memtune:
    """A backbone with a tuned memory attached."""

    def __init__(self, backbone: Backbone, facts: Sequence[Fact], memory: Memory, details: dict[str, Any]) -> None:
        self.names, self.details = [fact.id for fact in facts], details
        self.bytes = sum(t.numel() * t.element_size() for t in memory.state_dict().values())
        self.asker = Asker(backbone, memory)

    def ask(self, questions: Sequence[str], longest: int) -> list[Reply]:
        answers = self.asker.ask(questions, longest=longest)
        routes = self.asker.attachment.route([self.asker.backbone.prompts.question(text) for text in questions])
        fires = self.asker.memory.fires
        return [
            Reply(answer, used=(self.names[route.fact],) if fires(route) else ())
            for answer, route in zip(answers, routes, strict=True)
        ]


def prepare(backbone: Backbone) -> None:
    """The router's prior: made once for a model and cached."""
    prior_for(backbone, ignore)


def teach(backbone: Backbone, facts: Sequence[Fact], goal: Goal, verify: str = "sample") -> Memtune:
    config = Config(model=backbone.checkpoint.name, until_loss=goal.target, verify=verify)
    with tempfile.TemporaryDirectory() as folder:
        path, project = write_bare(facts, Path(folder) / "facts.jsonl"), Path(folder) / "project"
        ingested, seconds = timed(lambda: ingest(path, project, config, backbone=backbone))
        tuned, _, processor = timed_twice(lambda: tune(project, config, backbone=backbone))
        memory = load_memory(Project(project))  # mapped from the file, which outlives its name
    details = {"experts": ingested.experts, "at_target": tuned.learned, "loss_max": tuned.loss_max}
    details |= {"ingest_seconds": seconds, "tune_seconds": tuned.seconds, "tune_processor_seconds": processor}
    details |= {"threshold": ingested.threshold}
    return Memtune(backbone, facts, memory, details)
