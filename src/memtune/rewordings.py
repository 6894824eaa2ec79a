"""Synthetic wordings, made from the user's own questions, that teach the gate what a question may and may not change.

*Rewordings* change what a person changes without asking for something else: case, end punctuation, frequent words,
order, a polite wrapper, a typo. *Near misses* change what makes it another question: the name in it, a digit of a code.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from memtune.names import name_runs

__all__ = ["Names", "fragments", "near_misses", "overlaps", "rewordings"]

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
_FILLERS = ("the name of", "exactly", "please", "actually", "currently", "again")

OVERLAPS = 2
MISSPELT = 0.35  # of the times that it is drawn
_TAIL = re.compile(r"(?:['’]s)?[?!.,;:…，。？！]*$")  # what stands at a name and belongs to the sentence

Words = list[str]
Names = Callable[[Words], list[bool]]  # which words of a question name the thing that is asked about


def rewordings(question: str, names: Names, count: int, seed: int) -> list[str]:
    """``count`` rewordings that keep every name, reproducible for a seed."""
    draw = random.Random(f"{seed}:{question}")
    made = []
    for _ in range(count):
        words = question.split()
        for change in draw.sample(_CHANGES, k=draw.choice((1, 2, 2, 3))):
            words = change(words, names(words), draw) or words
        made.append(" ".join(words))
    return made


def near_misses(question: str, others: Sequence[str], names: Names, count: int, seed: int) -> list[str]:
    """Questions that are not ``question``: ``count`` with another name, if it has one, and a quarter as many, but one
    at least, with another digit of its codes and with another suffix.

    ``others`` lend their names.
    """
    draw = random.Random(f"{seed}:{question}:near")
    words = question.split()
    own = _name_in(words, names)
    made: list[str | None] = []
    if own:
        lines = draw.sample(others, k=min(8 * count, len(others)))
        made += islice(_renamed(words, own, lines, names), count)
    for _ in range(max(1, count // 4)):
        made += [_other_digit(question, draw), _other_suffix(question, draw)]
    return [text for text in dict.fromkeys(made) if text]


def _renamed(words: Words, own: range, lines: Sequence[str], names: Names) -> Iterator[str]:
    """With the name of each of the ``lines``, but for a part of its own or more of it: a Heron logger may be the Heron.

    A line that is all name, such as a whole question in an unknown language, lends none.
    """
    mine = set(_bare([words[i] for i in own]))
    for line in lines:
        other_words = line.split()
        other = _name_in(other_words, names)
        if not other or len(other) == len(other_words):
            continue
        lent = [other_words[i] for i in other]
        theirs = set(_bare(lent))
        if not (mine <= theirs or theirs <= mine):
            yield _put(words, own, lent)


def _bare(words: Words) -> Words:
    """Without the punctuation around them and without case: "Curlew 3?" names what "Curlew 3" does."""
    return [re.sub(r"^\W+|\W+$|['’]s\W*$", "", word).casefold() for word in words]


def overlaps(question: str, others: list[str], names: Names, seed: int) -> list[str]:
    """Questions about something else that share a part of the name, as chance would have it."""
    draw = random.Random(f"{seed}:{question}:overlap")
    words = question.split()
    own = _name_in(words, names)
    if not own:
        return []
    made: list[str] = []
    for line in draw.sample(others, k=min(16, len(others))):
        other_words = line.split()
        other = _name_in(other_words, names)
        if other and len(made) < OVERLAPS:
            count = draw.randint(1, max(1, (own.stop - own.start) - 1))
            first = draw.randint(own.start, own.stop - count)
            made.append(_put(other_words, other, words[first : first + count]))
    return made


def fragments(question: str, names: Names) -> list[str]:
    """What is left of ``question`` when its name goes: it asks for nothing, and nothing may fire on it.

    >>> fragments("Where is Zembla located?", lambda words: [word == "Zembla" for word in words])
    ['Where is located?', 'located?']
    """
    words = question.split()
    own = _name_in(words, names)
    if not own:
        return []
    left = (_put(words, own, []), " ".join(words[own.stop :]), *words[own.stop :][-1:])
    return [text for text in dict.fromkeys(left) if any(map(str.isalnum, text))]


def _put(words: Words, where: range, new: Words) -> str:
    """The ``new`` words in place of others, whose question mark or genitive stays."""
    name = _TAIL.sub("", " ".join(new), count=1)
    tail = _TAIL.search(words[where[-1]])
    put = [name + tail.group()] if name and tail else []
    return " ".join([*words[: where.start], *put, *words[where.stop :]])


def _name_in(words: Words, names: Names) -> range | None:
    """The longest name, or None."""
    return max(name_runs(words, names(words)), key=len, default=None)


def _other_digit(text: str, draw: random.Random) -> str | None:
    digits = [i for i, character in enumerate(text) if character.isdigit()]
    if not digits:
        return None
    i = draw.choice(digits)
    return text[:i] + draw.choice([d for d in "0123456789" if d != text[i]]) + text[i + 1 :]


def _other_suffix(text: str, draw: random.Random) -> str | None:
    """RX4 for RX4b or RX42: what tells two codes apart often stands at their end."""
    codes = [run.end() for run in re.finditer(r"[^\W_]*\d[^\W_]*", text)]
    if not codes:
        return None
    end = draw.choice(codes)
    return text[:end] + draw.choice("abcx0123456789") + text[end:]


def _drop(words: Words, names: list[bool], draw: random.Random) -> Words:
    share = draw.uniform(0.2, 0.7)
    return [word for word, name in zip(words, names, strict=True) if name or draw.random() > share]


def _swap(words: Words, names: list[bool], draw: random.Random) -> Words:
    free = [i for i in range(len(words) - 1) if not (names[i] or names[i + 1])]
    if not free:
        return words
    i = draw.choice(free)
    return [*words[:i], words[i + 1], words[i], *words[i + 2 :]]


def _exchange(words: Words, names: list[bool], draw: random.Random) -> Words:
    cuts = [i for i in range(1, len(words)) if not (names[i - 1] and names[i])]
    if not cuts:
        return words
    cut = draw.choice(cuts)
    return words[cut:] + words[:cut]


def _wrap(words: Words, names: list[bool], draw: random.Random) -> Words:
    return draw.choice(_WRAPPERS).format(" ".join(words)).split()


def _lower(words: Words, names: list[bool], draw: random.Random) -> Words:
    return [word.lower() for word in words]


def _end(words: Words, names: list[bool], draw: random.Random) -> Words:
    bare = re.sub(r"[?.!。？]+$", "", " ".join(words))
    return (bare + draw.choice(("", ".", "?", "??", " ?"))).split()


def _insert(words: Words, names: list[bool], draw: random.Random) -> Words:
    free = [i for i in range(len(words) + 1) if i in (0, len(words)) or not names[i - 1]]
    i = draw.choice(free)
    return [*words[:i], *draw.choice(_FILLERS).split(), *words[i:]]


def _typo(words: Words, names: list[bool], draw: random.Random) -> Words:
    free = [i for i, word in enumerate(words) if not names[i] and len(word) > 3]
    return _transpose(words, free, draw)


def _misspell(words: Words, names: list[bool], draw: random.Random) -> Words:
    """A name with a slip in it, or inflected; now and then, or the gate would take one name for another."""
    if draw.random() > MISSPELT:
        return words
    free = [i for i, word in enumerate(words) if names[i] and len(word) > 5 and word.isalpha()]
    return _transpose(words, free, draw)


def _transpose(words: Words, free: list[int], draw: random.Random) -> Words:
    if not free:
        return words
    i = draw.choice(free)
    word = words[i]
    j = draw.randrange(1, len(word) - 1)
    return [*words[:i], word[:j] + word[j + 1] + word[j] + word[j + 2 :], *words[i + 1 :]]


_CHANGES = (_drop, _drop, _swap, _exchange, _wrap, _lower, _end, _insert, _typo, _misspell)
