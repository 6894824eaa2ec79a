"""One long answer: its statements, the verdict on each, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from memtune.evidence.truth.f1 import f1_at, precision
from memtune.evidence.truth.statements import statements
from memtune.evidence.truth.verify import Kind, Verdict, Verifier

__all__ = ["AnswerScore", "Judge", "Reader", "Said", "Scored", "Search"]

BY_RULES, BY_JUDGE = "rules", "judge"


class Search(Protocol):
    """Finds texts that may speak for or against a statement: a web search, another store."""

    def __call__(self, statement: str, question: str) -> Sequence[str]: ...


class Judge(Protocol):
    """Decides on a statement that the rules found no evidence for: a larger model, an entailment checker, a person."""

    def __call__(self, statement: str, evidence: Sequence[str]) -> Kind: ...


@dataclass(frozen=True)
class Said:
    """What was asked, "" if nobody knows, and answered. ``whole``: False if the answer was cut off."""

    question: str
    answer: str
    whole: bool = True


@dataclass(frozen=True)
class Scored:
    """One statement. ``repeated``: the same was said before, so it does not count again. ``by``: rules or judge."""

    text: str
    kind: Kind
    fact_id: str | None
    stored: str  # the fact's answer, "" without evidence
    repeated: bool
    by: str


@dataclass(frozen=True)
class AnswerScore:
    """One answer. ``supported``, ``contradicted`` and ``no_evidence`` count statements, each once.

    ``about``: facts of the store about the subjects of the question, or of the answer where there is no question;
    ``about_said``: those of them that the answer states. ``k`` and ``f1`` are None where nothing is stored about them.
    """

    question: str
    answer: str
    statements: tuple[Scored, ...]
    supported: int
    contradicted: int
    no_evidence: int
    about: int
    about_said: int
    k: int | None
    precision: float | None  # None: it states nothing
    recall: float | None  # about_said of about
    f1: float | None


@dataclass(frozen=True)
class Reader:
    """Reads answers against the store. ``k``: None for as many as there are facts about an answer's subjects."""

    verifier: Verifier
    k: int | None = None
    search: Search | None = None
    judge: Judge | None = None

    def answer(self, said: Said) -> AnswerScore:
        scored = list(self._scored(said))
        counted = [one for one in scored if not one.repeated]
        numbers = {kind: sum(one.kind is kind for one in counted) for kind in Kind}
        supported, unsupported = numbers[Kind.SUPPORTED], len(counted) - numbers[Kind.SUPPORTED]
        about = self._about(said)
        known = {one.fact_id for one in counted if one.kind is Kind.SUPPORTED} & about
        k = self.k or len(about) or None
        return AnswerScore(
            question=said.question,
            answer=said.answer,
            statements=tuple(scored),
            supported=supported,
            contradicted=numbers[Kind.CONTRADICTED],
            no_evidence=numbers[Kind.NO_EVIDENCE],
            about=len(about),
            about_said=len(known),
            k=k,
            precision=precision(supported, unsupported),
            recall=len(known) / len(about) if about else None,
            f1=None if k is None else f1_at(supported, unsupported, k),
        )

    def _about(self, said: Said) -> set[str | None]:
        """Ids of the facts that a full answer would state."""
        texts = [said.question] if said.question else statements(said.answer, whole=said.whole)
        return {self.verifier.facts[number].id for text in texts for number in self.verifier.about(text)}

    def _scored(self, said: Said) -> Iterator[Scored]:
        """The statements one by one; what names nothing is about what the statement before it named."""
        before, seen = "", set()
        for number, text in enumerate(statements(said.answer, whole=said.whole)):
            verdict, by = self._judged(text, said.question, before, first=number == 0)
            key = (verdict.kind, verdict.fact_id or text.casefold())
            yield Scored(text, verdict.kind, verdict.fact_id, verdict.answer, key in seen, by)
            seen.add(key)
            before = text if self.verifier.about(text) else before

    def _judged(self, text: str, question: str, before: str, *, first: bool) -> tuple[Verdict, str]:
        verdict = self._by_rules(text, question, before, first=first)
        if verdict.kind is not Kind.NO_EVIDENCE or self.judge is None:
            return verdict, BY_RULES
        evidence = [self._told(number) for number in self.verifier.rows(text, question=question)]
        evidence += self.search(text, question) if self.search else []
        return Verdict(self.judge(text, evidence)), BY_JUDGE

    def _by_rules(self, text: str, question: str, before: str, *, first: bool) -> Verdict:
        """The first statement answers the question; a later one may go on about it, or about the one before."""
        if first:
            return self.verifier.verdict(text, question=question)
        nearest = self.verifier.verdict(text, about=before or question)
        if before and question and nearest.kind is not Kind.SUPPORTED:
            wider = self.verifier.verdict(text, about=question)
            return wider if wider.kind is Kind.SUPPORTED else nearest
        return nearest

    def _told(self, number: int) -> str:
        fact = self.verifier.facts[number]
        return f"{fact.question} {fact.answer}"
