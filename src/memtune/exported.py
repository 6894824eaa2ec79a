"""What was exported from a project, and whether it still holds what the project holds.

A bundle is a copy: a fact that is changed or forgotten later is still in it. The project remembers where its exports
went, and puts a file into those that are out of date.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtune.bundle import MEMORY_FILE
from memtune.project import Project, write_beside

__all__ = [
    "PEFT_TYPE",
    "STALE",
    "Export",
    "exports_of",
    "is_bundle",
    "is_export",
    "mark_stale",
    "memory_of",
    "note_export",
]

STALE = "STALE.md"
PEFT_TYPE = "MOME"  # what an adapter of memtune calls itself in its config; memtune.peft takes seconds to import
KEPT = ("bank", "router")


@dataclass(frozen=True)
class Export:
    """``state``: current, stale (the project holds other facts now) or missing."""

    directory: str
    format: str
    state: str


def note_export(project: Project, out: Path, format: str, memory: list[str]) -> None:
    """Remembers that ``out`` holds ``memory``, which may be another than the project's by now.

    The project must be held for writing.
    """
    directory = str(out.resolve())
    others = [record for record in project.state.get("exports", []) if record["directory"] != directory]
    record = {"directory": directory, "format": format, "memory": memory}
    project.commit({}, exports=[*others, record])


def exports_of(project: Project) -> list[Export]:
    return [
        Export(record["directory"], record["format"], _state(record, memory_of(project)))
        for record in project.state.get("exports", [])
    ]


def mark_stale(project: Project) -> tuple[str, ...]:
    """Writes STALE.md into every export that holds other facts than the project; returns their directories."""
    stale = tuple(export.directory for export in exports_of(project) if export.state == "stale")
    for directory in stale:
        said = f"The facts of {project.root.resolve()} were changed after this was exported. Make it anew with\n\n"
        said += f"    memtune export {directory} --replace --project {project.root.resolve()}\n"
        write_beside(Path(directory) / STALE, said.encode())
    return stale


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
