"""What is asked of a model, and what it knew of it: together a file that a later measurement is held against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from memtune.errors import ConfigError, DataError
from memtune.evidence.knowledge.exemplars import Sets
from memtune.evidence.knowledge.fewshot import Exemplar
from memtune.evidence.knowledge.slick import CATEGORIES, Knowledge
from memtune.fact import Fact
from memtune.project import finite, write_beside

__all__ = ["GROUPS", "KnowResult", "Measured", "Method", "Survey", "read_record", "write_record"]

FORMAT = 1
GROUPS = TAUGHT, HELD_OUT, UNRELATED = "taught", "held out", "unrelated"


@dataclass(frozen=True)
class Method:
    """How facts are asked: behind so many sets of so many exemplars, in this format, exactly or by sampling."""

    sets: int = 4
    shots: int = 4
    format: str = "template"
    sampled: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("sets", self.sets), ("shots", self.shots)):
            if value < 1:
                raise ConfigError(f"{name} is {value}", hint=f"--{name} takes a number, 1 or more")


@dataclass(frozen=True)
class Survey:
    """Facts, each in its group, and the exemplars that stand before them."""

    facts: tuple[Fact, ...]
    groups: tuple[str, ...]
    exemplars: Sets
    method: Method

    def group(self, name: str) -> list[int]:
        return [i for i, group in enumerate(self.groups) if group == name]


@dataclass(frozen=True)
class Measured:
    """What one model knew. ``memory``: how many learned facts its memory held, None without one."""

    model: str
    fingerprint: str
    memory: int | None
    known: tuple[Knowledge, ...]


@dataclass(frozen=True)
class KnowResult:
    """``survey`` put to one model."""

    survey: Survey
    measured: Measured
    seconds: float


def write_record(result: KnowResult, path: Path) -> None:
    """The result as a file of JSON, whole or as it was before."""
    record = {"format": FORMAT} | asdict(result)
    write_beside(path, (json.dumps(finite(record), indent=1, ensure_ascii=False) + "\n").encode())


def read_record(path: Path) -> KnowResult:
    """What ``write_record`` wrote. Raises DataError for anything else."""
    try:
        record = json.loads(path.read_bytes())
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']!r}, not {FORMAT}")
        survey, measured = _survey(record["survey"]), _measured(record["measured"])
        if len(measured.known) != len(survey.facts):
            raise ValueError("not every fact was measured")
        return KnowResult(survey, measured, float(record["seconds"]))
    except OSError as error:
        raise DataError([f"{path}: {error.strerror}"], hint="make it: memtune know FACTS --save FILE") from error
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, ConfigError) as error:
        problem = f"{path}: not what memtune know --save writes ({type(error).__name__}: {error})"
        raise DataError([problem], hint="make it anew: memtune know FACTS --save FILE") from error


def _survey(entries: Mapping[str, Any]) -> Survey:
    facts = tuple(_fact(fact) for fact in entries["facts"])
    sets = tuple(tuple(Exemplar(**_texts(one)) for one in shown) for shown in entries["exemplars"]["sets"])
    of = tuple(tuple(map(int, numbers)) for numbers in entries["exemplars"]["of"])
    groups = tuple(entries["groups"])
    if not len(facts) == len(groups) == len(of) or not set(groups) <= set(GROUPS):
        raise ValueError("facts, groups and sets are not as many, or of another kind")
    if not all(numbers and min(numbers) >= 0 and max(numbers) < len(sets) for numbers in of):
        raise ValueError("a fact names a set that is not there")
    return Survey(facts, groups, Sets(sets, of), Method(**_typed(Method, entries["method"])))


def _fact(entries: Mapping[str, Any]) -> Fact:
    plain = _texts({name: value for name, value in entries.items() if name != "paraphrases"})
    return Fact(**plain, paraphrases=tuple(map(str, entries["paraphrases"])))


def _texts(entries: Mapping[str, Any]) -> dict[str, str]:
    if not all(isinstance(value, str) for value in entries.values()):
        raise TypeError("a question or an answer is no text")
    return dict(entries)


def _typed(cls: type, entries: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {field.name: type(getattr(cls, field.name)) for field in fields(cls)}
    if not all(type(value) is kinds.get(name) for name, value in entries.items()):
        raise TypeError("a setting is of another kind")
    return dict(entries)


def _measured(entries: Mapping[str, Any]) -> Measured:
    known = tuple(_knowledge(one) for one in entries["known"])
    memory = entries["memory"]
    return Measured(str(entries["model"]), str(entries["fingerprint"]), None if memory is None else int(memory), known)


def _knowledge(entries: Mapping[str, Any]) -> Knowledge:
    greedy, sampled, any_right = (float(entries[name]) for name in ("greedy", "sampled", "any"))
    if entries["category"] not in CATEGORIES or not all(0 <= chance <= 1 for chance in (greedy, sampled, any_right)):
        raise ValueError("a category or a chance is none")
    return Knowledge(entries["category"], greedy, sampled, any_right, bool(entries["alone"]))
