"""The verb export: a directory that transformers loads without memtune, asked again before it is handed over."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from memtune import __version__
from memtune.backbone import Backbone, load_backbone
from memtune.checkpoints import quiet_transformers
from memtune.errors import MemtuneError, ModelError, ProjectError
from memtune.events import Note, OnEvent, ignore
from memtune.memory.module import Memory
from memtune.project import Project
from memtune.store import check_backbone, load_facts, load_memory

__all__ = ["ExportResult", "export"]

MODEL_CLASS = "MemtuneForCausalLM"
MEMORY_FILE = "memory.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ASKED = 512  # facts of a large project that the bundle is asked; all of a smaller one
SHOWN_LOST = 5


@dataclass(frozen=True)
class ExportResult:
    """The bundle, and what it answered in a fresh process that never saw memtune."""

    directory: str
    bytes: int
    memory_bytes: int
    facts: int
    asked: int
    exact: int
    lost: tuple[str, ...]  # ids of asked facts that the bundle does not answer exactly

    @property
    def met(self) -> bool:
        return not self.lost


def export(
    project_dir: Path, out: Path, *, on_event: OnEvent = ignore, backbone: Backbone | None = None
) -> ExportResult:
    """``out`` is a complete bundle, or does not exist: it is built and asked beside its place, then renamed.

    Raises ProjectError if ``out`` is in the way or nothing was tuned, ModelError if the bundle cannot be written.
    """
    project = Project(project_dir)
    model = project.need("model", "memtune ingest FACTS")
    tuned = project.need("tune", "memtune tune")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ProjectError(f"{out} is there already", hint="name a new directory, or remove this one")
    memory, facts = load_memory(project), load_facts(project)
    if not bool(memory.bank.accepted.any()):
        raise ProjectError(f"{project_dir} has learned no fact yet", hint="run first: memtune tune")
    backbone = backbone or load_backbone(model["name"], device=model["device"], dtype=model["dtype"], on_event=on_event)
    check_backbone(project, backbone)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        on_event(Note("writing backbone and memory"))
        memory_bytes = _write(beside, backbone, memory)
        numbers = _to_ask(memory, project.state["seed"])
        asked = [facts[i] for i in numbers]
        on_event(Note(f"asking the bundle {len(asked)} facts in a fresh process"))
        answers = _ask_in_fresh_process(beside, [(facts[i].question, memory.bank.experts_of(i) + 1) for i in numbers])
        lost = tuple(fact.id for fact, said in zip(asked, answers, strict=True) if said != fact.answer)
        figures = {"asked": len(asked), "exact": len(asked) - len(lost)}
        _card(beside, out.name, project, tuned, figures)
        size = sum(file.stat().st_size for file in beside.rglob("*") if file.is_file())
        if out.is_dir():
            out.rmdir()
        _readable(beside)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return ExportResult(str(out), size, memory_bytes, len(facts), len(asked), len(asked) - len(lost), lost)


def _readable(directory: Path) -> None:
    """mkdtemp and safetensors write for the owner alone; a checkpoint is readable like any other file."""
    directory.chmod(0o755)
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _write(out: Path, backbone: Backbone, memory: Memory) -> int:
    """Backbone, memory, index, code and tokenizer; returns the bytes of the memory."""
    try:
        with quiet_transformers():
            backbone.model.save_pretrained(out)
            backbone.prompts.tokenizer.save_pretrained(out)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{backbone.checkpoint.name} cannot be saved: {error}") from error
    tensors = {f"memory.{name}": t.detach().cpu().contiguous() for name, t in memory.state_dict().items()}
    save_file(tensors, out / MEMORY_FILE, metadata={"format": "pt"})
    _index(out, list(tensors))
    config = json.loads((out / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": f"modeling_memtune.{MODEL_CLASS}"}
    config["memtune"] = memory.config.to_dict()
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    _code(out, type(backbone.model).__name__, len(memory.bank.loss))
    return (out / MEMORY_FILE).stat().st_size


def _index(out: Path, memory_names: Sequence[str]) -> None:
    """One index over the backbone's files and the memory's."""
    from safetensors import safe_open

    path = out / INDEX_FILE
    if path.is_file():
        weight_map: dict[str, str] = json.loads(path.read_text())["weight_map"]
    else:
        single = out / "model.safetensors"
        single.rename(out / "model-backbone.safetensors")
        with safe_open(out / "model-backbone.safetensors", framework="pt") as file:
            weight_map = dict.fromkeys(file.keys(), "model-backbone.safetensors")
    weight_map |= dict.fromkeys(memory_names, MEMORY_FILE)
    total = sum((out / name).stat().st_size for name in set(weight_map.values()))
    path.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n")


def _code(out: Path, backbone_class: str, facts: int) -> None:
    """The memory's own modules, byte for byte, and the class that joins them to the backbone."""
    for module in files("memtune").joinpath("memory").iterdir():
        if module.name.endswith(".py") and module.name not in {"__init__.py", "fit.py"}:
            (out / module.name).write_bytes(module.read_bytes())
    template = files("memtune").joinpath("hub", "modeling_memtune.py.in").read_text(encoding="utf-8")
    code = template.format(backbone=backbone_class, facts=facts, version=__version__)
    (out / "modeling_memtune.py").write_text(code, encoding="utf-8")


def _card(out: Path, name: str, project: Project, tuned: dict[str, Any], asked: dict[str, int]) -> None:
    template = files("memtune").joinpath("hub", "README.md.in").read_text(encoding="utf-8")
    ingested = project.need("ingest", "memtune ingest FACTS")
    figures = ingested | tuned | asked | {"name": name, "version": __version__}
    (out / "README.md").write_text(template.format(**figures), encoding="utf-8")


def _to_ask(memory: Memory, seed: int) -> list[int]:
    accepted = [i for i, yes in enumerate(memory.bank.accepted.tolist()) if yes]
    return accepted if len(accepted) <= ASKED else random.Random(seed).sample(accepted, ASKED)


def _ask_in_fresh_process(bundle: Path, questions: list[tuple[str, int]]) -> list[str]:
    """Answers to (question, most tokens) from a process that has torch and transformers alone."""
    with tempfile.TemporaryDirectory() as modules:
        run = subprocess.run(
            [sys.executable, "-I", str(files("memtune").joinpath("hub", "ask_bundle.py")), str(bundle)],
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            env=_environment(modules),
            check=False,
        )
    if run.returncode != 0:
        last = run.stderr.strip().splitlines()[-1:] or ["no message"]
        raise MemtuneError(f"the bundle does not load in a fresh process: {last[0]}")
    said = json.loads(run.stdout)
    if said["memtune_imported"]:
        raise MemtuneError("the bundle imported memtune, so it would not load where memtune is not installed")
    answers: list[str] = said["answers"]
    return answers


def _environment(modules: str) -> dict[str, str]:
    """transformers copies a bundle's code into its module cache; a fresh one keeps old copies out."""
    import os

    return os.environ | {"HF_MODULES_CACHE": modules, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
