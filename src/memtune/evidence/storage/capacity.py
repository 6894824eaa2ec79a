"""The verb capacity: can this backbone with this memory learn anything, and does everything else stay as it was?

The randomization test and the regularization test of Lamini-1 (arXiv 2406.17642, sections 2 and 3), with the user's own
questions and the memory that tune makes, beside LoRA where it is asked for. No project is written to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from memtune.backbone import Backbone, load_backbone
from memtune.config import Config
from memtune.errors import ConfigError
from memtune.events import Note, OnEvent, ignore
from memtune.evidence.storage.capacity_report import Asked, CapacityResult, missed_of, write_report
from memtune.evidence.storage.lora_arm import Control, teach_lora
from memtune.evidence.storage.pool import Pool
from memtune.evidence.storage.randomization import BITS, RANDOM, TRUE, Arm, random_answers, teach_memory
from memtune.evidence.storage.regularization import Effect, Exam, Examiner, Sitting
from memtune.evidence.storage.sweep import sweep
from memtune.fact import Fact
from memtune.facts import read_facts
from memtune.making import made_memory, with_answers
from memtune.memory.module import Memory
from memtune.outputs import check_out, versions
from memtune.project import Project
from memtune.store import backbone_of, load_facts, load_memory

__all__ = ["CapacityResult", "Control", "Scope", "capacity"]

SYNTHETIC = "synthetic questions"


@dataclass(frozen=True)
class Scope:
    """How much is learned and asked. ``sample``: questions of a kind at most, ``longest``: tokens of an answer.

    ``most``: facts of the sweep at most, None: no sweep. ``max_drop``: the share of control answers that
    may change, and of options by which accuracy may drop.
    """

    facts: int = 32
    sample: int = 40
    longest: int = 16
    most: int | None = None
    max_drop: float = 0.0

    def __post_init__(self) -> None:
        for option, value in (("--count", self.facts), ("--sample", self.sample), ("--most", self.most)):
            if value is not None and value < 1:
                raise ConfigError(f"{option} is {value}", hint=f"{option} takes a number of 1 or more")
        if not 0 <= self.max_drop < 1:
            raise ConfigError(f"--max-drop is {self.max_drop:g}", hint="--max-drop takes a share such as 0.02")


def capacity(
    path: str | Path | None,
    project_dir: Path | None,
    config: Config,
    *,
    scope: Scope | None = None,
    control: Control | None = None,
    out: Path = Path("capacity"),
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> CapacityResult:
    """Runs the tests and writes ``capacity.html``, ``capacity.json`` and the plots to ``out``.

    The questions are those of the file, or else of the project, or else synthetic ones. Nothing is written before all
    is measured. Raises DataError (every problem of the file at once), ConfigError, ModelError, ProjectError.
    """
    started, scope = time.monotonic(), scope or Scope()
    check_out(out, "capacity.html and capacity.json")
    source, facts, config, backbone = _source(path, project_dir, config, on_event, backbone)
    run = _Run(Pool(facts, config.seed), backbone, config, scope, on_event)
    run.memory()
    if control is not None:
        run.lora(control)
    sizes, asked = tuple(run.sweep()), run.asked
    result = CapacityResult(
        model=config.model,
        fingerprint=backbone.fingerprint,
        versions=versions(),
        seed=config.seed,
        until_loss=config.until_loss,
        source=source,
        facts=len(run.taught),
        bits_each=BITS,
        asked=asked,
        max_drop=scope.max_drop,
        arms=tuple(run.arms),
        effects=tuple(run.effects),
        sweep=sizes,
        missed=tuple(missed_of(run.arms, run.effects, asked, scope.max_drop)),
        seconds=time.monotonic() - started,
        page=str(out / "capacity.html"),
        json=str(out / "capacity.json"),
    )
    write_report(result, out)
    return result


def _source(
    path: str | Path | None, project_dir: Path | None, config: Config, on_event: OnEvent, backbone: Backbone | None
) -> tuple[str, Sequence[Fact] | None, Config, Backbone]:
    """Where the questions come from, the facts, if they are not to be made up, and the settings that go with them."""
    project = None if path is not None or project_dir is None else Project(project_dir)
    if project is not None and project.exists:
        model = project.need("model", "memtune ingest FACTS")
        backbone = backbone_of(project, backbone, on_event)
        kept = {"model": model["name"], "device": model["device"], "dtype": model["dtype"]}
        kept |= {"rows": load_memory(project).bank.rows}
        return str(project_dir), load_facts(project), replace(config, **kept), backbone
    facts = None if path is None else read_facts(path, command="memtune capacity")
    backbone = backbone or load_backbone(config.model, device=config.device, dtype=config.dtype, on_event=on_event)
    return SYNTHETIC if path is None else str(path), facts, config, backbone


class _Run:
    """One run of the tests. ``arms`` and ``effects`` grow with what was measured."""

    def __init__(self, pool: Pool, backbone: Backbone, config: Config, scope: Scope, on_event: OnEvent) -> None:
        self.pool, self.backbone, self.config, self.scope = pool, backbone, config, scope
        self.on_event = on_event
        self.taught, held_out = pool.split(scope.facts, scope.sample)
        self.answers = {RANDOM: random_answers(self.taught, config.seed), TRUE: self.taught}
        self.exam = Exam.shipped(held_out, sample=scope.sample, longest=scope.longest)
        self.examiner = Examiner(backbone, self.exam)
        self.arms: list[Arm] = []
        on_event(Note("asking the backbone what is not taught"))
        self.before = self.examiner.sit()
        self.effects = [Effect.of("backbone", "", self.before, self.before)]

    @property
    def asked(self) -> Asked:
        return Asked(len(self.exam.held_out), len(self.exam.control), len(self.exam.choices))

    def memory(self) -> None:
        """The memory with either set of answers, behind one router."""
        known, _ = made_memory(self.answers[TRUE], self.backbone, self.config, self.on_event)
        for answers, facts in self.answers.items():
            memory = known if answers == TRUE else with_answers(known, facts, self.backbone)
            arm = teach_memory(answers, facts, memory, self.backbone, self.config, self.on_event)
            self._keep(arm, *self._examined(memory, answers))

    def lora(self, control: Control) -> None:
        control = control.for_size(self.backbone, self.arms[0].stored.whole)
        self.on_event(
            Note(
                f"the control: LoRA of rank {control.rank}, at most {control.epochs} epochs or {control.seconds:g} "
                "processor seconds for each set of answers; this is what takes long"
            )
        )
        for answers, facts in self.answers.items():
            self._keep(*teach_lora(answers, facts, control, self.config, self.examiner, self.on_event))

    def sweep(self) -> Iterator[Arm]:
        if self.scope.most is not None:
            yield from sweep(self.arms[0], self.pool, self.scope.most, self.backbone, self.config, self.on_event)

    def _examined(self, memory: Memory, answers: str) -> tuple[Sitting, Sitting]:
        self.on_event(Note(f"asking the same with the memory of {answers} answers on, and off"))
        return self.examiner.sit_with(memory)

    def _keep(self, arm: Arm, now: Sitting, off: Sitting | None = None) -> None:
        self.arms.append(arm)
        self.effects.append(Effect.of(arm.learner, arm.answers, self.before, now, off))
