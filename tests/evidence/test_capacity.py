"""Capacity from a file, a project or nothing: what it finds, what it writes, and that it writes nowhere else."""

from __future__ import annotations

import io
import json
import runpy
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from tiny import FACTS, write_facts
from typer.testing import CliRunner

from memtune.backbone import load_backbone
from memtune.cli import app
from memtune.config import Config
from memtune.errors import ConfigError, DataError
from memtune.evidence.storage import capacity as verb
from memtune.evidence.storage.capacity import Control, Scope, capacity
from memtune.evidence.storage.capacity_page import render
from memtune.evidence.storage.capacity_report import Asked, missed_of
from memtune.evidence.storage.randomization import BITS
from memtune.ui import capacity_view

SCOPE = Scope(facts=5, sample=3, longest=4, most=7)
REPORT = Path(__file__).parents[2] / "benchmarks" / "report.py"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def own(checkpoint):
    """A backbone of its own: LoRA changes its model for a while."""
    return load_backbone(checkpoint)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("capacity") / "new" / "directory"


@pytest.fixture(scope="module")
def events():
    return []


@pytest.fixture(scope="module")
def result(tmp_path_factory, config, own, out, events):
    """One run of everything, from a file."""
    path = write_facts(tmp_path_factory.mktemp("file") / "facts.jsonl")
    control = Control(rate=5e-3, epochs=3)
    return capacity(path, None, config, scope=SCOPE, control=control, out=out, on_event=events.append, backbone=own)


@pytest.fixture(scope="module")
def arms(result):
    return {(arm.learner, arm.answers): arm for arm in result.arms}


@pytest.fixture(scope="module")
def record(result, out):
    return json.loads((out / "capacity.json").read_text(encoding="utf-8"))


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.names = set()

    def handle_starttag(self, tag, _attributes):
        self.names.add(tag)


class TestTheRun:
    def test_the_memory_learns_true_and_random_answers_and_changes_nothing(self, result):
        assert result.met and result.missed == ()
        assert result.facts == 5 and result.asked == Asked(held_out=1, control=3, choices=3)

    def test_each_learner_learned_each_set_of_answers(self, arms, result):
        assert list(arms) == [("memory", "random"), ("memory", "true"), ("LoRA", "random"), ("LoRA", "true")]
        assert all(arm.facts == 5 for arm in result.arms)

    def test_the_memory_says_all_of_it_and_stores_all_bits(self, arms, config):
        for answers in ("random", "true"):
            assert arms["memory", answers].exact == 5
            assert arms["memory", answers].loss_max <= config.until_loss
        assert arms["memory", "random"].bits == pytest.approx(5 * BITS, rel=1e-3)

    def test_all_curves_of_an_answer_begin_at_the_backbone(self, arms):
        for answers in ("random", "true"):
            memory, lora = (arms[learner, answers].points[0] for learner in ("memory", "LoRA"))
            assert (memory.round, lora.round) == (0, 0)
            assert memory.mean == pytest.approx(lora.mean, rel=1e-3)

    def test_lora_may_keep_as_many_bytes_as_the_memory(self, arms):
        memory, lora = arms["memory", "random"].stored, arms["LoRA", "random"].stored
        assert abs(lora.bytes - memory.whole) < 0.05 * memory.whole
        assert arms["LoRA", "true"].stored.bytes == lora.bytes

    def test_the_backbone_is_the_measure_of_all_effects(self, result):
        base, *others = result.effects
        assert (base.learner, base.held_out, base.control) == ("backbone", 1, 3)
        assert [(effect.learner, effect.answers) for effect in others] == [(a.learner, a.answers) for a in result.arms]

    def test_with_the_memory_off_every_bit_is_the_backbones(self, result):
        memories = [effect for effect in result.effects if effect.learner == "memory"]
        assert len(memories) == 2 and all(effect.off_identical for effect in memories)
        assert all(effect.control == 3 and effect.right == result.effects[0].right for effect in memories)

    def test_lora_changes_what_it_was_not_taught(self, result):
        assert not any(effect.identical for effect in result.effects if effect.learner == "LoRA")

    def test_the_sweep_goes_on_where_the_test_ended(self, result):
        assert [arm.facts for arm in result.sweep] == [5, 7]
        assert result.sweep[0] == result.arms[0]

    def test_it_says_what_takes_long(self, events):
        notes = [event.text for event in events if hasattr(event, "text")]
        assert any("this is what takes long" in note for note in notes)
        assert "sweep: 7 random answers" in notes


