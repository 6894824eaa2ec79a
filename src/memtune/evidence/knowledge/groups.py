"""The groups of facts that a model is asked: read from their files, and held against what was taught in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memtune.errors import DataError
from memtune.events import Note, OnEvent
from memtune.evidence.knowledge.exemplars import draw_sets
from memtune.evidence.knowledge.survey import HELD_OUT, TAUGHT, UNRELATED, Method, Survey
from memtune.fact import Fact
from memtune.facts import fold_question, read_facts

__all__ = ["FactFiles", "check_stored", "check_taught", "survey_of"]


@dataclass(frozen=True)
class FactFiles:
    """Facts to teach, facts like them that are not taught, facts about something else; and what is shown before them,
    which else is drawn from all of these.
    """

    taught: str | Path
    held_out: Path | None = None
    unrelated: Path | None = None
    exemplars: Path | None = None


def survey_of(files: FactFiles, method: Method) -> Survey:
    """Raises DataError for a fact that stands in two of the files."""
    named = (
        (TAUGHT, files.taught, "memtune know"),
        (HELD_OUT, files.held_out, "memtune know FACTS --held-out"),
        (UNRELATED, files.unrelated, "memtune know FACTS --unrelated"),
    )
    pairs = [
        (group, fact)
        for group, path, command in named
        if path is not None
        for fact in read_facts(path, command=command)
    ]
    first: dict[str, Fact] = {}
    again = [
        f"{fact.source}: stands at {other.source} too: {fact.question!r}"
        for _, fact in pairs
        if (other := first.setdefault(fold_question(fact.question), fact)) is not fact
    ]
    if again:
        raise DataError(again, hint="a fact is either taught or not: take it out of one of the files")
    facts = tuple(fact for _, fact in pairs)
    pool = facts if files.exemplars is None else read_facts(files.exemplars, command="memtune know FACTS --exemplars")
    exemplars = draw_sets(facts, pool, method.sets, method.shots, method.seed)
    return Survey(facts, tuple(group for group, _ in pairs), exemplars, method)


def check_taught(survey: Survey, facts: Sequence[Fact], before: Path) -> None:
    """Raises DataError where the facts are not those of the survey."""
    surveyed = {(fact.question, fact.answer) for fact in (survey.facts[i] for i in survey.group(TAUGHT))}
    new = [fact for fact in facts if (fact.question, fact.answer) not in surveyed]
    problems = [f"{fact.source}: {before} says nothing of {fact.question!r}" for fact in new]
    if len(facts) - len(new) < len(surveyed):
        problems.append(f"{before}: {len(surveyed) - len(facts) + len(new)} facts of it are not in the file")
    if problems:
        raise DataError(problems, hint="leave FACTS out: the facts are in the file that --compare names")


def check_stored(survey: Survey, stored: Sequence[Fact], on_event: OnEvent) -> None:
    """Raises DataError for a fact that was taught though the survey says that it is not."""
    known = {fold_question(text) for fact in stored for text in fact.wordings}
    inside = [fold_question(fact.question) in known for fact in survey.facts]
    wrong = [
        f"{fact.source}: counted as {group}, but the project holds it: {fact.question!r}"
        for fact, group, there in zip(survey.facts, survey.groups, inside, strict=True)
        if there and group != TAUGHT
    ]
    if wrong:
        raise DataError(wrong, hint="measure again with files as they were taught: memtune know FACTS --without-memory")
    if missing := sum(group == TAUGHT and not there for group, there in zip(survey.groups, inside, strict=True)):
        on_event(Note(f"{missing:,} facts of {len(survey.group(TAUGHT)):,} are not stored in the project"))
