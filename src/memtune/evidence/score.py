"""The verb score: a long answer statement by statement against the fact store (SAFE and F1@K, arXiv 2403.18802).

SAFE asks a large model to split, to search the web and to judge. Here the store is the user's own facts and the judge
is a set of rules; a search and a judge of one's own can be put behind them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from memtune.asking import Asker
from memtune.backbone import Backbone
from memtune.errors import ConfigError, DataError, ProjectError
from memtune.events import OnEvent, Progress, ignore
from memtune.evidence.f1 import f1_at, precision
from memtune.evidence.statements import statements
from memtune.evidence.verify import Kind, Verdict, Verifier
from memtune.fact import Fact
from memtune.facts import read_facts
from memtune.project import Project
from memtune.store import backbone_of, load_facts, load_memory

__all__ = ["AnswerScore", "Judge", "Prompt", "ScoreResult", "Scored", "Search", "Setting", "score"]

CHUNK = 16  # prompts that are asked between two reports of progress
LONGEST = 256  # tokens of an answer
BY_RULES, BY_JUDGE = "rules", "judge"


class Search(Protocol):
    """Finds texts that may speak for or against a statement: a web search, another store."""

    def __call__(self, statement: str, question: str) -> Sequence[str]: ...


class Judge(Protocol):
    """Decides on a statement that the rules found no evidence for: a larger model, an entailment checker, a person."""

    def __call__(self, statement: str, evidence: Sequence[str]) -> Kind: ...


@dataclass(frozen=True)
class Prompt:
    """What is asked, and what was answered; an ``answer`` of None is the tuned model's to give."""

    question: str = ""
    answer: str | None = None


@dataclass(frozen=True)
class Setting:
    """``k``: supported statements that a full answer has; None: as many as there are facts about its subjects.

    ``memory``: False asks the backbone without it. ``longest``: tokens of an answer. ``search`` and ``judge``: off.
    """

    k: int | None = None
    memory: bool = True
    longest: int = LONGEST
    search: Search | None = None
    judge: Judge | None = None

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise ConfigError(f"k is {self.k}", hint="--k takes a number of statements, 1 or more")
        if self.longest < 1:
            raise ConfigError(f"longest is {self.longest}", hint="--longest takes a number of tokens, 1 or more")
        if self.search and not self.judge:
            raise ConfigError("a search without a judge", hint="what a search finds has to be judged: give a judge too")


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
class ScoreResult:
    """All answers and their sums; ``precision``, ``recall`` and ``f1`` are means over the answers that have one."""

    answered_by: str
    facts: int
    answers: tuple[AnswerScore, ...]
    supported: int
    contradicted: int
    no_evidence: int
    k: int | None  # as it was asked for; None: each answer has its own
    precision: float | None
    recall: float | None
    f1: float | None
    seconds_asking: float
    seconds_per_statement: float


def score(
    prompts: Sequence[Prompt],
    project_dir: Path,
    *,
    facts_file: Path | str | None = None,
    setting: Setting | None = None,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> ScoreResult:
    """Scores every answer against the project's facts, or those of ``facts_file``, which needs no project.

    Prompts without an answer are asked of the tuned model, each alone in a fresh conversation, greedily.
    Raises DataError, ProjectError, ModelError, ConfigError.
    """
    setting = setting or Setting()
    if not prompts:
        raise DataError(["there is nothing to score"], hint="memtune score --help")
    project = Project(project_dir)
    facts = _facts(project) if facts_file is None else read_facts(facts_file)
    started = time.monotonic()
    said, answered_by = _answered(prompts, project, setting, on_event, backbone)
    asked = time.monotonic() - started
    reader = _Reader(Verifier(facts), setting)
    started = time.monotonic()
    answers = tuple(reader.answer(one) for one in said)
    spent = time.monotonic() - started
    count = sum(len(answer.statements) for answer in answers)
    return ScoreResult(
        answered_by=answered_by,
        facts=len(facts),
        answers=answers,
        supported=sum(answer.supported for answer in answers),
        contradicted=sum(answer.contradicted for answer in answers),
        no_evidence=sum(answer.no_evidence for answer in answers),
        k=setting.k,
        precision=_mean([answer.precision for answer in answers]),
        recall=_mean([answer.recall for answer in answers]),
        f1=_mean([answer.f1 for answer in answers]),
        seconds_asking=asked,
        seconds_per_statement=spent / count if count else 0.0,
    )


def _facts(project: Project) -> Sequence[Fact]:
    try:
        return load_facts(project)
    except ProjectError as error:
        raise ProjectError(str(error), hint=f"{error.hint}; or name a file of facts: --facts FACTS") from error


@dataclass(frozen=True)
class _Said:
    """``whole``: False if the answer was cut off."""

    question: str
    answer: str
    whole: bool = True


def _answered(
    prompts: Sequence[Prompt], project: Project, setting: Setting, on_event: OnEvent, backbone: Backbone | None
) -> tuple[list[_Said], str]:
    """Every prompt with its answer, and whose answers they are."""
    open_ones = [prompt.question for prompt in prompts if prompt.answer is None]
    if not open_ones:
        return [_Said(prompt.question, prompt.answer or "") for prompt in prompts], "given"
    asked = _asked(open_ones, project, setting, on_event, backbone)
    name = project.need("model", "memtune ingest FACTS")["name"]
    said = [next(asked) if p.answer is None else _Said(p.question, p.answer) for p in prompts]
    return said, f"{name}, memory {'on' if setting.memory else 'off'}"


def _asked(
    questions: Sequence[str], project: Project, setting: Setting, on_event: OnEvent, backbone: Backbone | None
) -> Iterator[_Said]:
    project.need("tune", "memtune tune")
    asker = Asker(backbone_of(project, backbone, on_event), load_memory(project))
    longest = max(setting.longest, asker.longest_run + 1)  # a fact's whole answer and its stop
    try:
        for start in range(0, len(questions), CHUNK):
            part = questions[start : start + CHUNK]
            answers = asker.ask(part, memory=setting.memory, longest=longest)
            on_event(Progress("answers", start + len(part), len(questions)))
            yield from (_Said(q, a.text, a.stopped) for q, a in zip(part, answers, strict=True))
    finally:
        asker.attachment.detach()


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class _Reader:
    """Reads answers against the store."""

    verifier: Verifier
    setting: Setting

    def answer(self, said: _Said) -> AnswerScore:
        scored = list(self._scored(said))
        counted = [one for one in scored if not one.repeated]
        numbers = {kind: sum(one.kind is kind for one in counted) for kind in Kind}
        supported, unsupported = numbers[Kind.SUPPORTED], len(counted) - numbers[Kind.SUPPORTED]
        about = self._about(said)
        known = {one.fact_id for one in counted if one.kind is Kind.SUPPORTED} & about
        k = self.setting.k or len(about) or None
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

    def _about(self, said: _Said) -> set[str | None]:
        """Ids of the facts that a full answer would state."""
        texts = [said.question] if said.question else statements(said.answer, whole=said.whole)
        return {self.verifier.facts[number].id for text in texts for number in self.verifier.about(text)}

    def _scored(self, said: _Said) -> Iterator[Scored]:
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
        if verdict.kind is not Kind.NO_EVIDENCE or self.setting.judge is None:
            return verdict, BY_RULES
        evidence = [self._told(number) for number in self.verifier.rows(text, question=question)]
        evidence += self.setting.search(text, question) if self.setting.search else []
        return Verdict(self.setting.judge(text, evidence)), BY_JUDGE

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
        fact: Fact = self.verifier.facts[number]
        return f"{fact.question} {fact.answer}"
