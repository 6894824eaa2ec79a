"""The memory as files of a project: two safetensors, one that ingest writes and one that tune replaces."""

from __future__ import annotations

from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from memtune.backbone import Backbone
from memtune.errors import ProjectError
from memtune.facts import Fact, facts_from_jsonl
from memtune.memory.bank import Bank
from memtune.memory.module import Memory, MemoryConfig
from memtune.project import Project

__all__ = ["check_backbone", "load_facts", "load_memory", "save_bank", "save_memory"]


def save_memory(project: Project, memory: Memory) -> dict[str, dict[str, Any]]:
    """Writes the router with the projections, and the bank; returns the records to commit."""
    tensors = {name: t for name, t in memory.state_dict().items() if not name.startswith("bank.")}
    router = project.keep("router", "safetensors", save(_contiguous(tensors), metadata={"format": "pt"}))
    return {"router": router} | save_bank(project, memory.bank)


def save_bank(project: Project, bank: Bank) -> dict[str, dict[str, Any]]:
    data = save(_contiguous(bank.state_dict()), metadata={"format": "pt"})
    return {"bank": project.keep("bank", "safetensors", data)}


def load_memory(project: Project) -> Memory:
    """The memory that the project holds, checked against its checksums."""
    config = MemoryConfig.from_dict(project.need("memory", "memtune ingest FACTS"))
    memory = Memory(config)
    tensors = load_file(project.path("router"))
    bank = load_file(project.path("bank"))
    memory.load_state_dict(tensors | {f"bank.{name}": tensor for name, tensor in bank.items()})
    memory.requires_grad_(False)
    return memory


def check_backbone(project: Project, backbone: Backbone) -> None:
    """Raises ProjectError if ``backbone`` is not the one, rendered the same way, that the facts were ingested for."""
    model = project.need("model", "memtune ingest FACTS")
    if backbone.fingerprint != model["fingerprint"]:
        raise ProjectError(
            f"{model['name']} is not the model these facts were ingested for, or renders questions differently now",
            hint="run again: memtune ingest FACTS",
        )


def load_facts(project: Project) -> list[Fact]:
    facts = facts_from_jsonl(project.path("facts").read_text(encoding="utf-8"))
    if [fact.digest for fact in facts] != project.state.get("digests"):
        raise ProjectError(f"{project.root} holds other facts than were ingested", hint="run: memtune ingest FACTS")
    return facts


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
