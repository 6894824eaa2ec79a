"""Know says what a model knows of facts, and after teaching them whether anything else was moved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import FACTS, write_facts
from typer.testing import CliRunner

from memtune import cli
from memtune.config import Config
from memtune.errors import ConfigError, DataError, ProjectError
from memtune.evidence.knowledge import know as knowing
from memtune.evidence.knowledge.know import FactFiles, Method, Subject, compare, know
from memtune.evidence.knowledge.slick import Reading
from memtune.evidence.knowledge.survey import read_record
from memtune.ui import know_lines

EXAMPLES = Path(__file__).parents[2] / "examples" / "evidence"
HELD_OUT = [(f"part-{i}", f"What is the part number of the {name}?", f"XK-{i}") for i, name in enumerate("abc")]
UNRELATED = [(f"sky-{i}", f"What colour is the sky over {name}?", f"Blue {i}") for i, name in enumerate("xyz")]
FEW = Method(sets=2, shots=2)

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def files(tmp_path):
    named = {"taught": FACTS, "held_out": HELD_OUT, "unrelated": UNRELATED}
    return FactFiles(**{name: write_facts(tmp_path / f"{name}.jsonl", facts) for name, facts in named.items()})


@pytest.fixture
def before(files, tuned, config, backbone, tmp_path):
    subject = Subject(tuned, memory=False)
    know(files, subject, config, method=FEW, save=tmp_path / "before.json", backbone=backbone)
    return tmp_path / "before.json"


class Scripted:
    """Answers as it is told to, by the id of the fact and the number of exemplars before it."""

    def __init__(self, said):
        self.said, self.asked = said, []

    def readings(self, exemplars, facts, samples):
        self.asked.append((len(exemplars), [fact.id for fact in facts], samples))
        return [self.said(fact, exemplars) for fact in facts]

    def close(self):
        self.asked.append("closed")


@pytest.fixture
def scripted(monkeypatch):
    def use(said):
        reader = Scripted(said)
        for name in ("Forced", "Sampled"):
            monkeypatch.setattr(knowing, name, lambda *_, **__: reader)
        return reader

    return use


def measured(files, backbone, method=FEW):
    return know(files, Subject(Path("none"), model="tiny"), Config(), method=method, backbone=backbone)


def test_every_category_comes_out_of_what_the_model_says(files, backbone, scripted):
    firsts = {}

    def said(fact, exemplars):
        first = firsts.setdefault(fact.id, exemplars or None) in (None, exemplars)
        return {
            "tram": Reading(True, 1.0),
            "valve": Reading(bool(exemplars) and first, 0.5),
            "gauge": Reading(False, 0.1),
        }.get(fact.id, Reading(False, 0.0))

    scripted(said)
    result = measured(files, backbone)
    found = {fact.id: known for fact, known in zip(result.survey.facts, result.measured.known, strict=True)}
    assert found["tram"].category == "HighlyKnown" and found["tram"].alone
    assert found["gauge"].category == "WeaklyKnown"
    assert found["flag"].category == "Unknown" and not found["flag"].alone


def test_one_set_of_two_is_maybe(files, backbone, scripted):
    seen = set()

    def said(fact, exemplars):
        first = bool(exemplars) and fact.id not in seen
        if exemplars:
            seen.add(fact.id)
        return Reading(first, 0.0)

    scripted(said)
    assert {known.category for known in measured(files, backbone).measured.known} == {"MaybeKnown"}


@pytest.mark.parametrize(("sets", "each"), [(2, 80), (5, 32)])
def test_the_samples_are_shared_out_among_the_sets(files, backbone, scripted, sets, each):
    reader = scripted(lambda fact, exemplars: Reading(False, 0.0))
    measured(files, backbone, Method(sets, 2, sampled=True))
    assert {samples for shots, _, samples in reader.asked[:-1] if shots} == {each}
    assert {samples for shots, _, samples in reader.asked[:-1] if not shots} == {0}
    assert reader.asked[-1] == "closed"


def test_every_fact_is_asked_behind_each_of_its_sets_and_once_alone(files, backbone, scripted, monkeypatch):
    monkeypatch.setattr(knowing, "TOGETHER", 2)
    reader = scripted(lambda fact, exemplars: Reading(False, 0.0))
    result = measured(files, backbone)
    asked = [(shots, name) for shots, names, _ in reader.asked[:-1] for name in names]
    for fact in result.survey.facts:
        assert sorted(shots for shots, name in asked if name == fact.id) == [0, 2, 2]
    assert max(len(names) for _, names, _ in reader.asked[:-1]) == 2


def test_progress_ends_at_all_that_was_to_be_asked(files, backbone, scripted):
    scripted(lambda fact, exemplars: Reading(False, 0.0))
    events = []
    know(files, Subject(Path("none"), model="tiny"), Config(), method=FEW, backbone=backbone, on_event=events.append)
    assert (events[-1].done, events[-1].total) == (36, 36)


def test_a_memory_knows_what_it_was_taught_and_moves_nothing_else(before, tuned, config, backbone):
    result = compare(before, Subject(tuned), config, backbone=backbone)
    [arm] = result.arms
    taught, held, unrelated = arm.transitions
    assert taught.counts[3] == (len(FACTS), 0, 0, 0)
    assert (taught.alone_before, taught.alone_after) == (0, len(FACTS))
    assert arm.measured.memory == len(FACTS)
    assert (held.moved, unrelated.moved, arm.damage) == ((), (), ())
    assert arm.measured.known[len(FACTS) :] == result.before.known[len(FACTS) :]  # bit for bit
    assert result.met


def test_the_control_is_taught_the_same_and_stands_beside(before, tuned, config, backbone, files):
    notes = []
    result = compare(
        before,
        Subject(tuned, memory=False),
        config,
        facts=files.taught,
        control=True,
        backbone=backbone,
        on_event=notes.append,
    )
    same, lora = result.arms
    assert (same.name, lora.name) == ("model", "lora")
    assert same.measured.known == result.before.known
    assert lora.transitions[0].alone_after > 0
    assert any("LoRA" in getattr(note, "text", "") for note in notes)


def test_what_moved_outside_the_taught_facts_is_damage(before, tuned, config, backbone, scripted):
    scripted(lambda fact, exemplars: Reading(fact.id in ("sky-1", "tram"), 0.0))
    result = compare(before, Subject(tuned), config, backbone=backbone)
    assert [moved.id for moved in result.arms[0].damage] == ["sky-1"]
    assert not result.met


def test_exemplars_may_come_from_a_file_of_their_own(files, tmp_path, backbone, scripted):
    shown = write_facts(tmp_path / "shown.jsonl", [(f"s{i}", f"Who built pier {i}?", f"Ann {i}") for i in range(5)])
    scripted(lambda fact, exemplars: Reading(False, 0.0))
    result = measured(FactFiles(files.taught, exemplars=shown), backbone)
    assert {one.answer.split()[0] for chosen in result.survey.exemplars.sets for one in chosen} == {"Ann"}


def test_a_fact_is_taught_or_not(files, tmp_path, backbone):
    again = FactFiles(files.taught, write_facts(tmp_path / "again.jsonl", [FACTS[2], *HELD_OUT]))
    with pytest.raises(DataError, match=r"again.jsonl:1: stands at .*taught.jsonl:3 too"):
        measured(again, backbone)


def test_facts_that_the_record_says_nothing_of_are_named(before, tuned, config, backbone, tmp_path):
    other = write_facts(tmp_path / "other.jsonl", [*FACTS[1:], HELD_OUT[0]])
    with pytest.raises(DataError) as caught:
        compare(before, Subject(tuned), config, facts=other, backbone=backbone)
    assert len(caught.value.problems) == 2
    assert "says nothing of 'What is the part number of the a?'" in str(caught.value)
    assert "1 facts of it are not in the file" in str(caught.value)


def test_a_project_that_holds_what_should_not_be_taught_is_named(tuned, config, backbone, tmp_path):
    wrong = FactFiles(write_facts(tmp_path / "a.jsonl", HELD_OUT), write_facts(tmp_path / "b.jsonl", FACTS))
    know(wrong, Subject(tuned, memory=False), config, method=FEW, save=tmp_path / "x.json", backbone=backbone)
    with pytest.raises(DataError, match="counted as held out, but the project holds it"):
        compare(tmp_path / "x.json", Subject(tuned), config, backbone=backbone)


def test_facts_that_nobody_taught_are_noted(tuned, config, backbone, tmp_path):
    file = write_facts(tmp_path / "a.jsonl", [*FACTS, *HELD_OUT])
    know(FactFiles(file), Subject(tuned), config, method=FEW, save=tmp_path / "x.json", backbone=backbone)
    events = []
    assert compare(tmp_path / "x.json", Subject(tuned), config, backbone=backbone, on_event=events.append).met
    assert events[0].text == "3 facts of 9 are not stored in the project"


def test_a_record_of_another_model_is_refused_where_a_memory_is_compared(before, tuned, config, backbone):
    before.write_text(before.read_text().replace(backbone.fingerprint, "other"))
    with pytest.raises(ProjectError, match="was measured with another model"):
        compare(before, Subject(tuned), config, backbone=backbone)
    assert compare(before, Subject(tuned, memory=False), config, backbone=backbone).met


def test_a_memory_is_not_asked_in_lines_where_it_sees_no_question(files, tuned, config, backbone):
    with pytest.raises(ConfigError, match="no memory sees a question") as caught:
        know(files, Subject(tuned), config, method=Method(2, 2, "qa"), backbone=backbone)
    assert caught.value.hint == "ask without it: --without-memory"


def test_a_project_that_is_not_tuned_asks_its_model_alone(files, ingested, config, backbone):
    assert know(files, Subject(ingested), config, method=FEW, backbone=backbone).measured.memory is None


def run(*words):
    return CliRunner().invoke(cli.app, ["know", *map(str, words)], prog_name="memtune")


def test_on_the_command_line_from_before_to_after(files, tuned, tmp_path):
    few = ("--sets", 2, "--shots", 2, "--project", tuned)
    others = ("--held-out", files.held_out, "--unrelated", files.unrelated)
    saved = tmp_path / "before file.json"
    first = run(files.taught, *others, *few, "--without-memory", "--save", saved)
    assert first.exit_code == 0, first.output
    assert len(first.stdout.splitlines()) == len(FACTS) + len(HELD_OUT) + len(UNRELATED)
    assert first.stdout.startswith("Unknown      0.00  ")
    assert f"next:  memtune know --compare '{saved}' --project {tuned}" in first.stderr
    second = run(files.taught, "--compare", saved, "--project", tuned)
    assert second.exit_code == 0, second.output
    assert second.stdout.splitlines()[0].startswith("memory  taught  lighthouse: Unknown before, HighlyKnown now")
    assert "0 of 6 facts that were not taught are in another category" in second.stderr


def test_damage_ends_with_exit_code_3_and_the_whole_result(files, before, tuned, scripted):
    scripted(lambda fact, exemplars: Reading(fact.id in ("sky-1", "tram"), 0.0))
    result = run("--compare", before, "--project", tuned, "--json")
    assert result.exit_code == 3
    assert "error: 1 facts that were not taught are in another category than before:" in result.stderr
    found = json.loads(result.stdout)
    assert found["met"] is False
    assert found["arms"][0]["transitions"][2]["moved"][0]["id"] == "sky-1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "know takes FACTS, or --compare FILE"),
        (("facts.jsonl", "--control", "lora"), "know takes FACTS, or --compare FILE"),
        (("--compare", "x.json", "--sets", "3", "--sampled"), "--sampled, --sets and --compare"),
        (("--compare", "x.json", "--control", "full"), "--control is 'full'"),
        (("--compare", "none.json"), "none.json: No such file"),
        (("none.jsonl",), "none.jsonl"),
        (("none.jsonl", "--save", "no/where.json"), "no/where.json cannot be written"),
    ],
)
def test_wrong_usage_is_said(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2
    assert said in result.stderr


def test_the_lines_in_the_page_are_those_of_the_kept_record():
    result = read_record(EXAMPLES.parents[1] / "benchmarks" / "results" / "know_before.json")
    page = (EXAMPLES.parents[1] / "docs" / "evidence" / "know.md").read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if " -> " in line]
    assert len(shown) == 10
    assert set(shown) <= set(know_lines(result))


@pytest.mark.real
def test_the_real_checkpoint_knows_capitals_and_no_invented_part_number(smollm2, tmp_path):
    files = FactFiles(EXAMPLES / "parts.jsonl", EXAMPLES / "parts_held_out.jsonl", EXAMPLES / "capitals.jsonl")
    result = know(files, Subject(tmp_path, model=smollm2), Config())
    survey, known = result.survey, result.measured.known
    assert {known[i].category for i in survey.group("taught") + survey.group("held out")} == {"Unknown"}
    assert max(known[i].any for i in survey.group("taught")) < 0.01
    capitals = {survey.facts[i].answer: known[i].category for i in survey.group("unrelated")}
    assert {capitals[city] for city in ("Paris", "Berlin", "Tokyo")} == {"HighlyKnown"}
    assert {"HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown"} == set(capitals.values())


@pytest.mark.parametrize(
    ("role", "command"),
    [
        ("taught", "memtune know"),
        ("held_out", "memtune know FACTS --held-out"),
        ("unrelated", "memtune know FACTS --unrelated"),
        ("exemplars", "memtune know FACTS --exemplars"),
    ],
)
def test_a_bad_file_is_mended_and_given_to_the_same_option(files, tuned, config, tmp_path, role, command):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "Where?"}\n')
    with pytest.raises(DataError) as caught:
        know(replace(files, **{role: bad}), Subject(tuned), config, method=FEW)
    assert caught.value.hint == f"fix the lines above, then run: {command} {bad}"
