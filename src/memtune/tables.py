"""Facts where others keep them: a parquet file, a directory of a dataset, or its id on the Hugging Face hub.

They are read row by row through the library datasets, which is not installed with memtune.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memtune.errors import DataError
from memtune.located import Header, Items, Row

__all__ = ["is_table", "table_rows"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_EXPECTED = "give a parquet file, the directory of a dataset, or an id on the hub such as org/name"
_INSTALL = "python -m pip install 'memtune[datasets]'"


def is_table(name: str) -> bool:
    """A parquet file, or a directory or hub id with or without ``#SPLIT`` behind it."""
    place = Path(_parted(name)[0])
    if place.suffix.lower() == ".parquet":
        return True
    return place.is_dir() or (not place.exists() and not place.suffix and _HUB_ID.fullmatch(str(place)) is not None)


def table_rows(name: str) -> Items:
    """The names of the columns, then each row with its number. Raises DataError where the table cannot be opened."""
    rows = _opened(name)
    columns = tuple(rows.column_names or ())
    return _numbered(rows, columns)


def _numbered(rows: Any, columns: tuple[str, ...]) -> Iterator[Row]:
    if columns:
        yield Header(0, list(columns), columns)
    for number, row in enumerate(rows, 1):
        yield Row(number, {key: _as_in_text(value) for key, value in row.items() if value is not None})


def _as_in_text(value: object) -> object:
    """A number or a date as a text file would spell it."""
    return value if isinstance(value, (str, list, dict)) else str(value)


def _parted(name: str) -> tuple[str, str]:
    place, _, split = name.partition("#")
    return place, split


def _opened(name: str) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError([f"{name}: reading it needs the package datasets"], hint=_INSTALL) from error
    place, split = _parted(name)
    try:
        if Path(place).suffix.lower() == ".parquet":
            return load_dataset("parquet", data_files=place, split="train", streaming=True)
        splits = load_dataset(place, streaming=True)
    except Exception as error:  # the readers of files and of the hub raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError([f"{name}: {reason}"], hint=_EXPECTED) from error
    wanted = split or ("train" if "train" in splits else next(iter(splits)) if len(splits) == 1 else "")
    if wanted not in splits:
        hint = f"name one: {place}#{next(iter(splits))}"
        raise DataError([f"{name}: the dataset has the splits {', '.join(splits)}"], hint=hint)
    return splits[wanted]
