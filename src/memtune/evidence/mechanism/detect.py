"""The verb detect: how well wrong replies of the backbone can be told from right ones without knowing the answers."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from memtune.asking import greedy
from memtune.backbone import Backbone
from memtune.errors import DataError
from memtune.events import OnEvent, Progress, ignore
from memtune.evidence.mechanism.anatomy import states_in
from memtune.evidence.mechanism.detector import FOLDS, Auroc, Detector, auroc, cross_validated, fit
from memtune.evidence.mechanism.lens import Lens
from memtune.evidence.mechanism.observables import LONGEST, OBSERVABLES, observe
from memtune.evidence.mechanism.places import holds_answer
from memtune.fact import Fact
from memtune.facts import read_facts
from memtune.project import Project, in_project
from memtune.store import backbone_of

__all__ = ["DetectResult", "Observable", "Observed", "detect", "measured", "observed"]

TOGETHER = 8


@dataclass(frozen=True)
class Observable:
    """One figure by itself; its direction was set before it was measured."""

    name: str
    auroc: Auroc


@dataclass(frozen=True)
class Observed:
    """One question, the backbone's reply, whether the answer is missing in it, and the figures of OBSERVABLES."""

    question: str
    answer: str
    reply: str
    wrong: bool
    figures: tuple[float, ...]


@dataclass(frozen=True)
class DetectResult:
    """``together``: the logistic regression on all figures, on replies that it was not fitted on. ``scores``: what it
    said of those, log-odds of wrong.
    """

    model: str
    facts: str
    asked: int
    wrong: int
    observables: tuple[Observable, ...]
    together: Auroc
    replies: tuple[Observed, ...]
    scores: tuple[float, ...]
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

    Raises ProjectError, ModelError, and DataError where fewer than FOLDS replies are right, or wrong. That the detector
    can be kept is seen before anything is asked.
    """
    command = f"memtune detect{in_project(project_dir)}"
    facts = read_facts(facts_path, command=command)
    project = Project(project_dir)
    project.need("model", "memtune ingest FACTS")
    project.check_writable()
    backbone = backbone_of(project, backbone, on_event)
    started = time.monotonic()
    replies: list[Observed] = []
    for start in range(0, len(facts), TOGETHER):
        replies += observed(backbone, facts[start : start + TOGETHER])
        on_event(Progress("asking", len(replies), len(facts)))
    result, detector = measured(replies, facts_path, backbone, seed, command=command)
    file = detector.save(project.root)
    return replace(result, file=str(file), seconds=time.monotonic() - started)


def observed(backbone: Backbone, facts: Sequence[Fact]) -> list[Observed]:
    """Their questions asked in one batch, greedily, at most LONGEST tokens each; the states are read on the way."""
    lens, prompts = Lens(backbone), backbone.prompts
    asked = [prompts.format.prompt(prompts.question(fact.question)) for fact in facts]
    order = sorted(range(len(asked)), key=lambda i: len(asked[i]))  # as greedy asks them
    with states_in(lens.anatomy) as seen:
        answers = greedy(backbone, [asked[i] for i in order], LONGEST)
    layers = len(lens.anatomy.layers) + 1
    last = [state[:, -1] for state in seen]  # (batch, hidden), pass by pass and layer by layer
    states = torch.stack(last).view(-1, layers, *last[0].shape).transpose(0, 1)
    found = {}
    for row, (i, said) in enumerate(zip(order, answers, strict=True)):
        reply = said.ids[: len(said.ids) - said.stopped]
        figures = observe(lens, states[:, : max(1, len(reply)), row], reply)
        wrong = not holds_answer(said.text, facts[i].answer)
        found[i] = Observed(facts[i].question, facts[i].answer, said.text, wrong, figures)
    return [found[i] for i in range(len(facts))]


def measured(
    replies: Sequence[Observed], facts_path: str | Path, backbone: Backbone, seed: int, command: str = "memtune detect"
) -> tuple[DetectResult, Detector]:
    """How well each figure, and all together, rank wrong replies above right ones; and the detector, on all of them.

    ``command`` is run with the file again where the replies are too few of a kind.
    """
    wrong = torch.tensor([reply.wrong for reply in replies])
    _check(facts_path, wrong, command)
    figures = torch.tensor([reply.figures for reply in replies])
    scores = cross_validated(figures, wrong, seed)
    together = auroc(scores, wrong, seed)
    means, deviations, weights, constant = fit(figures, wrong)
    name, count = Path(facts_path).name, int(wrong.sum())
    single = [Observable(name, auroc(figures[:, i] * sign, wrong, seed)) for i, (name, sign) in enumerate(OBSERVABLES)]
    result = DetectResult(
        model=backbone.checkpoint.name,
        facts=name,
        asked=len(replies),
        wrong=count,
        observables=tuple(single),
        together=together,
        replies=tuple(replies),
        scores=tuple(scores.tolist()),
        file="",
        seconds=0.0,
    )
    detector = Detector(
        fingerprint=backbone.fingerprint,
        facts=name,
        asked=len(replies),
        wrong=count,
        auroc=together,
        means=tuple(means.tolist()),
        deviations=tuple(deviations.tolist()),
        weights=tuple(weights.tolist()),
        constant=constant,
    )
    return result, detector


def _check(path: str | Path, wrong: torch.Tensor, command: str) -> None:
    counts = {"wrong": int(wrong.sum()), "right": int((~wrong).sum())}
    for name, count in counts.items():
        if count < FOLDS:
            raise DataError(
                [f"{path}: {count} of {len(wrong)} replies are {name}: a detector needs {FOLDS} or more of each kind"],
                hint=f"add questions that the model answers {'right' if name == 'right' else 'wrong'}, then: "
                f"{command} {shlex.quote(str(path))}",
            )
