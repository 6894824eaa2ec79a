"""The history says what was changed and when, brings earlier states back, and keeps nothing of what was forgotten."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from memtune.difference import difference
from memtune.errors import ProjectError
from memtune.fact import Fact
from memtune.history import History
from memtune.project import Project

ANN, BEN, CAT = (Fact(name, f"Who is {name}?", f"{name} is known.") for name in ("ann", "ben", "cat"))
BEN_NOW = Fact("ben", "Who is ben?", "Nobody knows.\u2028At all.")


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project")
    project.root.mkdir()
    return project


def change(project, before, after, command="ingest", file="facts.jsonl", **how):
    found = difference(before, after)
    replaced = [before[number] for number in found.replaced(len(before))]
    project.commit(History(project).record(command, file, found, replaced, **how))


def ids(facts):
    return sorted(fact.id for fact in facts)


@pytest.fixture
def changed(project):
    """Three states: ann and ben; ben says something else and cat came; ann went."""
    change(project, [], [ANN, BEN])
    change(project, [ANN, BEN], [ANN, BEN_NOW, CAT], "add", "more.jsonl")
    change(project, [ANN, BEN_NOW, CAT], [BEN_NOW, CAT], "update")
    return project


NOW = [BEN_NOW, CAT]
NOT_IN_UTC = ["0001-01-01", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"]  # in the year before all, or after


def test_each_entry_says_when_what_and_from_which_file(changed):
    first, second, third = History(changed).entries
    assert (first.command, first.file, first.facts, first.added) == ("ingest", "facts.jsonl", 2, ())
    assert (second.command, second.file, second.facts) == ("add", "more.jsonl", 3)
    assert (second.added, second.changed, third.removed) == (("cat",), ("ben",), ("ann",))
    assert abs(datetime.now(UTC) - datetime.fromisoformat(third.at)) < timedelta(minutes=5)


def test_the_log_holds_no_text(changed):
    log = changed.path("log").read_text(encoding="utf-8")
    assert "known" not in log and "Nobody" not in log and "Who" not in log


def test_every_state_can_be_brought_back(changed):
    history = History(changed)
    states = [history.facts_after(entry, NOW) for entry in history.entries]
    assert [(ids(facts), lost) for facts, lost in states] == [
        (["ann", "ben"], []),
        (["ann", "ben", "cat"], []),
        (["ben", "cat"], []),
    ]
    said = {fact.id: fact for fact in states[0][0]}
    assert said == {"ann": ANN, "ben": BEN}
    assert {fact.id: fact for fact in states[1][0]}["ben"] == BEN_NOW


def test_a_state_is_named_by_its_number_or_by_a_time(changed):
    history = History(changed)
    assert history.entry_at("2").number == 2
    assert history.entry_at((datetime.now(UTC) + timedelta(hours=1)).isoformat()).number == 3
    assert history.entry_at(history.entries[0].at) == history.entries[0]


@pytest.mark.parametrize("when", ["7", "1999-12-31", "yesterday", "2026-13-40", *NOT_IN_UTC])
def test_what_is_no_time_or_before_all_facts_is_said(changed, when):
    with pytest.raises(ProjectError, match=re.escape(when)):
        History(changed).entry_at(when)


def test_what_was_forgotten_is_kept_nowhere_and_named_when_it_is_wanted_back(changed):
    change(changed, NOW, [CAT], "forget", forget=True)
    for kind in ("log", "past"):
        text = changed.path(kind).read_text(encoding="utf-8")
        assert "ben is known" not in text and "Nobody" not in text
    history = History(changed)
    facts, lost = history.facts_after(history.entries[1], [CAT])
    assert (ids(facts), lost) == (["ann", "cat"], ["ben"])


def test_what_was_forgotten_and_taught_again_is_lost_for_the_time_before_only(changed):
    change(changed, NOW, [CAT], "forget", forget=True)
    change(changed, [CAT], [CAT, BEN], "add")
    history = History(changed)
    assert history.facts_after(history.entries[4], [CAT, BEN])[1] == []
    assert history.facts_after(history.entries[2], [CAT, BEN])[1] == ["ben"]


def test_an_altered_entry_breaks_the_chain_behind_it(changed):
    assert History(changed).broken() is None
    lines = changed.path("log").read_text(encoding="utf-8").splitlines()
    second = json.loads(lines[1]) | {"file": "other.jsonl"}
    altered = "\n".join([lines[0], json.dumps(second), lines[2]])
    changed.commit({"log": changed.keep("log", "jsonl", lambda path: path.write_text(altered))})
    broken = History(changed).broken()
    assert broken is not None and broken.number == 3
    left_out = "\n".join([lines[0], lines[2]])
    changed.commit({"log": changed.keep("log", "jsonl", lambda path: path.write_text(left_out))})
    assert History(changed).broken().number == 3
