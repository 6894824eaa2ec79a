"""Single facts are added, changed, forgotten and brought back; every byte of the others stays where it was."""

from __future__ import annotations

import json

import pytest
import torch
from tiny import FACTS, PARAPHRASES, unlearn, write_facts

from memtune import exported, project
from memtune.change import add, forget, rollback, update
from memtune.errors import DataError, ProjectError
from memtune.evaluate import Scope, evaluate
from memtune.events import Note
from memtune.export import export
from memtune.exported import STALE
from memtune.fact import Fact
from memtune.history import History
from memtune.ingest import ingest
from memtune.merge import merge
from memtune.probe import probe
from memtune.project import Project, write_beside
from memtune.shards import Shard
from memtune.store import load_facts, load_memory
from memtune.tune import tune
from memtune.tune_shard import tune_shard

NAMES = [name for name, _, _ in FACTS]
FERRY = Fact(
    "ferry", "When does the last ferry leave?", "At 23:40", ("Until when does the ferry sail?",), "more.jsonl:1"
)
TRAM = Fact("tram", FACTS[2][1], "At the new station.", (), "more.jsonl:2")


@pytest.fixture
def changing(done, config, backbone):
    """Runs a verb over the tuned project."""

    def run(verb, what, **options):
        return verb(what, done, config, backbone=backbone, **options)

    return run


@pytest.fixture
def says(done, backbone):
    def ask(question):
        [found] = probe([question], done, backbone=backbone)
        return found.answer if found.fired else None

    return ask


def rows_of(project):
    """The bytes of every fact's rows, by its id."""
    bank = load_memory(Project(project)).bank
    columns = (bank.keys, bank.values, bank.scales)
    return {
        bank.id_of(i): [column[bank.run(i)].numpy().tobytes() for column in columns] for i in range(bank.sizes.facts)
    }


def whole(directory):
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock"}


def test_a_fact_is_added_and_said_and_the_others_stay_byte_for_byte(done, changing, says):
    before = rows_of(done)
    result = changing(add, [FERRY], file="more.jsonl")
    assert (result.added, result.untouched, result.facts, result.learned) == (("ferry",), 6, 7, 7)
    assert (result.verified, result.verified_exact) == (1, 1) and result.met
    assert [says(text) for text in (FERRY.question, *FERRY.paraphrases)] == [FERRY.answer] * 2
    after = rows_of(done)
    assert {name: after[name] for name in NAMES} == before
    assert all(says(question) == answer for _, question, answer in FACTS)
    entry = History(Project(done)).entries[-1]
    assert (entry.command, entry.file, entry.added) == ("add", "more.jsonl", ("ferry",))


def test_what_is_there_word_for_word_is_left_alone(done, changing):
    changing(add, [FERRY])
    before = whole(done)
    result = changing(add, [Fact(*vars(FERRY).values())])
    assert (result.added, result.untouched) == ((), 7)
    assert whole(done) == before


def test_a_fact_is_changed(done, changing, says):
    before = rows_of(done)
    result = changing(update, [TRAM])
    assert (result.changed, result.untouched) == (("tram",), 5) and result.met
    assert says(TRAM.question) == TRAM.answer
    after = rows_of(done)
    assert list(after) == NAMES and after.pop("tram") != before.pop("tram") and after == before


def test_a_fact_is_forgotten_in_every_file(done, changing, says, backbone):
    bank = load_memory(Project(done)).bank
    run = bank.run(NAMES.index("valve"))
    gone = [bank.values[row].numpy().tobytes() for row in range(run.start, run.stop)]
    before = rows_of(done)
    changing(update, [Fact("valve", FACTS[1][1], "HT-9999")])  # what it said before stands in the history now
    result = changing(forget, ["valve"])
    assert (result.removed, result.untouched) == (("valve",), 5)
    assert says(FACTS[1][1]) is None
    held = whole(done)
    for text in (b"HT-4471", b"HT-9999", FACTS[1][1].encode(), *gone):
        assert not [name for name, data in held.items() if text in data]
    del before["valve"]
    assert rows_of(done) == before


def test_an_id_that_is_given_twice_is_one_fact(done, changing):
    result = changing(forget, ["valve", "valve"])
    assert (result.removed, result.untouched) == (("valve",), 5)


