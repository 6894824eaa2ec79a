"""A failure is the same one in whatever process it is told: workers send it home in a pickle."""

from __future__ import annotations

import pickle

import pytest

from memtune import errors
from memtune.errors import PROBLEM_CAP, DataError, MemtuneError

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MemtuneError)]


def raised(kind):
    problems = [f"facts.jsonl:{line}: no answer" for line in range(1, PROBLEM_CAP + 6)]
    return kind(problems if issubclass(kind, DataError) else "what is wrong", hint="memtune ingest FACTS")


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_an_error_survives_a_pickle(kind):
    error = raised(kind)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.hint, again.exit_code) == (kind, str(error), error.hint, error.exit_code)
    assert vars(again) == vars(error)  # of DataError its problems: all of them, also those that are not shown
