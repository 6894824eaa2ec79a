"""Which stored facts are about what a text names: what a full answer to it would say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from memtune.evidence.truth.terms import Language, Term, terms
from memtune.fact import Fact
from memtune.facts import fold_question

__all__ = ["Subjects"]

Name = tuple[str, ...]


@dataclass
class _Named:
    """The facts that hold a name, and every word of their wordings: none of these beside it makes it another name."""

    facts: set[int] = field(default_factory=set)
    words: set[str] = field(default_factory=set)


class Subjects:
    """An index over the names in the wordings of facts; where a wording names nothing, over its rarest words."""

    def __init__(self, facts: Sequence[Fact], language: Language) -> None:
        self._language = language
        self._asked: defaultdict[str, list[int]] = defaultdict(list)
        self._named: defaultdict[Name, _Named] = defaultdict(_Named)
        self._rare: defaultdict[str, set[int]] = defaultdict(set)
        for number, fact in enumerate(facts):
            for text in fact.wordings:
                self._asked[fold_question(text)].append(number)
                self._add(number, terms(text))
        self._longest = max(map(len, self._named), default=0)

    def _add(self, number: int, text: Sequence[Term]) -> None:
        names = self._language.names(text)
        for name in [name for name in names if any(map(str.isalpha, "".join(name)))] or names:  # 2019 names little
            self._named[name].facts.add(number)
            self._named[name].words.update(term.fold for term in text)
        if not names:
            for stem in self._language.rarest(text):
                self._rare[stem].add(number)

    def about(self, text: str) -> list[int]:
        """Numbers of the facts that share most names with the text, in their order.

        Where the text is itself a wording of stored facts, it asks for these alone.
        """
        if asked := self._asked.get(fold_question(text)):
            return sorted(set(asked))
        shared = Counter(self._sharing(terms(text)))
        most = max(shared.values(), default=0)
        return sorted(number for number, count in shared.items() if count == most)

    def _sharing(self, text: Sequence[Term]) -> Iterator[int]:
        folds = [term.fold for term in text]
        lengths = range(1, self._longest + 1)
        runs = {tuple(folds[i : i + n]) for n in lengths for i in range(len(folds) - n + 1)}
        for name in sorted(runs & self._named.keys()):
            if self._language.is_named(name, text, frozenset(self._named[name].words)):
                yield from self._named[name].facts
        rare = sorted({term.stem for term in text} & self._rare.keys())
        yield from set().union(*(self._rare[stem] for stem in rare))
