"""What the gate learns before it sees a user's facts: questions written for the purpose, and which ask the same.

``prior/*.jsonl`` holds relations (one meaning, many wordings with a place for a name), names that look alike,
self-contained questions with their near misses, and words that may stand around any question: those of another task
("Translate: ...") and those that change nothing ("Tell me: ..."). From them come pairs that ask the same and pairs that
do not: another name, another relation of the same name, another task. No row of any test set is in them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["FOLDS", "Lessons", "Wrapped", "background_prompts", "lessons", "spread"]

NAME_PAIRS = 3  # look-alike names a topic; few, so that many relations are asked of one name
TASK_SHARE = 0.25
NO_FAMILY = -1
FOLDS = 3  # what is learned from the lessons is read off those that it was not learned from
TASKS = (
    "Translate this question: {}",
    "How many words are in this question: {}",
    "Is it true that somebody asked: {}",
    "Repeat after me: {}",
    "Write a poem about this: {}",
    "Rephrase the question: {}",
)


@dataclass(frozen=True)
class Wrapped:
    """A ``text`` with words around it, and the number of another (or the same) that asks what stands inside."""

    text: str
    stored: int
    task: bool  # the words ask for something to be done with it, or they change nothing


@dataclass(frozen=True)
class Lessons:
    """``texts``, the ``family`` of each (texts of one family ask the same of their names; -1: no family) and the name
    in it; pairs of text numbers that ask for the same answer, and pairs that do not; texts with words around them.

    Those of family f stand in every FOLDS-th of the ways, from f % FOLDS on, so that no fold knows those of another.
    """

    texts: tuple[str, ...]
    family: tuple[int, ...]
    named: tuple[str, ...]  # the name that was put in, "" where none was
    same: tuple[tuple[int, int], ...]
    different: tuple[tuple[int, int], ...]
    wrapped: tuple[Wrapped, ...]

    @property
    def digest(self) -> str:
        """Changes with any text or pair."""
        wrapped = [list(vars(one).values()) for one in self.wrapped]
        return hashlib.sha256(json.dumps([self.texts, self.same, self.different, wrapped]).encode()).hexdigest()


def spread(count: int, most: int) -> range:
    """At most ``most`` of ``count`` numbers, evenly.

    >>> list(spread(7, 4))
    [0, 2, 4, 6]
    """
    return range(0, count, max(1, -(-count // most)))


@cache
def background_prompts() -> tuple[str, ...]:
    """What people ask that is stored nowhere: 2,600 prompts on everything, 600 of them in some 20 languages."""
    return tuple(files("memtune").joinpath("background.txt").read_text(encoding="utf-8").splitlines())


@cache
def lessons() -> Lessons:
    """All lessons, the same at every call and on every machine."""
    return _Writer(random.Random(0)).write()


def _rows(kind: str) -> list[dict[str, Any]]:
    return [row for row in _all_rows() if row["kind"] == kind]


@cache
def _all_rows() -> tuple[dict[str, Any], ...]:
    sources = sorted(files("memtune").joinpath("prior").iterdir(), key=lambda path: path.name)
    lines = [line for path in sources if path.name.endswith(".jsonl") for line in path.read_text("utf-8").splitlines()]
    return tuple(map(json.loads, lines))


class _Wrapper:
    """Puts words around texts, by language."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.ways = {False: self._by_language("wrapper"), True: self._by_language("task")}

    def _by_language(self, kind: str) -> dict[str | None, list[str]]:
        ways: dict[str | None, list[str]] = {}
        for row in _rows(kind):
            ways.setdefault(row.get("language"), []).extend(row["wordings"])
        return ways

    def around(self, texts: list[str], asking: list[int], family: int, language: str | None) -> Iterator[Wrapped]:
        """One of each kind around two of the texts that ask the same, numbered ``asking``."""
        for task, ways in self.ways.items():
            way = self.draw.choice(ways.get(language, ways[None])[family % FOLDS :: FOLDS])
            text = way.format(texts[self.draw.choice(asking)])
            yield Wrapped(text, self.draw.choice(asking), task)


