"""Whether stored facts support a statement, contradict it, or say nothing about it: by rules, without a model.

The layers, in their order: the best three facts by words (full-text search); the fact's names must be those of the
statement; its answer in the statement supports it; another value for the same thing contradicts it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from itertools import takewhile

from memtune.evidence.search import FactSearch
from memtune.evidence.truth.subjects import Subjects
from memtune.evidence.truth.terms import Language, Term, holds, terms
from memtune.fact import Fact

__all__ = ["Kind", "Verdict", "Verifier"]

ROWS = 3  # facts that are looked at for a statement


class Kind(StrEnum):
    """What the store says of a statement."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    NO_EVIDENCE = "no evidence"


@dataclass(frozen=True)
class Verdict:
    """``fact_id`` and ``answer`` are those of the fact that decided; None and "" where there is no evidence."""

    kind: Kind
    fact_id: str | None = None
    answer: str = ""


NO_EVIDENCE = Verdict(Kind.NO_EVIDENCE)
Terms = Sequence[Term]


@dataclass(frozen=True)
class _Claim:
    """A statement with what it is said in answer to. ``about`` lends names, ``question`` what is asked as well."""

    said: Terms
    question: Terms
    about: Terms


@dataclass(frozen=True)
class _Wording:
    """A wording of a fact: the names in it, and the other words with their information."""

    words: frozenset[str]  # stems
    folds: frozenset[str]
    names: tuple[tuple[str, ...], ...]
    relation: tuple[tuple[str, float], ...]  # (stem, information)
    rarest: frozenset[str]  # what it is about where it names nothing


