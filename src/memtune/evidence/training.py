"""Training by gradients, which memtune itself does not do: the control that its claims are held against.

Batches of conversations, the loss of each fact, epochs until the target.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memtune.backbone import Backbone
from memtune.fact import Fact

__all__ = ["Batch", "Epoch", "Goal", "Reached", "batches_of", "fact_losses", "fit", "measure", "token_losses"]

BATCH = 10
CLIP = 1.0  # gradient norm, the default of transformers' Trainer
SEED = 0


@dataclass(frozen=True)
class Goal:
    """When training may stop."""

    target: float = 0.01  # nats per answer token, the mean over a fact's answer, for every fact
    epochs: int = 40  # at most
    processor_seconds: float = math.inf  # of all threads; no epoch begins after so many


@dataclass(frozen=True)
class Epoch:
    """One pass over all facts. Losses in nats per answer token, each as it was before its step."""

    number: int
    loss_mean: float
    loss_max: float
    seconds: float


@dataclass(frozen=True)
class Reached:
    """What the facts' losses are after ``rounds`` over all of them (epochs, or steps of all at once)."""

    rounds: int
    loss_mean: float
    loss_max: float
    at_target: int  # facts


@dataclass(frozen=True)
class Batch:
    """Conversations of near-equal length, padded on the right, where no causal position sees it; on the backbone's
    device.

    ``rows``, ``places``, ``targets``: one entry for each answer token, the stop token included; the state at
    ``(row, place)`` predicts ``target``. Prompt and padding are in none of them: no loss is taken there.
    """

    facts: tuple[int, ...]
    ids: Tensor  # (facts, longest)
    rows: Tensor
    places: Tensor
    targets: Tensor

    @property
    def first_places(self) -> Tensor:
        """Of each row the last token of its prompt, which predicts the first answer token: ``(facts,)``."""
        first = self.rows.new_full((len(self.facts),), self.ids.shape[1])
        return first.scatter_reduce(0, self.rows, self.places, "amin")


def batches_of(backbone: Backbone, facts: Sequence[Fact], size: int = BATCH) -> list[Batch]:
    encoded = [backbone.prompts.fact(fact) for fact in facts]
    lessons = [(backbone.prompts.format.prompt(item.question), item.answer) for item in encoded]
    order = sorted(range(len(facts)), key=lambda i: sum(map(len, lessons[i])))
    return [_batch(order[start : start + size], lessons, backbone.device) for start in range(0, len(order), size)]


def _batch(
    numbers: Sequence[int], lessons: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], device: torch.device
) -> Batch:
    chosen = [lessons[i] for i in numbers]
    ids = torch.zeros(len(chosen), max(len(prompt) + len(answer) for prompt, answer in chosen), dtype=torch.long)
    marks: list[tuple[int, int, int]] = []
    for row, (prompt, answer) in enumerate(chosen):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        marks += [(row, len(prompt) - 1 + step, token) for step, token in enumerate(answer)]
    rows, places, targets = torch.tensor(marks, device=device).T
    return Batch(tuple(numbers), ids.to(device), rows, places, targets)


def token_losses(final: Tensor, head: nn.Module, batch: Batch) -> Tensor:
    """Of each answer token, nats. ``final``: ``(facts, longest, hidden)``, the LM head's input."""
    return F.cross_entropy(head(final[batch.rows, batch.places]).float(), batch.targets, reduction="none")


def fact_losses(final: Tensor, head: nn.Module, batch: Batch) -> Tensor:
    """The mean of each row's answer tokens, nats."""
    tokens = token_losses(final, head, batch)
    counts = torch.bincount(batch.rows, minlength=len(batch.facts))
    return tokens.new_zeros(len(batch.facts)).index_add(0, batch.rows, tokens) / counts


def fit(
    parameters: Sequence[nn.Parameter],
    batches: Sequence[Batch],
    losses_of: Callable[[Batch], Tensor],
    goal: Goal,
    rate: float,
    told: Callable[[Epoch], None],
) -> Reached:
    """AdamW over all facts, mini-batch by mini-batch, epoch by epoch, until every fact is at the target."""
    optimiser = torch.optim.AdamW(parameters, lr=rate)
    drawn = torch.Generator().manual_seed(SEED)
    done = Reached(0, math.inf, math.inf, 0)
    first = time.process_time()
    for epoch in range(1, goal.epochs + 1):
        started = time.monotonic()
        order = torch.randperm(len(batches), generator=drawn).tolist()
        seen = torch.cat([_step(optimiser, parameters, losses_of(batches[i])) for i in order])
        told(Epoch(epoch, float(seen.mean()), float(seen.max()), time.monotonic() - started))
        # The weights moved on after each of these losses: what counts is measured again, once it looks done.
        over = epoch == goal.epochs or time.process_time() - first > goal.processor_seconds
        if float(seen.max()) <= goal.target or over:
            done = measure(epoch, batches, losses_of, goal)
            if done.loss_max <= goal.target or over:
                break
    return done


def _step(optimiser: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], losses: Tensor) -> Tensor:
    optimiser.zero_grad()
    losses.mean().backward()
    nn.utils.clip_grad_norm_(parameters, CLIP)
    optimiser.step()
    return losses.detach()


@torch.no_grad()
def measure(rounds: int, batches: Sequence[Batch], losses_of: Callable[[Batch], Tensor], goal: Goal) -> Reached:
    losses = torch.cat([losses_of(batch) for batch in batches])
    return Reached(rounds, float(losses.mean()), float(losses.max()), int((losses <= goal.target).sum()))
