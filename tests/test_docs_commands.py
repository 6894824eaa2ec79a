"""The page of the commands says what the commands say."""

from __future__ import annotations

import dataclasses
import re
import runpy
from pathlib import Path

import pytest
import yaml

from memtune.config import Config

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "commands.md").read_text(encoding="utf-8")


def test_the_help_in_the_page_is_the_help_of_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    with_help = runpy.run_path(str(DOCS / "generate.py"))["with_help"]
    for columns in ("80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        assert with_help(PAGE) == PAGE, "docs/commands.md is stale: run make docs"


def test_the_settings_in_the_page_are_all_of_them_with_their_defaults() -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    assert Config.from_mapping(yaml.safe_load(found[1]), "commands.md") == Config()
    assert list(yaml.safe_load(found[1])) == [field.name for field in dataclasses.fields(Config)]
