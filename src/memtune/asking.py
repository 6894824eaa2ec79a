"""Asking a model with its memory on or off, by real greedy generation through ``generate()``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from memtune.backbone import Backbone
from memtune.memory.module import Attachment, Memory

__all__ = ["Answer", "Asker", "greedy"]

BATCH = 16
LONGEST_BASE_ANSWER = 64  # answer tokens of the backbone that are generated where nothing is stored


@dataclass(frozen=True)
class Answer:
    """What was generated: text, ids with the stop token if it came, and the probability of each."""

    text: str
    ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    stopped: bool


class Asker:
    """A backbone with a memory attached."""

    def __init__(self, backbone: Backbone, memory: Memory) -> None:
        self.backbone, self.memory = backbone, memory
        self.attachment = Attachment(backbone.model, memory.to(backbone.device))

    def ask(self, questions: Sequence[str], *, memory: bool = True, longest: int | None = None) -> list[Answer]:
        """Greedy answers, each question alone in a fresh conversation, batched by length."""
        prompts = [self.backbone.prompts.format.prompt(self.backbone.prompts.question(text)) for text in questions]
        limit = longest or max(self._longest_run() + 8, LONGEST_BASE_ANSWER)
        self.attachment.enabled = memory
        try:
            return greedy(self.backbone, prompts, limit)
        finally:
            self.attachment.enabled = True

    def _longest_run(self) -> int:
        runs = self.memory.bank.offsets.diff()
        return int(runs.max()) if len(runs) else 0


def greedy(backbone: Backbone, prompts: Sequence[tuple[int, ...]], longest: int) -> list[Answer]:
    """Greedy continuations of rendered prompts, batched by length, by the model as it stands."""
    answers: list[Answer | None] = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        for i, answer in zip(batch, _generate(backbone, [prompts[i] for i in batch], longest), strict=True):
            answers[i] = answer
    return [answer for answer in answers if answer is not None]


@torch.inference_mode()
def _generate(backbone: Backbone, prompts: list[tuple[int, ...]], longest: int) -> list[Answer]:
    model: Any = backbone.model
    stops = backbone.prompts.stop_ids
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), stops[0])
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # padding stands on the left, where generation wants it
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    out = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=longest,
        do_sample=False,
        eos_token_id=list(stops),
        pad_token_id=stops[0],
        return_dict_in_generate=True,
        output_logits=True,
    )
    new = out.sequences[:, width:]
    chances = torch.stack([step.float().softmax(-1).amax(-1) for step in out.logits], 1)
    return [_answer(backbone, row.tolist(), p.tolist()) for row, p in zip(new, chances, strict=True)]


def _answer(backbone: Backbone, ids: list[int], chances: list[float]) -> Answer:
    stops = backbone.prompts.stop_ids
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    length = len(ids) if end is None else end + 1
    text = backbone.prompts.answer_text(ids[:length] if end is None else ids[:end])
    return Answer(text, tuple(ids[:length]), tuple(chances[:length]), end is not None)
