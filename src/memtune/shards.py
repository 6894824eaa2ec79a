"""Shards: the parts into which the fitting of a project is cut, and the files in which each keeps its own.

Facts are independent, so a shard needs no other: it fits its share of the chunks and writes the rows of its facts into
a file of its own, ``shard_3_of_8-....safetensors``, whose header says what they were fitted for. The project's state
stays as it is until all of them are merged; a commit that changes the memory removes them, because they no longer fit.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from memtune.config import Config, target_option
from memtune.errors import ConfigError, ProjectError
from memtune.memory.bank import Bank
from memtune.project import Project, in_project, intact
from memtune.store import save_tensors

__all__ = ["Kept", "Origin", "Shard", "complete", "keep_shard", "kept_shards", "take_over"]

AUTO = "auto"
RANK, WORLD = "RANK", "WORLD_SIZE"  # as torchrun and other launchers set them, counted from 0
HEADER = "shard"
_STATE = {
    "model": "another model",
    "facts": "other facts",
    "router": "another router",
    "bank": "another state of the memory",
    "until_loss": "another --until-loss",
}


@dataclass(frozen=True, order=True)
class Shard:
    """Part ``number`` of ``of`` parts, counted from 1."""

    of: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``3/8``, or ``auto``: the rank of this process among those that its launcher started. Raises ConfigError."""
        if text == AUTO:
            return cls._of_this_process()
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"--shard is {text!r}", hint="--shard takes NUMBER/OF, from 1/8 to 8/8, or auto")
        return cls(int(found[2]), int(found[1]))

    @classmethod
    def _of_this_process(cls) -> Shard:
        rank, world = (os.environ.get(name, "") for name in (RANK, WORLD))
        if not rank.isdigit() or not world.isdigit() or int(rank) >= int(world):
            raise ConfigError(
                f"--shard auto: {RANK} is {rank!r} and {WORLD} is {world!r}",
                hint="torchrun sets them: torchrun --nproc-per-node 2 -m memtune tune --shard auto",
            )
        return cls(int(world), int(rank) + 1)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def kind(self) -> str:
        """What its file is called in the project."""
        return f"shard_{self.number}_of_{self.of}"

    def part(self, chunks: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """Its share of the chunks, which stay whole and in their order."""
        first, last = (len(chunks) * end // self.of for end in (self.number - 1, self.number))
        return chunks[first:last]


@dataclass(frozen=True)
class Origin:
    """What a shard was fitted for: fingerprint of model and rendering, SHA-256 of the project's files, the target."""

    model: str
    facts: str
    router: str
    bank: str
    until_loss: float

    @classmethod
    def of(cls, project: Project, config: Config) -> Origin:
        model = project.need("model", "memtune ingest FACTS")
        files = {kind: project.file(kind)["sha256"] for kind in ("facts", "router", "bank")}
        return cls(model["fingerprint"], **files, until_loss=config.until_loss)

    def differs(self, other: Origin) -> str:
        """In words, what ``other`` was fitted for instead."""
        mine, theirs = asdict(self), asdict(other)
        return " and ".join(words for name, words in _STATE.items() if mine[name] != theirs[name])


@dataclass(frozen=True)
class Kept:
    """What a shard's file says of it. ``done`` of its ``chunks`` are fitted.

    ``reasons``: why facts were not learned, by their numbers.
    """

    shard: Shard
    origin: Origin
    facts: int
    learned: int
    chunks: int
    done: int
    seconds: float  # of fitting, by all runs of it
    reasons: Mapping[int, str]
    path: Path

    @classmethod
    def nothing(cls, shard: Shard, origin: Origin, path: Path) -> Kept:
        """Of a shard that has yet to begin."""
        return cls(shard, origin, facts=0, learned=0, chunks=0, done=0, seconds=0.0, reasons={}, path=path)

    @property
    def finished(self) -> bool:
        return self.done == self.chunks


def keep_shard(project: Project, kept: Kept, bank: Bank) -> Kept:
    """Writes ``bank``, the facts of this shard, in place of what was kept of it before."""
    entries = asdict(kept)
    del entries["path"]
    record = save_tensors(project, kept.shard.kind, bank.state_dict(), **{HEADER: json.dumps(entries)})
    path = project.root / record["name"]
    for old in project.root.glob(f"{kept.shard.kind}-*.safetensors"):
        if old != path:
            old.unlink(missing_ok=True)
    return replace(kept, path=path)


def kept_shards(project: Project) -> list[Kept]:
    """Every shard in the project directory; of one that stands there twice, what is further. Damaged files are none."""
    found: dict[tuple[Shard, Origin], Kept] = {}
    for kept in map(_read, sorted(project.root.glob("shard_*.safetensors"))):
        if kept is None:
            continue
        before = found.get((kept.shard, kept.origin))
        if before is None or kept.done > before.done:
            found[kept.shard, kept.origin] = kept
    return sorted(found.values(), key=lambda kept: kept.shard)


def _read(path: Path) -> Kept | None:
    try:
        if not intact(path):
            return None
        with safe_open(path, framework="pt") as file:
            return _kept(json.loads(file.metadata()[HEADER]), path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return None  # it is of another version and written again, or was removed meanwhile


def _kept(entries: dict[str, Any], path: Path) -> Kept:
    """Raises KeyError, TypeError, ValueError or AttributeError where ``keep_shard`` wrote no such header."""
    shard = {name: int(number) for name, number in entries["shard"].items()}
    kinds = {"until_loss": float}
    origin: dict[str, Any] = {name: kinds.get(name, str)(value) for name, value in entries["origin"].items()}
    counts = {name: int(entries[name]) for name in ("facts", "learned", "chunks", "done")}
    return Kept(
        Shard(**shard),
        Origin(**origin),
        **counts,
        seconds=float(entries["seconds"]),
        reasons={int(number): str(reason) for number, reason in entries["reasons"].items()},
        path=path,
    )


def take_over(bank: Bank, kept: Kept, facts: Sequence[int]) -> None:
    """What the shard knows of its facts, those numbered ``facts``, is known in ``bank``. Raises ProjectError."""
    numbers = torch.tensor(facts, dtype=torch.int64)
    expected, columns = bank.take(numbers).cpu().state_dict(), load_file(kept.path)
    same = ("ids", "id_offsets", "offsets")
    if columns.keys() != expected.keys() or not all(torch.equal(columns[name], expected[name]) for name in same):
        raise ProjectError(
            f"{kept.path} holds other facts than shard {kept.shard}",
            hint=_again(kept.shard, kept.origin, kept.path.parent),
        )
    bank.put_back(numbers, bank.holding(columns))


def complete(project: Project, origin: Origin) -> list[Kept]:
    """All shards of this state, each finished. Raises ProjectError that names those that are not."""
    found = kept_shards(project)
    mine = [kept for kept in found if kept.origin == origin]
    counts = sorted({kept.shard.of for kept in mine}, key=lambda of: sum(kept.shard.of == of for kept in mine))
    for of in counts:
        finished = [kept for kept in mine if kept.shard.of == of and kept.finished]
        if len(finished) == of:
            return finished
    if counts:
        raise _incomplete([kept for kept in mine if kept.shard.of == counts[-1]])
    if found:
        other = found[0].origin.differs(origin)
        raise ProjectError(
            f"the shards in {project.root} were fitted for {other}", hint=_again(found[0].shard, origin, project.root)
        )
    plan = f"memtune plan --shards N{in_project(project.root)}"
    raise ProjectError(f"{project.root} holds no shards", hint=f"{plan} says how to make them")


def _incomplete(found: Sequence[Kept]) -> ProjectError:
    of = found[0].shard.of
    missing = sorted({*range(1, of + 1)} - {kept.shard.number for kept in found})
    open_ = [kept for kept in found if not kept.finished]
    said = [f"shard {kept.shard} is not finished ({kept.done} of {kept.chunks} chunks)" for kept in open_]
    if missing:
        plural = ("s", "are") if len(missing) > 1 else ("", "is")
        said.insert(0, f"shard{plural[0]} {', '.join(map(str, missing))} of {of} {plural[1]} missing")
    first = min([*missing, *(kept.shard.number for kept in open_)])
    return ProjectError("; ".join(said), hint=_again(Shard(of, first), found[0].origin, found[0].path.parent))


def _again(shard: Shard, origin: Origin, project: Path) -> str:
    return f"run: memtune tune --shard {shard}{in_project(project)}{target_option(origin.until_loss)}"