class TestTheFiles:
    def test_the_json_is_the_result(self, record, result):
        assert record["met"] is True
        assert record["arms"][0]["bits"] == result.arms[0].bits
        assert [len(arm["points"]) for arm in record["arms"]] == [len(arm.points) for arm in result.arms]

    def test_the_page_stands_alone_and_shows_both_figures(self, out):
        page = (out / "capacity.html").read_text(encoding="utf-8")
        tags = Tags()
        tags.feed(page)
        assert not tags.names & {"script", "img", "iframe", "object"}
        assert "http" not in page.replace("http-equiv", "")
        assert page.count("<svg") == 2 and page.count("<polyline") == 4

    @pytest.mark.parametrize("name", ["memory.svg", "lora.svg"])
    def test_each_plot_is_a_file_of_its_own(self, out, name):
        plot = ET.parse(out / name).getroot()
        assert plot.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(plot.findall("{*}polyline")) == 2

    def test_without_control_and_sweep_the_page_has_neither(self, record):
        arms = [arm for arm in record["arms"] if arm["learner"] == "memory"]
        page = render(record | {"arms": arms, "sweep": []})
        assert page.count("<svg") == 1 and "Sweep" not in page

    def test_the_docs_say_what_the_command_says(self, record, result):
        report = runpy.run_path(str(REPORT))
        console = Console(file=io.StringIO(), width=80)
        for part in capacity_view(result):
            console.print(part)
        lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
        assert report["capacity"](record).splitlines() == ["```text", *lines, "```"]
        assert report["capacity_cost"](record).count("| memory, ") == 2
        assert report["capacity_curves"](record).count(".svg)") == 2

    def test_what_was_missed_and_what_a_file_is_called_are_text(self, record):
        page = render(record | {"missed": [HOSTILE], "source": HOSTILE, "model": HOSTILE})
        assert HOSTILE not in page and page.count("&lt;script&gt;") >= 4


class TestWhereTheQuestionsComeFrom:
    @pytest.fixture
    def asked(self, monkeypatch, tmp_path, own):
        """The facts that a run would have taught, and its settings; then it is over."""

        class OverError(Exception):
            pass

        def run(pool, backbone, config, scope, on_event):
            raise OverError(pool.first(100), config)

        monkeypatch.setattr(verb, "_Run", run)

        def asked(path, project, config, **options):
            with pytest.raises(OverError) as over:
                capacity(path, project, config, out=tmp_path / "out", **({"backbone": own} | options))
            return over.value.args

        return asked

    def test_a_file_comes_first(self, asked, tmp_path, tuned, config):
        facts, _ = asked(write_facts(tmp_path / "facts.jsonl", FACTS[:2]), tuned, config)
        assert {fact.id for fact in facts[:2]} == {"lighthouse", "valve"}

    def test_then_the_project_with_its_own_model(self, asked, tuned, config):
        facts, settings = asked(None, tuned, Config(model="elsewhere", seed=3))
        assert {fact.id for fact in facts[:6]} == {name for name, _, _ in FACTS}
        assert (settings.model, settings.seed) == (config.model, 3)

    @pytest.mark.parametrize("named", [True, False])
    def test_then_synthetic_ones(self, asked, tmp_path, config, named):
        facts, _ = asked(None, tmp_path / "none" if named else None, config)
        assert facts[0].id == "fact-0" and len(facts) == 100


def test_a_project_is_read_and_not_written_to_and_tells_the_same(tuned, config, tmp_path, own, result):
    """It holds the facts of the file: with the same seed everything is the same but the time it took."""
    before = {path: path.read_bytes() for path in sorted(tuned.iterdir())}
    found = capacity(None, tuned, config, scope=replace(SCOPE, most=None), out=tmp_path / "out", backbone=own)
    assert {path: path.read_bytes() for path in sorted(tuned.iterdir())} == before
    assert found.source == str(tuned) and found.sweep == ()
    timeless = [[replace(arm, seconds=0, processor_seconds=0) for arm in one.arms[:2]] for one in (found, result)]
    assert timeless[0] == timeless[1]
    assert found.effects == result.effects[:3]


class TestWhatIsMissed:
    """``met`` with one thing changed."""

    @pytest.fixture
    def missed(self, result):
        def missed(max_drop=0.0, arm=None, **changed):
            arms = [replace(result.arms[0], **(arm or {}))]
            effects = [result.effects[0], replace(result.effects[1], **changed)]
            return list(missed_of(arms, effects, result.asked, max_drop))

        return missed

    def test_nothing(self, missed):
        assert missed() == []

    def test_a_fact_that_is_not_said(self, missed):
        assert missed(arm={"exact": 4}) == ["the memory of random answers says 4 of 5 exactly"]

    def test_a_bit_that_is_not_the_backbones_with_the_memory_off(self, missed):
        assert "switched off" in missed(off_identical=False)[0]
        assert "switched off" in missed(off_identical=None)[0]

    def test_a_control_answer_that_changed(self, missed):
        assert missed(control=2) == ["the memory of random answers changes 1 of 3 control answers"]
        assert missed(max_drop=0.4, control=2) == []

    def test_accuracy_that_dropped(self, missed, result):
        right = result.effects[0].right
        assert "options right" in missed(right=right - 1)[0]
        assert missed(max_drop=0.4, right=right - 1) == []

    def test_held_out_answers_are_told_and_judged_by_nobody(self, missed):
        assert missed(held_out=0, identical=False) == []

    def test_lora_promises_nothing(self, missed):
        assert missed(arm={"learner": "LoRA", "exact": 0}, control=0, off_identical=None) == []


