"""The verb tune: fit the experts of every fact, certify each through the real path, confirm by generation."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from memtune.asking import Asker
from memtune.backbone import AnswerStates, Backbone, load_backbone
from memtune.config import Config
from memtune.events import Learned, Note, OnEvent, Progress, ignore
from memtune.facts import Fact
from memtune.memory.fit import fit_values, token_losses
from memtune.memory.module import Memory
from memtune.memory.router import Route
from memtune.project import Project
from memtune.prompts import EncodedFact
from memtune.store import check_backbone, load_facts, load_memory, save_bank

__all__ = ["FailedFact", "TuneResult", "accepts", "tune"]

CHUNK = 128  # facts that are fitted together; a chunk is the unit of work, whatever else is in the file
MARGINS = (1 / 400, 1 / 4000, 1 / 40000)  # of the target, aimed at in turn: the margin is what holds on other wordings
SAVE_EVERY, REPORT_EVERY = 30.0, 0.5  # seconds, at least; both look at all facts
SHARE = 0.02  # of the time that each of them may take
SAMPLE = 16
LN2 = math.log(2)


@dataclass(frozen=True)
class FailedFact:
    """A fact that was not accepted, with the reason in words."""

    id: str
    question: str
    source: str
    reason: str
    loss: float


@dataclass(frozen=True)
class TuneResult:
    """What tune did. Losses in nats per answer token over the accepted facts, ``worst`` the worst single token."""

    facts: int
    learned: int
    already: int  # accepted before this run
    until_loss: float
    loss_median: float
    loss_max: float
    worst_token: float
    verified: int  # facts that real generation was asked for
    verified_exact: int
    seconds: float  # fitting, certifying and verifying; loading the model is not in it
    interrupted: bool
    failed: tuple[FailedFact, ...]

    @property
    def met(self) -> bool:
        return self.learned == self.facts and not self.interrupted


def tune(
    project_dir: Path, config: Config, *, on_event: OnEvent = ignore, backbone: Backbone | None = None
) -> TuneResult:
    """Every fact of the project is accepted, or listed as failed; the state is saved either way, also on Ctrl-C.

    Acceptance of a fact: mean answer-token loss at most ``until_loss`` nats, every answer token above one half, the
    router choosing it for its own question, and, where it was asked, ``generate()`` saying the answer and stopping.
    Raises ProjectError, ModelError.
    """
    project = Project(project_dir)
    model = project.need("model", "memtune ingest FACTS")
    backbone = backbone or load_backbone(model["name"], device=model["device"], dtype=model["dtype"], on_event=on_event)
    check_backbone(project, backbone)
    with project.writing():
        run = _Run(project, backbone, config, on_event)
        return run.result(run.all_facts())


def accepts(losses: Tensor, until_loss: float) -> bool:
    """Of one fact's answer-token losses (answer tokens,), nats: the mean is at the target, and each token above one
    half, so that greedy generation says it.
    """
    return float(losses.mean()) <= until_loss and float(losses.max()) < LN2


@dataclass(frozen=True)
class _Lesson:
    """A fact that is being taught, by its number."""

    fact: int
    item: EncodedFact
    states: AnswerStates


def _final(lessons: Sequence[_Lesson]) -> Tensor:
    """The states that predict the answers, one after the other: (answer tokens, hidden)."""
    return torch.cat([lesson.states.final for lesson in lessons])


def _targets(lessons: Sequence[_Lesson]) -> Tensor:
    return torch.tensor([token for lesson in lessons for token in lesson.item.answer])


class _NowAndThen:
    """Does something every so many seconds, and more seldom where it takes long."""

    def __init__(self, do: Callable[[], None], every: float) -> None:
        self._do, self._every = do, every
        self._due = time.monotonic() + every

    def __call__(self) -> None:
        started = time.monotonic()
        if started >= self._due:
            self._do()
            now = time.monotonic()
            self._due = now + max(self._every, (now - started) / SHARE)


class _Run:
    """One run over one project."""

    def __init__(self, project: Project, backbone: Backbone, config: Config, on_event: OnEvent) -> None:
        self.project, self.backbone, self.config, self.on_event = project, backbone, config, on_event
        self.facts = load_facts(project)
        self.memory: Memory = load_memory(project)
        self.bank = self.memory.bank
        self.started = time.monotonic()
        self.low = backbone.readout.rows(self.memory.projections.up)
        self.reasons: dict[int, str] = {}
        self.verified = self.verified_exact = 0

    def all_facts(self) -> bool:
        """Fits what is not accepted yet, then verifies. True if Ctrl-C ended it early."""
        self._reopen()
        todo = [i for i in range(len(self.facts)) if not self.bank.accepted[i]]
        self.already = len(self.facts) - len(todo)
        report, save = _NowAndThen(self._report, REPORT_EVERY), _NowAndThen(self._save, SAVE_EVERY)
        try:
            for start in range(0, len(todo), CHUNK):
                report()
                save()
                self._chunk(todo[start : start + CHUNK])
            self._report()
            self._verify(todo)
        except KeyboardInterrupt:
            return True
        return False

    def _reopen(self) -> None:
        """What an earlier run accepted at a looser target, or what another fact's question now takes, is open again."""
        loose = self.bank.loss > self.config.until_loss
        self.bank.accepted &= ~loose
        if not self.bank.accepted.any():
            return
        for i, route in enumerate(self.memory.router.own_routes()):
            if self.bank.accepted[i] and not self._own_route(i, route):
                self.bank.accepted[i] = False

    def _own_route(self, fact: int, route: Route) -> bool:
        if route.fired and route.fact == fact:
            return True
        taker = f"the question of {self.facts[route.fact].id}" if route.fired else "the null route"
        self.reasons[fact] = f"its question takes {taker} (score {route.score:.2f}, threshold {route.threshold:.2f})"
        return False

    def _chunk(self, numbers: Sequence[int]) -> None:
        items = [self.backbone.prompts.fact(self.facts[i]) for i in numbers]
        states = self.backbone.answer_states(items)
        lessons = [_Lesson(*lesson) for lesson in zip(numbers, items, states, strict=True)]
        routes = self.memory.router.route([item.question for item in items], [state.early for state in states])
        open_ = [one for one, route in zip(lessons, routes, strict=True) if self._own_route(one.fact, route)]
        for margin in MARGINS:
            if not open_:
                return
            self._fit(open_, self.config.until_loss * margin)
            passed = self._certify(open_)
            open_ = [lesson for lesson, accepted in zip(open_, passed, strict=True) if not accepted]
        for lesson in open_:
            loss = float(self.bank.loss[lesson.fact])
            self.reasons[lesson.fact] = f"loss {loss:.4f} nats per answer token after {len(MARGINS)} fits"

    def _fit(self, lessons: Sequence[_Lesson], goal: float) -> None:
        hidden, targets = _final(lessons), _targets(lessons)
        values = fit_values(hidden, targets, self.backbone.readout, self.low, goal)
        experts = torch.cat([torch.arange(run.start, run.stop) for run in (self.bank.run(one.fact) for one in lessons)])
        self.bank.put(experts, self.memory.projections.query(hidden), values)

    def _certify(self, lessons: Sequence[_Lesson]) -> list[bool]:
        """The loss of every answer token with the memory on, attention included, over the real LM head.

        All facts at once: the head's weights are read once for many rows, which is what this costs.
        """
        counts = [lesson.item.experts for lesson in lessons]
        facts = torch.tensor([lesson.fact for lesson in lessons]).repeat_interleave(torch.tensor(counts))
        steps = torch.cat([torch.arange(count) for count in counts])
        final = _final(lessons)
        written = final + self.memory.write(final, facts, steps)
        losses = token_losses(written, _targets(lessons), self.backbone.readout)
        return [self._accept(lesson.fact, own) for lesson, own in zip(lessons, losses.split(counts), strict=True)]

    def _accept(self, fact: int, losses: Tensor) -> bool:
        self.bank.loss[fact], self.bank.worst[fact] = losses.mean(), losses.max()
        self.bank.accepted[fact] = accepted = accepts(losses, self.config.until_loss)
        return accepted

    def _verify(self, todo: Sequence[int]) -> None:
        """Real generation, the router deciding each time: every fact, or a sample with the hardest ones in it."""
        everything = self.config.verify == "all"
        learned = [i for i in (range(len(self.facts)) if everything else todo) if self.bank.accepted[i]]
        if self.config.verify == "none" or not learned:
            return
        chosen = learned if everything else _sample(learned, self.bank.worst, self.config.seed)
        self.on_event(Note(f"verifying {len(chosen)} facts by generation"))
        chosen = sorted(chosen, key=self.bank.experts_of)  # a batch generates until its longest answer stops
        asker = Asker(self.backbone, self.memory)
        try:
            for start in range(0, len(chosen), SAMPLE):
                part = chosen[start : start + SAMPLE]
                longest = max(map(self.bank.experts_of, part)) + 1
                answers = asker.ask([self.facts[i].question for i in part], longest=longest)
                for i, answer in zip(part, answers, strict=True):
                    exact = answer.text == self.facts[i].answer and answer.stopped
                    self.verified, self.verified_exact = self.verified + 1, self.verified_exact + exact
                    if not exact:
                        self.bank.accepted[i] = False
                        self.reasons[i] = f"generate() says {answer.text[:80]!r}"
                self.on_event(Progress("verified", self.verified, len(chosen)))
        finally:
            asker.attachment.detach()

    def _report(self) -> None:
        fitted = torch.isfinite(self.bank.loss)
        losses = self.bank.loss[fitted]
        if not len(losses):
            return
        worst = losses.topk(min(3, len(losses)))
        numbers = torch.nonzero(fitted).squeeze(1)[worst.indices].tolist()
        hardest = [
            (loss, self.facts[i].id, self.facts[i].question)
            for loss, i in zip(worst.values.tolist(), numbers, strict=True)
        ]
        median, p90 = losses.quantile(torch.tensor([0.5, 0.9])).tolist()
        learned = int(self.bank.accepted.sum())
        self.on_event(Learned(learned, len(self.facts), median, p90, float(losses.max()), tuple(hardest)))

    def _save(self, result: TuneResult | None = None) -> None:
        record = None if result is None else asdict(result)
        self.project.commit(save_bank(self.project, self.bank), tune=record)

    def result(self, interrupted: bool) -> TuneResult:
        seconds = time.monotonic() - self.started
        accepted = self.bank.accepted
        losses, worst = self.bank.loss[accepted], self.bank.worst[accepted]
        result = TuneResult(
            facts=len(self.facts),
            learned=int(accepted.sum()),
            already=self.already,
            until_loss=self.config.until_loss,
            loss_median=float(losses.median()) if len(losses) else math.inf,
            loss_max=float(losses.max()) if len(losses) else math.inf,
            worst_token=float(worst.max()) if len(worst) else math.inf,
            verified=self.verified,
            verified_exact=self.verified_exact,
            seconds=seconds,
            interrupted=interrupted,
            failed=tuple(self._failed(i) for i in range(len(self.facts)) if not accepted[i]),
        )
        self._save(result)
        return result

    def _failed(self, i: int) -> FailedFact:
        fact: Fact = self.facts[i]
        reason = self.reasons.get(i, "not fitted yet")
        return FailedFact(fact.id, fact.question, fact.source, reason, float(self.bank.loss[i]))


def _sample(learned: Sequence[int], worst: Tensor, seed: int) -> list[int]:
    """Half the hardest, half drawn."""
    hardest = sorted(learned, key=lambda i: -float(worst[i]))[: SAMPLE // 2]
    rest = [i for i in learned if i not in hardest]
    return sorted(hardest + random.Random(seed).sample(rest, min(len(rest), SAMPLE - len(hardest))))
