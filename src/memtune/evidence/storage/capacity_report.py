"""What capacity found, as one record: what was missed, and the files that show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from memtune.evidence.storage.capacity_page import plots_of, render
from memtune.evidence.storage.randomization import Arm
from memtune.evidence.storage.regularization import Effect
from memtune.outputs import as_json, write_texts

__all__ = ["Asked", "CapacityResult", "missed_of", "write_report"]


@dataclass(frozen=True)
class Asked:
    """How much was asked that is not taught."""

    held_out: int  # questions of the kind that is taught
    control: int  # questions on anything else
    choices: int


@dataclass(frozen=True)
class CapacityResult:
    """What was learned, and what became of the rest.

    ``arms``: each learner with each set of answers; ``sweep``: memories of more and more random answers. ``effects``:
    the backbone alone first, then each arm. ``missed``: in words, what was not as it has to be.
    """

    model: str
    fingerprint: str
    versions: Mapping[str, str]
    seed: int
    until_loss: float  # nats per answer token
    source: str  # a file, a project, or synthetic questions
    facts: int
    bits_each: float  # of a random answer
    asked: Asked
    max_drop: float
    arms: tuple[Arm, ...]
    effects: tuple[Effect, ...]
    sweep: tuple[Arm, ...]
    missed: tuple[str, ...]
    seconds: float
    page: str
    json: str

    @property
    def met(self) -> bool:
        return not self.missed


def missed_of(arms: Sequence[Arm], effects: Sequence[Effect], asked: Asked, max_drop: float) -> Iterator[str]:
    """What is not as it has to be, of the memory alone: LoRA promises nothing. ``effects`` begin with the backbone."""
    base = effects[0]
    for arm, effect in zip(arms, effects[1:], strict=True):
        if arm.learner != "memory":
            continue
        name = f"the memory of {arm.answers} answers"
        if arm.exact < arm.facts:
            yield f"{name} says {arm.exact:,} of {arm.facts:,} exactly"
        if not effect.off_identical:
            yield f"{name}, switched off, is not the backbone bit for bit"
        if effect.control < (1 - max_drop) * asked.control:
            yield f"{name} changes {asked.control - effect.control} of {asked.control} control answers"
        if effect.right < base.right - max_drop * asked.choices:
            yield f"{name} picks {effect.right} of {asked.choices} options right, the backbone {base.right}"


def write_report(result: CapacityResult, out: Path) -> None:
    """``capacity.html``, ``capacity.json`` and an .svg for each plot, each whole or as it was before."""
    record = asdict(result) | {"met": result.met}
    write_texts(out, {"capacity.html": render(record), "capacity.json": as_json(record)} | plots_of(record))
