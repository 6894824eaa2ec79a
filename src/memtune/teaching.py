"""Teaches facts to a memory: fits their experts, certifies each through the real path, confirms by generation."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memtune.asking import Asker
from memtune.backbone import AnswerStates, Backbone
from memtune.config import Config
from memtune.events import Note, OnEvent, Progress
from memtune.fact import Fact
from memtune.memory.fit import Told, fit_values, likeliest, token_losses
from memtune.memory.module import Memory
from memtune.memory.router import Route
from memtune.prompts import EncodedFact

__all__ = ["FailedFact", "Teacher", "accepts", "certain"]

MARGINS = (1 / 400, 1 / 4000, 1 / 40000)  # of the target, aimed at in turn: the margin is what holds on other wordings
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


def accepts(losses: Tensor, until_loss: float) -> bool:
    """Of one fact's answer-token losses (answer tokens,), nats: the mean is at the target, and each token above one
    half, so that greedy generation says it.
    """
    return float(losses.mean()) <= until_loss and certain(losses)


def certain(losses: Tensor) -> bool:
    """Whether each of one fact's answer tokens (answer tokens,) is likelier than all others together."""
    return float(losses.max()) < LN2


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
    """Beside the states: (answer tokens,)."""
    tokens = [token for lesson in lessons for token in lesson.item.answer]
    return torch.tensor(tokens, device=lessons[0].states.final.device)


def _by_number(told: Told, numbers: Tensor) -> Told:
    """Hears of tokens and tells of them by their ``numbers`` (tokens,)."""
    return lambda done, tokens, losses: told(done, numbers[tokens.cpu()], losses.cpu())


class Teacher:
    """Teaches facts by their number in ``memory``. ``reasons``: why a fact was not accepted, in words.

    ``skip_known``: facts that the backbone says by itself are left to it; their numbers are ``known``. ``told`` hears
    of the steps of every fit, of each token by the number of its expert.
    """

    def __init__(
        self,
        facts: Sequence[Fact],
        memory: Memory,
        backbone: Backbone,
        config: Config,
        on_event: OnEvent,
        *,
        told: Told | None = None,
        skip_known: bool = False,
    ) -> None:
        self.facts, self.memory, self.backbone = facts, memory.to(backbone.device), backbone
        self.config, self.on_event, self.told = config, on_event, told
        self.bank = memory.bank
        self.low = backbone.readout.rows(memory.projections.up)
        self.skip_known = skip_known
        self.reasons: dict[int, str] = {}
        self.known: set[int] = set()
        self.verified = self.verified_exact = 0

    def own_route(self, fact: int, route: Route) -> bool:
        if route.fired and route.fact == fact:
            return True
        taker = f"the question of {self.facts[route.fact].id}" if route.fired else "the null route"
        self.reasons[fact] = f"its question takes {taker} (score {route.score:.2f}, threshold {route.threshold:.2f})"
        return False

    def chunk(self, numbers: Sequence[int]) -> None:
        """Teaches the facts with these numbers, all of them together."""
        items = [self.backbone.prompts.fact(self.facts[i]) for i in numbers]
        states = self.backbone.answer_states(items)
        lessons = [_Lesson(*lesson) for lesson in zip(numbers, items, states, strict=True)]
        if self.skip_known:
            lessons = self._unknown(lessons)
        questions, early = [one.item.question for one in lessons], [one.states.early for one in lessons]
        routes = self.memory.router.route(questions, early)
        open_ = [one for one, route in zip(lessons, routes, strict=True) if self.own_route(one.fact, route)]
        for margin in MARGINS:
            if not open_:
                return
            self._fit(open_, self.config.until_loss * margin)
            passed = self._certify(open_)
            open_ = [lesson for lesson, accepted in zip(open_, passed, strict=True) if not accepted]
        for lesson in open_:
            loss = float(self.bank.loss[lesson.fact])
            self.reasons[lesson.fact] = f"loss {loss:.4f} nats per answer token after {len(MARGINS)} fits"

    def _unknown(self, lessons: Sequence[_Lesson]) -> list[_Lesson]:
        """Those of which the backbone would say another token somewhere: greedy generation says the others exactly."""
        hits = likeliest(_final(lessons), self.backbone.readout) == _targets(lessons)
        own = hits.split([lesson.item.experts for lesson in lessons])
        self.known |= {lesson.fact for lesson, said in zip(lessons, own, strict=True) if said.all()}
        return [lesson for lesson in lessons if lesson.fact not in self.known]

    def _fit(self, lessons: Sequence[_Lesson], goal: float) -> None:
        hidden, targets = _final(lessons), _targets(lessons)
        experts = torch.cat([torch.arange(run.start, run.stop) for run in (self.bank.run(one.fact) for one in lessons)])
        told = None if self.told is None else _by_number(self.told, experts)
        values = fit_values(hidden, targets, self.backbone.readout, self.low, goal, told=told)
        self.bank.put(experts, self.memory.projections.query(hidden), values)

    def _certify(self, lessons: Sequence[_Lesson]) -> list[bool]:
        """The loss of every answer token with the memory on, attention included, over the real LM head.

        All facts at once: the head's weights are read once for many rows, which is what this costs.
        """
        counts = [lesson.item.experts for lesson in lessons]
        final = _final(lessons)
        numbers = [(lesson.fact, step) for lesson in lessons for step in range(lesson.item.experts)]
        facts, steps = torch.tensor(numbers, device=final.device).T
        written = final + self.memory.write(final, facts, steps)
        losses = token_losses(written, _targets(lessons), self.backbone.readout)
        return [self._accept(lesson.fact, own) for lesson, own in zip(lessons, losses.split(counts), strict=True)]

    def _accept(self, fact: int, losses: Tensor) -> bool:
        self.bank.loss[fact], self.bank.worst[fact] = losses.mean(), losses.max()
        self.bank.accepted[fact] = accepted = accepts(losses, self.config.until_loss)
        return accepted

    def verify(self, numbers: Sequence[int]) -> None:
        """Real generation, the router deciding each time: each of these facts, or a sample with the hardest in it."""
        everything = self.config.verify == "all"
        learned = [i for i in numbers if self.bank.accepted[i]]
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

    def failed(self) -> tuple[FailedFact, ...]:
        """Every fact that is not accepted, and not known without it."""
        missed = torch.nonzero(~self.bank.accepted).squeeze(1).tolist()
        return tuple(self._failed(i) for i in missed if i not in self.known)

    def _failed(self, i: int) -> FailedFact:
        fact: Fact = self.facts[i]
        reason = self.reasons.get(i, "not fitted yet")
        return FailedFact(fact.id, fact.question, fact.source, reason, float(self.bank.loss[i]))


def _sample(learned: Sequence[int], worst: Tensor, seed: int) -> list[int]:
    """Half the hardest, half drawn."""
    hardest = sorted(learned, key=lambda i: -float(worst[i]))[: SAMPLE // 2]
    rest = [i for i in learned if i not in hardest]
    return sorted(hardest + random.Random(seed).sample(rest, min(len(rest), SAMPLE - len(hardest))))
