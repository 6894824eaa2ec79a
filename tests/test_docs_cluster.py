"""The page on clusters: its YAML can be read, its commands have the options that memtune has, its numbers are right."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from memtune.cli import app
from memtune.shards import Shard
from memtune.tune import CHUNK

PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
YAML = [yaml.safe_load(block) for kind, block in BLOCKS if kind == "yaml"]
COMMANDS = [
    line.partition("#")[0].rstrip("\"' ")
    for _, block in BLOCKS
    for line in re.findall(r"\bmemtune (?:ingest|plan|tune|merge)\b[^;\n]*", block)
]


def test_the_page_has_the_commands_of_every_verb():
    assert {shlex.split(command)[1] for command in COMMANDS} == {"ingest", "plan", "tune", "merge"}
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_options_that_there_are(command):
    words = shlex.split(command)[1:]
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="memtune")
    assert result.exit_code == 0, result.output
    assert f"Usage: memtune {words[0]} " in result.stdout


@pytest.mark.parametrize("script", [block for kind, block in BLOCKS if kind == "bash"])
def test_the_scripts_are_bash(script):
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_yaml_is_a_ray_job_and_a_sky_task():
    job, task = YAML
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert cluster["rayVersion"] in PAGE.partition("FROM rayproject/ray:")[2].splitlines()[0]
    assert subprocess.run(["bash", "-n"], input=task["run"], text=True, check=False).returncode == 0


def test_a_million_facts_are_spread_as_the_page_says():
    chunks = [[0]] * -(-1_000_000 // CHUNK)
    parts = {len(Shard(64, number).part(chunks)) for number in range(1, 65)}
    assert f"a million facts are {len(chunks):,} chunks" in PAGE
    assert f"each takes {min(parts)} or {max(parts)} of them, 15,700 facts" in PAGE
    assert min(parts) * CHUNK <= 15_700 <= max(parts) * CHUNK
