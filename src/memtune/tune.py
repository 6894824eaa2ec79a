"""The verb tune: fit the experts of every fact, certify each through the real path, confirm by generation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from memtune.backbone import Backbone
from memtune.config import Config
from memtune.events import Learned, OnEvent, Progress, ignore
from memtune.exported import mark_stale
from memtune.project import Project
from memtune.store import backbone_of, check_backbone, load_facts, load_memory, save_bank
from memtune.teaching import FailedFact, Teacher

__all__ = ["TuneResult", "Tuning", "summary", "tune"]

# Facts that are fitted together: a chunk is the unit of work, whatever else is in the file. The more, the more begin
# alike and are read as one; a chunk's states take some 50 MB of a small model.
CHUNK = 384
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
    fit_seconds: float = 0.0  # of them, without verifying; 0 where others fitted the facts
    known: tuple[str, ...] = ()  # facts that were left to the backbone, which says them by itself

    @property
    def met(self) -> bool:
        return self.learned + len(self.known) == self.facts and not self.interrupted


def tune(
    project_dir: Path,
    config: Config,
    *,
    skip_known: bool = False,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> TuneResult:
    """Every fact of the project is accepted, or listed as failed; the state is saved either way, also on Ctrl-C.

    Acceptance of a fact: mean answer-token loss at most ``until_loss`` nats, every answer token above one half, the
    router choosing it for its own question, and, where it was asked, ``generate()`` saying the answer and stopping.
    ``skip_known``: facts that are not learned yet and that the backbone says exactly by itself take the null route.
    Raises ProjectError, ModelError.
    """
    project = Project(project_dir)
    backbone = backbone_of(project, backbone, on_event)
    with project.writing():
        check_backbone(project, backbone)  # another ingest may have come in between
        return _everything(Tuning(project, backbone, config, on_event, skip_known))


def _everything(run: Tuning) -> TuneResult:
    """Fits what is not accepted yet, then verifies; Ctrl-C ends it early."""
    interrupted = False
    try:
        run.fit(run.chunks, among=torch.arange(len(run.teacher.facts)), save=run.save)
        run.verify()
    except KeyboardInterrupt:
        interrupted = True
    return run.finish(interrupted)


class _NowAndThen:
    """Does something every so many seconds, and more seldom where it takes long."""

    def __init__(self, do: Callable[[], object], every: float) -> None:
        self._do, self._every = do, every
        self._due = time.monotonic() + every

    def __call__(self) -> None:
        started = time.monotonic()
        if started >= self._due:
            self._do()
            now = time.monotonic()
            self._due = now + max(self._every, (now - started) / SHARE)


def summary(
    teacher: Teacher, *, already: int, seconds: float, interrupted: bool = False, fit_seconds: float = 0.0
) -> TuneResult:
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
        fit_seconds=fit_seconds,
        known=tuple(teacher.facts[i].id for i in sorted(teacher.known)),
    )


class Tuning:
    """One run over one project: ``chunks`` is what there is to do, the numbers of the facts that are fitted together.

    The last bits of a state depend on what is computed beside it. Whoever fits whole chunks gets the bytes of a run
    that fits all of them.
    """

    def __init__(
        self, project: Project, backbone: Backbone, config: Config, on_event: OnEvent, skip_known: bool = False
    ) -> None:
        self.project, self.on_event = project, on_event
        memory = load_memory(project)
        self.teacher = Teacher(load_facts(project), memory, backbone, config, on_event, skip_known=skip_known)
        self.bank = self.teacher.bank
        self.started = time.monotonic()
        self._reopen()
        self.todo: list[int] = torch.nonzero(~self.bank.accepted).squeeze(1).tolist()
        self.chunks = [self.todo[start : start + CHUNK] for start in range(0, len(self.todo), CHUNK)]
        self.done = 0  # chunks
        self.fit_seconds = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def fit(self, chunks: Sequence[Sequence[int]], *, among: Tensor, save: Callable[[], object]) -> None:
        """Teaches the facts of these chunks; ``save`` is called now and then.

        Progress is told of the facts ``among`` (any,), by their numbers, and before the first chunk too.
        """
        report, now_and_then = _NowAndThen(lambda: self._report(among), REPORT_EVERY), _NowAndThen(save, SAVE_EVERY)
        started = time.monotonic()
        self.on_event(Progress("learned", int(self.bank.accepted[among].sum()), len(among)))
        for chunk in chunks:
            report()
            now_and_then()
            self.teacher.chunk(chunk)
            self.done += 1
        self._report(among)
        self.fit_seconds = time.monotonic() - started

    def verify(self) -> None:
        everything = self.teacher.config.verify == "all"
        self.teacher.verify(range(len(self.teacher.facts)) if everything else self.todo)

    def finish(self, interrupted: bool = False) -> TuneResult:
        """Saves the state with its record. The exports that hold another memory are marked."""
        already = len(self.teacher.facts) - len(self.todo)
        spent = {"seconds": self.seconds, "fit_seconds": self.fit_seconds}
        result = summary(self.teacher, already=already, interrupted=interrupted, **spent)
        self.save(result)
        mark_stale(self.project, self.on_event)
        return result

    def save(self, result: TuneResult | None = None) -> None:
        record = None if result is None else asdict(result)
        self.project.commit(save_bank(self.project, self.bank), tune=record)

    def _reopen(self) -> None:
        """What an earlier run accepted at a looser target, or what another fact's question now takes, is open again."""
        loose = self.bank.loss > self.teacher.config.until_loss
        self.bank.accepted &= ~loose
        if not self.bank.accepted.any():
            return
        for i, route in enumerate(self.teacher.memory.router.own_routes()):
            if self.bank.accepted[i] and not self.teacher.own_route(i, route):
                self.bank.accepted[i] = False

    def _report(self, among: Tensor) -> None:
        losses = self.bank.loss[among].cpu()
        fitted = torch.isfinite(losses)
        losses = losses[fitted]
        if not len(losses):
            return
        worst = losses.topk(min(3, len(losses)))
        facts = [self.teacher.facts[i] for i in among[fitted][worst.indices].tolist()]
        hardest = tuple((loss, fact.id, fact.question) for loss, fact in zip(worst.values.tolist(), facts, strict=True))
        median, p90 = losses.quantile(torch.tensor([0.5, 0.9])).tolist()
        learned = int(self.bank.accepted[among].sum())
        self.on_event(Learned(learned, len(among), median, p90, float(losses.max()), hardest))
