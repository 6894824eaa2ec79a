"""Exact SliCK: the chance of an answer behind its exemplars, from one teacher-forced pass, a memory on it or not.

All questions behind the same exemplars share their keys and values. The memory is written where the model's own hooks
would write it: at the states that predict the answer, by the route of the question as it stands in the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from memtune.backbone import Backbone
from memtune.evidence.knowledge.fewshot import Exemplar, FewShot
from memtune.evidence.knowledge.slick import Reading, read
from memtune.fact import Fact
from memtune.memory.forest import common_start
from memtune.memory.module import Memory
from memtune.memory.routes import Routes
from memtune.memory.states import StateReader

__all__ = ["Forced"]

Ids = tuple[int, ...]


class Forced:
    """Reads chances of answers from the model as it stands, with ``memory`` or without."""

    def __init__(self, backbone: Backbone, fewshot: FewShot, memory: Memory | None = None) -> None:
        self.backbone, self.fewshot, self.memory = backbone, fewshot, memory
        self._states = StateReader(backbone.model, backbone.prompts.format.prefix)
        if memory is not None:
            memory.to(backbone.device)
            early = StateReader(backbone.model, memory.config.format.prefix, memory.config.taps).early
            self._routes = Routes(memory.router, early)

    def close(self) -> None:
        """Nothing was hung on the model."""

    def readings(self, exemplars: Sequence[Exemplar], facts: Sequence[Fact], samples: int) -> list[Reading]:
        """Each fact behind these exemplars. ``samples`` is for those who draw: here the chance itself is known."""
        prompts = [self.fewshot.prompt(exemplars, fact.question) for fact in facts]
        answers = [self.fewshot.answer(fact.answer) for fact in facts]
        found: dict[int, Reading] = {}
        for i, logits in self.logits(prompts, answers):
            found[i] = read(logits, answers[i], self.fewshot.ends)
        return [found[i] for i in range(len(facts))]

    @torch.inference_mode()
    def logits(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> Iterator[tuple[int, Tensor]]:
        """The number of each answer with what predicts its tokens and its end, on the CPU, as they are computed:
        float32 ``(answer tokens + 1, vocabulary)``.
        """
        shared = _shared(prompts)
        rest = [prompt[shared:] + answer for prompt, answer in zip(prompts, answers, strict=True)]
        facts = self._facts(prompts)
        for together in self._states.behind(prompts[0][:shared]).whole(rest):
            numbers = [i for i, _, _ in together]
            states = [self._written(final[_predicting(rest[i], answers[i])], facts[i]) for i, _, final in together]
            logits = self.backbone.readout(torch.cat(states)).cpu()  # together: the head's weights are read once
            yield from zip(numbers, logits.split([len(own) for own in states]), strict=True)

    def _facts(self, prompts: Sequence[Ids]) -> list[int | None]:
        """The number of the stored fact that each prompt asks for."""
        if self.memory is None:
            return [None] * len(prompts)
        routes = self._routes.of([self.backbone.prompts.last_question(prompt) for prompt in prompts])
        return [route.fact if self.memory.fires(route) else None for route in routes]

    def _written(self, states: Tensor, fact: int | None) -> Tensor:
        """``states`` (positions, hidden) from the first answer position on, as the memory leaves them."""
        if self.memory is None or fact is None:
            return states
        steps = torch.arange(min(len(states), self.memory.bank.experts_of(fact)), device=states.device)
        added = self.memory.write(states[: len(steps)], torch.full_like(steps, fact), steps)
        return torch.cat([states[: len(steps)] + added, states[len(steps) :]])


def _shared(prompts: Sequence[Ids]) -> int:
    """How many ids all prompts begin with, their last ones apart: the first answer token is predicted there."""
    return min(common_start(prompts), min(map(len, prompts)) - 1)


def _predicting(row: Ids, answer: Ids) -> slice:
    """The positions of a row that predict the answer at its end, and what comes behind it."""
    return slice(len(row) - len(answer) - 1, len(row))
