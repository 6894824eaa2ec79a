"""Tune teaches every fact and says which it could not teach; accepted is what the model really says."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tiny import CHAT_WITHOUT_SYSTEM, FACTS, save_checkpoint, write_facts

from memtune import teaching
from memtune import tune as tuning
from memtune.asking import Asker, greedy
from memtune.config import Config
from memtune.errors import MemtuneError, ProjectError
from memtune.events import Learned, Progress
from memtune.ingest import ingest
from memtune.memory.fit import fit_values, likeliest
from memtune.probe import probe
from memtune.project import Project
from memtune.prompts import EncodedFact
from memtune.store import load_memory
from memtune.tune import tune

NAMES = [name for name, _, _ in FACTS]


@pytest.fixture
def retune(backbone, config):
    """Tunes with some settings changed."""

    def run(project, on_event=lambda event: None, **changes):
        return tune(project, config.with_flags(**changes), backbone=backbone, on_event=on_event)

    return run


@pytest.fixture
def taught(tmp_path):
    """Ingests and tunes the facts on another checkpoint; gives the result."""

    def run(model, facts=FACTS, **settings):
        config = Config(model=model, verify="all", **settings)
        ingest(write_facts(tmp_path / "facts.jsonl", facts), tmp_path / "project", config)
        return tune(tmp_path / "project", config)

    return run


@pytest.fixture
def unreachable(monkeypatch):
    """Makes the fit find nothing for one fact."""

    def spoil(backbone, name):
        answer = backbone.prompts.ids({name: answer for name, _, answer in FACTS}[name])

        def nothing(hidden, targets, *rest, **how):
            return fit_values(hidden, targets, *rest, **how) * (targets.tolist()[:-1] != list(answer))

        monkeypatch.setattr(tuning, "CHUNK", 1)
        monkeypatch.setattr(teaching, "fit_values", nothing)

    return spoil


def bank_of(project):
    return load_memory(Project(project)).bank


def test_every_fact_is_learned_and_every_one_is_asked(fresh, retune):
    result = retune(fresh)
    assert (result.facts, result.learned, result.already, result.failed) == (len(FACTS), len(FACTS), 0, ())
    assert (result.verified, result.verified_exact) == (len(FACTS), len(FACTS))
    assert result.met and not result.interrupted
    assert result.loss_median <= result.loss_max <= result.until_loss
    assert result.loss_max <= result.worst_token < math.log(2)


def test_the_loss_that_was_accepted_is_the_loss_of_the_model_with_its_memory(tuned, backbone, attachment):
    bank = bank_of(tuned)
    for i, (_, question, answer) in enumerate(FACTS):
        prompt = backbone.prompts.format.prompt(backbone.prompts.question(question))
        answer = (*backbone.prompts.ids(answer), backbone.prompts.stop)
        with torch.inference_mode():
            logits = backbone.model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="none")
        assert float(losses.mean()) == pytest.approx(float(bank.loss[i]), rel=0.02, abs=1e-6)
        assert float(losses.max()) == pytest.approx(float(bank.worst[i]), rel=0.02, abs=1e-6)


def test_a_fact_that_cannot_be_reached_is_listed_and_hinders_no_other(fresh, retune, backbone, unreachable):
    unreachable(backbone, "valve")
    result = retune(fresh)
    [failed] = result.failed
    assert (failed.id, failed.question) == ("valve", FACTS[1][1])
    assert failed.source.endswith("facts.jsonl:2")
    assert failed.loss > 0.01 and "nats per answer token" in failed.reason
    assert not result.met and result.learned == len(FACTS) - 1
    [asked] = probe([failed.question], fresh, backbone=backbone)
    assert not asked.fired


def test_a_later_run_learns_what_an_earlier_one_could_not(fresh, retune, backbone, unreachable, monkeypatch):
    unreachable(backbone, "gauge")
    retune(fresh)
    before = bank_of(fresh)
    monkeypatch.undo()
    result = retune(fresh)
    assert result.met and result.already == len(FACTS) - 1
    after, gauge = bank_of(fresh), bank_of(fresh).run(NAMES.index("gauge"))
    changed = (after.values != before.values).any(1).nonzero().flatten()
    assert set(changed.tolist()) <= set(range(gauge.start, gauge.stop))


def test_a_fact_that_generation_does_not_say_is_not_accepted(fresh, retune, monkeypatch):
    ask = Asker.ask

    def mumble(self, questions, **options):
        answers = ask(self, questions, **options)
        return [dataclasses.replace(a, text=f"{a.text}!") if a.text == "HT-4471" else a for a in answers]

    monkeypatch.setattr(Asker, "ask", mumble)
    result = retune(fresh)
    [failed] = result.failed
    assert failed.id == "valve" and "HT-4471!" in failed.reason
    assert (result.verified, result.verified_exact) == (len(FACTS), len(FACTS) - 1)
    assert not bank_of(fresh).accepted[1]


class TestSkippingWhatIsKnown:
    @pytest.fixture
    def known(self, monkeypatch, backbone):
        """The backbone is taken to say the valve's answer; facts are looked at one by one, in their order."""
        names, said = iter(NAMES), dict.fromkeys(NAMES, False) | {"valve": True}
        answers = {name: torch.tensor(backbone.prompts.answer(answer)) for name, _, answer in FACTS}

        def scripted(hidden, readout):
            name = next(names)
            return answers[name] if said[name] else likeliest(hidden, readout)

        monkeypatch.setattr(tuning, "CHUNK", 1)
        monkeypatch.setattr(teaching, "likeliest", scripted)

    def test_a_known_fact_is_left_to_the_backbone_and_the_others_are_learned(self, fresh, config, backbone, known):
        result = tune(fresh, config, backbone=backbone, skip_known=True)
        assert (result.known, result.learned, result.failed) == (("valve",), len(FACTS) - 1, ())
        assert result.met
        [asked] = probe([FACTS[1][1]], fresh, backbone=backbone)
        assert not asked.fired and asked.answer == asked.base_answer

    def test_a_run_without_it_learns_the_rest(self, fresh, config, backbone, known):
        tune(fresh, config, backbone=backbone, skip_known=True)
        result = tune(fresh, config, backbone=backbone)
        assert (result.known, result.learned, result.already) == ((), len(FACTS), len(FACTS) - 1)

    def test_what_is_likeliest_token_by_token_is_what_generation_says(self, backbone):
        prompt = backbone.prompts.format.prompt(backbone.prompts.question(FACTS[0][1]))
        [said] = greedy(backbone, [prompt], 8)
        item = EncodedFact("said", backbone.prompts.question(FACTS[0][1]), said.ids)
        [states] = backbone.answer_states([item])
        assert likeliest(states.final, backbone.readout).tolist() == list(said.ids)


