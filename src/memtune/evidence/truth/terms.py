"""Words as a statement and a stored fact are compared: whatever their case, accents, endings and thousands marks."""

from __future__ import annotations

import math
import re
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from memtune.lessons import background_prompts

__all__ = ["Language", "Term", "holds", "terms"]

_THOUSANDS = re.compile(r"(?<=\d)[,\u00a0\u202f'’](?=\d{3}(?!\d))")
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
_POSSESSIVE = re.compile(r"(?<=\w)['’]s\b", re.IGNORECASE)
_TERM = re.compile(r"\d+(?:[.:/]\d+)+(?![^\W_])|[^\W_]+")
_JOINT = re.compile(r"[\s\-\u2010-\u2013'’&/]*")  # what may stand inside a name


class Term(NamedTuple):
    """One word or number. ``joined``: nothing but space or a hyphen stands between it and the term before."""

    fold: str
    stem: str
    capital: bool
    digit: bool
    joined: bool


def terms(text: str) -> list[Term]:
    """The terms of a text in their order.

    >>> [term.stem for term in terms("The Curlew 3 costs £1,190.")]
    ['the', 'curlew', '3', 'cost', '1190']
    """
    plain = _DECIMAL_COMMA.sub(".", _THOUSANDS.sub("", _POSSESSIVE.sub("", text)))
    found: list[Term] = []
    end = 0
    for match in _TERM.finditer(plain):
        word = match.group()
        fold = _fold(word)
        joined = bool(found) and _JOINT.fullmatch(plain, end, match.start()) is not None
        capital, digit = any(map(str.isupper, word)), any(map(str.isdigit, word))
        found.append(Term(fold, fold if digit else _stem(fold), capital, digit, joined))
        end = match.end()
    return found


def holds(whole: Sequence[Term], part: Sequence[Term]) -> bool:
    """Whether ``part`` stands in ``whole``, term by term, one behind the other."""
    wanted = [term.stem for term in part]
    stems = [term.stem for term in whole]
    return bool(wanted) and any(stems[i : i + len(wanted)] == wanted for i in range(len(stems) - len(wanted) + 1))


class Language:
    """How much a word tells, counted over the prompts that memtune ships and the user's own wordings: no list of words.

    The information of a word is -ln of the share of texts that hold it; ``average`` is the mean over running words, so
    that "of" and "what" are below it and a name is far above.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        words = [re.findall(r"[^\W_]+", text) for text in (*background_prompts(), *texts)]
        self._texts = len(words)
        self._counts = Counter(fold for line in words for fold in {_fold(word) for word in line})
        self._small = {_fold(word) for line in words for word in line if not any(map(str.isupper, word))}
        running = self._counts.total()
        self.average = sum(count * self._told(count) for count in self._counts.values()) / running

    def information(self, term: Term) -> float:
        return self._told(self._counts[term.fold])

    def tells(self, term: Term) -> bool:
        """Whether the term says more than the average word."""
        return term.digit or self.information(term) > self.average

    def rarest(self, text: Sequence[Term]) -> frozenset[str]:
        """Stems of the terms that tell most."""
        most = max(map(self.information, text), default=0.0)
        return frozenset(term.stem for term in text if self.information(term) == most)

    def _told(self, count: int) -> float:
        return -math.log((count + 1) / (self._texts + 1))

    def name_marks(self, text: Sequence[Term]) -> list[bool]:
        """Which terms are part of a name: digits, and capitals that tell something, unless they only open the text."""
        capitals = [term.capital and self.tells(term) for term in text]
        capitals[:1] = [marked and self._opens_name(text) for marked in capitals[:1]]
        return [term.digit or capital for term, capital in zip(text, capitals, strict=True)]

    def _opens_name(self, text: Sequence[Term]) -> bool:
        first, goes_on = text[0], len(text) > 1 and text[1].capital and text[1].joined
        return goes_on or first.fold not in self._small

    def names(self, text: Sequence[Term]) -> list[tuple[str, ...]]:
        """The names in a text, each as its folded terms: capitals and digits that stand together.

        A number in front of capitals is a name of its own: "in 2019 Halden Tarn" is two.
        """
        marks = self.name_marks(text)
        found: list[list[str]] = []
        for i, term in enumerate(text):
            if not marks[i]:
                continue
            if found and self._goes_on(text, marks, i):
                found[-1].append(term.fold)
            else:
                found.append([term.fold])
        return [tuple(name) for name in found]

    @staticmethod
    def _goes_on(text: Sequence[Term], marks: Sequence[bool], i: int) -> bool:
        number_first = not text[i - 1].capital and not (i > 1 and marks[i - 2] and text[i - 1].joined)
        return marks[i - 1] and text[i].joined and not (number_first and text[i].capital)

    def is_named(self, name: Sequence[str], text: Sequence[Term], also: frozenset[str]) -> bool:
        """Whether the text names just that, in any case: "Curlew 3" is not named by "Curlew 3 Pro" or "Curlew 30".

        ``also``: folded terms that may stand beside it and make no other name.
        """
        marks, folds = self.name_marks(text), [term.fold for term in text]
        places = (i for i in range(len(folds) - len(name) + 1) if folds[i : i + len(name)] == list(name))
        return any(self._stands_alone(text, marks, i, i + len(name), also) for i in places)

    @staticmethod
    def _stands_alone(text: Sequence[Term], marks: Sequence[bool], start: int, end: int, also: frozenset[str]) -> bool:
        longer_left = start > 0 and text[start].joined and marks[start - 1] and text[start - 1].capital
        longer_right = end < len(text) and text[end].joined and marks[end]
        return not (longer_left and text[start - 1].fold not in also) and not (
            longer_right and text[end].fold not in also
        )


def _fold(word: str) -> str:
    marked = unicodedata.normalize("NFKD", word.casefold())
    return "".join(sign for sign in marked if unicodedata.category(sign) != "Mn")


@cache
def _stemmer() -> sqlite3.Connection:
    """SQLite's own stemmer (Porter, for English), which it shows through the vocabulary of a full-text index."""
    db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    db.execute("CREATE VIRTUAL TABLE words USING fts5(word, content='', tokenize='porter unicode61')")
    db.execute("CREATE VIRTUAL TABLE stems USING fts5vocab(words, instance)")
    return db


@cache
def _stem(fold: str) -> str:
    db = _stemmer()
    db.execute("INSERT INTO words(rowid, word) VALUES (1, ?)", (fold,))
    stems = [stem for (stem,) in db.execute("SELECT term FROM stems ORDER BY offset")]
    db.execute("INSERT INTO words(words) VALUES ('delete-all')")
    return "".join(stems) or fold
