"""A codebook with a radius around each key, after GRACE (arXiv 2211.11031).

Key: what enters the MLP's down-projection of one late layer at the last token of the prompt. Value: a vector that takes
the place of that projection's output at that token wherever a question's key lies within the radius; trained by
gradient on the answer. Radii follow the paper's code: a new key that falls near one of another answer halves the
distance between the two, near one of the same answer it joins it. The values are trained together: their losses are
independent and Adam works number by number, so each comes out as if trained alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from memtune.asking import greedy
from memtune.backbone import Backbone
from memtune.evidence.training import Batch, Goal, batches_of, fact_losses, measure
from memtune.facts import Fact

from .base import Reply, plain_prompts
from .locft import late_layer
from .training import Upper, say

DEPTH = 0.8  # of the way up; the paper's code edits one late layer
RADIUS = 1.0
RATE = 1.0
STEPS = 100
JUST_LESS = 1e-5


class Codebook:
    """Keys ``(n, width)`` and radii; ``entry_of[i]`` is the entry that fact i belongs to."""

    def __init__(self, width: int, radius: float = RADIUS) -> None:
        self.radius = radius
        self.keys, self.radii = torch.empty(0, width), torch.empty(0)
        self.answers: list[str] = []
        self.entry_of: list[int] = []

    def add(self, key: Tensor, answer: str) -> None:
        distance, nearest = self.nearest(key[None]) if self.answers else (torch.tensor([torch.inf]), torch.tensor([0]))
        gap, other = float(distance), int(nearest)
        if self.answers and gap <= self.radius + float(self.radii[other]):
            if self.answers[other] == answer:
                self.radii[other] = max(float(self.radii[other]), gap)
                self.entry_of.append(other)
                return
            self.radii[other] = gap / 2 - JUST_LESS
            self._append(key, answer, gap / 2)
        else:
            self._append(key, answer, self.radius)

    def _append(self, key: Tensor, answer: str, radius: float) -> None:
        self.entry_of.append(len(self.answers))
        self.keys = torch.cat([self.keys, key[None]])
        self.radii = torch.cat([self.radii, torch.tensor([radius])])
        self.answers.append(answer)

    def nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and number of the nearest entry of each row."""
        # The direct differences: cdist's matrix product loses the small distances that decide here.
        distances = torch.cdist(queries, self.keys, compute_mode="donot_use_mm_for_euclid_dist")
        nearest: tuple[Tensor, Tensor] = distances.min(1)
        return nearest

    def hits(self, queries: Tensor) -> list[int | None]:
        distance, nearest = self.nearest(queries)
        inside = (distance <= self.radii[nearest]).tolist()
        return [number if near else None for number, near in zip(nearest.tolist(), inside, strict=True)]


class Grace:
    """The backbone with the codebook hung on one matrix."""

    def __init__(self, backbone: Backbone, facts: Sequence[Fact], book: Codebook, matrix: nn.Linear) -> None:
        self.backbone, self.book = backbone, book
        self.fact_of = {entry: facts[number].id for number, entry in reversed(list(enumerate(book.entry_of)))}
        self.values = torch.empty(0)
        self.details: dict[str, Any] = {}
        self._hits: list[int | None] = []
        matrix.register_forward_hook(self._replace)

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.book.keys, self.book.radii, self.values))

    def ask(self, questions: Sequence[str], longest: int) -> list[Reply]:
        prompts = plain_prompts(self.backbone, questions)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # greedy's own: the hits come in it
        self._hits = []
        answers = greedy(self.backbone, [prompts[i] for i in order], longest)
        replies = {
            i: Reply(answer, used=() if hit is None else (self.fact_of[hit],))
            for i, answer, hit in zip(order, answers, self._hits, strict=True)
        }
        return [replies[i] for i in range(len(questions))]

    def _replace(self, _matrix: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        """At a prompt's last token; decode steps, one token long, are left alone."""
        if out.shape[1] == 1:
            return None
        hits = self.book.hits(inputs[0][:, -1])
        self._hits += hits
        rows = [row for row, hit in enumerate(hits) if hit is not None]
        if not rows:
            return None
        out = out.clone()
        out[rows, -1] = self.values[[hit for hit in hits if hit is not None]]
        return out


def teach(backbone: Backbone, facts: Sequence[Fact], goal: Goal) -> Grace:
    number, matrix = late_layer(backbone, DEPTH)
    batches = batches_of(backbone, facts)
    upper = Upper(backbone, number, batches)
    book = Codebook(matrix.in_features)
    for key, fact in zip(_keys(upper, matrix, batches, len(facts)), facts, strict=True):
        book.add(key, fact.answer)
    values, details = _train(backbone, upper, matrix, batches, book, goal)
    rival = Grace(backbone, facts, book, matrix)
    rival.values = values
    rival.details = {"layer": number, "entries": len(book.answers), "radius": RADIUS, "rate": RATE} | details
    return rival


def _keys(upper: Upper, matrix: nn.Linear, batches: Sequence[Batch], facts: int) -> Tensor:
    """Of each fact what enters the matrix at the last token of its prompt: ``(facts, width)``."""
    keys = torch.zeros(facts, matrix.in_features)
    entered: list[Tensor] = []
    hook = matrix.register_forward_hook(lambda _module, inputs, _out: entered.append(inputs[0]))
    with torch.no_grad():
        for batch in batches:
            upper.final(batch)
            keys[list(batch.facts)] = entered.pop()[torch.arange(len(batch.facts)), batch.first_places]
    hook.remove()
    return keys


def _train(
    backbone: Backbone, upper: Upper, matrix: nn.Linear, batches: Sequence[Batch], book: Codebook, goal: Goal
) -> tuple[Tensor, dict[str, Any]]:
    """The values ``(entries, hidden)``, from random ones as in the paper's code; stops early at the target."""
    drawn = torch.Generator().manual_seed(0)
    values = nn.Parameter(torch.rand(len(book.answers), matrix.out_features, generator=drawn))
    optimiser = torch.optim.Adam([values], lr=RATE)
    entry_of = torch.tensor(book.entry_of)

    def losses_of(batch: Batch) -> Tensor:
        hook = matrix.register_forward_hook(lambda _module, _inputs, out: put(batch, out))
        try:
            return fact_losses(upper.final(batch), backbone.head, batch)
        finally:
            hook.remove()

    def put(batch: Batch, out: Tensor) -> Tensor:
        out = out.clone()
        out[torch.arange(len(batch.facts)), batch.first_places] = values[entry_of[list(batch.facts)]]
        return out

    for step in range(1, STEPS + 1):
        seen = []
        optimiser.zero_grad()
        for batch in batches:
            losses = losses_of(batch)
            losses.sum().backward()
            seen.append(losses.detach())
        worst = float(torch.cat(seen).max())
        if step % 10 == 0:
            say(f"grace step {step}: loss worst {worst:.4f}")
        if worst <= goal.target:
            break
        optimiser.step()
    return values.detach(), asdict(measure(step, batches, losses_of, goal))
