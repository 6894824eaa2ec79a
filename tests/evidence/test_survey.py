"""What was measured is a file that says the same when it is read again; any other file is refused with words."""

from __future__ import annotations

import json

import pytest

from memtune.errors import ConfigError, DataError
from memtune.evidence.knowledge.exemplars import Sets
from memtune.evidence.knowledge.fewshot import Exemplar
from memtune.evidence.knowledge.slick import Knowledge
from memtune.evidence.knowledge.survey import KnowResult, Measured, Method, Survey, read_record, write_record
from memtune.evidence.knowledge.transitions import Moved, damage, transitions
from memtune.fact import Fact

FACTS = tuple(Fact(f"f{i}", f"Which {i}?", f"A {i}", ("What?",), f"facts.jsonl:{i}") for i in range(4))
GROUPS = ("taught", "taught", "held out", "unrelated")


def knowledge(category):
    return Knowledge(category, 0.25, 0.5, 0.75, category == "HighlyKnown")


KNOWN = tuple(map(knowledge, ("Unknown", "Unknown", "MaybeKnown", "HighlyKnown")))
SURVEY = Survey(FACTS, GROUPS, Sets(((Exemplar("Q", "A"),), (Exemplar("R", "B"),)), ((0, 1),) * 4), Method(2, 1))
RESULT = KnowResult(SURVEY, Measured("tiny", "abc", 3, KNOWN), 1.5)


@pytest.fixture
def record(tmp_path):
    write_record(RESULT, tmp_path / "before.json")
    return tmp_path / "before.json"


def test_a_record_is_read_as_it_was_written(record):
    assert read_record(record) == RESULT


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.update(format=2),
        lambda r: r.pop("survey"),
        lambda r: r["survey"]["groups"].pop(),
        lambda r: r["survey"]["groups"].__setitem__(0, "else"),
        lambda r: r["survey"]["facts"][0].update(question=5),
        lambda r: r["survey"]["facts"][0].update(more="x"),
        lambda r: r["survey"]["exemplars"]["sets"][0][0].update(answer=None),
        lambda r: r["survey"]["exemplars"]["of"].__setitem__(0, [2]),
        lambda r: r["survey"]["exemplars"]["of"].__setitem__(0, [-1]),
        lambda r: r["survey"]["exemplars"]["of"].__setitem__(0, []),
        lambda r: r["survey"]["method"].update(sets="4"),
        lambda r: r["survey"]["method"].update(shots=0),
        lambda r: r["survey"]["method"].update(more=1),
        lambda r: r["measured"]["known"].pop(),
        lambda r: r["measured"]["known"][0].update(category="Known"),
        lambda r: r["measured"]["known"][0].update(greedy=2),
        lambda r: r["measured"].update(memory="many"),
        lambda r: r.update(survey=[]),
    ],
)
def test_a_record_that_says_anything_else_is_refused(record, spoil):
    entries = json.loads(record.read_text(encoding="utf-8"))
    spoil(entries)
    record.write_text(json.dumps(entries), encoding="utf-8")
    with pytest.raises(DataError, match=r"before.json: not what memtune know --save writes"):
        read_record(record)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000])
def test_what_is_no_record_at_all_is_refused(record, text):
    record.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="not what memtune know"):
        read_record(record)


def test_a_record_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none.json: No such file") as caught:
        read_record(tmp_path / "none.json")
    assert caught.value.hint == "make it: memtune know FACTS --save FILE"


def test_a_method_takes_at_least_one_set_of_one_exemplar():
    for wrong in ({"sets": 0}, {"shots": 0}):
        with pytest.raises(ConfigError, match="is 0"):
            Method(**wrong)


def test_transitions_count_every_fact_of_each_group_once():
    after = tuple(map(knowledge, ("HighlyKnown", "Unknown", "MaybeKnown", "Unknown")))
    taught, held, unrelated = transitions(SURVEY, KNOWN, after)
    assert [one.facts for one in (taught, held, unrelated)] == [2, 1, 1]
    assert taught.counts == ((0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (1, 0, 0, 1))
    assert held.counts[1] == (0, 1, 0, 0)
    assert unrelated.counts[0] == (0, 0, 0, 1)
    assert (taught.alone_before, taught.alone_after) == (0, 1)
    assert taught.moved == (Moved("f0", "Which 0?", "Unknown", "HighlyKnown"),)


def test_damage_is_what_was_not_taught_and_moved():
    after = tuple(map(knowledge, ("HighlyKnown", "HighlyKnown", "WeaklyKnown", "Unknown")))
    assert [moved.id for moved in damage(transitions(SURVEY, KNOWN, after))] == ["f2", "f3"]
    assert damage(transitions(SURVEY, KNOWN, (*map(knowledge, ("HighlyKnown", "MaybeKnown")), *KNOWN[2:]))) == ()
