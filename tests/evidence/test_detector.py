"""A detector is a logistic regression; its AUROC is that of replies which the fit has not seen."""

from __future__ import annotations

import json

import pytest
import torch

from memtune.errors import ProjectError
from memtune.evidence.mechanism.detector import DETECTOR, FOLDS, Auroc, Detector, auroc, cross_validated, fit
from memtune.evidence.mechanism.observables import OBSERVABLES

COLUMNS = len(OBSERVABLES)


def labelled(count, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(count, COLUMNS, generator=drawn), torch.arange(count) % 3 == 0


@pytest.mark.parametrize(
    ("scores", "wrong", "expected"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0], 0.5),
        ([0.9, 0.3, 0.4, 0.1], [1, 1, 0, 0], 0.75),
    ],
)
def test_auroc_is_the_share_of_pairs_in_order(scores, wrong, expected):
    found = auroc(torch.tensor(scores), torch.tensor(wrong).bool(), seed=0)
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value <= found.high


def test_more_replies_make_the_interval_narrower():
    few, many = (auroc(f[:, 0] + 2 * w, w, seed=0) for f, w in (labelled(20), labelled(400)))
    assert many.high - many.low < (few.high - few.low) / 2


def test_the_fit_finds_the_figure_that_tells():
    figures, wrong = labelled(200)
    figures[:, 2] += 3 * wrong
    figures[:, 2] = figures[:, 2] * 50 + 7  # in other units
    _, _, weights, _ = fit(figures, wrong)
    assert weights.abs().argmax() == 2 and weights[2] > 0
    assert auroc(cross_validated(figures, wrong, seed=0), wrong, seed=0).value > 0.95


def test_the_fit_is_where_its_loss_has_no_slope():
    figures, wrong = labelled(60)
    means, deviations, weights, constant = fit(figures, wrong)
    rows = (figures.double() - means) / deviations
    missed = (rows @ weights + constant).sigmoid() - wrong.double()
    torch.testing.assert_close(rows.T @ missed + weights, torch.zeros(COLUMNS, dtype=torch.float64), atol=1e-8, rtol=0)
    assert float(missed.sum()) == pytest.approx(0, abs=1e-6)


def test_replies_that_separate_perfectly_have_a_fit_too():
    figures, wrong = labelled(40)
    figures[:, 0] = wrong * 100.0
    _, _, weights, constant = fit(figures, wrong)
    assert weights.isfinite().all() and abs(constant) < 100


def test_what_tells_nothing_ranks_like_a_coin():
    """Fitted and scored on the same replies it would look like more."""
    values = [auroc(cross_validated(f, w, seed=0), w, seed=0).value for f, w in (labelled(90, s) for s in range(12))]
    assert sum(values) / len(values) == pytest.approx(0.5, abs=0.06)
    figures, wrong = labelled(90)
    means, deviations, weights, constant = fit(figures, wrong)
    seen = ((figures.double() - means) / deviations) @ weights + constant
    assert auroc(seen, wrong, seed=0).value > 0.55


def test_every_reply_is_scored_by_a_fit_without_it(monkeypatch):
    figures, wrong = labelled(30)
    sizes = []

    def counted(rows, labels):
        sizes.append(len(rows))
        return fit(rows, labels)

    monkeypatch.setattr("memtune.evidence.mechanism.detector.fit", counted)
    first = cross_validated(figures, wrong, seed=0)
    assert sizes == [24] * FOLDS
    assert torch.equal(first, cross_validated(figures, wrong, seed=0))
    assert not torch.equal(first, cross_validated(figures, wrong, seed=1))


@pytest.fixture
def detector():
    ones = (1.0,) * COLUMNS
    return Detector("print", "q.jsonl", 50, 20, Auroc(0.8, 0.7, 0.9), (2.0,) * COLUMNS, ones, (3.0, *ones[1:]), -1.0)


def test_it_says_a_probability(detector):
    at_the_means = (2.0,) * COLUMNS
    assert detector(at_the_means) == pytest.approx(1 / (1 + 2.718281828))
    assert detector((3.0, *at_the_means[1:])) == pytest.approx(1 / (1 + 2.718281828**-2))


def test_what_is_kept_is_read_again(detector, tmp_path):
    assert Detector.load(tmp_path) is None
    assert detector.save(tmp_path) == tmp_path / DETECTOR
    assert Detector.load(tmp_path) == detector


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: e | {"weights": e["weights"][:-1]},
        lambda e: e | {"deviations": [0.0] * COLUMNS},
        lambda e: e | {"means": ["a"] * COLUMNS},
        lambda e: e | {"more": 1},
        lambda e: {k: v for k, v in e.items() if k != "constant"},
        lambda e: e | {"auroc": None},
        lambda e: [e],
    ],
)
def test_a_file_that_is_none_is_refused(detector, tmp_path, spoil):
    path = detector.save(tmp_path)
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    with pytest.raises(ProjectError, match="no detector of this version") as caught:
        Detector.load(tmp_path)
    assert f"memtune detect FACTS --project {tmp_path}," in caught.value.hint
