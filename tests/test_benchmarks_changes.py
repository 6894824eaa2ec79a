"""One fact is added, changed and forgotten, and the figures say of what."""

from __future__ import annotations

import changes
from common import write_bare

from memtune.evidence import synthetic
from memtune.project import Project
from memtune.store import load_facts

FACTS = 12


def test_the_fact_that_comes_next_is_added_changed_and_forgotten(tmp_path, checkpoint):
    write_bare(synthetic.facts(FACTS), tmp_path / changes.FACTS)
    assert changes.built(tmp_path, checkpoint)["learned"] == FACTS
    new = synthetic.fact(FACTS)
    for verb in changes.VERBS:
        row = changes.changed(verb, tmp_path, checkpoint, FACTS)
        assert row[f"{verb}_untouched"] == FACTS
        assert row[f"{verb}_verified"] == int(verb != "forget")
        assert row[f"{verb}_seconds"] > 0
        said = {fact.id: fact.answer for fact in load_facts(Project(tmp_path / changes.PROJECT))}
        assert said.get(new.id) == {"add": new.answer, "update": f"not {new.answer}", "forget": None}[verb]
