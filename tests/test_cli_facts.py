"""Single facts from the command line: what is said, what it costs the others, and how mistakes end."""

from __future__ import annotations

import json

import pytest
from tiny import FACTS, write_facts
from typer.testing import CliRunner

from memtune.cli import app
from memtune.project import Project
from memtune.state import made_with

TRAM = FACTS[2]
VALVE = FACTS[1]


@pytest.fixture
def memtune(done):
    """Runs a command over the tuned project, in English words; gives the result."""

    def run(*words):
        return CliRunner().invoke(app, [*words, "--project", str(done)])

    return run


def found(result):
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_facts_are_listed_and_shown_without_a_model(memtune):
    listed = memtune("facts", "list")
    assert listed.exit_code == 0 and listed.stderr == ""
    assert f"tram  {TRAM[1]} -> {TRAM[2]} (learned)" in listed.stdout.splitlines()
    shown = memtune("facts", "show", "tram", "valve").stderr
    for text in ("HT-4471", "What is the last stop of tram 12?", "facts.jsonl:3", "nats per answer token"):
        assert text in shown
    assert [fact["id"] for fact in found(memtune("facts", "list", "--json"))["facts"]] == [name for name, _, _ in FACTS]


def test_the_facts_come_out_as_a_file_that_ingest_reads(memtune, tmp_path):
    (tmp_path / "again.jsonl").write_text(memtune("facts", "export").stdout, encoding="utf-8")
    preview = memtune("ingest", str(tmp_path / "again.jsonl"), "--dry-run")
    assert preview.exit_code == 0 and "untouched  6" in preview.stderr


def test_one_fact_through_its_whole_life(memtune, tmp_path):
    before = found(memtune("audit", "--json"))
    (tmp_path / "audit.json").write_text(json.dumps(before))
    asked = ("--question", "Who runs the quay?")
    added = memtune("facts", "add", "--id", "quay", *asked, "--answer", "Ann Brock.")
    assert added.exit_code == 0 and "1 added (quay); 6 untouched" in added.stderr
    assert "7 of 7 facts" in added.stderr and "1 of 1 new ones said exactly" in added.stderr
    assert memtune("probe", asked[1]).stdout == "Ann Brock.\n"
    changed = found(memtune("facts", "update", "--id", "quay", "--answer", "Ben Ode.", "--json"))
    assert (changed["changed"], changed["untouched"], changed["met"]) == (["quay"], 6, True)
    assert memtune("probe", asked[1]).stdout == "Ben Ode.\n"
    forgotten = memtune("facts", "forget", "quay")
    assert forgotten.exit_code == 0 and "1 removed (quay); 6 untouched" in forgotten.stderr
    audit = memtune(
        "audit", "--since", str(tmp_path / "audit.json"), "--absent", "Ben Ode.", "--absent", "runs the quay"
    )
    assert audit.exit_code == 0 and "6 facts the same, byte for byte" in audit.stderr
    assert found(memtune("audit", "--json"))["root"] == before["root"]
    log = memtune("facts", "log").stdout.splitlines()
    assert [line.split("  ")[2].split(":")[0].split(" ")[0] for line in log] == ["ingest", "add", "update", "forget"]


def test_a_file_of_facts_is_added_and_an_earlier_state_brought_back(memtune, tmp_path):
    more = write_facts(tmp_path / "more.jsonl", [("ferry", "When does the last ferry leave?", "At 23:40")])
    assert memtune("facts", "add", str(more)).exit_code == 0
    assert "ferry" not in memtune("facts", "at", "1").stdout
    back = memtune("facts", "rollback", "1")
    assert back.exit_code == 0 and "1 removed (ferry)" in back.stderr
    again = memtune("facts", "rollback", "2")
    assert again.exit_code == 0 and "1 added (ferry)" in again.stderr
    memtune("facts", "forget", "ferry")
    lost = memtune("facts", "rollback", "2")
    assert lost.exit_code == 3 and "1 facts were forgotten and cannot come back" in lost.stderr


def test_a_dry_run_says_the_difference_and_does_nothing(memtune, done, tmp_path):
    before = {path.name: path.read_bytes() for path in done.iterdir()}
    other = write_facts(tmp_path / "other.jsonl", [("new", "What is new?", "This."), ("tram", TRAM[1], "Elsewhere.")])
    said = memtune("ingest", str(other), "--dry-run")
    assert said.exit_code == 0
    for text in ("added  1: new", "changed  1: tram", "removed  5: lighthouse", "made anew"):
        assert text in said.stderr
    assert {path.name: path.read_bytes() for path in done.iterdir()} == before


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_export_that_is_stale_is_named_with_the_command_that_makes_it_anew(memtune, done, tmp_path):
    out = tmp_path / "my adapter"
    assert memtune("export", str(out), "--format", "adapter").exit_code == 0
    forgotten = memtune("facts", "forget", "valve")
    assert f"next:  memtune export '{out}' --replace --format adapter --project {done}\n" in forgotten.stderr


