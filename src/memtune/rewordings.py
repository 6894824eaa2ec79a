"""Synthetic rewordings of a question: what the gate learns to accept when the file has no paraphrases of its own.

They change what a person changes without asking for something else: case, end punctuation, frequent words, order, a
polite wrapper. Rare words and everything that looks like a name stay.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

__all__ = ["rewordings"]

_WRAPPERS = (
    "Can you tell me {}",
    "I would like to know {}",
    "Please answer this: {}",
    "{} Thanks!",
    "Quick question: {}",
    "Hi, {}",
    "do you know {}",
    "{} Please answer briefly.",
)
_LEADS = ("the name of", "exactly", "please", "actually", "currently", "again")

Keep = Callable[[str], bool]


def rewordings(question: str, keep: Keep, count: int, seed: int) -> list[str]:
    """``count`` rewordings, reproducible for a seed. ``keep(word)`` says that a word must not be dropped or replaced."""
    draw = random.Random(f"{seed}:{question}")
    made = []
    for _ in range(count):
        words = question.split()
        for change in draw.sample(_CHANGES, k=draw.choice((1, 2, 2, 3))):
            words = change(words, keep, draw) or words
        made.append(" ".join(words))
    return made


def _drop(words: list[str], keep: Keep, draw: random.Random) -> list[str]:
    share = draw.uniform(0.2, 0.8)
    return [word for word in words if keep(word) or draw.random() > share]


def _swap(words: list[str], keep: Keep, draw: random.Random) -> list[str]:
    free = [i for i in range(len(words) - 1) if not (keep(words[i]) and keep(words[i + 1]))]
    if not free:
        return words
    i = draw.choice(free)
    return [*words[:i], words[i + 1], words[i], *words[i + 2 :]]


def _exchange(words: list[str], keep: Keep, draw: random.Random) -> list[str]:
    cuts = [i for i in range(1, len(words)) if not (keep(words[i - 1]) and keep(words[i]))]
    if not cuts:
        return words
    cut = draw.choice(cuts)
    return words[cut:] + words[:cut]


def _wrap(words: list[str], keep: Keep, draw: random.Random) -> list[str]:
    return draw.choice(_WRAPPERS).format(" ".join(words)).split()


def _lower(words: list[str], keep: Keep, draw: random.Random) -> list[str]:
    return " ".join(words).lower().split()


def _end(words: list[str], keep: Keep, draw: random.Random) -> list[str]:
    bare = re.sub(r"[?.!。？]+$", "", " ".join(words))
    return (bare + draw.choice(("", ".", "?", "??", " ?"))).split()


def _insert(words: list[str], keep: Keep, draw: random.Random) -> list[str]:
    free = [i for i in range(len(words) + 1) if i == len(words) or not keep(words[i])]
    i = draw.choice(free)
    return [*words[:i], draw.choice(_LEADS), *words[i:]]


def _typo(words: list[str], keep: Keep, draw: random.Random) -> list[str]:
    free = [i for i, word in enumerate(words) if not keep(word) and len(word) > 3]
    if not free:
        return words
    i = draw.choice(free)
    j = draw.randrange(1, len(words[i]) - 1)
    word = words[i]
    return [*words[:i], word[: j - 1] + word[j] + word[j - 1] + word[j + 1 :], *words[i + 1 :]]


_CHANGES = (_drop, _drop, _swap, _exchange, _wrap, _lower, _end, _insert, _typo)