class Verifier:
    """Reads statements against facts.

    >>> fact = Fact("price", "How much does the Curlew 3 cost?", "£684 excluding VAT.")
    >>> Verifier([fact]).verdict("The Curlew 3 costs £700.").kind.value
    'contradicted'
    """

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.facts = facts
        self.language = Language(text for fact in facts for text in fact.wordings)
        self._search = FactSearch(facts)
        self._wordings = lru_cache(maxsize=4096)(self._read)

    def rows(self, statement: str, *, question: str = "", about: str = "") -> list[int]:
        """Numbers of the facts that a verdict looks at, best first."""
        return self._search.find(f"{statement} {question or about}", ROWS)

    def about(self, text: str) -> list[int]:
        """Numbers of the facts about what a text names, or of those that it asks for."""
        return self._subjects.about(text)

    @cached_property
    def _subjects(self) -> Subjects:
        return Subjects(self.facts, self.language)  # a verdict needs none, so it is made when it is asked for

    def verdict(self, statement: str, *, question: str = "", about: str = "") -> Verdict:
        """What the facts say of one statement.

        ``question``: what the statement answers; it lends the statement its names and what it asks for. ``about``: a
        text that lends names alone, as an earlier statement does to "It costs £684." A statement is contradicted only
        by a fact that gives another value of the same kind (a number, a name, other words) for what the statement, or
        the question before it, speaks of; anything less is no evidence.
        """
        claim = _Claim(terms(statement), terms(question), terms(about))
        asked = self._search.find(question or about, 1)
        rows = self.rows(statement, question=question, about=about)
        found = [self._judged(claim, number, asked=[number] == asked) for number in rows]
        for kind in (Kind.SUPPORTED, Kind.CONTRADICTED):
            for verdict in found:
                if verdict.kind is kind:
                    return verdict
        return NO_EVIDENCE

    def _judged(self, claim: _Claim, number: int, *, asked: bool) -> Verdict:
        """``asked``: of all facts, this is the one that the question asks for by its words."""
        fact = self.facts[number]
        value = terms(fact.answer)
        kinds = {self._by_wording(claim, wording, value, asked=asked) for wording in self._wordings(number)}
        for kind in (Kind.SUPPORTED, Kind.CONTRADICTED):
            if kind in kinds:
                return Verdict(kind, fact.id, fact.answer)
        return NO_EVIDENCE

    def _by_wording(self, claim: _Claim, wording: _Wording, value: Terms, *, asked: bool) -> Kind:
        if not self._same_subject(claim, wording, value):
            return Kind.NO_EVIDENCE
        alone = self._same_subject(_Claim(claim.said, (), ()), wording, value)
        same = self._same_relation((*claim.said, *claim.question), wording)
        about = same or asked or self._same_relation((*claim.said, *claim.about), wording)
        if self._says(claim, value, alone=alone, about=about):
            return Kind.SUPPORTED
        if same and self._says_beginning(claim, wording, value):
            return Kind.SUPPORTED
        if same and self._speaks_of_it(claim, wording, value) and self._says_other(claim, wording, value):
            return Kind.CONTRADICTED
        return Kind.NO_EVIDENCE

    def _same_subject(self, claim: _Claim, wording: _Wording, value: Terms) -> bool:
        """Every name of the wording is named; where it names nothing, its rarest words are there."""
        texts = (claim.said, claim.question, claim.about)
        if not wording.names:
            return any(wording.rarest <= {term.stem for term in text} for text in texts)
        also = wording.folds | {term.fold for term in value}
        return all(any(self.language.is_named(name, text, also) for text in texts) for name in wording.names)

    def _speaks_of_it(self, claim: _Claim, wording: _Wording, value: Terms) -> bool:
        """The subject is not merely lent by an earlier statement while this one names another."""
        marks = zip(claim.said, self.language.name_marks(claim.said), strict=True)
        names_none = not any(named and term.capital for term, named in marks)
        return names_none or self._same_subject(_Claim(claim.said, claim.question, ()), wording, value)

    @staticmethod
    def _same_relation(text: Terms, wording: _Wording) -> bool:
        """Of what the wording's other words tell, no smaller part is in the text than is not."""
        heard = {term.stem for term in text}
        told = sum(information for stem, information in wording.relation if stem in heard)
        return 2 * told >= sum(information for _, information in wording.relation)

    def _says(self, claim: _Claim, value: Terms, *, alone: bool, about: bool) -> bool:
        """The answer stands in the statement, or the statement in the answer.

        Unless that is what is spoken of (``about``), it proves something only if the statement itself names the subject
        (``alone``) and the answer is more than a word: "37" is an address, and a weight too.
        """
        short, long = sorted((value, claim.said), key=len)
        telling = about or (alone and len(short) > 1)
        return telling and holds(long, short) and any(map(self.language.tells, short))

    def _says_beginning(self, claim: _Claim, wording: _Wording, value: Terms) -> bool:
        """One end of the statement is how the answer begins, and it adds no other number, name or, without, word."""
        added = self._added(claim, wording)
        numbers_and_names = {term.stem for term, named in added if named}
        values = numbers_and_names or {term.stem for term, _ in added}
        stems, begins = [term.stem for term in claim.said], [term.stem for term in value]
        lengths = range(1, min(len(stems), len(begins)) + 1)
        runs = [begins[:n] for n in lengths if begins[:n] in (stems[:n], stems[-n:])]
        return bool(values) and any(values <= set(run) for run in runs)

    def _says_other(self, claim: _Claim, wording: _Wording, value: Terms) -> bool:
        """It gives another value of the answer's kind: a number or a name that is not in it, or none of its words.

        It does not give all of the answer's own numbers or names as well: "In 2019 it cost £684."
        """
        of_kind = _kind_of(value)
        stored = {term.stem for term in value}
        values = {term.stem for term, named in self._added(claim, wording) if of_kind is None or of_kind(term, named)}
        if of_kind is None:
            return bool(values) and not values & stored
        own = {term.stem for term in value if of_kind(term, term.capital or term.digit)}
        return bool(values - stored) and not own <= {term.stem for term in claim.said}

    def _added(self, claim: _Claim, wording: _Wording) -> list[tuple[Term, bool]]:
        """What the statement adds to the wording and the question, common words aside; whether it is in a name."""
        known = wording.words | {term.stem for term in claim.question}
        marked = zip(claim.said, self.language.name_marks(claim.said), strict=True)
        return [(term, named) for term, named in marked if term.stem not in known and self.language.tells(term)]

    def _read(self, number: int) -> tuple[_Wording, ...]:
        return tuple(self._wording(terms(text)) for text in self.facts[number].wordings)

    def _wording(self, text: Terms) -> _Wording:
        marks = self.language.name_marks(text)
        told = {term.stem: self.language.information(term) for term in text}
        rest = {term for term, mark in zip(text, marks, strict=True) if not mark}
        telling = {term for term in rest if self.language.tells(term)} or rest
        return _Wording(
            words=frozenset(told),
            folds=frozenset(term.fold for term in text),
            names=tuple(dict.fromkeys(self.language.names(text))),
            relation=tuple(sorted({(term.stem, told[term.stem]) for term in telling})),
            rarest=self.language.rarest(text),
        )


def _kind_of(value: Terms) -> Callable[[Term, bool], bool] | None:
    """Whether a term, part of a name or not, is of the answer's kind: that of its first number or name.

    None: it has neither, and any word may be meant.
    One capital that opens the answer is no name: "Pale orange." The digits of a code belong to its name: "SK-20714".
    """
    for i, term in enumerate(value):
        if term.digit:
            return lambda term, _named: term.digit
        if term.capital and (i > 0 or (len(value) > 1 and value[1].capital)):
            rest = takewhile(lambda part: part.joined and (part.capital or part.digit), value[i + 1 :])
            code = any(part.digit for part in rest)
            return lambda term, named: named and (code or term.capital)
    return None
