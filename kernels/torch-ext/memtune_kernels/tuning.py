"""Tile sizes of the kernels: read from ``configs/``, never searched for while a model waits.

``default.json`` serves every device; a file named after one (``NVIDIA_H200.json``) overrides what was measured there.
An entry named after a dtype holds what is different for it. ``kernels/benchmarks/tune.py`` writes a device's file.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

__all__ = ["CONFIGS", "device_name", "override", "settings"]

CONFIGS = Path(__file__).parent / "configs"

Settings = dict[str, Any]
_overridden: dict[str, Settings] = {}


def settings(kernel: str, device: torch.device, dtype: torch.dtype) -> Settings:
    """Everything that ``kernel`` takes from its configuration on ``device``, for rows of ``dtype``."""
    stored = _stored(device_name(device))[kernel]
    common = {name: value for name, value in stored.items() if not isinstance(value, dict)}
    own: Settings = stored.get(str(dtype).removeprefix("torch."), {})
    return common | own | _overridden.get(kernel, {})


@contextmanager
def override(kernel: str, **values: Any) -> Iterator[None]:
    """Other tile sizes for a while: what tests and the tuner need. A key that no configuration has is a ValueError."""
    unknown = values.keys() - _stored("default")[kernel].keys()
    if unknown:
        raise ValueError(f"{kernel} has no setting {', '.join(sorted(unknown))}")
    before = _overridden.get(kernel, {})
    _overridden[kernel] = before | values
    try:
        yield
    finally:
        _overridden[kernel] = before


def device_name(device: torch.device) -> str:
    """The device's name as its file has it: letters, digits, ``_`` and ``-``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return "".join(c if c.isalnum() or c == "-" else "_" for c in name)


@lru_cache
def _stored(name: str) -> dict[str, Settings]:
    default: dict[str, Settings] = json.loads((CONFIGS / "default.json").read_text())
    file = CONFIGS / f"{name}.json"
    own: dict[str, Settings] = json.loads(file.read_text()) if file.exists() else {}
    return {kernel: values | own.get(kernel, {}) for kernel, values in default.items()}
