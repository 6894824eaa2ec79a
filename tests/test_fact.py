"""A fact knows what is taught of it; packed facts come back equal, one by one, or are named as damaged."""

from __future__ import annotations

import dataclasses
import json

import pytest

from memtune.errors import ProjectError
from memtune.fact import Fact, PackedFacts, facts_to_jsonl

GOOD = Fact("1", "q", "a")


def test_the_digest_covers_what_is_taught_and_not_where_it_was_read() -> None:
    fact = Fact("i", "q", "a", ("p",), "facts.jsonl:1")
    assert dataclasses.replace(fact, source="other:9").digest == fact.digest
    changed = [{"id": "j"}, {"question": "a"}, {"answer": "q"}, {"paraphrases": ()}, {"paraphrases": ("p", "p")}]
    digests = {dataclasses.replace(fact, **change).digest for change in changed}  # type: ignore[arg-type]
    assert len(digests | {fact.digest}) == 6
    assert len(fact.digest) == 64


def test_the_wordings_of_a_fact_are_its_question_and_its_paraphrases() -> None:
    assert Fact("i", "q", "a", ("p", "r")).wordings == ("q", "p", "r")


def test_packed_facts_come_back_equal() -> None:
    facts = [
        Fact("1", "q\n\u2028\x85", 'a \u00e9\U0001f600 \\ "', ("p", "r"), "facts.jsonl:1"),
        Fact("2", "q", "a"),
        GOOD,
    ]
    packed = PackedFacts.pack(iter(facts))
    assert list(packed) == facts and len(packed) == 3
    assert (packed[1], packed[-1], packed[1:]) == (facts[1], facts[-1], facts[1:])
    with pytest.raises(IndexError):
        packed[3]


def test_packed_facts_are_the_lines_of_their_file() -> None:
    packed = PackedFacts.pack([GOOD, GOOD])
    assert packed.data.decode() == facts_to_jsonl([GOOD, GOOD])
    assert list(PackedFacts(bytes(packed.data))) == [GOOD, GOOD]
    assert list(PackedFacts(bytes(packed.data).rstrip())) == [GOOD, GOOD]
    assert list(PackedFacts(b"")) == []


def test_packed_facts_know_how_they_are_asked() -> None:
    facts = [Fact("1", "q é", 'a "q"', ("p\n", 'say "r"')), Fact("2", "a", "q é"), Fact("q", "last", "b", (), "s")]
    packed = PackedFacts.pack(facts)
    assert all(packed.asked_as(text) for fact in facts for text in fact.wordings)
    for text in ("q", "b", "s", "1", "question", "r", "", "qé", "\ud800"):
        assert not packed.asked_as(text)


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "1", "{}", '"x"', "[" * 100_000, "\udcff"]
    + [json.dumps({**vars(GOOD), **change}) for change in ({"id": 1}, {"paraphrases": "p"}, {"more": 1})],
)
def test_a_damaged_line_is_named_and_the_others_are_read(line: str) -> None:
    data = f"{facts_to_jsonl([GOOD])}{line}\n".encode(errors="surrogateescape")
    packed = PackedFacts(data, "store.jsonl")
    assert packed[0] == GOOD
    with pytest.raises(ProjectError, match=r"store.jsonl:2: not a stored fact"):
        packed[1]
