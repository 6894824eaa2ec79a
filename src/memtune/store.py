"""The memory as files of a project: two safetensors, one that ingest writes and one that tune replaces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from memtune.backbone import Backbone, load_backbone
from memtune.errors import RESTORE, DataError, ProjectError
from memtune.events import OnEvent
from memtune.fact import PackedFacts
from memtune.memory.bank import Bank
from memtune.memory.module import Memory, MemoryConfig
from memtune.project import Project, in_project

__all__ = [
    "Confusable",
    "backbone_of",
    "bytes_of",
    "check_backbone",
    "keep_facts",
    "load_facts",
    "load_memory",
    "memory_record",
    "numbers_of",
    "save_bank",
    "save_memory",
    "save_tensors",
    "still_confusable",
]


BANK = "bank."  # what the names of its tensors begin with


@dataclass(frozen=True)
class Confusable:
    """Two facts whose questions look most alike to the gate; it mistakes one for the other above the threshold."""

    one: str
    other: str
    score: float


def save_memory(project: Project, memory: Memory) -> dict[str, dict[str, Any]]:
    """Writes the router with the projections, and the bank; returns the records to commit."""
    tensors = {name: t for name, t in memory.state_dict().items() if not name.startswith(BANK)}
    return {"router": save_tensors(project, "router", tensors)} | save_bank(project, memory.bank)


def save_bank(project: Project, bank: Bank) -> dict[str, dict[str, Any]]:
    return {"bank": save_tensors(project, "bank", bank.state_dict())}


def save_tensors(project: Project, kind: str, tensors: dict[str, Tensor], **metadata: str) -> dict[str, Any]:
    """Writes a file of the project and returns its record."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return project.keep(kind, "safetensors", partial(_write, plain, metadata))


def _write(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(tensors, path, metadata={"format": "pt"} | metadata)
        path.chmod(mode)  # safetensors writes for the owner alone
    except SafetensorError as error:  # the disk, whatever it says: the tensors are sound
        raise OSError(0, str(error)) from error


def load_memory(project: Project) -> Memory:
    """The memory that the project holds, checked against its checksums.

    Its tensors stand in the files: what is not asked for is not read into memory, and what is written to is copied.
    """
    paths = {kind: project.path(kind) for kind in ("router", "bank")}
    try:
        bank = {f"{BANK}{name}": tensor for name, tensor in load_file(paths["bank"]).items()}
        config = MemoryConfig.from_dict(project.need("memory", "memtune ingest FACTS"))
        return Memory.of(config, load_file(paths["router"]) | bank)
    except (ValueError, SafetensorError) as error:
        raise ProjectError(
            f"{project.root} holds no sound memory ({', '.join(path.name for path in paths.values())}): {error}",
            hint=RESTORE,
        ) from error


def backbone_of(project: Project, backbone: Backbone | None, on_event: OnEvent) -> Backbone:
    """``backbone``, or else the project's own, loaded now; checked to be the one the facts were ingested for.

    Raises ProjectError, ModelError.
    """
    model = project.need("model", "memtune ingest FACTS")
    backbone = backbone or load_backbone(model["name"], device=model["device"], dtype=model["dtype"], on_event=on_event)
    check_backbone(project, backbone)
    return backbone


def check_backbone(project: Project, backbone: Backbone) -> None:
    """Raises ProjectError if ``backbone`` is not the one, rendered the same way, that the facts were ingested for."""
    model = project.need("model", "memtune ingest FACTS")
    if backbone.fingerprint != model["fingerprint"]:
        raise ProjectError(
            f"{model['name']} is not the model these facts were ingested for, or renders questions differently now",
            hint=f"run again: memtune ingest FACTS{in_project(project.root)}",
        )


def keep_facts(project: Project, facts: PackedFacts) -> dict[str, dict[str, Any]]:
    return {"facts": project.keep("facts", "jsonl", lambda path: path.write_bytes(facts.data))}


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def memory_record(memory: Memory) -> dict[str, int]:
    """How much a memory holds, in the words of the record that ingest leaves."""
    sizes = memory.bank.sizes
    return {
        "facts": sizes.facts,
        "wordings": memory.router.sizes.wordings,
        "answer_tokens": sizes.experts,
        "experts": sizes.experts,
        "bytes": bytes_of(memory.state_dict().values()),
    }


def numbers_of(project: Project, bank: Bank, ids: Sequence[str]) -> list[int]:
    """Of the facts with these ids. Raises DataError that names each id that no fact has."""
    known = bank.numbers_of(ids)
    if missing := [f"no fact has the id {name!r}" for name in ids if name not in known]:
        raise DataError(missing, hint=f"memtune facts list{in_project(project.root)}")
    return [known[name] for name in ids]


def still_confusable(project: Project, facts: PackedFacts) -> tuple[Confusable, ...]:
    """What ingest found to be most alike, as far as ``facts`` still ask both questions."""
    pairs = project.need("ingest", "memtune ingest FACTS").each("confusable", Confusable)
    return tuple(pair for pair in pairs if facts.asked_as(pair.one) and facts.asked_as(pair.other))


def load_facts(project: Project) -> PackedFacts:
    path = project.path("facts")
    facts = PackedFacts(path.read_bytes(), path.name)
    if len(facts) != project.need("ingest", "memtune ingest FACTS")["facts"]:
        raise ProjectError(f"{project.root} holds other facts than were ingested", hint=RESTORE)
    return facts
