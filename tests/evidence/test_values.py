"""Three ways to judge an answer: by the stored facts, by how sure the model is, by what it says of itself."""

from __future__ import annotations

import pytest
import torch
from tiny import FACTS

from memtune.asking import Asker
from memtune.evidence.rewinding import values
from memtune.evidence.rewinding.values import Likelihood, SelfEvaluation, Store, split, without_stop
from memtune.evidence.truth.verify import Verifier
from memtune.fact import Fact

STORED = [
    Fact("price", "How much does the Curlew 3 cost?", "£684 excluding VAT."),
    Fact("collar", "What is part HT-4471?", "A 38 mm mounting collar."),
    Fact("rezero", "How do I re-zero the Curlew 3?", "1. Lift the sensor.\n2. Hold the key against the blue dot."),
]


@pytest.fixture
def asker(backbone, memory):
    asker = Asker(backbone, memory)
    yield asker
    asker.attachment.detach()


class TestTheStore:
    @pytest.mark.parametrize(
        ("question", "answer", "value", "fact"),
        [
            (STORED[0].question, "£684 excluding VAT.", 1, "price"),
            (STORED[0].question, "The Curlew 3 costs £700.", -1, "price"),
            (STORED[0].question, "I am sorry, I do not know.", 0, None),
            (STORED[1].question, "Part HT-4471 is a 40 mm collar.", -1, "collar"),
            ("What is part HT-4472?", "A 40 mm collar.", 0, None),
            (STORED[2].question, STORED[2].answer, 1, "rezero"),
            ("Is the Curlew 3 any good?", "It is a sensor. The Curlew 3 costs £700.", -1, "price"),
            ("Is the Curlew 3 any good?", "It is a sensor. It costs £684.", 1, "price"),
            (STORED[0].question, "", 0, None),
        ],
    )
    def test_an_answer_is_supported_contradicted_or_neither(self, backbone, question, answer, value, fact):
        found = Store(backbone.prompts, Verifier(STORED)).of(question)(backbone.prompts.answer(answer))
        assert (found.value, found.fact_id) == (value, fact)

    def test_it_says_which_fact_and_what_that_says(self, backbone):
        judge = Store(backbone.prompts, Verifier(STORED)).of(STORED[0].question)
        assert judge(backbone.prompts.answer("£700")).why == "contradicted by price: £684 excluding VAT."
        assert judge(backbone.prompts.answer("I am sorry.")).why == "no evidence"

    def test_an_answer_that_was_cut_off_is_judged_as_it_stands(self, backbone):
        judge = Store(backbone.prompts, Verifier(STORED)).of(STORED[0].question)
        assert judge(backbone.prompts.ids("The Curlew 3 costs £700 and")).value == -1


class TestTheLikelihood:
    def test_the_threshold_tells_the_stored_from_the_invented(self, asker):
        facts = [Fact(*row) for row in FACTS]
        found = Likelihood.calibrated(asker, facts)
        prompts = asker.backbone.prompts
        for fact in facts:
            assert found.of(fact.question)(prompts.answer(fact.answer)).value == 1
            [invented] = asker.ask([fact.question], memory=False, longest=12)
            assert found.of(fact.question)(invented.ids).value == -1

    def test_it_says_how_sure_the_model_is(self, asker):
        judge = Likelihood(asker.backbone, -0.5).of(FACTS[1][1])
        found = judge(asker.backbone.prompts.answer(FACTS[1][2]))
        assert found.value == 1 and found.why.endswith("nats a token, at least -0.5")
        assert judge((asker.backbone.prompts.stop,)).value == 0

    @pytest.mark.parametrize(
        ("high", "low", "threshold"),
        [
            ([-0.1, -0.2], [-1.0, -2.0], -0.6),
            ([-0.1, -0.2, -3.0], [-1.0, -2.0], -0.6),  # one of them is lost either way
            ([-0.1], [], -0.1),
            ([-1.0, -0.5], [-0.5, -1.5], -1.25),  # the widest of the gaps that are as good
        ],
    )
    def test_a_split_leaves_most_on_their_sides(self, high, low, threshold):
        assert split(high, low) == pytest.approx(threshold)


class TestSelfEvaluation:
    """What the model prefers is scripted here: a letter, or a word wherever it stands."""

    @pytest.fixture
    def judged(self, asker, monkeypatch):
        def run(prefers):
            def likelihoods(backbone, prompts, letters):
                text = backbone.prompts.text(prompts[0])
                assert not asker.attachment.enabled, "its opinion is the backbone's own"
                first_is_true = "(A) true" in text
                chosen = {"A": 0, "B": 1, "true": 1 - first_is_true, "false": int(first_is_true)}[prefers]
                return [torch.tensor([0.0 if i == chosen else -1.0]) for i in range(2)]

            monkeypatch.setattr(values, "token_log_probabilities", likelihoods)
            return SelfEvaluation(asker).of("Is it?")(asker.backbone.prompts.answer("It is."))

        return run

    @pytest.mark.parametrize(("prefers", "value"), [("true", 1), ("false", -1), ("A", 0), ("B", 0)])
    def test_only_an_opinion_that_survives_the_swap_counts(self, judged, asker, prefers, value):
        assert judged(prefers).value == value
        assert asker.attachment.enabled

    def test_the_model_itself_can_be_asked(self, asker):
        found = SelfEvaluation(asker).of(FACTS[0][1])(asker.backbone.prompts.answer(FACTS[0][2]))
        assert found.value in (-1, 0, 1)


def test_the_stop_token_is_taken_off_where_it_is(backbone):
    ids = backbone.prompts.ids("Green")
    assert without_stop(backbone.prompts, (*ids, backbone.prompts.stop)) == without_stop(backbone.prompts, ids) == ids
    assert without_stop(backbone.prompts, ()) == ()
