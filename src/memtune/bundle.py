"""A bundle: a checkpoint whose own code joins the memory to the backbone, so that transformers loads it alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from safetensors.torch import save_file
from transformers.utils import cached_file

from memtune import __version__
from memtune.backbone import Backbone
from memtune.errors import ModelError
from memtune.memory.module import Memory

__all__ = ["MEMORY_FILE", "PREFIX", "backbone_files", "write_bundle"]

MEMORY_FILE = "memory.safetensors"
PREFIX = "memory."  # of the memory's tensors: the bundle's class keeps it under this name
INDEX_FILE = "model.safetensors.index.json"
# `transformers serve` asks for the second first, and then takes the backbone's class by its name, without the memory.
AUTO_CLASSES = ("AutoModelForCausalLM", "AutoModelForDecision")


def write_bundle(out: Path, backbone: Backbone, memory: Memory, link: bool = False) -> int:
    """Backbone, memory, index, code and tokenizer; returns the bytes of the memory.

    ``link``: the backbone's weights stay where they are, and links lead to them. Quantised weights are copied as files:
    what a library has made of them in memory is not always what it can save. Raises ModelError where the weights are in
    no safetensors files and would have to be.
    """
    if link or backbone.quantised:
        _take_weights(out, backbone, Path.symlink_to if link else _copy)
    else:
        backbone.model.save_pretrained(out, save_original_format=False)  # of renamed weights only its own class knows
    backbone.prompts.tokenizer.save_pretrained(out)
    tensors = {f"{PREFIX}{name}": t.detach().cpu().contiguous() for name, t in memory.state_dict().items()}
    save_file(tensors, out / MEMORY_FILE, metadata={"format": "pt"})
    _index(out, list(tensors))
    config = json.loads((out / "config.json").read_text())
    backbone_class = type(backbone.model).__name__
    config["auto_map"] = dict.fromkeys(AUTO_CLASSES, f"modeling_memtune.{backbone_class}")
    config["memtune"] = memory.config.to_dict()
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    _code(out, backbone_class, int(memory.bank.accepted.sum()))
    return (out / MEMORY_FILE).stat().st_size


def _take_weights(out: Path, backbone: Backbone, take: Callable[[Path, Path], None]) -> None:
    """The backbone's configs, and each of its weight files as ``take`` takes it over."""
    config = cached_file(backbone.checkpoint.location, "config.json")
    assert config is not None  # it was loaded from there
    weights = sorted(Path(config).parent.glob("*.safetensors"))
    if not weights:
        raise ModelError(
            f"{backbone.checkpoint.name} has no safetensors files to link to or to copy",
            hint="save it as safetensors" if backbone.quantised else "export without --link",
        )
    backbone.model.config.save_pretrained(out)
    backbone.model.generation_config.save_pretrained(out)
    for file in weights:
        take(out / file.name, file.resolve())
    index = Path(config).with_name(INDEX_FILE)
    if index.is_file():
        (out / INDEX_FILE).write_bytes(index.read_bytes())


def _copy(target: Path, source: Path) -> None:
    shutil.copyfile(source, target)


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


def backbone_files(bundle: Path) -> frozenset[str]:
    """The names of the weight files that a bundle has of its backbone, as far as its index can be read."""
    try:
        weight_map = json.loads((bundle / INDEX_FILE).read_bytes())["weight_map"]
        return frozenset(map(str, weight_map.values())) - {MEMORY_FILE}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return frozenset()


def _code(out: Path, backbone_class: str, learned: int) -> None:
    """The memory's own modules, byte for byte, and the class that joins them to the backbone."""
    for module in files("memtune").joinpath("memory").iterdir():
        if module.name.endswith(".py") and module.name not in {"__init__.py", "edit.py", "fit.py", "readout.py"}:
            (out / module.name).write_bytes(module.read_bytes())
    template = files("memtune").joinpath("hub", "modeling_memtune.py.in").read_text(encoding="utf-8")
    code = template.format(backbone=backbone_class, learned=learned, version=__version__)
    (out / "modeling_memtune.py").write_text(code, encoding="utf-8")