class _Writer:
    """Fills wordings with names and pairs them up."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.texts: list[str] = []
        self.family: list[int] = []
        self.named: list[str] = []
        self.same: list[tuple[int, int]] = []
        self.different: list[tuple[int, int]] = []
        self.wrapped: list[Wrapped] = []
        self.wrapper = _Wrapper(random.Random(0))
        self.families = 0

    def write(self) -> Lessons:
        names = {row["topic"]: row["names"] for row in _rows("names")}
        topics: dict[str, list[dict[str, Any]]] = {}
        for row in _rows("relation"):
            topics.setdefault(row["topic"], []).append(row)
        for topic, relations in topics.items():
            self._topic(relations, self._look_alikes(names[topic]))
        for row in _rows("question"):
            self._question(row["wordings"], row["near"])
        texts, family, named = tuple(self.texts), tuple(self.family), tuple(self.named)
        return Lessons(texts, family, named, tuple(self.same), tuple(self.different), tuple(self.wrapped))

    def _add(self, text: str, name: str = "", family: int | None = None) -> int:
        self.texts.append(text)
        self.family.append(self.families if family is None else family)
        self.named.append(name)
        return len(self.texts) - 1

    def _look_alikes(self, names: list[str]) -> list[tuple[str, str]]:
        chosen = self.draw.sample(names, NAME_PAIRS)
        return [
            (n, max((m for m in names if m != n), key=lambda m: SequenceMatcher(None, m, n).ratio())) for n in chosen
        ]

    def _topic(self, relations: list[dict[str, Any]], pairs: list[tuple[str, str]]) -> None:
        """Every wording is filled once; look-alike names and the other relations of a name are what differs."""
        asked_of: dict[str, list[list[int]]] = {}
        for row in relations:
            wordings = self.draw.sample(row["wordings"], len(row["wordings"]))
            groups = self._relation(wordings, self.draw.sample(pairs, 2))
            for name, numbers in groups.items():
                asked_of.setdefault(name, []).append(numbers)
            asking = next(iter(groups.values()))
            self.wrapped += self.wrapper.around(self.texts, asking, self.families, row.get("language"))
            self.families += 1
        for relations_of_name in asked_of.values():
            for place, mine in enumerate(relations_of_name):
                rest = relations_of_name[:place] + relations_of_name[place + 1 :]
                others = [number for numbers in rest for number in numbers]
                self.different += [(one, two) for one in mine for two in self.draw.sample(others, min(4, len(others)))]

    def _relation(self, wordings: list[str], pairs: list[tuple[str, str]]) -> dict[str, list[int]]:
        """Two names take most of the wordings; each one's look-alike is asked in the words of the first."""
        groups: dict[str, list[int]] = {}
        half = len(wordings) // 2
        for (name, alike), own in zip(pairs, (wordings[:half], wordings[half:]), strict=True):
            numbers = [self._add(wording.format(name), name) for wording in own]
            self.same += [(a, b) for a in numbers for b in numbers if a < b]
            other = self._add(own[0].format(alike), alike)
            self.different += [(number, other) for number in numbers]
            groups.setdefault(name, []).extend(numbers)
            groups.setdefault(alike, []).append(other)
            if self.draw.random() < TASK_SHARE:
                task = self._add(self.draw.choice(TASKS).format(own[0].format(name)), name, family=NO_FAMILY)
                self.different.append((numbers[0], task))
        return groups

    def _question(self, wordings: list[str], near: list[str]) -> None:
        numbers = [self._add(text) for text in wordings[:4]]
        self.same += [(a, b) for a in numbers for b in numbers if a < b]
        self.families += 1
        for text in near[:3]:
            number = self._add(text)
            self.different += [(a, number) for a in numbers[:2]]
            self.families += 1
