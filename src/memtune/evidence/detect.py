"""The verb detect: how well wrong replies of the backbone can be told from right ones without knowing the answers."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from memtune.asking import greedy
from memtune.backbone import Backbone
from memtune.errors import DataError
from memtune.events import OnEvent, Progress, ignore
from memtune.evidence.detector import FOLDS, Auroc, Detector, auroc, cross_validated, fit
from memtune.evidence.lens import Lens
from memtune.evidence.observables import LONGEST, OBSERVABLES, observe
from memtune.evidence.places import holds_answer
from memtune.facts import Fact, read_facts
from memtune.project import Project
from memtune.store import backbone_of

__all__ = ["DetectResult", "Judged", "Observable", "detect"]

TOGETHER = 16


@dataclass(frozen=True)
class Observable:
    """One figure by itself; its direction was set before it was measured."""

    name: str
    auroc: Auroc


@dataclass(frozen=True)
class Judged:
    """One question, the backbone's reply, whether it holds the answer, and its score (log-odds of wrong, unseen)."""

    question: str
    answer: str
    reply: str
    wrong: bool
    score: float


@dataclass(frozen=True)
class DetectResult:
    """``together``: the logistic regression on all figures, on replies that it was not fitted on."""

    model: str
    facts: str
    asked: int
    wrong: int
    observables: tuple[Observable, ...]
    together: Auroc
    judged: tuple[Judged, ...]
    file: str
    seconds: float


def detect(
    facts_path: str | Path,
    project_dir: Path,
    *,
    seed: int = 0,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> DetectResult:
    """Asks the backbone, without any memory, and keeps the detector in the project for ``probe --explain``.

    Raises ProjectError, ModelError, and DataError where fewer than FOLDS replies are right, or wrong.
    """
    facts = list(read_facts(facts_path))
    project = Project(project_dir)
    backbone = backbone_of(project, backbone, on_event)
    started = time.monotonic()
    replies, figures = _observed(backbone, facts, on_event)
    wrong = torch.tensor([not holds_answer(reply, fact.answer) for fact, reply in zip(facts, replies, strict=True)])
    _check(facts_path, wrong)
    scores = cross_validated(figures, wrong, seed)
    together = auroc(scores, wrong, seed)
    means, deviations, weights, constant = fit(figures, wrong)
    columns = (tuple(column.tolist()) for column in (means, deviations, weights))
    name = Path(facts_path).name
    detector = Detector(backbone.fingerprint, name, len(facts), int(wrong.sum()), together, *columns, constant)
    judged = zip(facts, replies, wrong.tolist(), scores.tolist(), strict=True)
    return DetectResult(
        model=backbone.checkpoint.name,
        facts=name,
        asked=len(facts),
        wrong=int(wrong.sum()),
        observables=tuple(
            Observable(name, auroc(figures[:, i] * sign, wrong, seed)) for i, (name, sign) in enumerate(OBSERVABLES)
        ),
        together=together,
        judged=tuple(Judged(f.question, f.answer, reply, bad, score) for f, reply, bad, score in judged),
        file=str(detector.save(project.root)),
        seconds=time.monotonic() - started,
    )


def _observed(backbone: Backbone, facts: Sequence[Fact], on_event: OnEvent) -> tuple[list[str], torch.Tensor]:
    """The replies, and figures float32 ``(replies, observables)``."""
    lens, prompts = Lens(backbone), backbone.prompts
    replies: list[str] = []
    rows: list[tuple[float, ...]] = []
    for start in range(0, len(facts), TOGETHER):
        batch = facts[start : start + TOGETHER]
        asked = [prompts.format.prompt(prompts.question(fact.question)) for fact in batch]
        for prompt, said in zip(asked, greedy(backbone, asked, LONGEST), strict=True):
            replies.append(said.text)
            rows.append(observe(lens, prompt, said.ids[: len(said.ids) - said.stopped]))
            on_event(Progress("asking", len(rows), len(facts)))
    return replies, torch.tensor(rows)


def _check(path: str | Path, wrong: torch.Tensor) -> None:
    counts = {"wrong": int(wrong.sum()), "right": int((~wrong).sum())}
    for name, count in counts.items():
        if count < FOLDS:
            raise DataError(
                [f"{path}: {count} of {len(wrong)} replies are {name}: a detector needs {FOLDS} or more of each kind"],
                hint=f"add questions that the model answers {'right' if name == 'right' else 'wrong'}, then: "
                f"memtune detect {shlex.quote(str(path))}",
            )