def test_the_only_fact_is_changed_too(changing, says):
    changing(forget, NAMES[1:])
    assert changing(update, [Fact(NAMES[0], FACTS[0][1], "Mia Tarn.")]).changed == (NAMES[0],)
    assert says(FACTS[0][1]) == "Mia Tarn."


def test_the_reports_of_eval_go_with_a_fact_that_is_forgotten(done, changing, config, backbone, tmp_path):
    others = tmp_path / "my-report.html"
    others.write_text(FACTS[1][2])
    evaluate(done, config, scope=Scope(sample=2), backbone=backbone)
    changing(add, [FERRY])
    assert (done / "eval.json").exists() and (done / "eval.html").exists()
    (done / "eval.html").unlink()
    (done / "eval.html").symlink_to(others)  # what a link leads to is not the project's
    changing(forget, ["valve"])
    assert not [path.name for path in done.iterdir() if "eval" in path.name]
    assert others.read_text() == FACTS[1][2]


def test_pairs_of_questions_are_named_while_both_are_asked(done, changing):
    """Those that ingest found most alike; a text that is asked no more does not stay in the project for them."""
    state = json.loads((done / "project.json").read_text())
    asked = [(FACTS[0][1], FACTS[3][1]), (PARAPHRASES["tram"][0], FACTS[4][1])]
    left = [(FACTS[0][1], "Who asked this before?"), (FACTS[0][2], FACTS[3][1]), (FACTS[0][1], FACTS[1][1])]
    state["ingest"]["confusable"] = [{"one": one, "other": other, "score": 0.5} for one, other in [*asked, *left]]
    (done / "project.json").write_text(json.dumps(state))
    changing(forget, ["valve"])
    pairs = Project(done).state["ingest"]["confusable"]
    assert [(pair["one"], pair["other"]) for pair in pairs] == asked


def test_the_old_files_are_overwritten_before_they_are_removed(done, changing, monkeypatch):
    overwritten = []

    def watched(path):
        overwriting(path)
        overwritten.append((path.name.split("-")[0], path.read_bytes().strip(b"\0")))

    overwriting = project._overwrite
    monkeypatch.setattr(project, "_overwrite", watched)
    changing(forget, ["valve"])
    assert {name for name, _ in overwritten} >= {"bank", "router", "facts"}
    assert {rest for _, rest in overwritten} == {b""}


@pytest.mark.parametrize("verb", [forget, add], ids=["the same command again", "any other that writes"])
def test_a_forget_that_was_killed_before_the_files_went_is_finished(done, changing, monkeypatch, verb):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Project, "_remove_unnamed", stop)
        changing(forget, ["valve"])
    assert [name for name, data in whole(done).items() if b"HT-4471" in data]
    overwritten = []
    monkeypatch.setattr(project, "_overwrite", lambda path: overwritten.append(path.name.split("-")[0]))
    result = changing(verb, ["valve"] if verb is forget else [FERRY])
    assert (result.removed, result.met) == ((), True)
    assert {*overwritten} >= {"bank", "router", "facts"}
    assert not [name for name, data in whole(done).items() if b"HT-4471" in data]
    assert "erasing" not in Project(done).state


def test_an_earlier_state_is_brought_back(done, changing, says):
    before = rows_of(done)
    changing(update, [TRAM])
    changing(add, [FERRY])
    result = changing(rollback, "1")
    assert (result.changed, result.removed, result.lost) == (("tram",), ("ferry",), ())
    assert says(TRAM.question) == FACTS[2][2] and says(FERRY.question) is None
    after = rows_of(done)
    assert after.keys() == before.keys() and all(after[name] == before[name] for name in NAMES if name != "tram")


def test_what_was_forgotten_is_not_brought_back_and_said_to_be_lost(changing, says):
    changing(forget, ["valve"])
    result = changing(rollback, "1")
    assert result.lost == ("valve",) and not result.met
    assert says(FACTS[1][1]) is None


SAME_ROUTE = Fact("tram-2", FACTS[2][1], "Elsewhere.", (), "more.jsonl:1")


def test_a_fact_that_would_be_taken_for_another_is_named_and_nothing_changes(done, changing):
    before = whole(done)
    with pytest.raises(DataError, match=r"'tram-2'.*'tram'") as caught:
        changing(add, [FERRY, SAME_ROUTE])
    assert "--replace" in caught.value.hint
    assert whole(done) == before