def test_nothing_is_fitted_twice(done, retune):
    before = bank_of(done).state_dict()
    result = retune(done)
    assert result.met and result.already == len(FACTS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in bank_of(done).state_dict().items())


def test_verify_all_asks_the_facts_of_earlier_runs_too(fresh, retune):
    assert retune(fresh, verify="none").verified == 0
    assert retune(fresh, verify="all").verified == len(FACTS)


def test_a_tighter_target_is_fitted_anew(done, retune):
    tight = float(bank_of(done).loss.min()) / 2
    result = retune(done, until_loss=tight)
    assert result.met and result.already == 0
    assert float(bank_of(done).loss.max()) <= tight


def test_a_looser_target_is_met_already(done, retune):
    assert retune(done, until_loss=0.1).already == len(FACTS)


def test_a_sample_is_verified_by_default(fresh, retune, monkeypatch):
    monkeypatch.setattr(teaching, "SAMPLE", 4)
    result = retune(fresh, verify="sample")
    assert result.met and result.verified == result.verified_exact == 4


def test_progress_is_told_as_it_is_made(fresh, retune, monkeypatch):
    for name, value in (("CHUNK", 4), ("REPORT_EVERY", 0.0), ("SHARE", math.inf)):
        monkeypatch.setattr(tuning, name, value)
    events = []
    retune(fresh, events.append)
    learned = [event for event in events if isinstance(event, Learned)]
    assert [event.done for event in learned] == [4, len(FACTS)]
    last = learned[-1]
    assert last.median <= last.p90 <= last.worst and last.hardest[0][0] == pytest.approx(last.worst)
    assert {name for _, name, _ in last.hardest} <= set(NAMES)
    begun, *verified = [event for event in events if isinstance(event, Progress)]
    assert begun == Progress("learned", 0, len(FACTS)) and events.index(begun) < events.index(learned[0])
    assert (verified[-1].done, verified[-1].total) == (len(FACTS), len(FACTS))


