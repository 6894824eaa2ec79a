"""What is put around a question: other text, a system prompt, earlier turns; and small changes to the question itself.

A condition makes the conversation in which a case is asked, or None where it makes no sense for that question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files

from memtune.asking import said_by
from memtune.fact import Fact
from memtune.measures import Case
from memtune.memory.questions import Reader
from memtune.memory.words import word_bucket
from memtune.names import NameFinder
from memtune.prompts import Prompts
from memtune.rewordings import Names

__all__ = ["CONDITIONS", "Condition", "Surroundings", "passage_lines", "typo"]

SYSTEM = "You are a careful assistant. Answer in the language of the question, and say so when you are not sure."
QUESTION_MARKS = "?？؟;⸮ "
STEP = 7  # sentences between the passages of two questions that follow each other
SHORTEST_TYPO = 4  # letters


@dataclass(frozen=True)
class Surroundings:
    """What conditions are made of. ``frequency`` says in how many texts a word stands."""

    prompts: Prompts
    facts: Sequence[Fact]
    names: Names
    frequency: Callable[[str], float]

    @classmethod
    def of(cls, prompts: Prompts, facts: Sequence[Fact], reader: Reader) -> Surroundings:
        """Names and frequencies as the router's reader counts them."""
        return cls(prompts, facts, NameFinder.of(reader), lambda word: float(reader.counts[word_bucket(word)]))

    def passage(self, number: int, tokens: int) -> str:
        """Whole sentences of the shipped text, near ``tokens`` tokens in all, others for each ``number``."""
        lines = passage_lines()
        text, length = "", 0
        for place in range(len(lines)):
            longer = f"{text} {lines[(number * STEP + place) % len(lines)]}".strip()
            grown = len(self.prompts.ids(longer))
            if text and abs(grown - tokens) >= abs(length - tokens):
                break
            text, length = longer, grown
        return text


Build = Callable[[Case, int, Surroundings], Case | None]


@dataclass(frozen=True)
class Condition:
    """``build`` puts a case, the ``number``-th of its measure, into the condition."""

    key: str
    name: str
    build: Build
    chat_only: bool = False  # makes no sense without a chat template


@cache
def passage_lines() -> tuple[str, ...]:
    """The shipped distracting text, one sentence each."""
    return tuple(files("memtune").joinpath("passages.txt").read_text(encoding="utf-8").splitlines())


def _behind_text(case: Case, number: int, around: Surroundings, *, tokens: int) -> Case | None:
    """Every second passage ends in a paragraph of its own, the others run straight into the question."""
    passage, question = around.passage(number, tokens), case.turns[-1]["content"]
    gap = "\n\n" if number % 2 or not around.prompts.has_template else " "
    return case.among([said_by("user", f"{passage}{gap}{question}")])


def _behind_system(case: Case, number: int, around: Surroundings) -> Case | None:
    return case.among([said_by("system", SYSTEM), *case.turns])


def _behind_turn(case: Case, number: int, around: Surroundings) -> Case | None:
    """Another fact was asked and answered before, for each question another one."""
    others = [fact for i, fact in enumerate(around.facts) if i != case.fact]
    if not others:
        return None
    other = others[number % len(others)]
    return case.among([said_by("user", other.question), said_by("assistant", other.answer), *case.turns])


def _reworded(case: Case, question: str) -> Case | None:
    return None if question == case.question or not question else Case.alone(question, case.fact, case.expected)


def _lower(case: Case, number: int, around: Surroundings) -> Case | None:
    return _reworded(case, case.question.lower())


def _no_mark(case: Case, number: int, around: Surroundings) -> Case | None:
    return _reworded(case, case.question.rstrip(QUESTION_MARKS))


def _mistyped(case: Case, number: int, around: Surroundings) -> Case | None:
    return _reworded(case, typo(case.question, around.names, around.frequency))


def typo(question: str, names: Names, frequency: Callable[[str], float]) -> str:
    """Two letters change places in the most frequent word that is all small letters and no name; else no change.

    >>> typo("Where does tram 12 end?", lambda words: [word == "tram" for word in words], len)
    'Wehre does tram 12 end?'
    """
    words = question.split()
    free = [i for i, (word, name) in enumerate(zip(words, names(words), strict=True)) if not name and _plain(word, i)]
    for i in sorted(free, key=lambda i: -frequency(words[i].lower())):
        word = words[i]
        for j in range(1, len(word) - 1):
            if word[j] != word[j + 1]:
                words[i] = word[:j] + word[j + 1] + word[j] + word[j + 2 :]
                return " ".join(words)
    return question


def _plain(word: str, place: int) -> bool:
    """Small letters only, a capital at the start of the question aside: no name and no code looks like that."""
    rest = word[1:] if place == 0 else word
    return len(word) >= SHORTEST_TYPO and word.isalpha() and rest.islower()


CONDITIONS = (
    Condition("text-50", "behind 50 tokens of other text", partial(_behind_text, tokens=50)),
    Condition("text-200", "behind 200 tokens of other text", partial(_behind_text, tokens=200)),
    Condition("system", "behind a system prompt", _behind_system, chat_only=True),
    Condition("earlier-turn", "behind a turn on another fact", _behind_turn),
    Condition("lower-case", "in lower case", _lower),
    Condition("no-question-mark", "without question mark", _no_mark),
    Condition("typo", "with a typo in a common word", _mistyped),
)
