"""Whether a memory that was read from somewhere is sound.

Sizes are checked before anything is allocated by them, tensors against the sizes, and whatever a tensor points at
before it is followed. A bundle carries this file: what is wrong is a ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from reprlib import repr as shown
from typing import Any, TypeVar

from torch import Tensor

from .words import BUCKETS

__all__ = ["check_numbers", "check_tensors", "numbers_of", "parts_of", "sizes_of"]

MOST = 1 << 40  # of anything that is counted; times WIDEST and its bytes it is still a number that torch can hold
WIDEST = 1 << 18  # of a row
ROWS = ("int8", "float32")
Sizes = TypeVar("Sizes")


def parts_of(name: str, entries: object, parts: Sequence[str]) -> list[Any]:
    """The values of exactly these keys, in their order."""
    if not isinstance(entries, Mapping) or set(entries) != set(parts):
        raise ValueError(f"{name} is {shown(entries)}, not an object with {', '.join(parts)}")
    return [entries[part] for part in parts]


def sizes_of(kind: type[Sizes], entries: object) -> Sizes:
    """The dataclass of sizes that ``entries`` spell out; its fields are counts but for ``rows``."""
    known: dict[str, Any] = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    given = entries if isinstance(entries, Mapping) else {}
    unknown = [key for key in given if key not in known]
    absent = [name for name, field in known.items() if name not in given and field.default is MISSING]
    if not isinstance(entries, Mapping) or unknown or absent:
        reason = f"unknown {shown(unknown)}" if unknown else f"without {shown(absent)}"
        raise ValueError(f"{kind.__name__} {reason}")
    for name, value in given.items():
        least = 1 if name in ("hidden", "d_key", "d_value", "d_index", "d_gate") else 0
        most = WIDEST if least else MOST
        if value not in ROWS if name == "rows" else type(value) is not int or not least <= value <= most:
            raise ValueError(f"{kind.__name__}.{name} is {shown(value)}")
    return kind(**given)


def numbers_of(name: str, entries: object, least: int, most: int) -> tuple[int, ...]:
    """The list of integers from ``least`` to ``most`` that ``entries`` should be."""
    sound = isinstance(entries, list | tuple) and all(type(item) is int and least <= item <= most for item in entries)
    if not sound:
        raise ValueError(f"{name} is {shown(entries)}, not a list of numbers from {least} to {most:,}")
    return tuple(entries)  # type: ignore[arg-type]


def check_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Every tensor is there with its shape and its dtype, and no other. Nothing of them is read."""
    for name, tensor in wanted.items():
        if name not in found:
            raise ValueError(f"{name} is missing")
        if (tensor.shape, tensor.dtype) != (found[name].shape, found[name].dtype):
            raise ValueError(f"{name} is {_kind(found[name])}, but {_kind(tensor)} by its config")
    if unknown := [name for name in found if name not in wanted]:
        raise ValueError(f"unknown tensors: {shown(unknown)}")


def check_numbers(state: Mapping[str, Tensor]) -> None:
    """Whatever points into another tensor stays inside, and what decides is a number. ``state``: a memory's own."""
    size = {name: len(tensor) for name, tensor in state.items() if tensor.ndim}
    for offsets, end in (
        ("bank.offsets", size["bank.keys"]),
        ("bank.id_offsets", size["bank.ids"]),
        ("router.offsets", size["router.looks"]),
        ("router.list_offsets", size["router.order"]),
    ):
        _check_runs(offsets, state[offsets], end, end)
    _check_runs("router.piece_offsets", state["router.piece_offsets"], 0, size["router.piece_data"])
    for name, end in (
        ("router.owner", size["bank.loss"]),
        ("router.order", size["router.owner"]),
        ("router.spelling", size["router.buckets"]),
        ("router.buckets", BUCKETS),
        ("router.sentences", MOST),
        ("router.probes", size["router.centroids"] + 1),
    ):
        _check_inside(name, state[name], end)
    for name in ("router.threshold", "router.nearness", "router.caution", "router.documents", "bank.scales"):
        if bool(state[name].isnan().any()):
            raise ValueError(f"{name} is not a number")


def _check_runs(name: str, offsets: Tensor, least: int, most: int) -> None:
    """Offsets of runs that stand one after the other: from 0, never back, to an end from ``least`` to ``most``."""
    ends = int(offsets[-1])
    if int(offsets[0]) != 0 or bool((offsets.diff() < 0).any()) or not least <= ends <= most:
        raise ValueError(f"{name} does not go up from 0 to {most:,}")


def _check_inside(name: str, numbers: Tensor, end: int) -> None:
    if len(numbers) and not (int(numbers.min()) >= 0 and int(numbers.max()) < end):
        raise ValueError(f"{name} goes from {int(numbers.min()):,} to {int(numbers.max()):,}, outside 0 to {end - 1:,}")


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
