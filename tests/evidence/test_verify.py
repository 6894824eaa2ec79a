"""What stored facts say of a statement: the truth table of the rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtune.evidence.truth.verify import Kind, Verifier
from memtune.facts import Fact, read_facts

S, C, N = Kind.SUPPORTED, Kind.CONTRADICTED, Kind.NO_EVIDENCE
FACTS = (
    Fact("price", "How much does the Curlew 3 cost?", "£684 excluding VAT."),
    Fact("address", "What is the default Modbus address of the Curlew 3?", "37"),
    Fact("warranty", "How long is the warranty on the Curlew 3?", "42 months, or 60 months if it is registered."),
    Fact("vent", "What colour is the vent tube of the Curlew 3?", "Pale orange."),
    Fact("price-4", "How much does the Curlew 4 cost?", "£912 excluding VAT."),
    Fact("team", "What does a Tarnlog Team subscription cost?", "£1,190 a year.", ("How expensive is TT?",)),
    Fact("collar", "What is part HT-4471?", "A steel collar for stilling wells."),
    Fact("cartridge", "What is part HT-4417?", "A cartridge, sold in packs of six."),
    Fact("lead", "Who leads the firmware team at Halden Tarn?", "Oluwaseun Brandt, who took over in September 2019."),
    Fact("canteen", "What is the staff canteen called?", "Driftwood"),
    Fact("capital", "what is the capital of zembla", "onhava"),
    Fact("shield", "What is the part number of the Siskin shield?", "SK-RS-20714"),
    Fact("officer", "How do I reach the data protection officer?", "Write to Piet Vandersloot."),
    Fact("tests", "What does the Heron do at night?", "It sleeps. Every hour it wakes for a test."),
)


@pytest.fixture(scope="module")
def verifier():
    return Verifier(FACTS)


TABLE = (
    ("the answer in a sentence", "The Curlew 3 costs £684 excluding VAT.", S, "price"),
    ("the beginning of the answer", "The Curlew 3 costs £684.", S, "price"),
    ("the beginning, opening the sentence", "Oluwaseun Brandt leads the firmware team at Halden Tarn.", S, "lead"),
    ("in lower case", "the curlew 3 costs £684 excluding vat", S, "price"),
    ("another number", "The Curlew 3 costs £700.", C, "price"),
    ("another name", "Bob Hope leads the firmware team at Halden Tarn.", C, "lead"),
    ("another word", "The vent tube of the Curlew 3 is green.", C, "vent"),
    ("another relation", "The Curlew 3 weighs 37 kg.", N, None),
    ("a value of another relation", "The warranty on the Curlew 3 is 37 months.", C, "warranty"),
    ("no value of the kind", "The warranty on the Curlew 3 is generous.", N, None),
    ("a near-duplicate subject's value", "The Curlew 4 costs £684 excluding VAT.", C, "price-4"),
    ("a near-duplicate subject's own value", "The Curlew 4 costs £912 excluding VAT.", S, "price-4"),
    ("a longer subject", "The Curlew 3 Pro costs £684 excluding VAT.", N, None),
    ("a code one digit away", "Part HT-4471 is a cartridge, sold in packs of six.", C, "collar"),
    ("the right code", "Part HT-4417 is a cartridge, sold in packs of six.", S, "cartridge"),
    ("a thousands comma", "A Tarnlog Team subscription costs £1190 a year.", S, "team"),
    ("another number with a comma", "A Tarnlog Team subscription costs £1,290 a year.", C, "team"),
    ("an alias by a paraphrase", "TT is expensive: £1,190 a year.", S, "team"),
    ("another value under the alias", "TT is expensive: £1,290 a year.", C, "team"),
    ("a subject without a name", "The staff canteen is called Driftwood.", S, "canteen"),
    ("another value for it", "The staff canteen is called Seagull.", C, "canteen"),
    ("a subject without capitals", "The capital of Zembla is Onhava.", S, "capital"),
    ("its near-duplicate", "The capital of Spain is Madrid.", N, None),
    ("another code with the same letters", "SK-RS-20741 is the part number of the Siskin shield.", C, "shield"),
    ("the right code opens the sentence", "SK-RS-20714 is the part number of the Siskin shield.", S, "shield"),
    ("a question in the first person", "The data protection officer to reach is Anna Keller.", C, "officer"),
    ("a reworded answer in other words", "Part HT-4417 is a cartridge that comes in packs of six.", N, None),
    ("nothing stored", "The moon is made of cheese.", N, None),
    ("no words", "?!", N, None),
)


@pytest.mark.parametrize(("statement", "kind", "fact"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_truth_table(verifier, statement, kind, fact):
    found = verifier.verdict(statement)
    assert (found.kind, found.fact_id) == (kind, fact)


def test_the_verdict_names_the_answer_that_decided(verifier):
    assert verifier.verdict("The Curlew 3 costs £700.").answer == "£684 excluding VAT."


QUESTION = "How much does the Curlew 3 cost?"


@pytest.mark.parametrize(
    ("statement", "kind"), [("£684 excluding VAT.", S), ("£684.", S), ("£700.", C), ("I do not know.", N)]
)
def test_a_bare_answer_is_read_with_its_question(verifier, statement, kind):
    assert verifier.verdict(statement, question=QUESTION).kind is kind
    assert verifier.verdict(statement).kind is N


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.id)
def test_every_stored_answer_is_supported_behind_its_question(verifier, fact):
    assert verifier.verdict(fact.answer, question=fact.question).fact_id == fact.id


def test_a_sentence_of_a_longer_answer_is_supported_where_the_subject_is_known(verifier):
    sentence = "Every hour it wakes for a test."
    assert verifier.verdict(sentence, about="What does the Heron do at night?").kind is S
    assert verifier.verdict(sentence).kind is N


def test_an_answer_to_another_question_about_the_same_thing_is_not_supported(verifier):
    assert verifier.verdict("42 months, or 60 months if it is registered.", question=QUESTION).kind is not S
    assert verifier.verdict("37", question=QUESTION).kind is not S


def test_an_unseen_wording_is_taken_for_the_fact_that_shares_most_words_with_it(verifier):
    assert verifier.verdict("Pale orange.", question="vent tube curlew 3?").fact_id == "vent"


def test_common_words_out_of_an_answer_support_nothing(verifier):
    assert verifier.verdict("A.", question="What is part HT-4471?").kind is N


@pytest.mark.parametrize(
    ("statement", "kind"), [("It costs £684.", S), ("It costs £700.", C), ("The Merlin costs £700.", N)]
)
def test_an_earlier_statement_lends_its_subject_to_one_that_names_none(verifier, statement, kind):
    assert verifier.verdict(statement, about="The Curlew 3 is a sensor.").kind is kind


@pytest.mark.parametrize("marks", ['"Curlew 3" OR', "NEAR(Curlew 3) AND", "-Curlew 3*:", "'; DROP TABLE facts; --"])
def test_operators_of_the_search_are_words_like_any_other(verifier, marks):
    assert verifier.verdict(f"{marks} the Curlew 3 costs £684 excluding VAT").kind is S


def test_no_facts_no_evidence():
    assert Verifier(()).verdict("The Curlew 3 costs £684.").kind is N


def test_every_answer_of_the_examples_is_supported_behind_its_question():
    facts = read_facts(Path(__file__).parents[2] / "examples" / "facts.jsonl")
    verifier = Verifier(facts)
    found = [verifier.verdict(fact.answer, question=fact.question) for fact in facts]
    assert [verdict.fact_id for verdict in found] == [fact.id for fact in facts]
    assert {verdict.kind for verdict in found} == {S}
