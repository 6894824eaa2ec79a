"""The control: the same facts taught by LoRA, for as long as a ``with`` lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from memtune.backbone import Backbone
from memtune.events import Note, OnEvent, Progress
from memtune.evidence.lora import Lora
from memtune.evidence.training import Goal
from memtune.fact import Fact

__all__ = ["taught_by_lora"]


@contextmanager
def taught_by_lora(backbone: Backbone, facts: Sequence[Fact], on_event: OnEvent) -> Iterator[None]:
    """The backbone's model, trained until every fact is at the target or the epochs are over; then as it was."""
    goal = Goal()
    with Lora.on(backbone) as lora:
        reached = lora.teach(
            facts, goal, told=lambda epoch: on_event(Progress("LoRA, epochs", epoch.number, goal.epochs))
        )
        on_event(
            Note(
                f"LoRA: {reached.at_target} of {len(facts)} facts at {goal.target:g} nats per answer token after "
                f"{reached.rounds} epochs"
            )
        )
        yield