class TestTheCommand:
    @pytest.fixture
    def called(self, monkeypatch, tmp_path, result):
        """Runs the command over a verb that notes how it was called."""
        monkeypatch.chdir(tmp_path)
        found = {"result": result}

        def run(path, project, config, *, scope, control, out, on_event):
            found.update(path=path, project=project, config=config, scope=scope, control=control, out=out)
            return found["result"]

        monkeypatch.setattr(verb, "capacity", run)

        def call(*words):
            found["shown"] = CliRunner().invoke(app, ["capacity", *words])
            return found

        found["call"] = call
        return found

    def test_0_everything_was_learned_and_nothing_changed(self, called):
        shown = called["call"]("facts.jsonl", "--count", "4", "--out", "here", "--seed", "2")["shown"]
        assert shown.exit_code == 0 and shown.stdout == ""
        assert called["scope"] == Scope(facts=4) and called["control"] is None
        assert (called["path"], str(called["out"]), called["config"].seed) == ("facts.jsonl", "here", 2)
        for text in ("memory, random", "5 of 5", "LoRA, true", "never", "identical", "sweep"):
            assert text in shown.stderr
        assert max(map(len, shown.stderr.splitlines()[:12])) <= 80

    def test_its_help_has_the_shared_options_and_an_example(self, called):
        shown = called["call"]("--help")["shown"]
        for text in ("--project DIR", "MEMTUNE_PROJECT", "--config FILE", "--json", "-q, --quiet", "Examples:"):
            assert text in shown.stdout

    def test_3_what_was_missed_is_said(self, called, result):
        called["result"] = replace(result, missed=("the memory of random answers says 4 of 5 exactly",))
        shown = called["call"]("--json")["shown"]
        assert shown.exit_code == 3
        assert "error: not as it has to be:\n       the memory of random answers says 4 of 5" in shown.stderr
        assert json.loads(shown.stdout)["met"] is False

    def test_the_control_and_the_sweep_are_set(self, called):
        called["call"](
            "--control", "lora", "--rank", "32", "--rate", "2e-4", "--epochs", "9", "--sweep", "--most", "64"
        )
        assert called["control"] == Control(rank=32, rate=2e-4, epochs=9)
        assert called["scope"].most == 64
        assert called["call"]("--sweep")["scope"].most == 256

    def test_a_model_is_asked_synthetic_questions_and_no_project(self, called):
        assert called["call"]("--model", "elsewhere")["project"] is None
        assert called["config"].model == "elsewhere"
        assert str(called["call"]()["project"]) == ".memtune"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--most", "9"], "--most goes with --sweep"),
            (["--control", "adapter"], "--control is 'adapter'"),
            (["--rank", "3"], "--rank is a setting of the control"),
            (["--control", "lora", "--epochs", "0"], "--epochs is 0"),
            (["--count", "0"], "--count is 0"),
            (["--sample", "0"], "--sample is 0"),
            (["--sweep", "--most", "-1"], "--most is -1"),
            (["--max-drop", "1.5"], "--max-drop is 1.5"),
        ],
        ids=str,
    )
    def test_2_a_mistake_is_named_with_its_value(self, called, words, said):
        shown = called["call"](*words)["shown"]
        assert shown.exit_code == 2
        assert f"error: {said}" in shown.stderr and "hint:" in shown.stderr
        assert "scope" not in called


def test_a_file_in_place_of_the_directory_is_refused_before_anything_runs(tmp_path, config):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="out is no directory"):
        capacity(None, None, replace(config, model="nowhere"), out=tmp_path / "out")


def test_a_file_with_problems_is_refused_before_anything_is_learned(tmp_path, config, own):
    (tmp_path / "facts.jsonl").write_text('{"question": "Who?"}\n')
    with pytest.raises(DataError, match=r"facts\.jsonl:1"):
        capacity(tmp_path / "facts.jsonl", None, config, out=tmp_path / "out", backbone=own)
    assert not (tmp_path / "out").exists()


@pytest.mark.real
def test_on_the_real_checkpoint(smollm2, run_python, tmp_path):
    """Eight questions: both sets of answers to the last character, and nothing else changed."""
    run_python(
        """
        import sys
        from pathlib import Path
        from memtune.config import Config
        from memtune.evidence.storage.capacity import Scope, capacity

        capacity(None, None, Config(), scope=Scope(facts=8, sample=8, longest=8), out=Path(sys.argv[1]))
        """,
        tmp_path,
    )
    found = json.loads((tmp_path / "capacity.json").read_text(encoding="utf-8"))
    assert found["met"]
    random, true = found["arms"]
    assert (random["exact"], true["exact"]) == (8, 8)
    assert random["bits"] == pytest.approx(8 * BITS, rel=1e-3)
    assert random["points"][0]["mean"] > 3 > 0.01 > random["points"][-1]["worst"]
    base, *others = found["effects"]
    assert [effect["off_identical"] for effect in others] == [True, True]
    assert [effect["control"] for effect in others] == [8, 8]
    assert [effect["perplexity"] for effect in others] == [base["perplexity"]] * 2