def test_a_project_keeps_the_model_and_the_settings_that_it_was_made_with(memtune, done, facts_file, checkpoint):
    """Any other of these would drop what was fitted."""
    again = found(memtune("ingest", str(facts_file), "--json"))
    assert (again["model"], again["kept"]) == (checkpoint, len(FACTS))
    memtune("ingest", str(facts_file), "--rows", "float32", "--seed", "3", "--dtype", "bfloat16", "--false-fire", "0.1")
    memtune("ingest", str(facts_file))
    kept = {"rows": "float32", "seed": 3, "dtype": "bfloat16", "false_fire": 0.1, "model": checkpoint}
    assert made_with(Project(done).state) == kept | {"device": "auto"}


def test_a_flag_and_the_settings_file_win_over_what_the_project_was_made_with(
    memtune, facts_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "memtune.yaml").write_text("model: ./of-the-file\n")
    for flags, name in (([], "./of-the-file"), (["--model", "./of-the-flag"], "./of-the-flag")):
        assert f"error: {name} is neither" in memtune("ingest", str(facts_file), *flags).stderr


def test_the_log_says_of_a_repeated_ingest_that_nothing_is_new(memtune, facts_file):
    memtune("ingest", str(facts_file))
    first, again = memtune("facts", "log").stdout.splitlines()
    assert first.endswith(": 6 facts; all new") and again.endswith(": 6 facts; nothing new")


def test_a_conflict_names_both_and_says_how_to_decide(memtune):
    result = memtune("facts", "add", "--question", TRAM[1], "--answer", "Elsewhere.", "--id", "other")
    assert result.exit_code == 2
    assert "'other'" in result.stderr and "'tram'" in result.stderr and "--replace" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["facts", "add"], "either FACTS, or --question and --answer"),
        (["facts", "update", "--id", "tram"], "either FACTS, or --id with --question or --answer"),
        (["facts", "add", "more.jsonl", "--id", "x"], "either FACTS, or --question and --answer"),
        (["facts", "update", "more.jsonl", "--id", "x"], "either FACTS, or --id with --question or --answer"),
        (["facts", "update", "--id", "trma", "--answer", "x"], "no fact has the id 'trma'"),
        (["facts", "forget", "trma"], "no fact has the id 'trma'"),
        (["facts", "show", "trma"], "no fact has the id 'trma'"),
        (["facts", "add", "--question", " ", "--answer", "x"], "question"),
        (["facts", "at", "yesterday"], "'yesterday' is no time"),
        (["facts", "at", "0001-01-01"], "'0001-01-01' is no time"),
        (["audit", "--since", "nowhere.json"], "nowhere.json is no audit"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_said_with_what_comes_next(memtune, words, said):
    result = memtune(*words)
    assert result.exit_code == 2 and said in result.stderr and "hint: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "command"), [(["facts", "show", "trma"], "facts list"), (["facts", "at", "yesterday"], "facts log")]
)
def test_what_comes_next_names_the_project(memtune, done, words, command):
    assert f"memtune {command} --project {done}\n" in memtune(*words).stderr


@pytest.mark.parametrize("words", [["facts", "add"], ["facts", "update"], ["detect"]])
def test_a_bad_file_is_mended_and_given_to_the_same_command(memtune, done, tmp_path, words):
    """Given to ingest instead, it would take the place of all stored facts."""
    bad = tmp_path / "more.jsonl"
    bad.write_text('{"question": "Where?"}\n')
    again = f"memtune {' '.join(words)} --project {done}"
    assert f"fix the lines above, then run: {again} {bad}\n" in memtune(*words, str(bad)).stderr
    sheet = tmp_path / "more.xlsx"
    assert f"save the sheet as CSV UTF-8, then: {again} {tmp_path / 'more.csv'}\n" in memtune(*words, str(sheet)).stderr


