"""The verb export: a directory that others load, asked again in a fresh process before it is handed over."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from memtune import __version__
from memtune.backbone import Backbone
from memtune.bundle import write_bundle
from memtune.checkpoints import quiet_transformers
from memtune.errors import ConfigError, MemtuneError, ModelError, ProjectError
from memtune.events import Note, OnEvent, ignore
from memtune.exported import FORMATS, export_again, is_export, mark_stale, memory_of, note_export
from memtune.memory.module import Memory
from memtune.project import Project, in_project
from memtune.store import backbone_of, load_facts, load_memory
from memtune.visible import visible

__all__ = ["FORMATS", "ExportResult", "export"]

ASKED = 512  # facts of a large project that the bundle is asked; all of a smaller one


@dataclass(frozen=True)
class ExportResult:
    """What was written, and what it answered in a fresh process; a bundle's never saw memtune."""

    format: str
    directory: str
    bytes: int
    memory_bytes: int
    facts: int
    asked: int
    exact: int
    lost: tuple[str, ...]  # ids of asked facts that it does not answer exactly

    @property
    def met(self) -> bool:
        return not self.lost


def export(
    project_dir: Path,
    out: Path,
    *,
    format: str = "bundle",
    link: bool = False,
    replace: bool = False,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> ExportResult:
    """``out`` is complete, or does not exist: it is built and asked beside its place, then renamed.

    ``format`` is one of FORMATS; ``link`` a bundle to the backbone's own weight files instead of copying them;
    ``replace`` an earlier export of memtune, which stays until the new one is complete. Raises
    ConfigError for any other format, ProjectError if ``out`` is in the way or nothing was tuned, ModelError if it
    cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}", hint=f"use one of: {', '.join(FORMATS)}")
    if link and format != "bundle":
        raise ConfigError("--link is for bundles: an adapter holds no backbone", hint="leave --link out")
    project = Project(project_dir)
    project.need("model", "memtune ingest FACTS")
    project.need("tune", "memtune tune")
    _check_place(out, replace, export_again(out, format, link, in_project(project_dir)))
    memory, facts, held = load_memory(project), load_facts(project), memory_of(project)
    if not bool(memory.bank.accepted.any()):
        raise ProjectError(
            f"{project_dir} has learned no fact yet", hint=f"run first: memtune tune{in_project(project_dir)}"
        )
    backbone = backbone_of(project, backbone, on_event)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(out)
    try:
        on_event(Note("writing the memory" if format == "adapter" else "writing backbone and memory"))
        memory_bytes = _write(beside, format, link, backbone, memory)
        numbers = _to_ask(memory, project.state["seed"])
        asked = [facts[i] for i in numbers]
        on_event(Note(f"asking the {format} {len(asked)} facts in a fresh process"))
        questions = [(facts[i].question, memory.bank.experts_of(i) + 1) for i in numbers]
        answers = _ask_in_fresh_process(beside, questions, backbone if format == "adapter" else None)
        lost = tuple(fact.id for fact, said in zip(asked, answers, strict=True) if said != fact.answer)
        learned = int(memory.bank.accepted.sum())
        figures = {"learned": learned, "asked": len(asked), "exact": len(asked) - len(lost)}
        _card(beside, out.name, format, project, figures)
        size = sum(file.lstat().st_size for file in beside.rglob("*") if file.is_file())
        _readable(beside)
        _take_place(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    with project.writing():  # whose memory may be another by now
        note_export(project, out, format, link, held)
        mark_stale(project, on_event)
    return ExportResult(format, str(out), size, memory_bytes, len(facts), len(asked), len(asked) - len(lost), lost)


def _check_place(out: Path, replace: bool, again: str) -> None:
    """A new directory, an empty one, or an earlier export that may be replaced."""
    if out.name in ("", ".."):
        raise ProjectError(f"{out} names no new directory", hint="name one, such as my-model")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not replace:
        hint = "name a new directory, or put this one aside"
        if is_export(out):
            hint = f"make it anew with: {again}"
        raise ProjectError(f"{out} is there already", hint=hint)
    if not is_export(out):
        raise ProjectError(f"{out} is no export of memtune: it is not replaced", hint="name a new directory")


def _beside(out: Path) -> Path:
    """A new directory beside ``out``, named for this process; those of processes that were killed are removed."""
    own = f".{out.name}.memtune-"
    made = re.compile(rf"{re.escape(own)}([0-9]{{1,9}})-[a-z0-9_]{{8}}")  # the end is mkdtemp's; the rest is the user's
    for left in out.parent.iterdir():
        if (found := made.fullmatch(left.name)) and not _alive(int(found[1])):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{own}{os.getpid()}-", dir=out.parent))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks, and sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _take_place(beside: Path, out: Path) -> None:
    """One rename where there was nothing; where there was an export, it is put aside first and then removed."""
    if out.is_dir() and any(out.iterdir()):
        aside = _beside(out)
        out.rename(aside / out.name)
        beside.rename(out)
        shutil.rmtree(aside)
        return
    if out.is_dir():
        out.rmdir()
    beside.rename(out)


def _readable(directory: Path) -> None:
    """mkdtemp and safetensors write for the owner alone; a checkpoint is readable like any other file."""
    directory.chmod(0o755)
    for path in directory.rglob("*"):
        if not path.is_symlink():  # what a link leads to is not ours
            path.chmod(0o755 if path.is_dir() else 0o644)


def _write(out: Path, format: str, link: bool, backbone: Backbone, memory: Memory) -> int:
    """Returns the bytes of the memory."""
    try:
        with quiet_transformers():
            if format == "bundle":
                return write_bundle(out, backbone, memory, link)
            from memtune.peft import write_adapter  # takes seconds to import

            return write_adapter(out, backbone, memory)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{backbone.checkpoint.name} cannot be saved: {error}") from error


def _card(out: Path, name: str, format: str, project: Project, found: dict[str, int]) -> None:
    template = files("memtune").joinpath("hub", f"{format}.md.in").read_text(encoding="utf-8")
    ingested, tuned = project.need("ingest", "memtune ingest FACTS"), project.need("tune", "memtune tune")
    # Both are quoted where they stand in YAML or Python: whatever they hold, they are one text on one line.
    # A path says where the backbone lies on this machine: that is nobody's business where the card is published.
    model = str(ingested["model"])
    title = visible(Path(model).name if Path(model).is_absolute() else model)
    names = {"name": json.dumps(visible(name), ensure_ascii=False), "base": json.dumps(title, ensure_ascii=False)}
    figures = ingested | tuned | found | names | {"model": title, "version": __version__}
    (out / "README.md").write_text(template.format(**figures), encoding="utf-8")


def _to_ask(memory: Memory, seed: int) -> list[int]:
    accepted = [i for i, yes in enumerate(memory.bank.accepted.tolist()) if yes]
    return accepted if len(accepted) <= ASKED else random.Random(seed).sample(accepted, ASKED)


def _ask_in_fresh_process(directory: Path, questions: list[tuple[str, int]], backbone: Backbone | None) -> list[str]:
    """Answers to (question, most tokens) from a process that has torch and transformers alone; an adapter is put on
    its ``backbone``, for which it needs peft and memtune too.
    """
    script, base = str(files("memtune").joinpath("hub", "ask.py")), []
    if backbone is not None:
        base = [backbone.checkpoint.location, str(backbone.readout.dtype).removeprefix("torch.")]
    with tempfile.TemporaryDirectory() as modules:
        run = subprocess.run(  # nosec B603  # our own script by our own Python; no shell reads the names
            # -P: nothing beside the script is imported; torch may be installed for the user alone, which -I would hide.
            [sys.executable, *([] if base else ["-P"]), script, str(directory), *base],
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            env=_environment(modules),
            check=False,
        )
    if run.returncode != 0:
        last = run.stderr.strip().splitlines()[-1:] or ["no message"]
        raise MemtuneError(f"what was written does not load in a fresh process: {last[0]}")
    said = json.loads(run.stdout)
    if said["memtune_imported"] and not base:
        raise MemtuneError("the bundle imported memtune, so it would not load where memtune is not installed")
    answers: list[str] = said["answers"]
    return answers


def _environment(modules: str) -> dict[str, str]:
    """transformers copies a bundle's code into its module cache; a fresh one keeps old copies out."""
    return os.environ | {"HF_MODULES_CACHE": modules, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
