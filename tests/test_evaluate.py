"""Eval counts whole outputs of the tuned model, says of each that is not as wanted why, and shows it all on a page."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from tiny import FACTS, write_facts

from memtune import evaluate as evaluating
from memtune.bench import Bench
from memtune.config import Config
from memtune.errors import ConfigError, DataError, ProjectError
from memtune.evaluate import Floors, QuestionFiles, Scope, evaluate
from memtune.ingest import ingest
from memtune.memory.module import Attachment
from memtune.project import Project
from memtune.store import load_memory, save_bank
from memtune.tune import tune

SCOPE = Scope(sample=9, longest=8)
QUESTIONS = [question for _, question, _ in FACTS]
LOST = "zzz qqq xxx"  # asks for nothing: it takes the null route


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("questions")
    rows = [{"question": text.rstrip("?"), "id": name} for name, text, _ in FACTS]
    rows += [{"question": f"Please: {QUESTIONS[1]}", "answer": "HT-4471"}, {"question": LOST, "id": "valve"}]
    paraphrases = directory / "paraphrases.jsonl"
    paraphrases.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    near, unrelated = directory / "near.txt", directory / "unrelated.txt"
    near.write_text(f"{QUESTIONS[0]}\nWhat is the capital of France?\n", encoding="utf-8")  # the first one fires
    unrelated.write_text("Write a poem about trees.\n", encoding="utf-8")
    return QuestionFiles(paraphrases, near, unrelated)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("report") / "new" / "directory"


@pytest.fixture(scope="module")
def result(tuned, config, files, out, backbone):
    floors = Floors(recall=1.0, exact=1.0, near_miss=0.9, unrelated=1.0)
    return evaluate(tuned, config, files=files, floors=floors, scope=SCOPE, out=out, backbone=backbone)


@pytest.fixture(scope="module")
def measures(result):
    return {measure.key: measure for measure in result.measures}


@pytest.fixture
def quick(tuned, tmp_path, backbone, config):
    """Eval of a project with few questions, into a directory of its own."""

    def run(project=tuned, **options):
        options = {"scope": Scope(sample=2, longest=4), "out": tmp_path / "out", "backbone": backbone} | options
        return evaluate(project, config, **options)

    return run


class Tags(HTMLParser):
    """Every tag of a page, and whether each that opens closes in its place."""

    VOID = frozenset({"meta"})

    def __init__(self):
        super().__init__()
        self.names, self.open = set(), []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# --- what is measured


def test_every_tuned_wording_is_said_exactly(measures):
    exact = measures["exact"]
    assert (exact.asked, exact.good, exact.generated, exact.failures) == (6, 6, 6, ())
    assert (exact.share, exact.high) == (1.0, 1.0) and 0.6 < exact.low < 0.7


def test_wordings_that_nobody_has_seen_are_asked_and_stored_ones_are_left_out(measures, result):
    assert measures["paraphrase"].asked == 2  # six are the stored questions without their mark
    assert "paraphrase: 6 left out, they are stored wordings of their facts" in result.notes
    assert measures["own-wordings"].asked == 1


def test_a_question_that_takes_the_null_route_is_a_miss_with_its_reason(measures):
    failure = next(failure for failure in measures["paraphrase"].failures if failure.question == LOST)
    assert (failure.expected, failure.fired) == ("HT-4471", None)
    assert failure.score < failure.threshold
    assert re.match(r"null route: score -?[\d.]+ under the threshold -?[\d.]+", failure.why)
    assert failure.said is not None and failure.said != "HT-4471"


def test_an_output_that_a_fact_changed_is_listed_with_that_fact(measures):
    near = measures["near-miss"]
    assert (near.asked, near.good, near.fired, near.wanted) == (2, 1, 1, "unchanged")
    [failure] = near.failures
    assert (failure.question, failure.fired, failure.why) == (QUESTIONS[0], "lighthouse", "fact lighthouse fired")
    assert failure.said == "Ann Brock." != failure.expected


def test_the_users_files_and_memtunes_own_questions_are_measures_apart(measures):
    assert measures["near-miss"].source == measures["unrelated"].source == "given"
    assert measures["near-miss-synthetic"].source == "synthetic"
    assert measures["unrelated-shipped"].source == "shipped"
    assert measures["unrelated-shipped"].asked == SCOPE.sample


def test_every_condition_is_measured_on_tuned_wordings_and_on_paraphrases(measures):
    conditions = {"as-asked", "text-50", "text-200", "system", "earlier-turn", "lower-case", "no-question-mark", "typo"}
    assert {key.partition("/")[2] for key in measures if key.startswith("exact/")} == conditions | {"conversation"}
    assert {key.partition("/")[2] for key in measures if key.startswith("paraphrase/")} >= {"as-asked", "text-50"}
    assert measures["exact/as-asked"].good == measures["exact/as-asked"].asked == 3  # a third of the sample


def test_several_facts_are_asked_in_one_conversation(measures):
    assert (measures["exact/conversation"].asked, measures["exact/conversation"].good) == (3, 3)


def test_each_turn_of_a_conversation_stands_behind_what_was_really_said(tuned, config, backbone, quick, monkeypatch):
    seen = []
    whole = Bench.routes
    monkeypatch.setattr(
        Bench, "routes", lambda self, cases: (seen.extend(c.turns for c in cases), whole(self, cases))[1]
    )
    quick(scope=Scope(sample=9, longest=4))
    last = next(turns for turns in seen if len(turns) == 5)
    roles = [turn["role"] for turn in last]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    answers = {question: answer for _, question, answer in FACTS}
    assert [last[i]["content"] for i in (1, 3)] == [answers[last[i]["content"]] for i in (0, 2)]


def test_what_ingest_promised_stands_beside_what_was_measured(result, measures, tuned):
    recall, false_fire = result.promises
    record = Project(tuned).state["ingest"]
    assert (recall.expected, false_fire.expected) == (record["expected_recall"], record["expected_false_fire"])
    assert (recall.measured, recall.measure) == (measures["paraphrase"].share, "paraphrase")
    assert (false_fire.measured, false_fire.held) == (0.5, false_fire.low <= false_fire.expected)


def test_floors_are_held_against_the_users_files(result):
    assert [(floor.option, floor.measure, floor.met) for floor in result.floors] == [
        ("--min-recall", "paraphrase", False),
        ("--min-exact", "exact", True),
        ("--min-near-miss", "near-miss", False),
        ("--min-unrelated", "unrelated", True),
    ]
    assert not result.met
    assert str(result.floors[2]) == "--min-near-miss 0.9: near-miss 1 of 2 (50.00%)"


def test_without_a_file_the_floor_of_recall_is_on_the_tuned_wordings(quick):
    result = quick(floors=Floors(recall=1.0, near_miss=0.0, unrelated=0.0))
    assert [floor.measure for floor in result.floors] == ["exact", "near-miss-synthetic", "unrelated-shipped"]
    assert result.met


# --- where nothing is generated


@pytest.mark.parametrize(("verify", "generated"), [("none", 0), ("sample", 3), ("all", 9)])
def test_unchanged_outputs_are_generated_on_the_null_route_for_a_sample(
    verify, generated, tuned, config, backbone, tmp_path, monkeypatch
):
    monkeypatch.setitem(evaluating.CHECKED, "sample", 3)
    settings = config.with_flags(verify=verify)
    measured = evaluate(tuned, settings, scope=Scope(9, 4), out=tmp_path, backbone=backbone)
    unrelated = next(m for m in measured.measures if m.key == "unrelated-shipped")
    assert (unrelated.fired, unrelated.good, unrelated.generated) == (0, 9, generated)


def test_a_fact_that_was_not_accepted_is_a_miss(done, quick):
    project = Project(done)
    memory = load_memory(project)
    memory.bank.accepted[1] = False
    project.commit(save_bank(project, memory.bank))
    result = quick(done, scope=Scope(9, 4))
    exact = next(m for m in result.measures if m.key == "exact")
    assert (result.learned, exact.asked, exact.good) == (5, 6, 5)
    assert [failure.why for failure in exact.failures] == ["null route: tune did not accept the fact valve"]


def test_the_right_fact_with_the_wrong_words_says_what_was_generated(done, quick):
    project = Project(done)
    memory = load_memory(project)
    memory.bank.values[memory.bank.run(1)] = 0  # the experts of one fact say nothing any more
    project.commit(save_bank(project, memory.bank))
    result = quick(done, scope=Scope(9, 4))
    [failure] = next(m for m in result.measures if m.key == "exact").failures
    assert (failure.fired, failure.expected) == ("valve", "HT-4471")
    assert failure.why.startswith("right fact fired, but generation said ")


def test_another_fact_is_named_as_what_fired(done, quick, monkeypatch):
    route = Attachment.route

    def mistaken(self, questions):
        return [replace(found, fact=4) for found in route(self, questions)]

    monkeypatch.setattr(Attachment, "route", mistaken)
    exact = next(m for m in quick(done, scope=Scope(9, 4)).measures if m.key == "exact")
    assert {failure.why for failure in exact.failures} == {"fact keeper fired"}
    assert (exact.good, exact.asked) == (1, 6)


# --- the files


def test_the_json_is_the_result(result, out):
    record = json.loads((out / "eval.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert record["met"] is False
    assert [m["key"] for m in record["measures"]] == [m.key for m in result.measures]
    assert [f["role"] for f in record["files"]] == ["paraphrases", "near-miss", "unrelated"]
    assert all(f["bytes"] > 0 for f in record["files"])
    assert set(record["versions"]) == {"memtune", "torch", "transformers", "python"}
    assert (record["seed"], record["sample"], record["threshold"]) == (0, 9, result.threshold)
    for measure in record["measures"]:
        assert len(measure["scores"]) == len(measure["hits"]) == len(measure["distances"]) == measure["asked"]


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(out):
    page = (out / "eval.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and "svg" in tags.names
    assert not tags.names & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?://|url\(|@import|src=", page)
    assert "prefers-color-scheme: dark" in page


def test_the_page_shows_every_measure_plot_and_failure(result, out):
    page = (out / "eval.html").read_text(encoding="utf-8")
    for title in ("Recall by distance of the wording", "Scores of the router", "Losses of the bank"):
        assert f'aria-label="{title}"' in page
    assert f"threshold {result.threshold:.2f}" in page and "target 0.01" in page
    for measure in result.measures:
        assert f">{measure.name}<" in page
        assert all(failure.why in page or len(failure.why) > 60 for failure in measure.failures)
    assert "fact lighthouse fired" in page and LOST in page


def test_a_tag_in_a_fact_is_text_on_the_page(tmp_path, config, backbone):
    rows = [
        *FACTS[1:],
        ("<b>id</b>", "What does <script>alert(1)</script> & Sons do?", "</td><script>alert('x')</script>"),
    ]
    project = tmp_path / "project"
    ingest(write_facts(tmp_path / "facts.jsonl", rows), project, config)
    tune(project, config, backbone=backbone)
    near = tmp_path / "<i>near.txt"
    near.write_text(rows[-1][1], encoding="utf-8")  # it fires, so it is listed with what it said
    evaluate(project, config, files=QuestionFiles(None, near), scope=Scope(9, 16), backbone=backbone)
    page = (project / "eval.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; Sons" in page
    assert "&lt;/td&gt;&lt;script&gt;alert" in page
    assert "<script" not in page and "<b>" not in page and "<i>" not in page
    tags = Tags()
    tags.feed(page)
    assert tags.open == []


def test_a_later_verb_leaves_the_report_where_it_is(done, quick, config, backbone):
    quick(done, out=done)
    assert tune(done, config, backbone=backbone).met
    assert (done / "eval.json").is_file() and (done / "eval.html").is_file()


def test_an_interrupt_leaves_no_files_and_no_memory_on_the_model(quick, backbone, tmp_path, monkeypatch):
    ids = torch.tensor([backbone.prompts.format.prompt(backbone.prompts.question(QUESTIONS[0]))])

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "unchanged", interrupted)
    with torch.inference_mode():
        before = backbone.model(ids).logits
        with pytest.raises(KeyboardInterrupt):
            quick()
        assert torch.equal(backbone.model(ids).logits, before)
    assert not (tmp_path / "out").exists()


def test_the_same_seed_measures_the_same(result, tuned, config, files, backbone, tmp_path):
    again = evaluate(tuned, config, files=files, scope=SCOPE, out=tmp_path, backbone=backbone)
    assert again.measures == result.measures


# --- mistakes


def test_an_unknown_id_is_told_before_anything_is_measured(quick, tmp_path, backbone):
    path = tmp_path / "paraphrases.jsonl"
    path.write_text('{"question": "q?", "id": "nobody"}\n', encoding="utf-8")
    hooks = len(backbone.model._forward_pre_hooks)
    with pytest.raises(DataError) as caught:
        quick(files=QuestionFiles(paraphrases=path))
    assert len(backbone.model._forward_pre_hooks) == hooks, "the memory stayed on the backbone"
    assert caught.value.problems == (f"{path}:1: no fact of the project has the id 'nobody'",)
    assert not (tmp_path / "out").exists()


def test_a_project_that_was_not_tuned_is_refused(ingested, quick):
    with pytest.raises(ProjectError) as caught:
        quick(ingested)
    assert caught.value.hint.startswith("run first: memtune tune")


def test_a_file_where_the_report_should_go_is_refused(quick, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written: Not a directory"):
        quick(out=tmp_path / "file" / "below")
    with pytest.raises(ConfigError, match="is no directory"):
        quick(out=tmp_path / "file")


@pytest.mark.parametrize(
    "make", [lambda: Floors(recall=1.2), lambda: Floors(near_miss=math.nan), lambda: Scope(-1), lambda: Scope(1, 0)]
)
def test_impossible_options_are_refused(make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert "takes a" in caught.value.hint


# --- a model without a chat template


def test_without_a_template_context_is_earlier_paragraphs_and_the_system_prompt_is_left_out(
    tmp_path, facts_file, base_checkpoint, base_backbone
):
    shutil.copy(facts_file, tmp_path / "facts.jsonl")
    config = Config(model=base_checkpoint, verify="none")
    ingest(tmp_path / "facts.jsonl", tmp_path / "project", config)
    tune(tmp_path / "project", config, backbone=base_backbone)
    result = evaluate(tmp_path / "project", config, scope=Scope(9, 4), backbone=base_backbone)
    found = {measure.key: measure for measure in result.measures}
    assert "exact/system" not in found
    assert "tuned wording, behind a system prompt: left out, the model has no chat template" in result.notes
    for key in ("exact", "exact/text-50", "exact/earlier-turn", "exact/conversation"):
        assert found[key].good == found[key].asked > 0, found[key].failures
