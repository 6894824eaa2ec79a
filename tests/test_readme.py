"""Every command in the README is run as it stands there; a tiny model stands in through memtune.yaml."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memtune.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_memtune_command_runs_in_the_order_of_the_page(tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "memtune.yaml").write_text(f"model: {checkpoint}\n", encoding="utf-8")
    (tmp_path / "examples").mkdir()
    rows = (ROOT / "examples" / "facts.jsonl").read_text(encoding="utf-8").splitlines()[:12]
    (tmp_path / "examples" / "facts.jsonl").write_text("\n".join(rows), encoding="utf-8")
    commands = re.findall(r"^\$ memtune (.+)$", README, flags=re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["ingest", "tune", "probe", "export"]
    for command in commands:
        done = CliRunner().invoke(app, shlex.split(command))
        assert done.exit_code == 0, f"memtune {command}\n{done.stderr}"


@pytest.mark.parametrize("command", re.findall(r"^make \w+", README, flags=re.MULTILINE))
def test_every_make_command_has_its_target(command):
    done = subprocess.run(["make", "--dry-run", *command.split()[1:]], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
