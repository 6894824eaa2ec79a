"""The randomization test: a learner that can learn anything learns random answers as it learns true ones.

After Zhang et al. (arXiv 1611.03530), as Lamini-1 does it (arXiv 2406.17642, section 2): the same questions, once with
their answers, once with 32 random characters, which no model can guess and no rule can shorten.
"""

from __future__ import annotations

import math
import random
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from memtune.backbone import Backbone
from memtune.config import Config
from memtune.events import OnEvent, Progress
from memtune.evidence.storage.curve import Point, Recorder, rounds_to
from memtune.fact import Fact
from memtune.memory.module import Memory
from memtune.store import bytes_of
from memtune.teaching import Teacher
from memtune.tune import CHUNK

__all__ = ["BITS", "LENGTH", "RANDOM", "TRUE", "Arm", "Stored", "bits_stored", "random_answers", "teach_memory"]

ALPHABET = string.ascii_uppercase + string.digits
LENGTH = 32  # characters
RANDOM, TRUE = "random", "true"  # the two sets of answers
BITS = LENGTH * math.log2(len(ALPHABET))  # of one random answer: 165.4


@dataclass(frozen=True)
class Stored:
    """What a learner keeps. ``parameters`` and ``bytes`` of what was fitted for the facts, ``whole``: bytes of all that
    comes beside the backbone, a router included.
    """

    experts: int
    parameters: int
    bytes: int
    whole: int


@dataclass(frozen=True)
class Arm:
    """One learner that was given one set of answers. Losses in nats per answer token, the stop token included.

    ``bits``: what is stored of random answers; None for others, because nobody knows how much is in those.
    """

    learner: str  # memory or LoRA
    answers: str  # random or true
    facts: int
    tokens: int  # of all answers
    at_target: int  # facts
    exact: int  # facts that generate() says to the last character, and stops
    rounds: int | None  # steps of the fit, or epochs, until every fact was at the target; None: they never all were
    again: int  # facts that the fit had to aim lower for, because attention or rounding took too much
    points: tuple[Point, ...]
    loss_mean: float
    loss_max: float
    seconds: float  # of learning alone
    processor_seconds: float  # the same, of all threads: what holds on a busy machine
    stored: Stored
    bits: float | None
    details: str  # what the learner was set to

    @property
    def recall(self) -> float:
        return self.exact / self.facts


def random_answers(facts: Sequence[Fact], seed: int) -> list[Fact]:
    """The same questions with answers of 32 characters of [A-Z0-9]: a question gets the same in a file of any size."""
    return [replace(fact, answer=_drawn(f"{seed}:{fact.question}")) for fact in facts]


def _drawn(seed: str) -> str:
    return "".join(random.Random(seed).choices(ALPHABET, k=LENGTH))


def bits_stored(losses: Sequence[float]) -> float:
    """Bits of random answers that a learner holds, whose ``losses`` are the sums over each answer's tokens, nats.

    A fact whose answer costs more than its 165.4 bits is one that is not stored: it counts as none.

    >>> round(bits_stored([0.0, 165.4 * math.log(2) / 2, 1000.0]), 1)
    248.2
    """
    return sum(max(0.0, BITS - loss / math.log(2)) for loss in losses)


def teach_memory(
    answers: str, facts: Sequence[Fact], memory: Memory, backbone: Backbone, config: Config, on_event: OnEvent
) -> Arm:
    """Fits the facts as tune does, and has every one of them generated, the router deciding."""
    recorder = Recorder(memory.bank.offsets)
    teacher = Teacher(facts, memory, backbone, replace(config, verify="all"), on_event, told=recorder)
    started, spent = time.monotonic(), time.process_time()
    for end in range(CHUNK, len(facts) + CHUNK, CHUNK):
        teacher.chunk(range(end - CHUNK, min(end, len(facts))))
        on_event(Progress(f"learned, {answers} answers", min(end, len(facts)), len(facts)))
    seconds, spent = time.monotonic() - started, time.process_time() - spent
    at_target = int(memory.bank.accepted.sum())
    teacher.verify(range(len(facts)))
    arm = _memory_arm(answers, teacher, recorder)
    return replace(arm, at_target=at_target, seconds=seconds, processor_seconds=spent)


def _memory_arm(answers: str, teacher: Teacher, recorder: Recorder) -> Arm:
    bank, points = teacher.bank, recorder.points()
    sums = (bank.loss * bank.offsets.diff())[bank.accepted]
    return Arm(
        learner="memory",
        answers=answers,
        facts=len(teacher.facts),
        tokens=bank.sizes.experts,
        at_target=int(bank.accepted.sum()),
        exact=teacher.verified_exact,
        rounds=rounds_to(points, teacher.config.until_loss),
        again=recorder.again,
        points=points,
        loss_mean=float(bank.loss.mean()),
        loss_max=float(bank.loss.max()),
        seconds=0.0,
        processor_seconds=0.0,
        stored=_stored(teacher.memory),
        bits=bits_stored(sums.tolist()) if answers == RANDOM else None,
        details=f"{bank.rows} rows, d_key {bank.sizes.d_key}, d_value {bank.sizes.d_value}",
    )


def _stored(memory: Memory) -> Stored:
    rows = [memory.bank.keys, memory.bank.values, memory.bank.scales]
    return Stored(
        experts=memory.bank.sizes.experts,
        parameters=sum(row.numel() for row in rows),
        bytes=bytes_of(rows),
        whole=bytes_of(memory.state_dict().values()),
    )
