"""What ``project.json`` may say: a project may come from somebody else, and its state is read before anything else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from memtune.errors import RESTORE, ProjectError
from memtune.visible import show

__all__ = ["SETTINGS", "Record", "check_state", "made_with"]

Kind = TypeVar("Kind")
TEXT, COUNT, FIGURE = (str,), (int,), (int, float, type(None))
# Of the entries that a command reads again; the rest is told to people alone.
KINDS: dict[str, dict[str, tuple[type, ...]]] = {
    "model": dict.fromkeys(("name", "location", "fingerprint", "device", "dtype"), TEXT) | {"sketch": (dict,)},
    "ingest": {"model": TEXT} | dict.fromkeys(("facts", "experts"), COUNT),
    "tune": dict.fromkeys(("facts", "learned"), COUNT),
    "router": dict.fromkeys(("facts", "changed"), COUNT),
}
FIGURES = ("expected_recall", "expected_false_fire", "threshold", "until_loss", "loss_max", "loss_median", "false_fire")
# Where the settings stand that a project was made with, by their names in Config.
SETTINGS = {
    "model": ("model", "name"),
    "device": ("model", "device"),
    "dtype": ("model", "dtype"),
    "rows": ("memory", "bank", "rows"),
    "false_fire": ("router", "false_fire"),
    "seed": ("seed",),
}
_FILE = re.compile(r"\w+-[0-9a-f]{16}\.\w+")  # a name, no path: what project.keep makes


class Record(dict[str, Any]):
    """What a command left. An entry that is not there is a ProjectError with ``place``."""

    def __init__(self, entries: Mapping[str, Any], place: str) -> None:
        super().__init__(entries)
        self._place = place

    def __missing__(self, key: str) -> Any:
        raise ProjectError(f"{self._place} has no {key}", hint=RESTORE)

    def figure(self, key: str) -> float:
        """Raises ProjectError where the entry is no number."""
        value = self[key]
        if type(value) not in (int, float):
            raise self._other(key)
        return float(value)

    def each(self, key: str, kind: Callable[..., Kind]) -> tuple[Kind, ...]:
        """The objects of a list. Raises ProjectError where one of them is not what ``kind`` takes."""
        try:
            return tuple(kind(**entries) for entries in self[key])
        except TypeError as error:
            raise self._other(key) from error

    def _other(self, key: str) -> ProjectError:
        return ProjectError(f"{self._place}: {key} is {show(self[key])}", hint=RESTORE)


def made_with(state: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that ingest made the project with; one that the state does not say is left out."""
    found = {name: _entry(state, path) for name, path in SETTINGS.items()}
    return {name: value for name, value in found.items() if value is not None}


def _entry(place: Any, path: Iterable[str]) -> Any:
    for key in path:
        place = place.get(key) if isinstance(place, Mapping) else None
    return place


def check_state(state: Mapping[str, Any]) -> None:
    """Raises ValueError where an entry is of another kind than memtune writes."""
    for name, usual in (("seed", 0), ("erasing", False)):
        if type(state.get(name, usual)) is not type(usual):
            raise ValueError(f"{name} is {show(state[name])}")
    for stage, kinds in KINDS.items():
        record = state.get(stage)
        if record is not None:
            _check_record(stage, record, kinds | dict.fromkeys(FIGURES, FIGURE))
    exports = state.get("exports", [])
    for record in exports if isinstance(exports, list) else [exports]:
        _check_record("exports", record, {"directory": TEXT, "format": TEXT, "memory": (list,)}, whole=True)
    files = state.get("files", {})
    for kind, record in files.items() if isinstance(files, dict) else [("files", files)]:
        _check_record(f"files.{kind}", record, {"name": TEXT, "sha256": TEXT, "bytes": COUNT}, whole=True)
        if not _FILE.fullmatch(record["name"]):
            raise ValueError(f"files.{kind} is named {show(record['name'])}")


def _check_record(name: str, record: object, kinds: Mapping[str, tuple[type, ...]], *, whole: bool = False) -> None:
    """``whole``: every entry is there."""
    if not isinstance(record, dict) or (whole and not kinds.keys() <= record.keys()):
        raise ValueError(f"{name} is {show(record)}")
    for key, kind in kinds.items():
        if key in record and type(record[key]) not in kind:
            raise ValueError(f"{name}.{key} is {show(record[key])}")
