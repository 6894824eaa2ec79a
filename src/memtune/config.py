"""The settings of a project: flags over memtune.yaml over these defaults."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from memtune.errors import ConfigError
from memtune.visible import show

__all__ = ["CONFIG_FILE", "DTYPES", "Config", "target_option"]

CONFIG_FILE = "memtune.yaml"
VERIFY = ("sample", "all", "none")
ROWS = ("int8", "float32")
DTYPES = ("auto", "float32", "bfloat16", "float16")
SEEDS = 1 << 63  # torch takes no larger ones


@dataclass(frozen=True)
class Config:
    """Everything a user can set once for a project."""

    model: str = "smollm2"  # directory, hub id, GGUF file or built-in name
    until_loss: float = 0.01  # nats per answer token, the mean over a fact's answer
    false_fire: float = 0.01  # share of near-miss questions that may fire
    verify: str = "sample"  # how many facts are generated after tuning: sample, all, none
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    rows: str = "int8"  # how fitted rows are kept: int8 or float32

    def __post_init__(self) -> None:
        _check(
            0 < self.until_loss < math.log(2), "until_loss", self.until_loss, "a loss between 0 and ln 2 = 0.69 nats"
        )
        _check(0 < self.false_fire < 1, "false_fire", self.false_fire, "a share between 0 and 1")
        _check(self.verify in VERIFY, "verify", self.verify, f"one of: {', '.join(VERIFY)}")
        _check(self.rows in ROWS, "rows", self.rows, f"one of: {', '.join(ROWS)}")
        _check(0 <= self.seed < SEEDS, "seed", self.seed, "0 or a positive integer below 2^63")
        _check(self.dtype in DTYPES, "dtype", self.dtype, f"one of: {', '.join(DTYPES)}")

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Any], source: str, base: Config | None = None) -> Config:
        """``base``, by default the defaults, with these entries in place of its own.

        Raises ConfigError for an unknown key (with a suggestion) or a value of the wrong kind.
        """
        kinds = {field.name: type(field.default) for field in fields(cls)}
        values = {}
        for key, value in entries.items():
            name = str(key).replace("-", "_")
            if name not in kinds:
                close = difflib.get_close_matches(name, kinds, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(kinds)}"
                raise ConfigError(f"{source}: unknown key {show(key)}", hint=hint)
            values[name] = _coerced(name, value, kinds[name], source)
        return replace(base or cls(), **values)

    @classmethod
    def load(cls, path: Path, base: Config | None = None) -> Config:
        """The settings of the file over ``base``, by default the defaults; that alone where there is no file."""
        base = base or cls()
        if not path.is_file():
            return base
        try:
            entries = _PlainEntries(path.read_text(encoding="utf-8")).get_single_data()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise ConfigError(f"{path}: {reason}", hint="write one `key: value` a line") from error
        if entries is None:
            return base
        if not isinstance(entries, dict):
            raise ConfigError(f"{path}: expected `key: value` lines, found {show(entries)}")
        return cls.from_mapping(entries, str(path), base)

    def with_flags(self, **flags: Any) -> Config:
        """These settings with every flag that is not None in place of its setting."""
        return replace(self, **{name: value for name, value in flags.items() if value is not None})


def target_option(until_loss: float) -> str:
    """The option that asks for this target again, where it is not the default: shards of another one do not merge."""
    return "" if until_loss == Config.until_loss else f" --until-loss {until_loss}"


class _PlainEntries(yaml.SafeLoader):
    """Keys and values as they stand there. PyYAML keeps the last of two equal keys in silence, and a few aliases of
    aliases can stand for more than any memory holds: both are refused, and so are tags, which no setting needs.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise yaml.constructor.ConstructorError(None, None, "aliases and tags are not read", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, count in Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)).items():
            if count > 1:
                problem = f"the key {show(key)} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def _coerced(name: str, value: Any, kind: type, source: str) -> Any:
    """YAML reads 1e-4 as text and no as a boolean: numbers are read from text, booleans are never taken for text."""
    if isinstance(value, bool) or value is None:
        raise ConfigError(
            f"{source}: {name} is {show(value)}, expected {kind.__name__}", hint="put the value in quotes"
        )
    try:
        found = kind(value) if isinstance(value, (str, int, float)) else None
    except (ValueError, OverflowError):
        found = None
    if found is None or (kind is int and found != float(value)):
        raise ConfigError(f"{source}: {name} is {show(value)}, expected {kind.__name__}")
    return found


def _check(holds: bool, name: str, value: Any, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {show(value)}", hint=f"{name} takes {expected}")
