"""The questions of every measure: from the facts themselves, from the user's files, made up, or shipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from memtune.errors import DataError, ModelError
from memtune.fact import Fact
from memtune.facts import Asked, fold_question, read_asked
from memtune.measures import Case
from memtune.prompts import Prompts
from memtune.rewordings import Names, near_misses, rewordings
from memtune.visible import show

__all__ = ["QuestionFiles", "Suite", "heldout_prompts", "own_suites", "suites_of_files"]

OTHER_DRAW = 7919  # ingest trained the router on what this package makes up with the seed itself


@dataclass(frozen=True)
class Suite:
    """The cases of one measure. ``source``: given (a file), stored (in the fact file), synthetic or shipped."""

    key: str
    name: str
    group: str
    source: str
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class QuestionFiles:
    """The user's files: other wordings of the facts, questions near them, and questions about something else."""

    paraphrases: Path | None = None
    near_miss: Path | None = None
    unrelated: Path | None = None

    @property
    def named(self) -> dict[str, Path]:
        """Option name to file, of those that are there."""
        every = {"paraphrases": self.paraphrases, "near-miss": self.near_miss, "unrelated": self.unrelated}
        return {name: path for name, path in every.items() if path is not None}


def heldout_prompts() -> tuple[str, ...]:
    """Shipped prompts on anything, in some languages. The router never sees them; ``background.txt`` is its own."""
    return tuple(files("memtune").joinpath("heldout.txt").read_text(encoding="utf-8").splitlines())


def own_suites(facts: Sequence[Fact], names: Names, seed: int) -> list[Suite]:
    """What needs no file: the tuned wordings, those stored beside them, made-up ones, and the shipped prompts."""
    tuned = tuple(Case.alone(fact.question, i, fact.answer) for i, fact in enumerate(facts))
    stored = (Case.alone(text, i, fact.answer) for i, fact in enumerate(facts) for text in fact.paraphrases)
    return [
        Suite("exact", "tuned wording", "recall", "stored", tuned),
        Suite("own-wordings", "own wordings", "recall", "stored", tuple(stored)),
        Suite("reworded", "reworded", "recall", "synthetic", tuple(_reworded(facts, names, seed))),
        Suite("near-miss-synthetic", "near miss", "unchanged", "synthetic", tuple(_near(facts, names, seed))),
        Suite("unrelated-shipped", "unrelated", "unchanged", "shipped", tuple(map(Case.alone, heldout_prompts()))),
    ]


def _reworded(facts: Sequence[Fact], names: Names, seed: int) -> Iterator[Case]:
    for i, fact in enumerate(facts):
        [text] = rewordings(fact.question, names, 1, seed + OTHER_DRAW)
        yield Case.alone(text, i, fact.answer)


def _near(facts: Sequence[Fact], names: Names, seed: int) -> Iterator[Case]:
    """Each fact's question with another fact's subject, or another digit in its code; never a stored wording."""
    seen = _stored(facts)
    questions = [fact.question for fact in facts]
    for fact in facts:
        for text in near_misses(fact.question, questions, names, 1, seed + OTHER_DRAW):
            if fold_question(text) not in seen:
                seen.add(fold_question(text))
                yield Case.alone(text)


def _stored(facts: Sequence[Fact]) -> set[str]:
    return {fold_question(text) for fact in facts for text in fact.wordings}


def suites_of_files(named: QuestionFiles, facts: Sequence[Fact], prompts: Prompts) -> list[Suite]:
    """The measures that the user's files give. Raises DataError with every problem of all the files."""
    reader = _Files(facts, prompts)
    suites = []
    if named.paraphrases is not None:
        suites.append(Suite("paraphrase", "paraphrase", "recall", "given", reader.recall(named.paraphrases)))
    for key, name, path in (("near-miss", "near miss", named.near_miss), ("unrelated", "unrelated", named.unrelated)):
        if path is not None:
            suites.append(Suite(key, name, "unchanged", "given", reader.others(key, path)))
    if reader.problems:
        raise DataError(reader.problems, hint="fix the lines above, then run memtune eval again")
    return suites


@dataclass
class _Files:
    """Reads rows as cases, against the facts of the project, and gathers what is wrong with them."""

    facts: Sequence[Fact]
    prompts: Prompts
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        numbered = list(enumerate(self.facts))
        self._by_id = {fact.id: i for i, fact in numbered}
        self._by_question = {fold_question(text): i for i, fact in numbered for text in fact.wordings}
        self._by_answer = {fact.answer: i for i, fact in reversed(numbered)}

    def recall(self, path: Path) -> tuple[Case, ...]:
        """The wordings of a file, each with the fact that it asks for."""
        return tuple(case for row in read_asked(path, command="memtune eval --paraphrases") for case in self._row(row))

    def others(self, option: str, path: Path) -> tuple[Case, ...]:
        """The questions of a file that no fact answers."""
        rows = read_asked(path, command=f"memtune eval --{option}")
        return tuple(Case.alone(row.question) for row in rows if self._askable(row, row.question))

    def _row(self, row: Asked) -> Iterator[Case]:
        number = self._fact(row)
        if number is None:
            return
        answer = self.facts[number].answer
        if row.answer and row.answer != answer:
            shown = f"{show(row.answer)} here, {show(answer)} was tuned"
            self.problems.append(f"{row.place}: another answer than the fact {show(self.facts[number].id)}: {shown}")
            return
        for text in row.paraphrases or (row.question,):
            if self._askable(row, text):
                yield Case.alone(text, number, answer)

    def _fact(self, row: Asked) -> int | None:
        """Number of the fact that the row asks for; where there is none, a problem."""
        if row.id:
            found, wanted = self._by_id.get(row.id), f"id {show(row.id)}"
        elif row.paraphrases:
            found, wanted = self._by_question.get(fold_question(row.question)), f"question {show(row.question)}"
        elif row.answer:
            found, wanted = self._by_answer.get(row.answer), f"answer {show(row.answer)}"
        else:
            self.problems.append(f"{row.place}: names neither the id of a fact nor an answer: {show(row.question)}")
            return None
        if found is None:
            self.problems.append(f"{row.place}: no fact of the project has the {wanted}")
        return found

    def _askable(self, row: Asked, text: str) -> bool:
        try:
            return bool(self.prompts.question(text))
        except ModelError as error:
            self.problems.append(f"{row.place}: {error}")
            return False
