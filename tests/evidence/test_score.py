"""A long answer is scored statement by statement against the facts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import FACTS

from memtune.errors import ConfigError, DataError, ProjectError
from memtune.evidence.truth.score import Prompt, Setting, score
from memtune.evidence.truth.verify import Kind
from memtune.fact import Fact, facts_to_jsonl

STORE = (
    Fact("price", "How much does the Curlew 3 cost?", "£684 excluding VAT."),
    Fact("range", "What is the measuring range of the Curlew 3?", "0 to 18.5 metres of water."),
    Fact("vent", "What colour is the vent tube of the Curlew 3?", "Pale orange."),
    Fact("price-4", "How much does the Curlew 4 cost?", "£912 excluding VAT."),
)
ANSWER = """The Curlew 3 costs £684. Its measuring range is 0 to 25 metres. It floats.
It costs £684 excluding VAT. The vent tube of the Curlew 3 is pale orange; the Curlew 4 costs £912."""


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store.jsonl"
    path.write_text(facts_to_jsonl(STORE), encoding="utf-8")
    return path


@pytest.fixture
def scored(store, tmp_path):
    def scored(answer=ANSWER, question="Tell me about the Curlew 3.", **setting):
        result = score([Prompt(question, answer)], tmp_path / "none", facts_file=store, setting=Setting(**setting))
        return result.answers[0]

    return scored


def test_each_statement_has_its_verdict_and_its_fact(scored):
    assert [(one.text, one.kind.value, one.fact_id, one.repeated) for one in scored().statements] == [
        ("The Curlew 3 costs £684.", "supported", "price", False),
        ("Its measuring range is 0 to 25 metres.", "contradicted", "range", False),
        ("It floats.", "no evidence", None, False),
        ("It costs £684 excluding VAT.", "supported", "price", True),
        ("The vent tube of the Curlew 3 is pale orange", "supported", "vent", False),
        ("the Curlew 4 costs £912.", "supported", "price-4", False),
    ]


def test_the_figures(scored):
    one = scored()
    assert (one.supported, one.contradicted, one.no_evidence) == (3, 1, 1)  # the repeated one counts once
    assert one.precision == 3 / 5
    assert (one.about, one.about_said, one.k) == (3, 2, 3)  # three facts are about the Curlew 3
    assert one.recall == 2 / 3
    assert one.f1 == pytest.approx(2 * 0.6 / 1.6)


def test_k_is_the_users_where_he_says_so(scored):
    one = scored(k=64)
    assert (one.k, one.about) == (64, 3)
    assert one.f1 == pytest.approx(2 * (3 / 5) * (3 / 64) / (3 / 5 + 3 / 64))


def test_without_a_question_the_answer_says_what_it_is_about(scored):
    assert scored(question="").about == 4


def test_an_answer_about_nothing_that_is_stored_has_no_recall_and_no_f1(scored):
    one = scored("Cheese is nice.", "What is the moon made of?")
    assert (one.no_evidence, one.precision, one.recall, one.k, one.f1) == (1, 0.0, None, None, None)


def test_an_answer_that_states_nothing(scored):
    one = scored("Which one?")
    assert (one.statements, one.precision, one.f1) == ((), None, 0.0)


def test_a_fact_in_many_sentences_counts_once(tmp_path):
    path = tmp_path / "facts.jsonl"
    fact = Fact("rezero", "How is a Heron reset?", "1. Lift the lid.\n2. Press the green key.")
    path.write_text(facts_to_jsonl([fact]), encoding="utf-8")
    one = score([Prompt(fact.question, fact.answer)], tmp_path, facts_file=path).answers[0]
    assert [s.repeated for s in one.statements] == [False, True]
    assert (one.supported, one.f1) == (1, 1.0)


def test_the_sums_are_over_all_answers_and_the_shares_are_means(store, tmp_path):
    prompts = [Prompt("Tell me about the Curlew 3.", ANSWER), Prompt("What is the moon made of?", "Cheese.")]
    result = score(prompts, tmp_path, facts_file=store)
    assert (result.supported, result.contradicted, result.no_evidence) == (3, 1, 2)
    assert result.precision == pytest.approx((3 / 5 + 0) / 2)
    assert result.f1 == result.answers[0].f1  # the other one has none
    assert (result.facts, result.answered_by, result.seconds_asking >= 0) == (4, "given", True)


class TestPlugIns:
    def test_a_judge_decides_what_the_rules_leave_open_with_the_rows_and_what_a_search_finds(self, scored):
        asked = []

        def judge(statement, evidence):
            asked.append((statement, tuple(evidence)))
            return Kind.SUPPORTED

        def search(statement, question):
            assert question == "Tell me about the Curlew 3."
            return [f"found for {statement}"]

        one = scored("The Curlew 3 costs £684. It floats.", judge=judge, search=search)
        assert [(s.kind.value, s.by) for s in one.statements] == [("supported", "rules"), ("supported", "judge")]
        [(statement, evidence)] = asked
        assert statement == "It floats."
        assert len(evidence) == 4 and evidence[-1] == "found for It floats."
        assert any("£684 excluding VAT." in text for text in evidence)

    def test_a_search_alone_decides_nothing(self):
        with pytest.raises(ConfigError, match="search without a judge"):
            Setting(search=lambda statement, question: [])


@pytest.mark.parametrize("setting", [{"k": 0}, {"longest": 0}])
def test_impossible_settings(setting):
    with pytest.raises(ConfigError, match="is 0"):
        Setting(**setting)


def test_nothing_to_score(store, tmp_path):
    with pytest.raises(DataError, match="nothing to score"):
        score([], tmp_path, facts_file=store)


def test_a_question_without_a_project_has_nobody_to_answer_it(store, tmp_path):
    with pytest.raises(ProjectError):
        score([Prompt("How much?")], tmp_path / "none", facts_file=store)


def test_the_tuned_model_is_asked_and_supported_and_the_backbone_is_not(tuned, backbone):
    prompts = [Prompt(question) for _, question, _ in FACTS]
    on = score(prompts, tuned, backbone=backbone)
    assert [answer.f1 for answer in on.answers] == [1.0] * len(FACTS)
    assert (on.supported, on.contradicted, on.no_evidence) == (len(FACTS), 0, 0)
    assert on.answered_by.endswith("memory on")
    off = score(prompts, tuned, setting=Setting(memory=False, longest=16), backbone=backbone)
    assert (off.supported, off.answered_by.endswith("memory off")) == (0, True)


def test_given_and_open_prompts_keep_their_order(tuned, backbone):
    prompts = [Prompt(FACTS[0][1], "Bob Hope."), Prompt(FACTS[1][1]), Prompt(FACTS[2][1], "Nowhere.")]
    answers = score(prompts, tuned, backbone=backbone).answers
    assert [answer.answer for answer in answers] == ["Bob Hope.", "HT-4471", "Nowhere."]


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.real
def test_on_the_real_checkpoint_the_backbone_is_wrong_and_the_tuned_model_is_supported(smollm2, tmp_path):
    from memtune.config import Config
    from memtune.ingest import ingest
    from memtune.tune import tune

    kept = [line for line in (EXAMPLES / "facts.jsonl").read_text("utf-8").splitlines() if '"curlew3-' in line][:4]
    (tmp_path / "facts.jsonl").write_text("\n".join(kept), encoding="utf-8")
    project, config = tmp_path / "project", Config(model=smollm2)
    ingest(tmp_path / "facts.jsonl", project, config)
    assert tune(project, config).met
    prompts = [Prompt(json.loads(line)["question"]) for line in kept]
    on = score(prompts, project)
    assert (on.supported, on.contradicted, on.no_evidence, on.f1) == (4, 0, 0, 1.0)
    off = score(prompts, project, setting=Setting(memory=False, longest=64))
    assert off.supported == 0 and off.contradicted + off.no_evidence > 0
