"""The regularization test: what a learner does to everything that it was not taught.

Lamini-1 (arXiv 2406.17642, section 3) shows a table of answers. Here a model sits the same exam before and after: it
answers questions like those that were taught and questions on anything else, picks options, and reads a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from memtune.asking import greedy
from memtune.backbone import Backbone
from memtune.conditions import passage_lines
from memtune.evidence.likelihood import token_logits
from memtune.evidence.storage.choices import Choice, shipped_choices
from memtune.memory.module import Attachment, Memory
from memtune.suites import heldout_prompts

__all__ = ["Effect", "Exam", "Examiner", "Sitting"]

OPENING = "Answer:"  # behind it, a word is told from the first piece of a rarer one by the space in front
STORY = "Tell me a story."  # the text is read as the answer to it, where a memory may write
SENTENCES, PARTS = 8, 3  # of the text: read together, and how often

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Exam:
    """What is asked. ``held_out``: questions of the kind that is taught, ``control``: questions on anything else.

    ``text``: sentences. ``longest``: tokens of an answer.
    """

    held_out: tuple[str, ...]
    control: tuple[str, ...]
    choices: tuple[Choice, ...]
    text: tuple[str, ...]
    longest: int

    @classmethod
    def shipped(cls, held_out: Sequence[str], *, sample: int, longest: int) -> Exam:
        """``held_out`` beside what memtune ships, at most ``sample`` of each."""
        text = passage_lines()[: SENTENCES * PARTS]
        return cls(tuple(held_out), heldout_prompts()[:sample], shipped_choices()[:sample], text, longest)


@dataclass(frozen=True)
class Sitting:
    """What one model said. ``picked``: numbers of options, 0 is right; None where the model's tokenizer begins two of
    them alike. ``perplexity`` of the text, per token.

    ``digest`` changes with any bit of the logits behind the choices and in the text, or of a generated token's
    probability.
    """

    held_out: tuple[Ids, ...]
    control: tuple[Ids, ...]
    picked: tuple[int | None, ...]
    perplexity: float
    digest: str


@dataclass(frozen=True)
class Effect:
    """What became of the backbone's answers. ``held_out``, ``control``: those that are the same, token for token.

    ``identical``: every bit of the exam is the backbone's; ``off_identical``: the same with the memory off. None where
    there is nothing to switch off.
    """

    learner: str
    answers: str
    held_out: int
    control: int
    right: int  # options
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
            identical=now == before,
            off_identical=None if off is None else off == before,
        )


def _same(before: Sequence[Ids], now: Sequence[Ids]) -> int:
    return sum(one == other for one, other in zip(before, now, strict=True))


class Examiner:
    """Puts an exam to a backbone's model as it stands."""

    def __init__(self, backbone: Backbone, exam: Exam) -> None:
        self.backbone, self.exam = backbone, exam
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

    def _said(self) -> list[Ids]:
        """Greedy answers, held-out questions first."""
        prompts = [self._alone(text) for text in (*self.exam.held_out, *self.exam.control)]
        answers = greedy(self.backbone, prompts, self.exam.longest)
        self._digest.update(repr([answer.probabilities for answer in answers]).encode())
        return [answer.ids for answer in answers]

    def _picked(self) -> tuple[int | None, ...]:
        """The option whose first token is likeliest behind OPENING: one pass for all options of a question."""
        ids = self.backbone.prompts.ids
        firsts = [tuple(ids(f" {option}")[0] for option in choice.options) for choice in self.exam.choices]
        prompts = [self._alone(choice.question) + self._ids(OPENING) for choice in self.exam.choices]
        found = dict(self._heard(prompts, [tokens[:1] for tokens in firsts]))
        return tuple(_likeliest(found[i][0, list(tokens)], tokens) for i, tokens in enumerate(firsts))

    def _perplexity(self) -> float:
        """Of the text's tokens, as an answer of the model; its end is not asked for."""
        lines = self.exam.text
        parts = [self._ids(" ".join(lines[at : at + SENTENCES])) for at in range(0, len(lines), SENTENCES)]
        losses = [
            F.cross_entropy(logits, torch.tensor(parts[i]), reduction="none")
            for i, logits in self._heard([self._alone(STORY)] * len(parts), parts)
        ]
        return float(torch.cat(losses).double().mean().exp())

    def _heard(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> Iterator[tuple[int, Tensor]]:
        """``token_logits``, of which every bit goes into the digest."""
        for i, logits in token_logits(self.backbone, prompts, answers):
            self._digest.update(logits.numpy().tobytes())
            yield i, logits

    def _alone(self, question: str) -> Ids:
        return self.backbone.prompts.format.prompt(self.backbone.prompts.question(question))

    def _ids(self, answer: str) -> Ids:
        """Without the stop token."""
        return self.backbone.prompts.answer(answer)[:-1]


def _likeliest(logits: Tensor, tokens: Ids) -> int | None:
    """Number of the largest of the options' ``logits`` (options,)."""
    return int(logits.argmax()) if len(set(tokens)) == len(tokens) else None