def test_a_bad_file_is_ingested_again_into_the_same_project_with_the_same_options(memtune, done, tmp_path):
    bad = tmp_path / "more.csv"
    bad.write_text("Frage,Antwort\nWo?,\n")
    keys = ["--dtype", "bfloat16", "--rebuild", "--question-key", "Frage", "--answer-key", "Antwort"]
    said = memtune("ingest", str(bad), *keys).stderr
    assert f"then run: memtune ingest --project {done} {' '.join(keys)} {bad}\n" in said


def test_a_sheet_of_questions_is_asked_not_ingested(memtune, tmp_path):
    said = memtune("probe", "--file", str(tmp_path / "q.xlsx")).stderr
    assert f"then: memtune probe --file {tmp_path / 'q.csv'}\n" in said


@pytest.mark.parametrize("options", [[], ["--question", "Who?"], ["--answer", "x", "--question", " ", "--id", "tram"]])
def test_options_that_say_no_fact_lead_to_the_help_of_their_command(memtune, tmp_path, options):
    for command in ("add", "update"):
        result = memtune("facts", command, *options)
        assert result.exit_code == 2 and f"hint:  memtune facts {command}" in result.stderr


def test_a_file_and_an_id_lead_to_the_help_of_update(memtune, done):
    said = memtune("facts", "update", "file.jsonl", "--id", "x").stderr
    assert f"hint:  memtune facts update --project {done} --help\n" in said


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["facts", "show", "x\udcff"], "the id"),
        (["facts", "forget", "x\udcff"], "the id"),
        (["facts", "update", "--id", "x\udcff", "--answer", "a"], "the id"),
        (["audit", "--absent", "x\udcff"], "--absent"),
        (["export", "x\udcff"], "OUT"),
        (["probe", "Who?", "--explain", "--answer", "x\udcff"], "--answer"),
    ],
)
def test_bytes_that_are_no_text_are_refused_by_name(memtune, words, name):
    result = memtune(*words)
    assert result.exit_code == 2
    assert f"error: {name} holds U+DCFF, which is no text: 'x\\udcff'\nhint:  write it in UTF-8\n" in result.stderr


def test_a_file_whose_name_is_no_utf8_is_read_and_recorded(memtune, tmp_path):
    file = write_facts(tmp_path / "f\udcff.jsonl", FACTS)
    for command in (["ingest"], ["facts", "add"]):
        result = memtune(*command, str(file))
        assert result.exit_code == 0, result.stderr
        memtune("tune")
    assert "f\\udcff.jsonl" in memtune("facts", "log").stdout
    assert memtune("audit").exit_code == 0


def test_a_text_that_should_be_gone_ends_the_audit_with_3(memtune):
    result = memtune("audit", "--absent", VALVE[2])
    assert result.exit_code == 3 and f": {VALVE[2]}" in result.stderr


def hint_of(result):
    assert result.exit_code == 3
    return [line.removeprefix("hint:").strip() for line in result.stderr.partition("hint: ")[2].splitlines()]


def test_the_hint_of_an_audit_is_for_what_is_wrong(memtune, done, tmp_path):
    out, where = tmp_path / "my bundle", f" --project {done}"
    memtune("export", str(out), "--link")
    (tmp_path / "audit.json").write_text(memtune("audit", "--json").stdout)
    memtune("facts", "forget", "valve")
    stale = memtune("audit", "--since", str(tmp_path / "audit.json"))
    assert hint_of(stale) == [f"memtune export '{out}' --replace --link{where}"]
    held = memtune("audit", "--absent", TRAM[2])
    assert hint_of(held) == [
        f"take a fact out for good: memtune facts forget ID{where}",
        f"one that is in the history alone comes back first: memtune facts rollback NUMBER{where}",
    ]


def test_the_hint_for_a_broken_history_is_no_export(memtune, done):
    project = Project(done)
    entry = json.loads(project.path("log").read_text()) | {"number": 0}
    project.commit({"log": project.keep("log", "jsonl", lambda path: path.write_text(json.dumps(entry)))})
    result = memtune("audit")
    assert "entry 0 of the history" in result.stderr
    assert hint_of(result) == ["the history was altered after it was written: restore the project from a backup"]


def test_a_fact_that_is_in_the_history_alone_is_taken_out_as_the_hint_says(memtune, done):
    memtune("facts", "add", "--question", TRAM[1], "--answer", "Elsewhere.", "--id", "other", "--replace")
    assert memtune("audit", "--absent", TRAM[2]).exit_code == 3
    assert memtune("facts", "rollback", "1").exit_code == 0
    assert memtune("facts", "forget", "tram").exit_code == 0
    assert memtune("audit", "--absent", TRAM[2]).exit_code == 0
