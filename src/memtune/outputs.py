"""The files that a measurement leaves: whether they can be written is asked before it, and each is written whole."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from memtune import __version__
from memtune.errors import ConfigError, ProjectError
from memtune.project import check_writable, finite, write_beside

__all__ = ["as_json", "check_out", "versions", "write_texts"]


def versions() -> dict[str, str]:
    """Of what a measurement was made with."""
    return {
        "memtune": __version__,
        "torch": str(torch.__version__),
        "transformers": str(transformers.__version__),
        "python": platform.python_version(),
    }


def as_json(record: Mapping[str, Any]) -> str:
    return json.dumps(finite(record), indent=1, ensure_ascii=False) + "\n"


def check_out(out: Path, files: str) -> None:
    """Before anything is measured. Raises ConfigError where ``files`` cannot be written."""
    try:
        check_writable(out)
    except OSError as error:
        reason = "is no directory" if isinstance(error, FileExistsError) else f"cannot be written: {error.strerror}"
        raise ConfigError(f"{out} {reason}", hint=f"--out takes a directory for {files}") from error


def write_texts(out: Path, texts: Mapping[str, str]) -> None:
    """Files of these names in ``out``, each whole or as it was before. Raises ProjectError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_beside(out / name, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise ProjectError(
            f"{out} cannot be written: {error.strerror}", hint="name another directory: --out DIR"
        ) from error
