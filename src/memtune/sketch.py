"""A sketch of a model: a few of its weights, by which a memory knows the model that it was made on.

The fingerprint of a backbone names every bit. A memory is also put on models whose bits are others: loaded in another
dtype, wrapped by other adapters, with layers in fewer bits. What it must not be put on is another model, and that shows
in any weight that both hold as plain numbers. Where there is none, nothing can be said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from memtune.memory.states import decoder_layers
from memtune.visible import show

__all__ = ["differences", "sketch_of"]

ENTRIES = 16  # of each weight
FIRST = 256  # rows, over which the entries are spread: a vocabulary that was made longer still begins with them
LAYERS = 8
NEAR = 0.01  # of the length of the entries. Sixteen bits and four digits round them by a quarter of it at most
PLAIN = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
WRAPPERS = ("base_layer", "original_module")  # where peft keeps the module that it stands for


def sketch_of(model: Any) -> dict[str, str]:
    """By name, four digits of some entries of the embedding, the head, and one matrix of layers from first to last."""
    layers = decoder_layers(model) or ()
    sketch = {name: _text(weight) for name, weight in _ends(model) if _is_plain(weight)}
    for number in range(0, len(layers), -(-len(layers) // LAYERS)):
        plain = ((name, weight) for name, weight in _matrices(layers[number]) if _is_plain(weight))
        sketch |= {f"{number}.{name}": _text(weight) for name, weight in list(plain)[:1]}
    return sketch


def differences(model: Any, sketch: Any) -> tuple[list[str], int]:
    """The weights of ``model`` that are not those of ``sketch``, and how many of them could be compared.

    Raises ValueError for a sketch that ``sketch_of`` cannot have made.
    """
    wanted = _numbers(sketch)
    found = {name: weight for name, weight in _named(model) if name in wanted and _is_plain(weight)}
    return [name for name, weight in found.items() if not _alike(_entries(weight), wanted[name])], len(found)


def _named(model: Any) -> Iterator[tuple[str, Any]]:
    yield from _ends(model)
    for number, layer in enumerate(decoder_layers(model) or ()):
        yield from ((f"{number}.{name}", weight) for name, weight in _matrices(layer))


def _ends(model: Any) -> Iterator[tuple[str, Any]]:
    """Embedding and head; tied ones are one tensor under both names."""
    for name, module in (("embedding", model.get_input_embeddings()), ("head", model.get_output_embeddings())):
        for wrapper in WRAPPERS:
            while hasattr(module, wrapper):
                module = getattr(module, wrapper)
        yield name, getattr(module, "weight", None)


def _matrices(layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, weight in layer.named_parameters():
        if weight.ndim > 1:  # norms are near one in every model
            yield ".".join(part for part in name.split(".") if part not in WRAPPERS), weight


def _is_plain(weight: Any) -> bool:
    """Its numbers are the weight itself, here and whole: not codes for it, nor a shard, nor on the way to a device."""
    return (
        type(weight) in (Tensor, nn.Parameter) and weight.dtype in PLAIN and weight.numel() > 0 and not weight.is_meta
    )


def _entries(weight: Tensor) -> Tensor:
    rows = weight.detach().flatten(0, -2)[: FIRST : FIRST // ENTRIES]
    return torch.stack([row[i * len(row) // ENTRIES] for i, row in enumerate(rows)]).float().cpu()


def _text(weight: Tensor) -> str:
    return " ".join(f"{entry:.4g}" for entry in _entries(weight).tolist())


def _numbers(sketch: Any) -> dict[str, Tensor]:
    try:
        return {name: torch.tensor([float(entry) for entry in text.split()]) for name, text in sketch.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"sketch is {show(sketch)}") from error


def _alike(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and bool((found - wanted).norm() <= NEAR * wanted.norm())