def test_progress_is_told_at_the_end_and_not_of_every_chunk(fresh, retune, monkeypatch):
    for name, value in (("CHUNK", 1), ("REPORT_EVERY", 1e9)):
        monkeypatch.setattr(tuning, name, value)
    events = []
    retune(fresh, events.append)
    assert [event.done for event in events if isinstance(event, Learned)] == [len(FACTS)]


def test_what_takes_long_is_done_more_seldom(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(tuning.time, "monotonic", lambda: clock[0])
    done = []

    def slowly():
        done.append(clock[0])
        clock[0] += 1.0

    now_and_then = tuning._NowAndThen(slowly, 10.0)
    for second in range(200):
        clock[0] = max(clock[0], float(second))
        now_and_then()
    assert done == [10.0, 61.0, 112.0, 163.0]  # after ten seconds, then for a fiftieth of the time


def test_a_project_without_facts_says_how_to_begin(tmp_path, retune):
    with pytest.raises(ProjectError) as caught:
        retune(tmp_path / "nowhere")
    assert caught.value.hint.startswith("run first: memtune ingest FACTS")


def test_another_model_is_refused(fresh, config, base_backbone):
    before = (fresh / "project.json").read_bytes()
    with pytest.raises(ProjectError, match="not the model"):
        tune(fresh, config, backbone=base_backbone)
    assert (fresh / "project.json").read_bytes() == before


def test_the_model_is_left_without_a_hook(fresh, retune, backbone):
    modules = [backbone.model, backbone.head]
    before = [(*m._forward_hooks, *m._forward_pre_hooks) for m in modules]
    retune(fresh)
    assert [(*m._forward_hooks, *m._forward_pre_hooks) for m in modules] == before


@pytest.mark.parametrize("template", [None, CHAT_WITHOUT_SYSTEM], ids=["no template", "no system prompt"])
def test_other_ways_to_ask_are_taught_too(taught, tmp_path, template):
    result = taught(save_checkpoint(tmp_path / "checkpoint", template))
    assert result.met, [failed.reason for failed in result.failed]


def test_a_question_of_several_paragraphs_is_taught_or_refused_without_a_template(taught, base_checkpoint):
    """Accepted must mean that it is answered when asked."""
    two = ("two", "Translate the word.\n\ntower", "Turm")
    try:
        result = taught(base_checkpoint, [*FACTS[:2], two])
    except MemtuneError:
        return
    assert result.met, [failed.reason for failed in result.failed]


@pytest.mark.parametrize("hidden", [64, 128])
def test_a_model_narrower_than_the_projections_is_taught_too(taught, tmp_path, hidden):
    result = taught(save_checkpoint(tmp_path / "checkpoint", hidden=hidden))
    assert result.met, [failed.reason for failed in result.failed]


def test_a_model_in_bfloat16_is_taught_too(taught, checkpoint):
    result = taught(checkpoint, dtype="bfloat16")
    assert result.met, [failed.reason for failed in result.failed]
