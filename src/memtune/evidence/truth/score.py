"""The verb score: a long answer statement by statement against the fact store (SAFE and F1@K, arXiv 2403.18802).

SAFE asks a large model to split, to search the web and to judge. Here the store is the user's own facts and the judge
is a set of rules; a search and a judge of one's own can be put behind them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from memtune.asking import Asker
from memtune.backbone import Backbone
from memtune.errors import ConfigError, DataError, ProjectError
from memtune.events import OnEvent, Progress, ignore
from memtune.evidence.truth.longform import AnswerScore, Judge, Reader, Said, Search
from memtune.evidence.truth.score_page import render
from memtune.evidence.truth.verify import Verifier
from memtune.fact import Fact
from memtune.facts import read_facts
from memtune.outputs import as_json, check_out, write_texts
from memtune.project import Project
from memtune.store import backbone_of, load_facts, load_memory

__all__ = ["Prompt", "ScoreResult", "Setting", "score"]

CHUNK = 16  # prompts that are asked between two reports of progress
LONGEST = 256  # tokens of an answer


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
    page: str  # "" where none was asked for
    json: str


def score(
    prompts: Sequence[Prompt],
    project_dir: Path,
    *,
    facts_file: Path | str | None = None,
    setting: Setting | None = None,
    out: Path | None = None,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> ScoreResult:
    """Scores every answer against the project's facts, or those of ``facts_file``, which needs no project.

    ``out``: a directory for ``score.json`` and ``score.html``; None: nothing is written.
    Prompts without an answer are asked of the tuned model, each alone in a fresh conversation, greedily.
    Raises DataError, ProjectError, ModelError, ConfigError.
    """
    setting = setting or Setting()
    if not prompts:
        raise DataError(["there is nothing to score"], hint="memtune score --help")
    if out:
        check_out(out, "score.json and score.html")
    project = Project(project_dir)
    facts = _facts(project) if facts_file is None else read_facts(facts_file, command="memtune score QUESTION --facts")
    started = time.monotonic()
    said, answered_by = _answered(prompts, project, setting, on_event, backbone)
    asked = time.monotonic() - started
    reader = Reader(Verifier(facts), setting.k, setting.search, setting.judge)
    started = time.monotonic()
    answers = tuple(reader.answer(one) for one in said)
    spent = time.monotonic() - started
    count = sum(len(answer.statements) for answer in answers)
    result = ScoreResult(
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
        page=str(out / "score.html") if out else "",
        json=str(out / "score.json") if out else "",
    )
    if out:
        record = asdict(result)
        write_texts(out, {"score.html": render(record), "score.json": as_json(record)})
    return result


def _facts(project: Project) -> Sequence[Fact]:
    try:
        return load_facts(project)
    except ProjectError as error:
        raise ProjectError(str(error), hint=f"{error.hint}; or name a file of facts: --facts FACTS") from error


def _answered(
    prompts: Sequence[Prompt], project: Project, setting: Setting, on_event: OnEvent, backbone: Backbone | None
) -> tuple[list[Said], str]:
    """Every prompt with its answer, and whose answers they are."""
    open_ones = [prompt.question for prompt in prompts if prompt.answer is None]
    if not open_ones:
        return [Said(prompt.question, prompt.answer or "") for prompt in prompts], "given"
    asked = _asked(open_ones, project, setting, on_event, backbone)
    name = project.need("model", "memtune ingest FACTS")["name"]
    said = [next(asked) if p.answer is None else Said(p.question, p.answer) for p in prompts]
    return said, f"{name}, memory {'on' if setting.memory else 'off'}"


def _asked(
    questions: Sequence[str], project: Project, setting: Setting, on_event: OnEvent, backbone: Backbone | None
) -> Iterator[Said]:
    project.need("tune", "memtune tune")
    asker = Asker(backbone_of(project, backbone, on_event), load_memory(project))
    # With the memory on there is room for a whole fact and its stop.
    longest = max(setting.longest, asker.longest_run + 1) if setting.memory else setting.longest
    try:
        for start in range(0, len(questions), CHUNK):
            part = questions[start : start + CHUNK]
            answers = asker.ask(part, memory=setting.memory, longest=longest)
            on_event(Progress("answers", start + len(part), len(questions)))
            yield from (Said(q, a.text, a.stopped) for q, a in zip(part, answers, strict=True))
    finally:
        asker.attachment.detach()


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
