"""What makes one set of facts another, whatever their order."""

from __future__ import annotations

from memtune.difference import difference
from memtune.fact import Fact

ANN, BEN, CAT = (Fact(name, f"Who is {name}?", f"{name} is known.") for name in ("ann", "ben", "cat"))
BEN_NOW = Fact("ben", "Who is ben?", "Nobody knows.")
DAN = Fact("dan", "Who is dan?", "Dan.")


def test_added_changed_removed_and_untouched_are_told_apart():
    found = difference([ANN, BEN, CAT], [DAN, CAT, BEN_NOW])
    assert (found.added, found.changed, found.removed) == (("dan",), ("ben",), ("ann",))
    assert found.origin.tolist() == [-1, 2, -1] and found.untouched == 1 and len(found) == 3
    assert found.new == [0, 2]
    assert found.order(3).tolist() == [3, 2, 4]
    assert found.replaced(3) == [0, 1]


def test_another_order_is_no_difference():
    found = difference([ANN, BEN], [BEN, ANN])
    assert len(found) == 0 and found.origin.tolist() == [1, 0]


def test_where_a_fact_was_read_does_not_count_and_its_other_wordings_do():
    elsewhere = Fact(ANN.id, ANN.question, ANN.answer, source="other.jsonl:9")
    reworded = Fact(BEN.id, BEN.question, BEN.answer, ("Ben is who?",))
    found = difference([ANN, BEN], [elsewhere, reworded])
    assert found.changed == ("ben",) and found.untouched == 1


def test_out_of_nothing_and_into_nothing():
    assert difference([], [ANN]).added == ("ann",)
    gone = difference([ANN, BEN], [])
    assert gone.removed == ("ann", "ben") and gone.replaced(2) == [0, 1]
