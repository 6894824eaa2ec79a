"""Which words of a question name the thing that it asks about."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memtune.memory.questions import Reader
from memtune.memory.words import CAPITAL, NAME, PLAIN, kind_of, word_bucket

__all__ = ["NameFinder"]

UNSEEN = 1  # a word in so few of the documents belongs to the name beside it: the bahaba in Chinese bahaba
RARE = 0.002  # a word in fewer of the documents than this may be a name, where no capital or digit tells


@dataclass(frozen=True)
class NameFinder:
    """``counts``: documents that hold a word, by bucket; ``documents``: how many there are."""

    counts: list[float]
    documents: float

    @classmethod
    def of(cls, reader: Reader) -> NameFinder:
        return cls(reader.counts.tolist(), reader.documents)

    def __call__(self, words: list[str]) -> list[bool]:
        """A flag for each word: capitals and digits, or, where there are none, the rare ones.

        The word that opens a sentence has a capital anyway: it belongs to a name if it is rare.
        """
        cores = [re.sub(r"^\W+|\W+$", "", word) for word in words]
        kinds = [kind_of(" ".join(words[:i]), core) if core else PLAIN for i, core in enumerate(cores)]
        rare = [bool(core) and self._is_rare(core) for core in cores]
        flags = [kind >= NAME or (kind == CAPITAL and few) for kind, few in zip(kinds, rare, strict=True)]
        return self._with_neighbours(flags, cores) if any(flags) else rare

    def _with_neighbours(self, flags: list[bool], cores: list[str]) -> list[bool]:
        unseen = [bool(core) and self.counts[word_bucket(core.casefold())] <= UNSEEN for core in cores]
        for i in range(1, len(flags)):
            flags[i] = flags[i] or (unseen[i] and flags[i - 1])
        for i in reversed(range(len(flags) - 1)):
            flags[i] = flags[i] or (unseen[i] and flags[i + 1])
        return flags

    def _is_rare(self, word: str) -> bool:
        return self.counts[word_bucket(word.casefold())] <= RARE * self.documents
