"""Which facts a full answer to a text would state."""

from __future__ import annotations

import pytest

from memtune.evidence.truth.subjects import Subjects
from memtune.evidence.truth.terms import Language
from memtune.fact import Fact

FACTS = (
    Fact("price", "How much does the Curlew 3 cost?", "£684", ("What is the price of the Curlew 3?",)),
    Fact("range", "What is the measuring range of the Curlew 3?", "18 m"),
    Fact("price-4", "How much does the Curlew 4 cost?", "£912"),
    Fact("collar", "What is part HT-4471?", "A collar."),
    Fact("fix", "What did Heron firmware 5.2.1 fix?", "A clock."),
    Fact("cup", "Who won the 2023 Tarn Cup?", "Nobody."),
    Fact("canteen", "what is the staff canteen called", "Driftwood"),
)


@pytest.fixture(scope="module")
def subjects():
    return Subjects(FACTS, Language(text for fact in FACTS for text in fact.wordings))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Tell me about the Curlew 3.", ["price", "range"]),
        ("tell me about the curlew 3", ["price", "range"]),
        ("Compare the Curlew 3 and the Curlew 4", ["price", "range", "price-4"]),
        ("What is the measuring range of the Curlew 3?", ["range"]),  # a stored question asks for one fact
        ("what is the price of the curlew 3", ["price"]),
        ("The Curlew 5 is new", []),
        ("Part HT-4471 is steel", ["collar"]),
        ("The Heron 5.2.1", ["fix"]),
        ("In 2023 nothing happened", []),
        ("Describe the canteen", ["canteen"]),
        ("", []),
    ],
)
def test_about(subjects, text, ids):
    assert [FACTS[number].id for number in subjects.about(text)] == ids


def test_no_facts():
    assert Subjects((), Language(())).about("The Curlew 3") == []
