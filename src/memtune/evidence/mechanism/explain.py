"""The verb explain: how a question's answer comes about inside the backbone, layer by layer, and where the memory
changes it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from memtune.asking import Asker
from memtune.backbone import Backbone
from memtune.errors import DataError
from memtune.events import OnEvent, ignore
from memtune.evidence.mechanism.depth import Depth, curve_of, depth_at
from memtune.evidence.mechanism.detector import Doubt, doubt_of
from memtune.evidence.mechanism.injection import Injection, injection_of
from memtune.evidence.mechanism.lens import Curve, Lens
from memtune.evidence.mechanism.places import Place, holds_answer, places_of
from memtune.evidence.mechanism.subject import Subject, subject_of
from memtune.evidence.mechanism.trace import TraceResult, Tracing, trace
from memtune.evidence.mechanism.verdict import verdict
from memtune.fact import PackedFacts
from memtune.facts import fold_question
from memtune.probe import ProbeResult, probed
from memtune.project import Project
from memtune.store import backbone_of, load_facts, load_memory

__all__ = ["ExplainResult", "Gold", "explain"]

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Gold:
    """The right answer; ``source`` says where it is from."""

    answer: str
    source: str


@dataclass(frozen=True)
class ExplainResult:
    """``start``: where the backbone's own reply begins. ``best``: where in it the gold answer ranks best, if that is
    another place. ``alone``: its first token when the subject is all that is asked. ``memory``: None if nothing fired.
    """

    probed: ProbeResult
    layers: int
    gold: Gold | None
    subject: str | None
    start: Depth
    best: Depth | None
    alone: Curve | None
    memory: Injection | None
    doubt: Doubt | None
    trace: TraceResult | None
    verdict: tuple[str, ...]
    seconds: float  # without loading the model; the trace's are apart
    trace_seconds: float


@dataclass(frozen=True)
class _Inside:
    """A backbone with its memory silent, and the question that is looked into: its prompt, the backbone's own reply."""

    asker: Asker
    facts: PackedFacts
    lens: Lens
    asked: ProbeResult
    gold: Gold | None
    prompt: Ids
    reply: Ids
    subject: Subject | None
    start: Place
    best: Place

    @classmethod
    def of(cls, asker: Asker, facts: PackedFacts, asked: ProbeResult, gold: Gold | None) -> _Inside:
        backbone, prompts = asker.backbone, asker.backbone.prompts
        question = prompts.question(asked.question)
        prompt, reply = prompts.format.prompt(question), prompts.answer(asked.base_answer)[:-1]
        subject = subject_of(asked.question, question, asker.memory.router.reader)
        start, best = places_of(backbone, prompt, reply, gold.answer if gold else None)
        return cls(asker, facts, Lens(backbone), asked, gold, prompt, reply, subject, start, best)


def explain(
    question: str,
    project_dir: Path,
    *,
    answer: str | None = None,
    tracing: Tracing | None = None,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> ExplainResult:
    """Asks the question and looks inside. ``answer``: the right one, else that of the fact that fires or is asked for.

    Raises ProjectError, ModelError, and DataError for an empty answer or a question that names nothing to trace.
    """
    if answer is not None and not answer.strip():
        raise DataError(["the gold answer is empty"], hint="--answer takes the right answer to the question")
    project = Project(project_dir)
    project.need("model", "memtune ingest FACTS")
    project.need("tune", "memtune tune")
    backbone = backbone_of(project, backbone, on_event)
    asker = Asker(backbone, load_memory(project))
    try:
        started = time.monotonic()
        [asked] = probed(asker, [question])
        facts = load_facts(project)
        gold = Gold(answer.strip(), "as given") if answer is not None else _gold(asker, facts, asked)
        asker.attachment.enabled = False
        inside = _Inside.of(asker, facts, asked, gold)
        found = _looked_into(inside, project)
        found = replace(found, seconds=time.monotonic() - started)
        if tracing is not None:
            found = _traced(found, inside, tracing, on_event)
        said = gold is not None and holds_answer(asked.base_answer, gold.answer)
        return replace(found, verdict=tuple(verdict(found, said)))
    finally:
        asker.attachment.detach()


def _gold(asker: Asker, facts: PackedFacts, asked: ProbeResult) -> Gold | None:
    if asked.fact_id is not None:
        return Gold(facts[_number(asker, asked.fact_id)].answer, f"fact {asked.fact_id}, which fired")
    wanted = fold_question(asked.question)
    same = (fact for fact in facts if wanted in map(fold_question, fact.wordings))
    return next((Gold(fact.answer, f"fact {fact.id}, which did not fire") for fact in same), None)


def _number(asker: Asker, fact_id: str) -> int:
    return asker.memory.bank.numbers_of([fact_id])[fact_id]


def _looked_into(inside: _Inside, project: Project) -> ExplainResult:
    lens = inside.lens
    return ExplainResult(
        probed=inside.asked,
        layers=len(lens.anatomy.layers),
        gold=inside.gold,
        subject=inside.subject.text if inside.subject else None,
        start=depth_at(lens, inside.start),
        best=None if inside.best == inside.start else depth_at(lens, inside.best),
        alone=_alone(lens, inside.subject, inside.start) if inside.subject else None,
        memory=_injection(inside),
        doubt=doubt_of(project.root, lens, inside.prompt, inside.reply),
        trace=None,
        verdict=(),
        seconds=0.0,
        trace_seconds=0.0,
    )


def _alone(lens: Lens, subject: Subject, start: Place) -> Curve | None:
    prompts = lens.backbone.prompts
    row = prompts.format.prompt(prompts.question(subject.text))
    return curve_of(lens, row, start.gold[0]) if start.gold else None


def _injection(inside: _Inside) -> Injection | None:
    if inside.asked.fact_id is None:
        return None
    stored = inside.facts[_number(inside.asker, inside.asked.fact_id)]
    answer = inside.asker.backbone.prompts.answer(stored.answer)
    return injection_of(inside.asker, inside.lens.anatomy, inside.prompt, answer)


def _traced(found: ExplainResult, inside: _Inside, tracing: Tracing, on_event: OnEvent) -> ExplainResult:
    if inside.subject is None:
        raise DataError(["the question names nothing that could be corrupted"], hint="ask without --trace")
    started, before = time.monotonic(), len(inside.asker.backbone.prompts.format.prefix)
    subject = range(before + inside.subject.tokens.start, before + inside.subject.tokens.stop)
    best = inside.best
    gold = best.gold[0] if best.gold else None
    traced = trace(inside.asker.backbone, best.row, subject, best.said, gold, how=tracing, on_event=on_event)
    return replace(found, trace=traced, trace_seconds=time.monotonic() - started)