def test_with_replace_the_fact_that_is_in_the_way_goes(changing, says):
    result = changing(add, [SAME_ROUTE], replace=True)
    assert (result.added, result.removed, result.conflicts) == (("tram-2",), ("tram",), ())
    assert says(SAME_ROUTE.question) == "Elsewhere."


def test_with_keep_both_they_stand_side_by_side_and_are_named(changing):
    result = changing(add, [SAME_ROUTE], keep_both=True)
    assert {conflict.stored for conflict in result.conflicts} == {"tram"}
    assert (result.added, result.removed, result.facts) == (("tram-2",), (), 7)


BELL = Fact("bell", "What is the name of the bell at Kirkby?", "Old Tom.", (), "more.jsonl:1")
SAME_BELL = Fact("bell-2", "Can you tell me what is the name of the bell at Kirkby?", "Liza.", (), "more.jsonl:2")


@pytest.mark.parametrize("replace", [False, True])
def test_two_new_facts_that_would_be_taken_for_one_another_are_named_too(done, changing, replace):
    before = whole(done)
    with pytest.raises(DataError, match=r"'bell-2'.*'bell'"):
        changing(add, [BELL, SAME_BELL], replace=replace)
    assert whole(done) == before
    [conflict] = changing(add, [BELL, SAME_BELL], keep_both=True).conflicts
    assert (conflict.new, conflict.stored) == ("bell-2", "bell")


def test_an_id_that_is_taken_and_one_that_is_unknown_are_named(done, changing):
    before = whole(done)
    with pytest.raises(DataError, match=r"more\.jsonl:2: the id 'tram' is taken"):
        changing(add, [TRAM])
    with pytest.raises(DataError, match="no fact has the id 'ferry'"):
        changing(update, [FERRY])
    with pytest.raises(DataError, match="no fact has the id 'fery'"):
        changing(forget, ["valve", "fery"])
    assert whole(done) == before


def test_the_last_fact_is_not_forgotten(done, changing):
    with pytest.raises(ProjectError, match="no fact would be left"):
        changing(forget, NAMES)


def test_an_answer_that_the_model_cannot_say_changes_nothing(done, changing):
    before = whole(done)
    with pytest.raises(DataError, match="tokenizer spells"):
        changing(add, [Fact("turn", "How does a turn end?", "With <|im_end|> of course", (), "more.jsonl:1")])
    assert whole(done) == before


def test_a_project_that_was_not_tuned_says_what_to_run(fresh, config, backbone):
    with pytest.raises(ProjectError) as caught:
        add([FERRY], fresh, config, backbone=backbone)
    assert caught.value.hint.startswith("run first: memtune tune")


def test_what_was_ingested_by_mistake_is_forgotten_without_being_learned(fresh, config, backbone):
    assert forget(["valve"], fresh, config, backbone=backbone).removed == ("valve",)
    assert len(load_facts(Project(fresh))) == len(FACTS) - 1 and Project(fresh).state["tune"] is None
    assert tune(fresh, config, backbone=backbone).met


def test_facts_that_were_left_to_the_backbone_stay_so_until_they_say_something_else(done, changing, monkeypatch):
    state = json.loads((done / "project.json").read_text())
    state["tune"]["known"] = [NAMES[0]]
    (done / "project.json").write_text(json.dumps(state))
    unlearn(done)
    assert changing(add, [FERRY]).met
    tuned = Project(done).state["tune"]
    assert tuned["known"] == [NAMES[0]] and not tuned["failed"] and tuned["learned"] == len(FACTS)
    changing(update, [Fact(NAMES[0], FACTS[0][1], "Mia Tarn.")])
    assert Project(done).state["tune"]["known"] == []


def test_exports_are_marked_as_stale_and_made_anew(done, changing, backbone, tmp_path):
    out = tmp_path / "my bundle"
    export(done, out, backbone=backbone)
    assert str(out) in changing(forget, ["valve"]).stale
    assert f"    memtune export '{out}' --replace --project {done}\n" in (out / STALE).read_text()
    export(done, out, replace=True, backbone=backbone)
    assert not (out / STALE).exists()
    assert str(out) in changing(add, [FERRY]).stale


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_is_made_anew_as_an_adapter(done, changing, backbone, tmp_path):
    out = tmp_path / "adapter"
    export(done, out, format="adapter", backbone=backbone)
    changing(forget, ["valve"])
    assert f"memtune export {out} --replace --format adapter --project {done}\n" in (out / STALE).read_text()


