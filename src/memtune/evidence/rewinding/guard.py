"""The verb guard: an answer that a guard objects to is taken back and written again, and all of that is shown.

What the guard does not object to is the answer of ``generate()``, token for token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from memtune.asking import Answer, Asker
from memtune.backbone import Backbone
from memtune.errors import ConfigError, ProjectError
from memtune.events import Note, OnEvent, ignore
from memtune.evidence.rewinding.meter import Meter, Spent
from memtune.evidence.rewinding.rewind import Judgement, Searched, search
from memtune.evidence.rewinding.tree import Limits
from memtune.evidence.rewinding.values import Likelihood, SelfEvaluation, Store, Value, without_stop
from memtune.evidence.rewinding.writer import Writer
from memtune.evidence.truth.verify import Verifier
from memtune.fact import PackedFacts
from memtune.project import Project, in_project
from memtune.store import backbone_of, load_facts, load_memory

__all__ = ["GUARDS", "GuardResult", "Rewind", "Setting", "Tree", "guard"]

GUARDS = ("store", "likelihood", "self")
LONGER = 8  # tokens that an answer may have more than the one that was taken back
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Setting:
    """How answers are guarded. ``memory``: False asks the backbone without its memory, to see what it would have done.

    ``longest``: tokens of a plain answer; None: as probe has it. ``limits`` are those of the search.
    """

    memory: bool = True
    longest: int | None = None
    limits: Limits = field(default_factory=Limits)
    seed: int = 0


@dataclass(frozen=True)
class Rewind:
    """``given_up`` was written behind ``kept`` and taken back, being worth ``value``, for the reason ``why``."""

    kept: str
    given_up: str
    value: float
    why: str


@dataclass(frozen=True)
class Tree:
    """What the search did. ``early``: sets that were good enough before the tries ran out, of ``sets``."""

    tries: int
    sets: int
    early: int
    nodes: int
    scores_shared: int
    children_added: int


@dataclass(frozen=True)
class GuardResult:
    """One question answered under a guard. ``plain_answer`` and ``plain_judged``: without it.

    The plain answer stays where the guard had nothing to object to (``tree`` is None), and where nothing was found that
    it objects to less. ``cost`` is that of everything, ``plain_cost`` that of the plain answer alone; ``ratio`` is
    between their seconds.
    """

    question: str
    answer: str
    guard: str
    judged: Judgement
    plain_answer: str
    plain_judged: Judgement
    fact_id: str | None  # that fired
    rewinds: tuple[Rewind, ...]
    tree: Tree | None
    cost: Spent
    plain_cost: Spent
    ratio: float

    @property
    def met(self) -> bool:
        """Whether the guard has nothing to say against the answer."""
        return self.judged.value >= 0


def guard(
    questions: Sequence[str],
    project_dir: Path,
    by: str = "store",
    *,
    setting: Setting | None = None,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> Iterator[GuardResult]:
    """Answers in the order of the questions. ``by``: one of GUARDS.

    Raises ConfigError for an unknown guard, ProjectError, ModelError.
    """
    if by not in GUARDS:
        raise ConfigError(f"guard {by!r} is unknown", hint=f"use one of: {', '.join(GUARDS)}")
    project = Project(project_dir)
    project.need("model", "memtune ingest FACTS")
    project.need("tune", "memtune tune")
    facts = load_facts(project)
    asker = Asker(backbone_of(project, backbone, on_event), load_memory(project))
    try:
        guarded = _Guarded(asker, facts, by, _value(by, asker, facts, project, on_event), setting or Setting())
        for question in questions:
            yield guarded.answer(question)
    finally:
        asker.attachment.detach()


def _value(by: str, asker: Asker, facts: PackedFacts, project: Project, on_event: OnEvent) -> Value:
    if by == "store":
        return Store(asker.backbone.prompts, Verifier(facts))
    if by == "self":
        return SelfEvaluation(asker)
    if not facts:
        hint = f"memtune facts add FACTS{in_project(project.root)}"
        raise ProjectError("no fact is left to calibrate the likelihood on", hint=hint)
    found = Likelihood.calibrated(asker, facts)
    on_event(Note(f"likelihood: an answer passes from {found.threshold:.3g} nats a token on"))
    return found


@dataclass(frozen=True)
class _Guarded:
    """A tuned model under one guard."""

    asker: Asker
    facts: PackedFacts
    by: str
    value: Value
    setting: Setting

    def answer(self, question: str) -> GuardResult:
        with Meter(self.asker.backbone.model) as whole:
            with Meter(self.asker.backbone.model) as alone:
                [plain] = self.asker.ask([question], memory=self.setting.memory, longest=self.setting.longest)
            self.asker.attachment.enabled = self.setting.memory
            try:
                before, after, found = self._judged(question, plain)
            finally:
                self.asker.attachment.enabled = True
        better = found is not None and after.value > before.value
        return GuardResult(
            question=question,
            answer=self._text(found.text) if found and better else plain.text,
            guard=self.by,
            judged=after if better else before,
            plain_answer=plain.text,
            plain_judged=before,
            fact_id=self._fired(question),
            rewinds=tuple(self._rewinds(plain, before, found)) if found else (),
            tree=_tree(found) if found else None,
            cost=whole.cost,
            plain_cost=alone.cost,
            ratio=whole.cost.seconds / alone.cost.seconds,
        )

    def _judged(self, question: str, plain: Answer) -> tuple[Judgement, Judgement, Searched | None]:
        """What the guard thinks of the plain answer and of the one that it found, if it looked for one."""
        judge = self.value.of(question)
        before = judge(plain.ids)
        if before.value >= 0:
            return before, before, None
        offers = self._offers(question, before)
        longest = max(len(text) for text in (plain.ids, *offers)) + LONGER
        prompts = self.asker.backbone.prompts
        writer = Writer(
            self.asker.backbone, prompts.format.prompt(prompts.question(question)), longest, self.setting.seed
        )
        found = search(writer, judge, replace(self.setting.limits, good=self.value.good), offers)
        return before, judge(found.text), found

    def _offers(self, question: str, objection: Judgement) -> list[Ids]:
        """The stored answer, where the fact that contradicts is also the one that the router thought of first."""
        if objection.fact_id is None or objection.fact_id != self._nearest(question):
            return []
        fact = next(fact for fact in self.facts if fact.id == objection.fact_id)
        return [self.asker.backbone.prompts.answer(fact.answer)]

    def _nearest(self, question: str) -> str:
        prompts, bank = self.asker.backbone.prompts, self.asker.memory.bank
        [route] = self.asker.attachment.route([prompts.question(question)])
        return bank.id_of(route.fact)

    def _fired(self, question: str) -> str | None:
        [route] = self.asker.attachment.route([self.asker.backbone.prompts.question(question)])
        fires = self.setting.memory and self.asker.memory.fires(route)
        return self.asker.memory.bank.id_of(route.fact) if fires else None

    def _rewinds(self, plain: Answer, before: Judgement, found: Searched) -> Iterator[Rewind]:
        """All that was taken back for good: not a try that turned out to be how the answer begins."""
        yield Rewind("", plain.text, before.value, before.why)
        for one in found.tries:
            if one.text == found.text[: len(one.text)]:
                continue
            given_up = self._text(one.text[len(one.fixed) :])
            yield Rewind(self._text(one.fixed), given_up, one.judged.value, one.judged.why)

    def _text(self, ids: Ids) -> str:
        prompts = self.asker.backbone.prompts
        return prompts.answer_text(without_stop(prompts, ids))


def _tree(found: Searched) -> Tree:
    return Tree(
        tries=len(found.tries),
        sets=len(found.fixed),
        early=sum(one.early for one in found.fixed),
        nodes=found.nodes,
        scores_shared=found.lent,
        children_added=found.added,
    )
