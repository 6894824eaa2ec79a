"""What the text of an answer is worth: three ways to judge it, each made ready for one question at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch

from memtune.asking import Asker, said_by
from memtune.backbone import Backbone
from memtune.evidence.likelihood import token_log_probabilities
from memtune.evidence.rewinding.rewind import Judgement
from memtune.evidence.truth.statements import statements
from memtune.evidence.truth.verify import Kind, Verdict, Verifier
from memtune.fact import Fact
from memtune.prompts import Prompts

__all__ = ["Judge", "Likelihood", "SelfEvaluation", "Store", "Value", "split", "without_stop"]

Ids = tuple[int, ...]
Judge = Callable[[Ids], Judgement]
CALIBRATED_ON = 16  # facts; each is answered once more, with the memory off
INVENTED = 32  # tokens of such an answer
OPTIONS = ("true", "false")


class Value(Protocol):
    """A way to judge answers."""

    @property
    def good(self) -> float:
        """The value from which an answer is good enough to stop at."""

    def of(self, question: str) -> Judge:
        """Judges answers to ``question``, given as ids, a stop token included or not."""


@dataclass(frozen=True)
class Store:
    """What the project's facts say of it: 1 where they support it, -1 where they contradict any of it, 0 otherwise."""

    prompts: Prompts
    verifier: Verifier
    good: float = 0.0  # what the facts say nothing of stays as it is

    def of(self, question: str) -> Judge:
        def judge(answer: Ids) -> Judgement:
            text = self.prompts.answer_text(without_stop(self.prompts, answer))
            verdict = self.verifier.verdict(text, question=question)
            if verdict.kind is not Kind.SUPPORTED:
                parts = self._verdicts(question, statements(text))  # cut off or not: it is what is said
                verdict = min(parts, key=_worst_first, default=Verdict(Kind.NO_EVIDENCE))
            return _judgement(verdict)

        return judge

    def _verdicts(self, question: str, parts: Sequence[str]) -> Iterator[Verdict]:
        """The first statement answers the question; the others only speak of what it or the one before names."""
        for i, part in enumerate(parts):
            before = {"about": f"{question} {parts[i - 1]}"} if i else {"question": question}
            yield self.verifier.verdict(part, **before)


@dataclass(frozen=True)
class Likelihood:
    """How sure the model is of what it says: the mean log-probability of a token, against a threshold (nats)."""

    backbone: Backbone
    threshold: float
    good: float = 0.8

    @classmethod
    def calibrated(cls, asker: Asker, facts: Sequence[Fact]) -> Likelihood:
        """The threshold tells what the memory holds from what the backbone makes up when asked the same.

        Raises ModelError as ``Prompts.fact`` does.
        """
        chosen = [facts[i] for i in range(0, len(facts), -(-len(facts) // CALIBRATED_ON))]
        prompts = asker.backbone.prompts
        encoded = [prompts.fact(fact) for fact in chosen]
        rendered = [prompts.format.prompt(fact.question) for fact in encoded]
        known = token_log_probabilities(asker.backbone, rendered, [fact.answer[:-1] for fact in encoded])
        invented = asker.ask([fact.question for fact in chosen], memory=False, longest=INVENTED)
        made_up = [torch.tensor(answer.probabilities).log().mean() for answer in invented]
        return cls(asker.backbone, split([float(own.mean()) for own in known], [float(mean) for mean in made_up]))

    def of(self, question: str) -> Judge:
        prompts = self.backbone.prompts
        prompt = prompts.format.prompt(prompts.question(question))

        def judge(answer: Ids) -> Judgement:
            said = without_stop(prompts, answer)
            if not said:
                return Judgement(0.0, "it says nothing")
            mean = float(token_log_probabilities(self.backbone, [prompt], [said])[0].mean())
            sign, side = (1.0, "at least") if mean >= self.threshold else (-1.0, "less than")
            return Judgement(sign, f"{mean:.3g} nats a token, {side} {self.threshold:.3g}")

        return judge


@dataclass(frozen=True)
class SelfEvaluation:
    """The model's own opinion, memory off: true or false, as (A) and (B) and in the other order.

    1 or -1 where both orders agree, 0 where the model only likes a letter (RAIN, section 3.2).
    """

    asker: Asker
    good: float = 0.8

    def of(self, question: str) -> Judge:
        prompts = self.asker.backbone.prompts

        def judge(answer: Ids) -> Judgement:
            text = prompts.answer_text(without_stop(prompts, answer))
            votes = [self._true(question, text, options) for options in (OPTIONS, OPTIONS[::-1])]
            value = float(sum(votes) - 1)
            return Judgement(value, {1.0: "it calls this true", -1.0: "it calls this false"}.get(value, "undecided"))

        return judge

    def _true(self, question: str, answer: str, options: Sequence[str]) -> bool:
        prompts = self.asker.backbone.prompts
        asked = prompts.render([said_by("user", _evaluation(question, answer, options))])
        letters = [prompts.ids(f"({letter}") for letter in "AB"]
        before, self.asker.attachment.enabled = self.asker.attachment.enabled, False
        try:
            first, second = (
                float(found.sum()) for found in token_log_probabilities(self.asker.backbone, [asked] * 2, letters)
            )
        finally:
            self.asker.attachment.enabled = before
        return options[0 if first > second else 1] == OPTIONS[0]


def _evaluation(question: str, answer: str, options: Sequence[str]) -> str:
    return (
        f"Here are a question and an answer to it.\nQuestion: {question.strip()}\nAnswer: {answer.strip()}\n"
        f"Does this answer agree with the facts? Choose (A) {options[0]} or (B) {options[1]}, and write its letter."
    )


def _worst_first(verdict: Verdict) -> int:
    return (Kind.CONTRADICTED, Kind.SUPPORTED, Kind.NO_EVIDENCE).index(verdict.kind)


def _judgement(verdict: Verdict) -> Judgement:
    value = {Kind.SUPPORTED: 1.0, Kind.NO_EVIDENCE: 0.0, Kind.CONTRADICTED: -1.0}[verdict.kind]
    by = f" by {verdict.fact_id}: {verdict.answer}" if verdict.fact_id else ""
    return Judgement(value, f"{verdict.kind.value}{by}", verdict.fact_id)


def without_stop(prompts: Prompts, answer: Ids) -> Ids:
    """An answer's ids but for the token that ends it, if it is there."""
    return answer[:-1] if answer and answer[-1] in prompts.stop_ids else answer


def split(high: Sequence[float], low: Sequence[float]) -> float:
    """The figure that leaves most of ``high`` above and of ``low`` below; in the widest gap where several do."""

    def worth(ends: tuple[float, float]) -> tuple[int, float]:
        middle = sum(ends) / 2
        return sum(one >= middle for one in high) + sum(one < middle for one in low), ends[1] - ends[0]

    every = sorted({*high, *low})
    gaps = list(pairwise(every)) or [(every[0], every[0])]
    widest: tuple[float, float] = max(gaps, key=worth)
    return sum(widest) / 2
