"""The control of the capacity tests: LoRA that may store as many bytes as the memory, trained to the same target."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from memtune.asking import greedy
from memtune.backbone import Backbone
from memtune.config import Config
from memtune.errors import ConfigError
from memtune.events import OnEvent, Progress
from memtune.evidence.likelihood import token_log_probabilities
from memtune.evidence.lora import RATE, Lora
from memtune.evidence.storage.curve import epochs_as_points
from memtune.evidence.storage.randomization import RANDOM, Arm, Stored, bits_stored
from memtune.evidence.storage.regularization import Examiner, Sitting
from memtune.evidence.training import Epoch, Goal, Reached
from memtune.fact import Fact

__all__ = ["Control", "teach_lora"]

SPARE = 8  # tokens behind an answer, to see whether it stops


@dataclass(frozen=True)
class Control:
    """How LoRA learns. ``rank`` None: the one whose bytes come nearest to all that the memory keeps.

    ``epochs`` and ``seconds`` (processor seconds of all threads) are what it may take for one set of answers.
    """

    rank: int | None = None
    rate: float = RATE
    epochs: int = 100
    seconds: float = 600.0

    def __post_init__(self) -> None:
        least = {"rank": 1 if self.rank is None else self.rank, "rate": self.rate, "epochs": self.epochs}
        for name, value in (least | {"seconds": self.seconds}).items():
            if not value > 0:
                raise ConfigError(f"--{name} is {value:g}", hint=f"--{name} takes a number above 0")

    def for_size(self, backbone: Backbone, size: int) -> Control:
        """With its rank chosen for ``size`` bytes, if it has none."""
        if self.rank is not None:
            return self
        with Lora.on(backbone, rank=1) as one:
            return replace(self, rank=max(1, round(size / one.bytes)))


def teach_lora(
    answers: str, facts: Sequence[Fact], control: Control, config: Config, examiner: Examiner, on_event: OnEvent
) -> tuple[Arm, Sitting]:
    """Trains adapters on the facts and puts the exam to the model with them; then the backbone is as it was."""
    assert control.rank is not None
    epochs: list[Epoch] = []

    def told(epoch: Epoch) -> None:
        epochs.append(epoch)
        on_event(Progress(f"LoRA, {answers} answers: epochs", epoch.number, control.epochs))

    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        with Lora.on(examiner.backbone, control.rank, 2 * control.rank) as lora:
            goal = Goal(config.until_loss, control.epochs, control.seconds)
            spent = time.process_time()
            reached = lora.teach(facts, goal, rate=control.rate, told=told)
            spent = time.process_time() - spent
            arm = _arm(answers, facts, lora, control, reached, epochs)
            return replace(arm, processor_seconds=spent), examiner.sit()


def _arm(
    answers: str,
    facts: Sequence[Fact],
    lora: Lora,
    control: Control,
    reached: Reached,
    epochs: Sequence[Epoch],
) -> Arm:
    return Arm(
        learner="LoRA",
        answers=answers,
        facts=len(facts),
        tokens=sum(lora.backbone.prompts.fact(fact).experts for fact in facts),
        at_target=reached.at_target,
        exact=_exact(lora.backbone, facts),
        rounds=reached.rounds if reached.at_target == len(facts) else None,
        again=0,
        points=epochs_as_points(epochs, reached),
        loss_mean=reached.loss_mean,
        loss_max=reached.loss_max,
        seconds=sum(epoch.seconds for epoch in epochs),
        processor_seconds=0.0,
        stored=Stored(0, sum(parameter.numel() for parameter in lora.parameters), lora.bytes, lora.bytes),
        bits=bits_stored(_sums(lora.backbone, facts)) if answers == RANDOM else None,
        details=f"rank {control.rank}, AdamW {control.rate:g}",
    )


def _sums(backbone: Backbone, facts: Sequence[Fact]) -> list[float]:
    """The loss of each answer, all its tokens together, nats."""
    items = [backbone.prompts.fact(fact) for fact in facts]
    prompts = [backbone.prompts.format.prompt(item.question) for item in items]
    return [-float(said.sum()) for said in token_log_probabilities(backbone, prompts, [i.answer for i in items])]


def _exact(backbone: Backbone, facts: Sequence[Fact]) -> int:
    """How many answers the model generates to the last character, and stops."""
    items = [backbone.prompts.fact(fact) for fact in facts]
    prompts = [backbone.prompts.format.prompt(item.question) for item in items]
    answers = greedy(backbone, prompts, [item.experts + SPARE for item in items])
    return sum(a.stopped and a.text == fact.answer for a, fact in zip(answers, facts, strict=True))
