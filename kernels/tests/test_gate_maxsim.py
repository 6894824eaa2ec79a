"""``gate_maxsim``: what each word of a question finds among the words of a candidate, and the other way round."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from memtune_kernels import gate_maxsim, reference
from memtune_kernels.gate_maxsim import FIGURES
from problems import DTYPES, words

PAIRS = [[0, 0], [0, 2], [1, 1], [2, 1], [2, 4], [3, 3], [3, 1], [2, 1]]  # candidates in any order, one asked twice


def _pairs(device, pairs=PAIRS):
    return torch.tensor(pairs, dtype=torch.int64, device=device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_finds_the_best_partner_of_every_word_in_both_directions(device, dtype):
    asked, stored = words([3, 0, 20, 5], dtype, device), words([4, 17, 0, 1, 6], dtype, device)
    pairs = _pairs(device)
    for found, expected in zip(
        gate_maxsim(asked, stored, pairs), reference.gate_maxsim(asked, stored, pairs), strict=True
    ):
        for figures, partners, rows in zip(*found, expected, strict=True):
            rows = rows.to(device)
            torch.testing.assert_close(figures[: len(rows)].double(), rows[:, :9], rtol=1e-5, atol=2e-6)
            assert torch.equal(partners[: len(rows)].double(), rows[:, 9:])


def test_padding_and_empty_sides_are_zero(device):
    asked, stored = words([3, 0, 5], torch.float16, device), words([2, 0], torch.float16, device)
    there, back = gate_maxsim(asked, stored, _pairs(device, [[0, 0], [1, 0], [2, 1]]))
    assert there.figures[0, :3].any()
    assert not there.figures[0, 3:].any()  # behind the question's last word
    assert not there.figures[1:].any()  # no words to ask with, or none to find
    assert not back.figures[1:].any()


def test_of_equally_good_partners_the_first_is_named_and_read(device):
    asked = words([1], torch.float32, device)
    stored = words([20], torch.float32, device)._replace(sketch=asked.sketch.expand(20, -1))  # spelt alike, all of them
    there, _ = gate_maxsim(asked, stored, _pairs(device, [[0, 0]]))
    told = dict(zip(FIGURES, there.figures[0, 0].tolist(), strict=True))
    assert there.partners[0, 0, 0] == 0
    assert told["spelling"] == 1.0
    assert told["meaning_spelt"] == pytest.approx(
        float(F.cosine_similarity(asked.meaning[0], stored.meaning[0], dim=0))
    )


def test_words_that_share_nothing_are_told_nothing_below_zero(device):
    asked = words([1], torch.float32, device)
    stored = asked._replace(
        meaning=-asked.meaning, relation=-asked.relation, sketch=~asked.sketch, bucket=asked.bucket + 1
    )
    there, _ = gate_maxsim(asked, stored, _pairs(device, [[0, 0]]))
    told = dict(zip(FIGURES, there.figures[0, 0].tolist(), strict=True))
    assert told.pop("meaning_spelt") == pytest.approx(-1.0)  # a figure of one partner, not the best of all
    assert set(told.values()) == {0.0}


def test_longest_given_beforehand_widens_the_padding_alone(device):
    asked, stored = words([3], torch.float16, device), words([4], torch.float16, device)
    pairs = _pairs(device, [[0, 0]])
    there, back = gate_maxsim(asked, stored, pairs)
    wide, wide_back = gate_maxsim(asked, stored, pairs, longest=(6, 9))
    assert wide.figures.shape == (1, 6, 9)
    torch.testing.assert_close(wide.figures[:, :3], there.figures)
    torch.testing.assert_close(wide_back.figures[:, :4], back.figures)
    assert not wide.figures[:, 3:].any()


def test_no_pairs_give_no_rows(device):
    side = words([2, 3], torch.float16, device)
    there, _ = gate_maxsim(side, side, _pairs(device, []).view(0, 2))
    assert there.figures.shape == (0, 3, 9)


def test_refuses_sides_that_cannot_be_compared(device):
    asked, stored = words([2], torch.float16, device), words([2], torch.float32, device)
    with pytest.raises(ValueError, match=r"meaning: asked torch\.float16"):
        gate_maxsim(asked, stored, _pairs(device, [[0, 0]]))
    with pytest.raises(ValueError, match=r"int64 \(pairs, 2\)"):
        gate_maxsim(asked, asked, _pairs(device, [[0, 0]]).int())
