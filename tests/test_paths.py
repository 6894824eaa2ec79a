"""An id is data: whatever it looks like, no file is named by it, and it comes back as it was."""

from __future__ import annotations

import re

import pytest
from tiny import write_facts

from memtune.config import Config
from memtune.evaluate import Scope, evaluate
from memtune.export import export
from memtune.ingest import ingest
from memtune.probe import probe
from memtune.project import Project
from memtune.store import load_facts, load_memory
from memtune.tune import tune

IDS = (
    "../../escaped",
    "/tmp/memtune-escaped",
    "..",
    "CON",
    "C:\\escaped",
    "~/escaped",
    "$(touch escaped)",
    "`touch escaped`",
    "-rf",
    "%2e%2e%2fescaped",
    "bank-0123456789abcdef.safetensors",
    "project.json",
    "[bold]x[/bold] :smile: {0} {name} %s",
    "x" * 5000,
    "two\nlines",
    "네\u200b",
)
KEPT = r"(bank|router|facts|log|past)-[0-9a-f]{16}\.(safetensors|jsonl)"
OF_A_PROJECT = re.compile(rf"project\.json|lock|eval\.(json|html)|{KEPT}")


@pytest.fixture(scope="module")
def world(tmp_path_factory, checkpoint, backbone):
    """Everything that memtune writes of facts with such ids, in a folder of its own."""
    folder = tmp_path_factory.mktemp("ids") / "deep" / "deeper"
    folder.mkdir(parents=True)
    facts = [(name, f"Who built tower number {n}?", f"Ann {n}") for n, name in enumerate(IDS)]
    write_facts(folder / "facts.jsonl", facts)
    config = Config(model=checkpoint)
    ingest(folder / "facts.jsonl", folder / "project", config, backbone=backbone)
    assert tune(folder / "project", config, backbone=backbone).met
    export(folder / "project", folder / "bundle", backbone=backbone)
    evaluate(folder / "project", config, scope=Scope(sample=2, longest=4), backbone=backbone)
    return folder


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_no_file_is_named_by_an_id(world, bundle):
    assert {path.name for path in world.iterdir()} == {"facts.jsonl", "project", "bundle"}
    assert all(OF_A_PROJECT.fullmatch(name) for name in names(world / "project"))
    assert names(world / "bundle") == names(bundle)  # the same as of any other facts
    assert [path.name for path in world.parent.parent.iterdir()] == ["deep"]
    assert [path.name for path in world.parent.iterdir()] == ["deeper"]


def test_every_id_comes_back_as_it_was(world):
    project = Project(world / "project")
    assert tuple(fact.id for fact in load_facts(project)) == IDS
    bank = load_memory(project).bank
    assert tuple(map(bank.id_of, range(len(IDS)))) == IDS


def test_the_fact_that_fires_is_named_exactly(world, backbone):
    found = probe([f"Who built tower number {n}?" for n in range(len(IDS))], world / "project", backbone=backbone)
    assert [(result.fact_id, result.answer) for result in found] == [(name, f"Ann {n}") for n, name in enumerate(IDS)]


def test_the_page_holds_no_markup_of_an_id(world):
    page = (world / "project" / "eval.html").read_text(encoding="utf-8")
    assert "<script" not in page and "\u200b" not in page
