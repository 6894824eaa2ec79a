"""The regularization test: what a learner does to everything that it was not taught.

Lamini-1 (arXiv 2406.17642, section 3) shows a table of answers. Here a model sits the same exam before and after: it
answers questions like those that were taught and questions on anything else, picks options, and reads a text.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memtune.asking import greedy
from memtune.backbone import Backbone
from memtune.conditions import passage_lines
from memtune.evidence.choices import Choice, shipped_choices
from memtune.evidence.likelihood import token_logits
from memtune.memory.module import Attachment, Memory
from memtune.suites import heldout_prompts

__all__ = ["Effect", "Exam", "Examiner", "Sitting"]

STORY = "Tell me a story."  # the text is read as the answer to it, where a memory may write
SENTENCES = 8  # of the text, read together

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Exam:
    """What is asked. ``held_out``: questions of the kind that is taught, ``control``: questions on anything else.

    ``longest``: tokens of an answer. ``text``: sentences.
    """

    held_out: tuple[str, ...]
    control: tuple[str, ...]
    choices: tuple[Choice, ...]
    text: tuple[str, ...]
    longest: int

    @classmethod
    def shipped(cls, held_out: Sequence[str], *, control: int, choices: int, longest: int) -> Exam:
        """``held_out`` beside what memtune ships, of which the first few are asked."""
        return cls(tuple(held_out), heldout_prompts()[:control], shipped_choices()[:choices], passage_lines(), longest)


@dataclass(frozen=True)
class Sitting:
    """What one model said. ``picked``: numbers of options, 0 is right. ``perplexity`` of the text, per token.

    ``digest`` changes with any bit of any logits of the options and the text, or of a generated token's probability.
    """

    held_out: tuple[Ids, ...]
    control: tuple[Ids, ...]
    picked: tuple[int, ...]
    perplexity: float
    digest: str


@dataclass(frozen=True)
class Effect:
    """What became of the backbone's answers. ``held_out``, ``control``: those that are the same, token for token.

    ``identical``: every logit of the exam is the backbone's, bit for bit; ``off_identical``: with the memory off. None
    where there is nothing to switch off.
    """

    learner: str
    answers: str
    held_out: int
    control: int
    right: int
    perplexity: float
    identical: bool
    off_identical: bool | None = None

    @classmethod
    def of(cls, learner: str, answers: str, before: Sitting, now: Sitting, off: Sitting | None = None) -> Effect:
        return cls(
            learner=learner,
            answers=answers,
            held_out=_same(before.held_out, now.held_out),
            control=_same(before.control, now.control),
            right=now.picked.count(0),
            perplexity=now.perplexity,
            identical=now.digest == before.digest,
            off_identical=None if off is None else off == before,
        )


def _same(before: Sequence[Ids], now: Sequence[Ids]) -> int:
    return sum(one == other for one, other in zip(before, now, strict=True))


class Examiner:
    """Puts an exam to a backbone's model as it stands."""

    def __init__(self, backbone: Backbone, exam: Exam) -> None:
        self.backbone, self.exam = backbone, exam
        self._prompts = [self._alone(text) for text in (*exam.held_out, *exam.control)]
        self._digest = hashlib.sha256()

    def sit(self) -> Sitting:
        self._digest = hashlib.sha256()
        said, split = self._said(), len(self.exam.held_out)
        picked, perplexity = self._picked(), self._perplexity()
        return Sitting(tuple(said[:split]), tuple(said[split:]), picked, perplexity, self._digest.hexdigest())

    def sit_with(self, memory: Memory) -> tuple[Sitting, Sitting]:
        """With the memory on, and with it attached and off."""
        attachment = Attachment(self.backbone.model, memory.to(self.backbone.device))
        try:
            on = self.sit()
            attachment.enabled = False
            return on, self.sit()
        finally:
            attachment.detach()

    def _alone(self, question: str) -> Ids:
        return self.backbone.prompts.format.prompt(self.backbone.prompts.question(question))

    def _said(self) -> list[Ids]:
        """Greedy answers, held-out questions first."""
        answers = greedy(self.backbone, self._prompts, self.exam.longest)
        self._digest.update(repr([answer.probabilities for answer in answers]).encode())
        return [answer.ids for answer in answers]

    def _picked(self) -> tuple[int, ...]:
        """An option counts by the mean of its tokens, so that a long one has no handicap; the stop is not asked for."""
        asked = [(self._alone(choice.question), option) for choice in self.exam.choices for option in choice.options]
        losses = self._losses([prompt for prompt, _ in asked], [option for _, option in asked])
        means = iter([float(tokens.mean()) for tokens in losses])
        rows = [[next(means) for _ in choice.options] for choice in self.exam.choices]
        return tuple(row.index(min(row)) for row in rows)

    def _perplexity(self) -> float:
        lines = self.exam.text
        parts = [" ".join(lines[start : start + SENTENCES]) for start in range(0, len(lines), SENTENCES)]
        losses = self._losses([self._alone(STORY)] * len(parts), parts)
        return math.exp(float(torch.cat(losses).mean()))

    def _losses(self, prompts: Sequence[Ids], answers: Sequence[str]) -> list[Tensor]:
        """Of each answer's tokens, the stop token apart: float32 ``(tokens,)``, nats."""
        ids = [self.backbone.prompts.answer(answer)[:-1] for answer in answers]
        found: dict[int, Tensor] = {}
        for i, logits in token_logits(self.backbone, prompts, ids):
            self._digest.update(logits.numpy().tobytes())
            found[i] = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[i]), reduction="none")
        return [found[i] for i in range(len(ids))]
