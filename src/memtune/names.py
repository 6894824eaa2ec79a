"""Which words of a question name the thing that it asks about."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import groupby

from memtune.memory.questions import Reader
from memtune.memory.words import BUCKETS, CAPITAL, NAME, PLAIN, kind_of, word_bucket

__all__ = ["NameFinder", "name_runs"]

UNSEEN = 1  # a word in so few of the documents belongs to the name beside it: the bahaba in Chinese bahaba
RARE = 0.002  # a word in fewer of the documents than this may be a name, where no capital or digit tells
COMMON = 0.01  # a word in so many of the documents names nothing by itself, whatever its capital: What do I do?
OWN = 0.05  # and in fewer of the user's own questions, if it opens one or no document speaks their language


@dataclass(frozen=True)
class NameFinder:
    """``counts``: documents that hold a word, by bucket; ``documents``: how many there are. ``own`` and ``questions``:
    the same of the user's own questions, which may be in another language.
    """

    counts: list[float]
    documents: float
    own: list[float] = field(default_factory=lambda: [0.0] * BUCKETS)
    questions: float = 0.0

    @classmethod
    def of(cls, reader: Reader) -> NameFinder:
        return cls(reader.counts.tolist(), reader.documents)

    def __call__(self, words: list[str]) -> list[bool]:
        """A flag for each word: capitals and digits, or, where there are none, the rare ones.

        The word that opens a sentence has a capital anyway: it belongs to a name if it is rare, also among the
        user's questions; "Wer" opens many of a German file and few of the documents.
        """
        cores = [re.sub(r"^\W+|\W+$", "", word) for word in words]
        kinds = [kind_of(" ".join(words[:i]), core) if core else PLAIN for i, core in enumerate(cores)]
        if self._is_foreign(cores):  # there every word is rare: the one that asks, and the one beside a name
            named = [kind >= NAME for kind in kinds]
            return named if any(named) else [self._is_own(core) for core in cores]
        rare = [bool(core) and self._is_rare(core) for core in cores]
        opens = [
            kind == CAPITAL and few and self._is_own(core) for kind, few, core in zip(kinds, rare, cores, strict=True)
        ]
        inside = self._with_neighbours([kind >= NAME for kind in kinds], cores)
        flags = self._telling([one or other for one, other in zip(inside, opens, strict=True)], cores)
        return flags if any(flags) else rare

    def _is_foreign(self, cores: list[str]) -> bool:
        """Most of its words are in none of the documents."""
        unseen = [self._unseen(core) for core in cores if core]
        return sum(unseen) > len(unseen) / 2

    def _is_own(self, core: str) -> bool:
        return bool(core) and self.own[word_bucket(core.casefold())] <= max(1.0, OWN * self.questions)

    def _unseen(self, core: str) -> bool:
        return self.counts[word_bucket(core.casefold())] <= UNSEEN

    def _with_neighbours(self, flags: list[bool], cores: list[str]) -> list[bool]:
        unseen = [bool(core) and self._unseen(core) for core in cores]
        for i in range(1, len(flags)):
            flags[i] = flags[i] or (unseen[i] and flags[i - 1])
        for i in reversed(range(len(flags) - 1)):
            flags[i] = flags[i] or (unseen[i] and flags[i + 1])
        return flags

    def _telling(self, flags: list[bool], cores: list[str]) -> list[bool]:
        """Without the runs in which every word is common."""
        told = {i for run in _runs(flags) if not all(self._is_common(cores[i]) for i in run) for i in run}
        return [i in told for i in range(len(flags))]

    def _is_common(self, core: str) -> bool:
        return core.isalpha() and self.counts[word_bucket(core.casefold())] >= COMMON * self.documents

    def _is_rare(self, word: str) -> bool:
        return self.counts[word_bucket(word.casefold())] <= RARE * self.documents


def name_runs(words: list[str], flags: list[bool]) -> list[range]:
    """The places of each name, whose words have a flag. A word between two that have a capital is part of it.

    >>> name_runs("Where was Diego de Rosales born".split(), [False, False, True, False, True, False])
    [range(2, 5)]
    """
    proper = [flag and word != word.lower() for flag, word in zip(flags, words, strict=True)]
    around = zip([False, *proper[:-1]], flags, [*proper[1:], False], strict=True)
    return _runs([flag or (before and after) for before, flag, after in around])


def _runs(flags: list[bool]) -> list[range]:
    places = ([i for i, _ in run] for flag, run in groupby(enumerate(flags), key=lambda place: place[1]) if flag)
    return [range(run[0], run[-1] + 1) for run in places]
