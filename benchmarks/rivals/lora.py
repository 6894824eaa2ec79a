"""Fine-tuning with LoRA (peft): rank 32 on every linear layer, AdamW, until every fact is at the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from memtune.asking import greedy
from memtune.backbone import Backbone
from memtune.evidence.lora import ALPHA, RANK, RATE, Lora
from memtune.evidence.training import Goal
from memtune.facts import Fact

from .base import Reply, plain_prompts
from .training import say_epoch


class Trained:
    """A model whose weights were changed; it is asked like any other."""

    def __init__(self, backbone: Backbone, size: int, details: dict[str, Any]) -> None:
        self.backbone, self.bytes, self.details = backbone, size, details

    def ask(self, questions: Sequence[str], longest: int) -> list[Reply]:
        return [Reply(answer) for answer in greedy(self.backbone, plain_prompts(self.backbone, questions), longest)]


def teach(backbone: Backbone, facts: Sequence[Fact], goal: Goal, rate: float = RATE) -> Trained:
    """Puts adapters into the backbone's model, trains them and folds them into its weights, as one does to serve."""
    lora = Lora.on(backbone)
    reached = lora.teach(facts, goal, rate=rate, told=say_epoch("lora"))
    lora.merge()
    return Trained(backbone, lora.bytes, {"rank": RANK, "alpha": ALPHA, "rate": rate} | asdict(reached))
