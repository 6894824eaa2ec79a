"""memtune itself, through its public verbs: ingest, tune, and asking with the memory attached."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import write_bare

from memtune.asking import Asker
from memtune.backbone import Backbone
from memtune.config import Config
from memtune.events import ignore
from memtune.facts import Fact
from memtune.ingest import ingest
from memtune.prior import prior_for
from memtune.project import Project
from memtune.store import load_memory
from memtune.tune import tune

from .base import Goal, Reply


class Memtune:
    """A tuned project. It keeps its folder, because the memory is mapped from the files in it."""

    def __init__(self, backbone: Backbone, facts: Sequence[Fact], folder: Any, details: dict[str, Any]) -> None:
        self._folder, self.details = folder, details
        self.names = [fact.id for fact in facts]
        memory = load_memory(Project(Path(folder.name) / "project"))
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


def teach(backbone: Backbone, facts: Sequence[Fact], goal: Goal) -> Memtune:
    folder = tempfile.TemporaryDirectory()
    path, project = write_bare(facts, Path(folder.name) / "facts.jsonl"), Path(folder.name) / "project"
    config = Config(model=backbone.checkpoint.name, until_loss=goal.target)
    ingested = ingest(path, project, config, backbone=backbone)
    tuned = tune(project, config, backbone=backbone)
    details = {"experts": ingested.experts, "at_target": tuned.learned, "loss_max": tuned.loss_max}
    details |= {"tune_seconds": tuned.seconds, "threshold": ingested.threshold}
    return Memtune(backbone, facts, folder, details)
