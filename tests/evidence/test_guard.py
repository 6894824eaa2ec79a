"""A guarded answer is the plain one, or one that the guard objects to less, with everything that was taken back."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny import FACTS

from memtune.asking import greedy
from memtune.backbone import load_backbone
from memtune.config import Config
from memtune.errors import ConfigError, ProjectError
from memtune.evidence.rewinding.guard import GUARDS, Setting, guard
from memtune.evidence.rewinding.tree import Limits
from memtune.fact import PackedFacts
from memtune.ingest import ingest
from memtune.probe import probe
from memtune.tune import tune

EXAMPLES = Path(__file__).parents[2] / "examples" / "facts.jsonl"
QUESTIONS = [question for _, question, _ in FACTS]
FLAG = FACTS[-1]
FEW = Limits(tries=6, new_tries=1, least=3, children=4)
ON, OFF = Setting(limits=FEW), Setting(memory=False, limits=FEW)


@pytest.fixture
def ask(tuned, backbone):
    def run(*questions, by="store", setting=ON):
        return list(guard(questions, tuned, by, backbone=backbone, setting=setting))

    return run


class TestWithNothingToObjectTo:
    @pytest.mark.parametrize("by", GUARDS[:2])
    def test_the_answer_is_that_of_generate_and_nothing_is_taken_back(self, ask, tuned, backbone, by):
        plain = list(probe(QUESTIONS[:3], tuned, backbone=backbone))
        for found, expected in zip(ask(*QUESTIONS[:3], by=by), plain, strict=True):
            assert found.answer == found.plain_answer == expected.answer
            assert (found.fact_id, found.judged) == (expected.fact_id, found.plain_judged)
            assert (found.rewinds, found.tree, found.met) == ((), None, True)

    def test_facts_that_say_nothing_of_it_leave_the_backbones_own_answer(self, ask, tuned, backbone):
        question = "What is the capital of France?"
        [plain] = probe([question], tuned, backbone=backbone)
        [found] = ask(question)
        assert found.answer == plain.answer
        assert (found.judged.why, found.fact_id) == ("no evidence", None)


@pytest.fixture(scope="module")
def found(tuned, backbone):
    """The backbone invents an answer to a stored question, because the memory is off."""
    [found] = guard([FLAG[1]], tuned, backbone=backbone, setting=OFF)
    return found


class TestAnObjection:
    def test_a_contradicted_answer_is_replaced_by_the_stored_one(self, found):
        assert found.plain_judged.why == f"contradicted by flag: {FLAG[2]}"
        assert (found.answer, found.judged.value, found.met) == (FLAG[2], 1, True)
        assert found.fact_id is None  # nothing fired

    def test_every_rewind_says_what_was_given_up_and_why(self, found):
        assert 1 < len(found.rewinds) <= found.tree.tries + 1
        first = found.rewinds[0]
        assert (first.kept, first.given_up, first.value) == ("", found.plain_answer, -1)
        assert first.why == found.plain_judged.why
        assert FLAG[2] not in {one.given_up for one in found.rewinds}  # it was not

    def test_the_tree_stays_within_its_limits(self, found):
        assert found.tree.early == found.tree.sets == 1
        assert found.tree.tries <= FEW.tries

    def test_the_cost_is_that_of_everything(self, found):
        assert found.cost.calls > found.plain_cost.calls > 0
        assert found.cost.tokens > found.plain_cost.tokens > 0
        assert found.ratio == found.cost.seconds / found.plain_cost.seconds > 1

    def test_it_is_plain_data(self, found):
        assert json.loads(json.dumps(asdict(found)))["rewinds"][0]["given_up"] == found.plain_answer

    def test_the_stored_answer_is_offered_only_where_the_router_thinks_of_the_same_fact(
        self, tuned, backbone, monkeypatch
    ):
        monkeypatch.setattr("memtune.evidence.rewinding.guard._Guarded._nearest", lambda _self, _question: "tram")
        setting = replace(OFF, limits=Limits(tries=2, new_tries=1, least=2, children=2))
        [found] = guard([FLAG[1]], tuned, backbone=backbone, setting=setting)
        assert found.tree.tries > 0 and found.answer != FLAG[2]


def test_what_is_not_good_enough_is_said_so(ask, monkeypatch):
    monkeypatch.setattr("memtune.evidence.rewinding.guard._Guarded._offers", lambda *_: [])
    monkeypatch.setattr("memtune.evidence.rewinding.values.Likelihood.calibrated", lambda *_: _hopeless())
    [found] = ask(FLAG[1], by="likelihood")
    assert (found.met, found.judged.why) == (False, "never")
    assert found.answer == found.plain_answer  # nothing better was found
    assert found.tree.tries >= FEW.tries and not found.tree.early


def _hopeless():
    from memtune.evidence.rewinding.rewind import Judgement
    from memtune.evidence.rewinding.values import Likelihood

    class Hopeless(Likelihood):
        def of(self, question):
            return lambda answer: Judgement(-1.0, "never")

    return Hopeless(None, 0.0)


def test_the_same_seed_takes_the_same_back(ask):
    one, same = (ask(FLAG[1], setting=replace(OFF, seed=3))[0] for _ in range(2))
    assert (one.rewinds, one.tree, one.answer) == (same.rewinds, same.tree, same.answer)


def test_the_model_is_as_it_was_also_when_nobody_listens_to_the_end(tuned, backbone):
    ids = torch.tensor([backbone.prompts.format.prompt(backbone.prompts.question(FLAG[1]))])
    with torch.inference_mode():
        before = backbone.model(ids).logits
        results = guard([FLAG[1], QUESTIONS[0]], tuned, backbone=backbone, setting=OFF)
        next(results)
        results.close()
        assert torch.equal(backbone.model(ids).logits, before)
        assert not backbone.model._forward_pre_hooks and not backbone.model.get_decoder()._forward_hooks


def test_an_unknown_guard_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match="guard 'web' is unknown") as caught:
        list(guard(["q"], tmp_path, "web"))
    assert caught.value.hint == "use one of: store, likelihood, self"


def test_facts_that_nobody_tuned_cannot_be_guarded(tmp_path):
    with pytest.raises(ProjectError, match="no finished model"):
        list(guard(["q"], tmp_path))


def test_without_facts_there_is_no_likelihood_to_compare_with(ask, tuned, monkeypatch):
    monkeypatch.setattr("memtune.evidence.rewinding.guard.load_facts", lambda _: PackedFacts.pack([]))
    with pytest.raises(ProjectError, match="no fact is left") as caught:
        ask(FLAG[1], by="likelihood")
    assert caught.value.hint == f"memtune facts add FACTS --project {tuned}"


@pytest.mark.real
def test_the_real_checkpoint_invents_an_address_and_takes_it_back(smollm2, tmp_path):
    """Guard off is ``generate()``; guard on, the backbone alone gives the stored answer to a stored question."""
    facts = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    gateway = next(fact for fact in facts if fact["id"] == "gw1-ip")
    chosen = [fact for fact in facts if fact["id"] in ("gw1-ip", "gw2-ip", "merlin-pin", "ht-4471")]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in chosen), encoding="utf-8")
    backbone, project = load_backbone(smollm2), tmp_path / "project"
    config = Config(model=smollm2, verify="none")
    ingest(tmp_path / "facts.jsonl", project, config, backbone=backbone)
    tune(project, config, backbone=backbone)

    alone = Setting(memory=False, longest=24)
    [found] = guard([gateway["question"]], project, backbone=backbone, setting=alone)
    prompt = backbone.prompts.format.prompt(backbone.prompts.question(gateway["question"]))
    [plain] = greedy(backbone, [prompt], 24)
    assert found.plain_answer == plain.text
    assert found.plain_judged.why == "contradicted by gw1-ip: 10.41.7.12"
    assert (found.answer, found.judged.value, found.fact_id) == ("10.41.7.12", 1, None)
    assert found.tree.early == found.tree.sets == 1 and found.tree.tries <= Limits().tries

    [tuned] = guard([gateway["question"]], project, backbone=backbone, setting=Setting(longest=24))
    assert (tuned.answer, tuned.fact_id, tuned.rewinds) == ("10.41.7.12", "gw1-ip", ())
