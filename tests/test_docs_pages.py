"""Pages with commands are run as they stand: the commands, then the Python, from top to bottom."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tiny import FACTS, write_facts
from typer.testing import CliRunner

from memtune.cli import app
from memtune.fact import Fact, facts_to_jsonl
from memtune.history import History
from memtune.project import Project
from memtune.store import load_facts

PAGES = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),  # peft's, for transformers
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
]


@pytest.fixture
def run(done, checkpoint, monkeypatch, capsys):
    """Runs a page in a directory that holds a tuned project; gives what its Python printed."""
    monkeypatch.chdir(done.parent)
    done.rename(done.parent / ".memtune")

    def run(page):
        names = {}
        text = (PAGES / page).read_text(encoding="utf-8").replace("path/to/model", checkpoint)
        for kind, block in BLOCK.findall(text):
            if kind == "bash":
                for line in block.replace("\\\n", " ").splitlines():
                    program, *words = shlex.split(line)
                    assert program == "memtune"
                    result = CliRunner().invoke(app, [*words, "--quiet"])
                    assert result.exit_code == 0, result.output
                capsys.readouterr()
            else:
                exec(block, names)
        return capsys.readouterr().out.splitlines()

    return run


TRAM = next(answer for name, _, answer in FACTS if name == "tram")


def test_transformers(run, load):  # which says where the bundle's code goes
    assert run("integrations/transformers.md") == [TRAM]


def test_data(run, done):
    pytest.importorskip("datasets")
    run("integrations/data.md")
    assert Project(done.parent / "parts").need("tune", "")["learned"] == 2


def test_vllm(run):
    """As far as it goes without vLLM: ``tests/test_vllm.py`` starts the server."""
    assert run("integrations/vllm.md") == [TRAM]


def test_peft(run):
    loaded, project, off, second, beside = run("integrations/peft.md")
    assert [loaded, project, second, beside] == [TRAM] * 4 and off != TRAM


def test_changing(run, done):
    run("changing.md")
    project = Project(done.parent / ".memtune")
    assert [entry.command for entry in History(project).entries[1:]] == ["add", "update", "forget", "add", "rollback"]
    assert len(load_facts(project)) == len(FACTS)


def test_score(run):
    fact = Fact("price", "How much does the Curlew 3 cost?", "£684 excluding VAT.")
    Path("facts.jsonl").write_text(facts_to_jsonl([fact]), encoding="utf-8")
    judged, ruled = run("evidence/score.md")
    assert judged == "supported judge"
    assert "contradicted" in ruled and "£684 excluding VAT." in ruled


def test_quantised(run, load):  # which says where the bundle's code goes
    pytest.importorskip("torchao")
    write_facts(Path("facts.jsonl"))
    assert run("integrations/quantised.md") == [TRAM]
