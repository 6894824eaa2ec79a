"""Reading a project's facts and their history; no model is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memtune.fact import Fact, PackedFacts, facts_to_jsonl
from memtune.history import Entry, History
from memtune.memory.bank import Bank
from memtune.project import Project
from memtune.store import load_facts, load_memory, numbers_of

__all__ = ["ListedFact", "Listing", "Log", "fact_of", "facts_at", "history", "jsonl", "list_facts"]


@dataclass(frozen=True)
class ListedFact:
    """``loss``: mean answer-token loss in nats that acceptance measured, None where it was never fitted."""

    id: str
    question: str
    answer: str
    paraphrases: tuple[str, ...]
    source: str
    learned: bool | None  # None for a fact of an earlier state
    loss: float | None


@dataclass(frozen=True)
class Listing:
    """``lost``: ids of facts that there were then and that have been forgotten since."""

    facts: tuple[ListedFact, ...]
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Log:
    changes: tuple[Entry, ...]


def list_facts(project_dir: Path, ids: Sequence[str] | None = None) -> Listing:
    """The facts in their order, or those with these ids. Raises ProjectError, DataError for ids that are not there."""
    project = Project(project_dir)
    bank, facts = load_memory(project).bank, load_facts(project)
    numbers = range(len(facts)) if ids is None else numbers_of(project, bank, ids)
    return Listing(tuple(_listed(facts[number], bank, number) for number in numbers))


def fact_of(project_dir: Path, id: str) -> Fact:
    project = Project(project_dir)
    return load_facts(project)[numbers_of(project, load_memory(project).bank, [id])[0]]


def facts_at(project_dir: Path, moment: str) -> Listing:
    """The facts at a time, or after the change with that number. Raises ProjectError where there were none yet."""
    project = Project(project_dir)
    past = History(project)
    facts, lost = past.facts_after(past.entry_at(moment), load_facts(project))
    return Listing(
        tuple(ListedFact(f.id, f.question, f.answer, f.paraphrases, f.source, None, None) for f in facts), tuple(lost)
    )


def history(project_dir: Path) -> Log:
    project = Project(project_dir)
    project.need("ingest", "memtune ingest FACTS")
    return Log(tuple(History(project).entries))


def jsonl(project_dir: Path) -> Iterator[str]:
    """Line by line, as ingest reads facts."""
    facts: PackedFacts = load_facts(Project(project_dir))
    return (facts_to_jsonl([fact]).rstrip("\n") for fact in facts)


def _listed(fact: Fact, bank: Bank, number: int) -> ListedFact:
    loss = float(bank.loss[number])
    learned = bool(bank.accepted[number])
    fitted = loss if loss != float("inf") else None
    return ListedFact(fact.id, fact.question, fact.answer, fact.paraphrases, fact.source, learned, fitted)
