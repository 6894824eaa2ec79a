"""The subject of a question is the name in it, or else its rarest word, as tokens of the question."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from memtune.evidence.mechanism.subject import subject_of
from memtune.memory.words import BUCKETS, word_bucket

COMMON = (
    "who",
    "built",
    "the",
    "is",
    "what",
    "where",
    "in",
    "how",
    "long",
    "of",
    "part",
    "number",
    "at",
    "does",
    "end",
)


@pytest.fixture(scope="module")
def reader(backbone):
    counts = torch.zeros(BUCKETS)
    for word in COMMON:
        counts[word_bucket(word)] = 500.0
    counts[word_bucket("germany")] = 40.0
    return SimpleNamespace(counts=counts, documents=1000.0, vocabulary=backbone.prompts.vocabulary())


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Who built the lighthouse at Kirkby Strand?", "Kirkby Strand"),
        ("What is the part number of HT-4471?", "HT-4471"),
        ("  Who built the Bank of Zembla?  ", "Bank of Zembla"),  # a word between two names is part of them
        ("Where in Germany does the long Zembla Tram end?", "Zembla Tram"),  # the rarest of two
        ("what is the valve", "valve"),  # no capital and no digit: the rare word
        ("who is who", "who"),  # no rare word either: the rarest there is
        ('Who built "Zembla"?', "Zembla"),
        ("등대지기의 이름은 무엇인가요?", None),
        ("?!", None),
    ],
)
def test_it_is_found_with_its_tokens(backbone, reader, question, expected):
    ids = backbone.prompts.question(question)
    found = subject_of(question, ids, reader)
    if question == "?!":
        assert found is None
        return
    assert expected in (found.text, None)
    spelt = backbone.prompts.text(ids[found.tokens.start : found.tokens.stop])
    assert found.text in spelt and len(spelt.strip()) <= len(found.text) + 3  # a token may hold a sign beside it


def test_every_place_counts_from_the_beginning_of_the_question(backbone, reader):
    question = "Zembla: who built Zembla?"
    found = subject_of(question, backbone.prompts.question(question), reader)
    assert found.text == "Zembla" and found.tokens.start == 0
