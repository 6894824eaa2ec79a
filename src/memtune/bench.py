"""Asks the cases of a measure: first the route of every question, then real generation where it can differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from memtune.asking import Answer, Asker, Turns, said_by
from memtune.fact import Fact
from memtune.facts import fold_question
from memtune.measures import Case, Failure, Outcome
from memtune.memory.router import Route

__all__ = ["SPARE", "Bench", "Told", "converse"]

CHUNK = 64  # questions between two reports of progress
SAID, SAID_TOKENS = 10, 32  # misses of a measure for which the backbone's own answer is generated as well
SHOWN_SAID = 80  # characters
BASE_ANSWER = 64  # tokens of a turn on which nothing fires, in a conversation that goes on
SPARE = 8  # tokens behind a fact's answer, to see whether it stops
Told = Callable[[int], None]  # how many more questions are done


def converse(
    asker: Asker, conversations: Sequence[Turns], limits: Sequence[int], told: Told, *, memory: bool = True
) -> list[Answer]:
    """``Asker.converse``, part by part, so that ``told`` hears how far it is."""
    answers: list[Answer] = []
    for start in range(0, len(conversations), CHUNK):
        part = slice(start, start + CHUNK)
        answers += asker.converse(conversations[part], limits[part], memory=memory)
        told(len(conversations[part]))
    return answers


@dataclass(frozen=True)
class Bench:
    """A backbone with its memory, and what there is to compare with."""

    asker: Asker
    facts: Sequence[Fact]
    longest: int  # tokens of an output that should be unchanged

    @property
    def most(self) -> int:
        """Tokens that any output of this bench may take."""
        return max(self.asker.longest_run + SPARE, self.longest, BASE_ANSWER)

    def recall(self, cases: Sequence[Case], told: Told) -> list[Outcome]:
        """Whether each whole output is the answer.

        Where nothing fires the output is the backbone's own, so it counts as a miss and is not generated, even where
        the backbone should know the answer by chance; what it says is generated for the failures that are shown. A fact
        that is recognised and was left to the backbone, or was not accepted, is generated like any other.
        """
        return self.judge(cases, self.routes(cases), told)

    def judge(self, cases: Sequence[Case], routes: Sequence[Route], told: Told) -> list[Outcome]:
        """``recall`` with the routes known already."""
        fired = [i for i, route in enumerate(routes) if route.fired]
        answers = dict(
            zip(fired, self._generate(cases, fired, [self._room(routes[i]) for i in fired], told), strict=True)
        )
        silent = [i for i in range(len(cases)) if i not in answers]
        shown = silent[:SAID]
        own = dict(zip(shown, self._generate(cases, shown, [SAID_TOKENS] * len(shown), told), strict=True))
        told(len(silent) - len(shown))
        return [
            self._recalled(case, route, answers.get(i), own.get(i))
            for i, (case, route) in enumerate(zip(cases, routes, strict=True))
        ]

    def unchanged(self, cases: Sequence[Case], verify: int, told: Told) -> list[Outcome]:
        """Whether the output's ids are the backbone's own, with the memory on and off.

        On the null route the memory writes nothing, so outputs are generated where a fact fires, and of the rest for
        ``verify`` questions as a check of just that.
        """
        routes = self.routes(cases)
        fired = [i for i, route in enumerate(routes) if self.asker.memory.fires(route)]
        quiet = [i for i, route in enumerate(routes) if not self.asker.memory.fires(route)]
        checked = sorted([*fired, *quiet[:: -(-len(quiet) // verify) or 1][:verify]] if verify else fired)
        told(len(cases) - len(checked))
        limits = [self.longest] * len(checked)
        own = self._generate(cases, checked, limits, lambda count: None, memory=False)
        said = self._generate(cases, checked, limits, told)
        pairs = dict(zip(checked, zip(own, said, strict=True), strict=True))
        return [
            self._compared(case, route, pairs.get(i)) for i, (case, route) in enumerate(zip(cases, routes, strict=True))
        ]

    def conversations(self, groups: Sequence[Sequence[Case]], told: Told) -> list[Outcome]:
        """Each group is one conversation: a fact a turn, each answer really generated and kept."""
        histories: list[list[dict[str, str]]] = [[] for _ in groups]
        outcomes = []
        for turn in range(max(map(len, groups), default=0)):
            asked = [i for i, group in enumerate(groups) if len(group) > turn]
            cases = [groups[i][turn].among([*histories[i], *groups[i][turn].turns]) for i in asked]
            routes = self.routes(cases)
            limits = [self._room(route) if self.asker.memory.fires(route) else BASE_ANSWER for route in routes]
            answers = self._generate(cases, range(len(cases)), limits, told)
            for i, case, route, answer in zip(asked, cases, routes, answers, strict=True):
                histories[i] = [*case.turns, said_by("assistant", answer.text)]
                outcomes.append(self._recalled(case, route, answer if route.fired else None, answer))
        return outcomes

    def routes(self, cases: Sequence[Case]) -> list[Route]:
        """What the router makes of each case's last question, as it stands in its conversation."""
        prompts = self.asker.backbone.prompts
        return self.asker.attachment.route([prompts.last_question(prompts.render(list(case.turns))) for case in cases])

    def distance(self, case: Case) -> float | None:
        """From the nearest stored wording of its fact: 0 the same letters, 1 none in common (1 - difflib ratio)."""
        if case.fact is None:
            return None
        fact, asked = self.facts[case.fact], fold_question(case.question)
        stored = (fold_question(text) for text in fact.wordings)
        return round(1 - max(SequenceMatcher(None, asked, text, autojunk=False).ratio() for text in stored), 4)

    def _room(self, route: Route) -> int:
        """Tokens that the fact's answer takes, and some more to see that it stops."""
        return self.asker.memory.bank.experts_of(route.fact) + SPARE

    def _generate(
        self, cases: Sequence[Case], chosen: Sequence[int], limits: Sequence[int], told: Told, *, memory: bool = True
    ) -> list[Answer]:
        return converse(self.asker, [cases[i].turns for i in chosen], limits, told, memory=memory)

    def _recalled(self, case: Case, route: Route, answer: Answer | None, own: Answer | None) -> Outcome:
        """``answer`` is the output where a fact is recognised, ``own`` the backbone's where none is and it is known."""
        good = answer is not None and answer.stopped and answer.text == case.expected
        said = answer or own
        failure = None
        if not good:
            text = None if said is None else said.text
            failure = self._failure(case, route, case.expected, text, self._why(case, route, answer))
        fires = self.asker.memory.fires(route)
        return Outcome(route.score, good, fires, said is not None, self.distance(case), failure)

    def _compared(self, case: Case, route: Route, pair: tuple[Answer, Answer] | None) -> Outcome:
        good = pair is None or pair[0].ids == pair[1].ids
        failure = None
        if pair and not good:
            fires = self.asker.memory.fires(route)
            why = f"fact {self._id(route)} fired" if fires else "null route, and yet the output is not the backbone's"
            failure = self._failure(case, route, pair[0].text, pair[1].text, why)
        return Outcome(route.score, good, self.asker.memory.fires(route), pair is not None, None, failure)

    def _failure(self, case: Case, route: Route, expected: str, said: str | None, why: str) -> Failure:
        fired = self._id(route) if self.asker.memory.fires(route) else None
        return Failure(case.question, expected, said, fired, round(route.score, 4), round(route.threshold, 4), why)

    def _why(self, case: Case, route: Route, answer: Answer | None) -> str:
        if route.fact < 0:
            return "null route: nothing stored has words in common with it"
        if not route.fired:
            nearest = "" if route.fact == case.fact else f"; the nearest fact was {self._id(route)}"
            return f"null route: score {route.score:.2f} under the threshold {route.threshold:.2f}{nearest}"
        if not self.asker.memory.fires(route) or answer is None:
            return f"null route: tune did not accept the fact {self._id(route)}"
        if route.fact != case.fact:
            return f"fact {self._id(route)} fired"
        end = "" if answer.stopped else ", and did not stop"
        return f"right fact fired, but generation said {answer.text[:SHOWN_SAID]!r}{end}"

    def _id(self, route: Route) -> str:
        return self.asker.memory.bank.id_of(route.fact)
