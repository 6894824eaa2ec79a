"""The verb tune: fit the experts of every fact, certify each through the real path, confirm by generation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from memtune.backbone import Backbone, load_backbone
from memtune.config import Config
from memtune.events import Learned, OnEvent, ignore
from memtune.project import Project
from memtune.store import check_backbone, load_facts, load_memory, save_bank
from memtune.teaching import FailedFact, Teacher

__all__ = ["TuneResult", "summary", "tune"]

CHUNK = 128  # facts that are fitted together; a chunk is the unit of work, whatever else is in the file
SAVE_EVERY, REPORT_EVERY = 30.0, 0.5  # seconds, at least; both look at all facts
SHARE = 0.02  # of the time that each of them may take


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
        return _Run(project, backbone, config, on_event).all_facts()


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


def summary(teacher: Teacher, *, already: int, seconds: float, interrupted: bool = False) -> TuneResult:
    """Where the memory stands after ``teacher`` did its work."""
    accepted = teacher.bank.accepted
    losses, worst = teacher.bank.loss[accepted], teacher.bank.worst[accepted]
    return TuneResult(
        facts=len(teacher.facts),
        learned=int(accepted.sum()),
        already=already,
        until_loss=teacher.config.until_loss,
        loss_median=float(losses.median()) if len(losses) else math.inf,
        loss_max=float(losses.max()) if len(losses) else math.inf,
        worst_token=float(worst.max()) if len(worst) else math.inf,
        verified=teacher.verified,
        verified_exact=teacher.verified_exact,
        seconds=seconds,
        interrupted=interrupted,
        failed=teacher.failed(),
    )


class _Run:
    """One run over one project."""

    def __init__(self, project: Project, backbone: Backbone, config: Config, on_event: OnEvent) -> None:
        self.project, self.on_event = project, on_event
        self.teacher = Teacher(load_facts(project), load_memory(project), backbone, config, on_event)
        self.bank = self.teacher.bank
        self.started = time.monotonic()

    def all_facts(self) -> TuneResult:
        """Fits what is not accepted yet, then verifies; Ctrl-C ends it early."""
        self._reopen()
        todo = torch.nonzero(~self.bank.accepted).squeeze(1).tolist()
        report, save = _NowAndThen(self._report, REPORT_EVERY), _NowAndThen(self._save, SAVE_EVERY)
        interrupted = False
        try:
            for start in range(0, len(todo), CHUNK):
                report()
                save()
                self.teacher.chunk(todo[start : start + CHUNK])
            self._report()
            everything = self.teacher.config.verify == "all"
            self.teacher.verify(range(len(self.teacher.facts)) if everything else todo)
        except KeyboardInterrupt:
            interrupted = True
        already, seconds = len(self.teacher.facts) - len(todo), time.monotonic() - self.started
        result = summary(self.teacher, already=already, seconds=seconds, interrupted=interrupted)
        self._save(result)
        return result

    def _reopen(self) -> None:
        """What an earlier run accepted at a looser target, or what another fact's question now takes, is open again."""
        loose = self.bank.loss > self.teacher.config.until_loss
        self.bank.accepted &= ~loose
        if not self.bank.accepted.any():
            return
        for i, route in enumerate(self.teacher.memory.router.own_routes()):
            if self.bank.accepted[i] and not self.teacher.own_route(i, route):
                self.bank.accepted[i] = False

    def _report(self) -> None:
        fitted = torch.isfinite(self.bank.loss)
        losses = self.bank.loss[fitted]
        if not len(losses):
            return
        worst = losses.topk(min(3, len(losses)))
        facts = [self.teacher.facts[i] for i in torch.nonzero(fitted).squeeze(1)[worst.indices].tolist()]
        hardest = tuple((loss, fact.id, fact.question) for loss, fact in zip(worst.values.tolist(), facts, strict=True))
        median, p90 = losses.quantile(torch.tensor([0.5, 0.9])).tolist()
        learned = int(self.bank.accepted.sum())
        self.on_event(Learned(learned, len(self.teacher.facts), median, p90, float(losses.max()), hardest))

    def _save(self, result: TuneResult | None = None) -> None:
        record = None if result is None else asdict(result)
        self.project.commit(save_bank(self.project, self.bank), tune=record)
