"""The project directory: what the verbs leave for each other, readable after a kill at any moment.

``project.json`` is the state; it names every other file by its content. A verb writes its new files beside the old
ones, then replaces ``project.json`` in one rename, then removes what is no longer named. Whatever moment it dies at,
the last finished state is there.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from memtune.errors import ANEW, RESTORE, ProjectError
from memtune.state import Record, check_state
from memtune.visible import spelt

__all__ = [
    "PROJECT",
    "PROJECT_ENV",
    "REPORTS",
    "Project",
    "check_writable",
    "erase",
    "finite",
    "in_project",
    "intact",
    "write_beside",
]

PROJECT = Path(".memtune")  # unless the command, or else the environment, names another
PROJECT_ENV = "MEMTUNE_PROJECT"
STATE = "project.json"
LOCK = "lock"
FORMAT = 3
ERASING = "erasing"  # the entry of a state whose old files hold what was forgotten
INGESTED = ("model", "ingest", "memory", "router")  # the records that every project has
NAME_DIGITS = 16  # of the SHA-256 that a file is named by
# What keep, write_beside and safetensors make; the rest is the user's.
_OWN = re.compile(rf"\w+-[0-9a-f]{{{NAME_DIGITS}}}\.\w+|\..+\.\d+\.tmp|\.tmp\w{{6}}")
REPORTS = ("eval.html", "eval.json")  # what eval leaves here where it is told no other place: questions and answers


def in_project(project: Path) -> str:
    """The option that names the project in the next command, where it is needed."""
    known = project == Path(os.environ.get(PROJECT_ENV) or PROJECT)
    return "" if known else f" --project {shlex.quote(str(project))}"


def write_beside(path: Path, data: bytes) -> None:
    """``path`` holds ``data``, or what it held before: written to a temporary file, synced, renamed."""
    with _temporary(path) as temporary:
        temporary.write_bytes(data)
        _rename(temporary, path)


def check_writable(directory: Path) -> None:
    """Raises OSError where no file can be made in ``directory``; one that is not there yet is made only to see that."""
    missing = [place for place in (directory, *directory.parents) if not place.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """The name of a file beside ``path`` that is gone afterwards."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _rename(temporary: Path, path: Path) -> None:
    """``temporary`` becomes ``path`` once it is on the disk; then so does its name."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _overwrite(path: Path) -> None:
    """Zeros in place of all that the file held."""
    with path.open("r+b") as file:
        left = path.stat().st_size
        while left > 0:
            left -= file.write(bytes(min(left, 1 << 20)))
    _sync(path)


def erase(path: Path) -> None:
    """The file is gone, and so is what it held."""
    _overwrite(path)
    path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def intact(path: Path) -> bool:
    """Whether a file that ``Project.keep`` made holds what it is named by."""
    return path.stem.endswith(f"-{_sha256(path)[:NAME_DIGITS]}")


def finite(value: Any) -> Any:
    """JSON knows no infinity: the loss of a fact that was never fitted is null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Project:
    """One project directory and its last finished state."""

    def __init__(self, root: Path) -> None:
        if spelt(root) != str(root):
            raise ProjectError(f"{spelt(root)} is not UTF-8: safetensors opens no such path", hint="use --project DIR")
        self.root = root
        self.state = self._read_state()

    @property
    def exists(self) -> bool:
        return bool(self.state)

    def need(self, stage: str, command: str) -> Record:
        """The record that ``stage`` left. Raises ProjectError with the command that makes it."""
        record = self.state.get(stage)
        if not isinstance(record, dict):
            lost = self.exists and stage in INGESTED
            hint = RESTORE if lost else f"run first: {command}{in_project(self.root)}"
            raise ProjectError(f"{self.root} holds no finished {stage}", hint=hint)
        return Record(record, f"{self.root / STATE}: {stage}")

    def _read_state(self) -> dict[str, Any]:
        path = self.root / STATE
        if not path.is_file():
            return {}
        try:
            state: Any = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ProjectError(f"{path} is damaged: {error}", hint=RESTORE) from error
        written = state.get("format") if isinstance(state, dict) else None
        if written != FORMAT:
            raise ProjectError(
                f"{self.root} was written by another version of memtune (format {written!r}, not {FORMAT})",
                hint=ANEW,
            )
        try:
            check_state(state)
        except ValueError as error:
            raise ProjectError(f"{path} is damaged: {error}", hint=RESTORE) from error
        return dict(state)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the project for one writer; another process is told who is in the way."""
        from filelock import FileLock, Timeout

        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / LOCK, timeout=0)
            lock.acquire()
        except Timeout:
            raise ProjectError(
                f"{self.root} is in use by another memtune command", hint="wait for it to end, or use --project DIR"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self.state = self._read_state()
            if self.state.get(ERASING):
                self._clear_up()
            yield
        finally:
            lock.release()

    def settle(self) -> None:
        """What a killed process had yet to overwrite is overwritten: before anything is written without the lock."""
        if self.state.get(ERASING):
            with self.writing():
                pass

    def changed_meanwhile(self) -> ProjectError:
        """For whoever worked without the lock and finds another state than the one that was worked on."""
        return ProjectError(f"{self.root} was changed by another command meanwhile", hint="run this one again")

    def check_writable(self) -> None:
        """Before any work is done. Raises ProjectError where its result could not be kept."""
        try:
            check_writable(self.root)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ProjectError:
        return ProjectError(f"{self.root} cannot be written: {error.strerror}", hint="use --project DIR")

    def keep(self, kind: str, suffix: str, write: Callable[[Path], object]) -> dict[str, Any]:
        """The file that ``write`` makes, named by its content; returns the record for ``commit``.

        It is not part of the state yet. ``write`` is given the place, so that no second copy is held in memory.
        """
        path = self.root / f"{kind}.{suffix}"
        try:
            with _temporary(path) as temporary:
                write(temporary)
                digest, size = _sha256(temporary), temporary.stat().st_size
                path = self.root / f"{kind}-{digest[:NAME_DIGITS]}.{suffix}"
                _rename(temporary, path)
        except OSError as error:
            raise ProjectError(f"{path} cannot be written: {error.strerror}") from error
        return {"name": path.name, "sha256": digest, "bytes": size}

    def commit(self, files: Mapping[str, dict[str, Any]], *, erase: bool = False, **records: Any) -> None:
        """The new state: ``files`` and ``records`` replace their namesakes; the rest stays.

        With new files all those are removed that memtune wrote and the state does not name, the shards of the old state
        among them. ``erase``: they are overwritten first, and so are reports, which hold what the facts said. The state
        says so until it is done: whoever writes next finishes what a killed process could not.
        """
        state = {**self.state, **records, "format": FORMAT}
        state["files"] = {**self.state.get("files", {}), **files}
        self._put(state | ({ERASING: True} if erase else {}))
        if files:
            self._clear_up()

    def _put(self, state: dict[str, Any]) -> None:
        write_beside(self.root / STATE, json.dumps(state, indent=1).encode())
        self.state = state

    def _clear_up(self) -> None:
        erasing = self.state.get(ERASING, False)
        self._remove_unnamed(erasing)
        if erasing:
            self._put({key: value for key, value in self.state.items() if key != ERASING})

    def _remove_unnamed(self, erasing: bool) -> None:
        named = {record["name"] for record in self.state["files"].values()} | {STATE, LOCK}
        for path in self.root.iterdir():
            goes = _OWN.fullmatch(path.name) or (erasing and path.name in REPORTS)
            if goes and path.is_file() and path.name not in named:
                if erasing and not path.is_symlink():  # what a link leads to is not ours
                    erase(path)
                else:
                    path.unlink(missing_ok=True)  # a shard has renamed its own meanwhile

    def path(self, kind: str) -> Path:
        """The checked file of ``kind``. Raises ProjectError if it is missing or its bytes have changed."""
        record = self.file(kind)
        path = self.root / str(record["name"])
        if not path.is_file():
            raise ProjectError(f"{path} is missing", hint=RESTORE)
        if _sha256(path) != record["sha256"]:
            raise ProjectError(f"{path} is damaged: its SHA-256 is not the one it was written with", hint=RESTORE)
        return path

    def file(self, kind: str) -> dict[str, Any]:
        """What the state says of the file of ``kind``. Raises ProjectError where it names none."""
        record: dict[str, Any] | None = self.state.get("files", {}).get(kind)
        if record is None:
            hint = RESTORE if self.exists else f"run first: memtune ingest FACTS{in_project(self.root)}"
            raise ProjectError(f"{self.root} holds no {kind}", hint=hint)
        return record
