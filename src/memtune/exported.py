"""What was exported from a project, and whether it still holds what the project holds.

A bundle is a copy: a fact that is changed or forgotten later is still in it. The project remembers where its exports
went, and puts a file into those that are out of date.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtune.bundle import MEMORY_FILE
from memtune.events import Note, OnEvent, ignore
from memtune.project import Project, in_project, write_beside

__all__ = [
    "FORMATS",
    "PEFT_TYPE",
    "STALE",
    "Export",
    "export_again",
    "exports_again",
    "exports_of",
    "is_bundle",
    "is_export",
    "mark_stale",
    "memory_of",
    "note_export",
]

# A checkpoint that transformers loads alone, which is the default; a PEFT adapter for the model that it was made on.
FORMATS = ("bundle", "adapter")
STALE = "STALE.md"
PEFT_TYPE = "MOME"  # what an adapter of memtune calls itself in its config; memtune.peft takes seconds to import
KEPT = ("bank", "router")


@dataclass(frozen=True)
class Export:
    """``state``: current, stale (the project holds other facts now) or missing."""

    directory: str
    format: str
    state: str


def note_export(project: Project, out: Path, format: str, link: bool, memory: list[str]) -> None:
    """Remembers that ``out`` holds ``memory``, which may be another than the project's by now.

    The project must be held for writing.
    """
    directory = str(out.resolve())
    others = [record for record in project.state.get("exports", []) if record["directory"] != directory]
    record = {"directory": directory, "format": format, "link": link, "memory": memory}
    project.commit({}, exports=[*others, record])


def exports_of(project: Project) -> list[Export]:
    return [
        Export(record["directory"], record["format"], _state(record, memory_of(project)))
        for record in project.state.get("exports", [])
    ]


def export_again(directory: str | Path, format: str, link: bool, project: str) -> str:
    """The command that makes an export anew; ``project``: its option that names the project, if it needs one."""
    kind = "" if format == FORMATS[0] else f" --format {shlex.quote(format)}"
    return f"memtune export {shlex.quote(str(directory))} --replace{kind}{' --link' if link else ''}{project}"


def _again(record: dict[str, Any], project: str) -> str:
    return export_again(record["directory"], record["format"], bool(record.get("link")), project)


def exports_again(project: Project, directories: Collection[str]) -> list[str]:
    """The command for each of these exports, as far as the project knows of them."""
    records = [record for record in project.state.get("exports", []) if record["directory"] in directories]
    return [_again(one, in_project(project.root)) for one in records]


def mark_stale(project: Project, on_event: OnEvent = ignore) -> tuple[str, ...]:
    """Writes STALE.md into every export that holds other facts than the project; returns their directories.

    One that cannot be read or written now is stale all the same, and no reason to call the change that made it so
    undone.
    """
    memory = memory_of(project)
    others = [record for record in project.state.get("exports", []) if record["memory"] != memory]
    stale = tuple(record["directory"] for record in others if _marked(record, project.root.resolve()))
    for directory in stale:
        on_event(Note(f"out of date: {directory}"))
    return stale


def _marked(record: dict[str, Any], project: Path) -> bool:
    """Whether there is such an export at all."""
    directory = Path(record["directory"])
    again = _again(record, f" --project {shlex.quote(str(project))}")
    said = f"The facts of {project} were changed after this was exported. Make it anew with\n\n    {again}\n"
    try:
        if not is_export(directory):
            return False
        write_beside(directory / STALE, said.encode())
    except OSError:
        pass
    return True


def memory_of(project: Project) -> list[str]:
    """SHA-256 of the files that the memory is in."""
    return [project.state["files"][kind]["sha256"] for kind in KEPT]


def is_export(directory: Path) -> bool:
    """Whether something that memtune exports is there, and nothing that looks like it, such as a LoRA.

    A project may come from elsewhere and name any directory.
    """
    return is_bundle(directory) or _entry(directory / "adapter_config.json", "peft_type") == PEFT_TYPE


def is_bundle(directory: Path) -> bool:
    return _entry(directory / "config.json", "memtune") is not None and (directory / MEMORY_FILE).is_file()


def _entry(path: Path, key: str) -> Any:
    """Of an object in JSON; None where there is no such file, or something else is in it."""
    if not path.is_file():
        return None
    try:
        entries: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return entries.get(key) if isinstance(entries, dict) else None


def _state(record: dict[str, Any], memory: list[str]) -> str:
    if not is_export(Path(record["directory"])):
        return "missing"
    return "current" if record["memory"] == memory else "stale"
