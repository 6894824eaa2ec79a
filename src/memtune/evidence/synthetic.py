"""Any number of distinct facts, each with wordings that nobody teaches: for measurements whose subject is size.

The names are made of syllables, so that no model knows an answer; fact i is the same in a file of any size.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from memtune.fact import Fact

__all__ = ["NAMES", "fact", "facts"]

SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]
ENDINGS = ("", "n", "r", "s", "l")
FIRST, LAST = 2, 3  # syllables of the two words of a name
NAMES = (len(SYLLABLES) * len(ENDINGS)) * len(SYLLABLES) ** (FIRST + LAST - 1)
STRIDE = 10_125_871_237  # prime to NAMES: names next to each other in the file have nothing in common

# Question, then wordings that ask the same; {} stands for the name.
RELATIONS: Sequence[tuple[str, ...]] = (
    ("Where was {} born?", "In which town was {} born?", "{} was born in"),
    ("Who is the manager of {}?", "Who manages {}?", "Tell me who runs {}."),
    ("In which year was {} founded?", "When was {} founded?", "What year saw the founding of {}?"),
    ("What is the order code of {}?", "Which code do I order {} under?", "{} is ordered under the code"),
    ("What is the price of {}?", "How much does {} cost?", "What do I pay for {}?"),
    ("Who wrote {}?", "Who is the author of {}?", "{} was written by"),
    ("Which colour does {} have?", "What is the colour of {}?", "How is {} coloured?"),
    ("How heavy is {}?", "What does {} weigh?", "The weight of {} is"),
)
COLOURS = ("slate grey", "cobalt blue", "moss green", "brick red", "amber", "ivory", "charcoal", "copper")


def facts(count: int, seed: int = 0) -> Iterator[Fact]:
    """The first ``count`` facts, one after the other; at most NAMES of them."""
    return (fact(number, seed) for number in range(count))


def fact(number: int, seed: int = 0) -> Fact:
    """Fact ``number``, counted from 0."""
    relation = number % len(RELATIONS)
    name = _name(number)
    question, *wordings = (wording.format(name) for wording in RELATIONS[relation])
    answer = _answer(relation, random.Random(f"{seed}:{number}"))
    return Fact(f"fact-{number}", question, answer, tuple(wordings))


def _name(number: int) -> str:
    """Another name for every number below NAMES: its digits in mixed radix, spelt as syllables."""
    rest, digits = number * STRIDE % NAMES, []
    for _ in range(FIRST + LAST):
        rest, digit = divmod(rest, len(SYLLABLES))
        digits.append(SYLLABLES[digit])
    return "".join(digits[:FIRST]).capitalize() + " " + "".join(digits[FIRST:]).capitalize() + ENDINGS[rest]


def _answer(relation: int, draw: random.Random) -> str:
    person = _name(draw.randrange(NAMES))
    written = (
        lambda: f"In {person.split()[1]}.",
        lambda: person,
        lambda: str(draw.randrange(1700, 2026)),
        lambda: f"{''.join(draw.sample('ABCDEFGHKMNPRSTVX', 2))}-{draw.randrange(1000, 10000)}",
        lambda: f"{draw.randrange(5, 990)} euros",
        lambda: person,
        lambda: draw.choice(COLOURS),
        lambda: f"{draw.randrange(2, 990)} grams",
    )
    return written[relation]()