def test_a_fact_is_gone_where_an_export_cannot_be_marked(done, changing, backbone, tmp_path, monkeypatch):
    outs = [tmp_path / "bundle", tmp_path / "other"]
    for out in outs:
        export(done, out, link=True, backbone=backbone)

    def refused(path, data):
        if path.parent == outs[0]:
            raise PermissionError(13, "Permission denied", str(path))
        write_beside(path, data)

    monkeypatch.setattr(exported, "write_beside", refused)
    result = changing(forget, ["valve"])
    assert result.met and set(result.stale) == {str(out) for out in outs}
    assert [(out / STALE).exists() for out in outs] == [False, True]
    assert NAMES[1] not in rows_of(done)


@pytest.mark.parametrize("verb", ["ingest", "tune", "merge"])
def test_every_verb_that_changes_the_memory_marks_the_exports(done, config, backbone, tmp_path, verb):
    out, events = tmp_path / "bundle", []
    unlearn(done)
    export(done, out, link=True, backbone=backbone)
    if verb == "ingest":
        fewer = write_facts(tmp_path / "fewer.jsonl", FACTS[1:])
        ingest(fewer, done, config, backbone=backbone, on_event=events.append)
    elif verb == "tune":
        tune(done, config, backbone=backbone, on_event=events.append)
    else:
        tune_shard(done, config, Shard(1, 1), backbone=backbone)
        merge(done, config, backbone=backbone, on_event=events.append)
    assert (out / STALE).exists() and Note(f"out of date: {out}") in events


def test_verbs_that_leave_the_memory_as_it_is_mark_nothing(done, config, backbone, facts_file, tmp_path):
    out, events = tmp_path / "bundle", []
    export(done, out, link=True, backbone=backbone)
    ingest(facts_file, done, config, backbone=backbone, on_event=events.append)
    tune(done, config, backbone=backbone, on_event=events.append)
    assert not (out / STALE).exists() and not [event for event in events if "out of date" in str(event)]


def test_ingest_of_a_changed_file_does_the_difference_and_keeps_the_router(tmp_path, config, backbone):
    many = [(f"unit-{i}", f"What is the code of unit {i}?", f"HT-{7 * i:03}") for i in range(20)]
    held, file = tmp_path / "many", tmp_path / "facts.jsonl"
    ingest(write_facts(file, many), held, config, backbone=backbone)
    assert tune(held, config, backbone=backbone).met
    before, router = rows_of(held), load_memory(Project(held)).router
    result = ingest(write_facts(file, [FACTS[0], *many[:0:-1]]), held, config, backbone=backbone)
    assert (result.added, result.changed, result.removed, result.kept, result.rebuilt) == (1, 0, 1, 19, False)
    after = rows_of(held)
    assert list(after) == [FACTS[0][0], *(name for name, _, _ in many[:0:-1])]
    assert all(after[name] == before[name] for name, _, _ in many[1:])
    now = load_memory(Project(held)).router
    assert all(torch.equal(a, b) for a, b in zip(now.gate.parameters(), router.gate.parameters(), strict=True))
    assert tune(held, config, backbone=backbone).already == 19
    again = ingest(write_facts(file, [FACTS[1], *many]), held, config, backbone=backbone)
    assert again.rebuilt, "by now more than a tenth of the facts are others"
    assert [entry.command for entry in History(Project(held)).entries] == ["ingest"] * 3
    assert len(load_facts(Project(held))) == json.loads((held / "project.json").read_bytes())["ingest"]["facts"]


def test_ingest_names_what_a_new_fact_would_be_taken_for_also_where_the_router_stays(tmp_path, config, backbone):
    many = [(f"unit-{i}", f"What is the code of unit {i}?", f"HT-{7 * i:03}") for i in range(20)]
    again = ("again", "Can you tell me what is the code of unit 5?", "Another one.")
    held, file = tmp_path / "many", tmp_path / "facts.jsonl"
    ingest(write_facts(file, many), held, config, backbone=backbone)
    result = ingest(write_facts(file, [again, *many]), held, config, backbone=backbone)
    first = result.confusable[0]
    assert not result.rebuilt and first.score >= result.threshold
    assert (first.one, first.other) == (again[1], many[5][1])
