"""The verb know: what a model knows of each fact before anybody teaches it, and what it knows afterwards.

Categories as in SliCK. Measured before and after, with facts beside those that are taught, they are a report of damage:
what was not taught should stay in its category.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memtune.backbone import Backbone, load_backbone
from memtune.config import Config
from memtune.errors import ConfigError, ProjectError
from memtune.events import OnEvent, Progress, ignore
from memtune.evidence.knowledge.control import taught_by_lora
from memtune.evidence.knowledge.fewshot import Exemplar, FewShot
from memtune.evidence.knowledge.forced import Forced
from memtune.evidence.knowledge.groups import FactFiles, check_stored, check_taught, survey_of
from memtune.evidence.knowledge.sampled import Sampled
from memtune.evidence.knowledge.slick import SAMPLES, Knowledge, Reading
from memtune.evidence.knowledge.survey import TAUGHT, KnowResult, Measured, Method, Survey, read_record, write_record
from memtune.evidence.knowledge.transitions import Moved, Transition, damage, transitions
from memtune.facts import read_facts
from memtune.memory.module import Memory
from memtune.project import Project
from memtune.store import backbone_of, load_facts, load_memory

__all__ = ["Arm", "CompareResult", "FactFiles", "KnowResult", "Method", "Subject", "compare", "know", "measure"]

TOGETHER = 64  # facts between two reports of progress


@dataclass(frozen=True)
class Subject:
    """Which model is asked: the one that is named, or else that of the project, with what it has learned."""

    project: Path
    model: str | None = None
    memory: bool = True

    def load(self, config: Config, on_event: OnEvent, backbone: Backbone | None) -> tuple[Backbone, Memory | None]:
        """Raises ProjectError, ModelError."""
        project = Project(self.project)
        if self.model is None and "model" in project.state:
            backbone = backbone_of(project, backbone, on_event)
            return backbone, load_memory(project) if self.memory and project.state.get("tune") else None
        name = self.model or config.model
        return backbone or load_backbone(name, device=config.device, dtype=config.dtype, on_event=on_event), None


@dataclass(frozen=True)
class Arm:
    """One way of teaching, and what became of each group. ``name``: memory, model or lora."""

    name: str
    measured: Measured
    transitions: tuple[Transition, ...]

    @property
    def damage(self) -> tuple[Moved, ...]:
        return damage(self.transitions)


@dataclass(frozen=True)
class CompareResult:
    """A survey put again to the model that was taught, the first arm, and perhaps to a control beside it."""

    survey: Survey
    before: Measured
    arms: tuple[Arm, ...]
    seconds: float

    @property
    def met(self) -> bool:
        """Every fact that was not taught is in the category that it was in."""
        return not self.arms[0].damage


def know(
    files: FactFiles,
    subject: Subject,
    config: Config,
    *,
    method: Method | None = None,
    save: Path | None = None,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> KnowResult:
    """What the subject knows of every fact; ``save``: kept for ``compare``.

    Raises DataError, ConfigError, ProjectError, ModelError.
    """
    started = time.monotonic()
    if save is not None and (save.is_dir() or not save.parent.is_dir()):
        raise ConfigError(f"{save} cannot be written", hint="--save takes a file in a directory that is there")
    survey = survey_of(files, method or Method(seed=config.seed))
    backbone, memory = subject.load(config, on_event, backbone)
    result = KnowResult(survey, measure(survey, backbone, memory, on_event), time.monotonic() - started)
    if save is not None:
        write_record(result, save)
    return result


def compare(
    before: Path,
    subject: Subject,
    config: Config,
    *,
    facts: str | Path | None = None,
    control: bool = False,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> CompareResult:
    """The survey that ``know`` kept in ``before``, put to the subject as it is now.

    ``facts``: what was taught in between, checked to be what the survey calls so. ``control``: LoRA is taught the same
    facts and asked too. Raises DataError, ProjectError, ModelError.
    """
    started = time.monotonic()
    record = read_record(before)
    survey = record.survey
    if facts is not None:
        command = f"memtune know --compare {shlex.quote(str(before))}"
        check_taught(survey, read_facts(facts, command=command), before)
    backbone, memory = subject.load(config, on_event, backbone)
    if memory is not None:
        check_stored(survey, load_facts(Project(subject.project)), on_event)
        if backbone.fingerprint != record.measured.fingerprint:
            raise ProjectError(
                f"{before} was measured with another model than the project's ({record.measured.model})",
                hint=f"measure again: memtune know FACTS --without-memory --save {before}",
            )
    arms = [("model" if memory is None else "memory", measure(survey, backbone, memory, on_event))]
    if control:
        with taught_by_lora(backbone, [survey.facts[i] for i in survey.group(TAUGHT)], on_event):
            arms.append(("lora", measure(survey, backbone, None, on_event)))
    changed = tuple(Arm(name, now, transitions(survey, record.measured.known, now.known)) for name, now in arms)
    return CompareResult(survey, record.measured, changed, time.monotonic() - started)


def measure(survey: Survey, backbone: Backbone, memory: Memory | None, on_event: OnEvent = ignore) -> Measured:
    """Puts a survey to a model as it stands, with ``memory`` or without."""
    method, fewshot = survey.method, FewShot(backbone.prompts, survey.method.format)
    if memory is not None and method.format == "qa":
        raise ConfigError("no memory sees a question in the format qa", hint="ask without it: --without-memory")
    reader: Forced | Sampled = Forced(backbone, fewshot, memory)
    if method.sampled:
        reader = Sampled(backbone, fewshot, memory, seed=method.seed)
    try:
        known = tuple(_known(survey, reader, on_event))
    finally:
        reader.close()
    learned = None if memory is None else int(memory.bank.accepted.sum())
    return Measured(backbone.checkpoint.name, backbone.fingerprint, learned, known)


def _known(survey: Survey, reader: Forced | Sampled, on_event: OnEvent) -> Iterator[Knowledge]:
    """Of each fact."""
    found: list[list[Reading]] = [[] for _ in survey.facts]
    total = sum(1 + len(sets) for sets in survey.exemplars.of)
    samples = round(SAMPLES / survey.method.sets)
    for shown, part in _rounds(survey):
        readings = reader.readings(shown, [survey.facts[i] for i in part], samples if shown else 0)
        for i, reading in zip(part, readings, strict=True):
            found[i].append(reading)
        on_event(Progress("asked", sum(map(len, found)), total))
    made = Knowledge.drawn if survey.method.sampled else Knowledge.exact
    return (made(behind, alone.greedy) for alone, *behind in found)


def _rounds(survey: Survey) -> Iterator[tuple[Sequence[Exemplar], Sequence[int]]]:
    """Exemplars and the facts that are asked behind them: first all alone, then those that share a set together."""
    behind: list[list[int]] = [[] for _ in survey.exemplars.sets]
    for fact, numbers in enumerate(survey.exemplars.of):
        for number in numbers:
            behind[number].append(fact)
    everything: list[tuple[Sequence[Exemplar], Sequence[int]]] = [((), range(len(survey.facts)))]
    for shown, members in [*everything, *zip(survey.exemplars.sets, behind, strict=True)]:
        for start in range(0, len(members), TOGETHER):
            yield shown, members[start : start + TOGETHER]
