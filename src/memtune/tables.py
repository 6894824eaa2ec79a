"""Facts where others keep them: a parquet file, a directory of a dataset, or its id on the Hugging Face hub.

They are read row by row through the library datasets, which is not installed with memtune.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memtune.errors import DataError
from memtune.located import Header, Items, LineError, Row
from memtune.visible import visible

__all__ = ["is_table", "table_rows"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_EXPECTED = "give a parquet file, the directory of a dataset, or an id on the hub such as org/name"
_INSTALL = "python -m pip install 'datasets>=3'"


def is_table(name: str) -> bool:
    """A parquet file, or a directory or hub id with or without ``#SPLIT`` behind it."""
    place = Path(_parted(name)[0])
    if place.suffix.lower() == ".parquet":
        return True
    try:
        return place.is_dir() or (not place.exists() and not place.suffix and _HUB_ID.fullmatch(str(place)) is not None)
    except OSError:  # no file has such a name: whoever opens it says why
        return False


def table_rows(name: str) -> Items:
    """The names of the columns, then each row with its number. Raises DataError where the table cannot be opened."""
    rows = _opened(name)
    columns = tuple(rows.column_names or ())
    return _numbered(rows, columns)


def _numbered(rows: Any, columns: tuple[str, ...]) -> Iterator[Row]:
    if columns:
        yield Header(0, list(columns), columns)
    number = 0
    try:
        with _quiet():
            for number, row in enumerate(rows, 1):
                yield Row(number, {key: _as_in_text(value) for key, value in row.items() if value is not None})
    except Exception as error:  # a page that is damaged is met when its rows are asked for, and as any kind
        raise LineError(number + 1, f"cannot be read from here on: {_reason(error)}") from error


def _as_in_text(value: object) -> object:
    """A number or a date as a text file would spell it; what no text file could say is left for the row to refuse."""
    if isinstance(value, list):
        return [_as_in_text(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _as_in_text(item) for key, item in value.items()}
    if isinstance(value, bytes):  # text, where the table does not say that it is
        return value.decode("utf-8", "surrogateescape")
    nothing = value is None or isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value))
    return value if nothing or isinstance(value, str) else str(value)


def _reason(error: Exception) -> str:
    """The first line of what it says; it may quote bytes of the file."""
    return visible((str(error).strip().splitlines() or [type(error).__name__])[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """datasets would write what it meets to stderr itself."""
    import datasets

    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)


def _parted(name: str) -> tuple[str, str]:
    place, _, split = name.partition("#")
    return place, split


def _opened(name: str) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError([f"{name}: reading it needs the package datasets"], hint=_INSTALL) from error
    place, split = _parted(name)
    with _quiet():
        return _split_of(load_dataset, place, split, name)


def _split_of(load_dataset: Any, place: str, split: str, name: str) -> Any:
    try:
        if Path(place).suffix.lower() == ".parquet":
            return load_dataset("parquet", data_files=place, split="train", streaming=True)
        splits = load_dataset(place, streaming=True)
    except Exception as error:  # the readers of files and of the hub raise many kinds
        raise DataError([f"{name}: {_reason(error)}"], hint=_EXPECTED) from error
    wanted = split or ("train" if "train" in splits else next(iter(splits)) if len(splits) == 1 else "")
    if wanted not in splits:
        hint = f"name one: {place}#{next(iter(splits))}"
        raise DataError([f"{name}: the dataset has the splits {', '.join(splits)}"], hint=hint)
    return splits[wanted]
