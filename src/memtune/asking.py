"""Asking a model with its memory on or off, by real greedy generation through ``generate()``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from memtune.backbone import Backbone
from memtune.memory.module import Attachment, Memory

__all__ = ["Answer", "Asker", "Turns", "greedy", "said_by"]

BATCH = 16
LONGEST_BASE_ANSWER = 64  # answer tokens of the backbone that are generated where nothing is stored


Turns = Sequence[dict[str, str]]  # a conversation as chat templates take it


def said_by(role: str, text: str) -> dict[str, str]:
    """One turn of a conversation."""
    return {"role": role, "content": text}


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
        limit = longest or max(self.longest_run + 8, LONGEST_BASE_ANSWER)
        alone = [[said_by("user", text.strip())] for text in questions]
        return self.converse(alone, [limit] * len(alone), memory=memory)

    def converse(self, conversations: Sequence[Turns], longest: Sequence[int], *, memory: bool = True) -> list[Answer]:
        """The next answer in each conversation, at most ``longest`` tokens of it."""
        prompts = [self.backbone.prompts.render(list(turns)) for turns in conversations]
        self.attachment.enabled = memory
        try:
            return greedy(self.backbone, prompts, longest)
        finally:
            self.attachment.enabled = True

    @property
    def longest_run(self) -> int:
        """Tokens of the longest stored answer, its stop included."""
        runs = self.memory.bank.offsets.diff()
        return int(runs.max()) if len(runs) else 0


def greedy(backbone: Backbone, prompts: Sequence[tuple[int, ...]], longest: int | Sequence[int]) -> list[Answer]:
    """Greedy continuations of rendered prompts, at most ``longest`` tokens of each, by the model as it stands.

    A batch generates until its last answer stops: what is about as long, behind about as much, goes together.
    """
    longest = [longest] * len(prompts) if isinstance(longest, int) else longest
    answers: dict[int, Answer] = {}
    order = sorted(range(len(prompts)), key=lambda i: (longest[i], len(prompts[i])))
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        said = _generate(backbone, [prompts[i] for i in batch], [longest[i] for i in batch])
        answers.update(zip(batch, said, strict=True))
    return [answers[i] for i in range(len(prompts))]


@torch.inference_mode()
def _generate(backbone: Backbone, prompts: list[tuple[int, ...]], longest: list[int]) -> list[Answer]:
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
        max_new_tokens=max(longest),
        do_sample=False,
        eos_token_id=list(stops),
        pad_token_id=stops[0],
        return_dict_in_generate=True,
        output_logits=True,
    )
    new = out.sequences[:, width:]
    chances = torch.stack([step.float().softmax(-1).amax(-1) for step in out.logits], 1)
    rows = zip(new.tolist(), chances.tolist(), longest, strict=True)
    return [_answer(backbone, row[:limit], p[:limit]) for row, p, limit in rows]


def _answer(backbone: Backbone, ids: list[int], chances: list[float]) -> Answer:
    stops = backbone.prompts.stop_ids
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    length = len(ids) if end is None else end + 1
    text = backbone.prompts.answer_text(ids[:length] if end is None else ids[:end])
    return Answer(text, tuple(ids[:length]), tuple(chances[:length]), end is not None)
