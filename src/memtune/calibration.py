"""How sure the router must be: set from scores that each network of the gate gave to what it had not been trained on.

Two kinds of question must stay silent. *Near misses* ask the same of something else; their scores set the threshold.
*Strangers* have nothing to do with the facts. Few of them come near any stored question, and most of those that do ask
about a thing that the facts name too: so the bar for a stranger is how near it is, and the stored question that one of
them comes close to is treated with more caution than the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memtune.gate_training import BACKGROUND, FOLDS, NEAR_MISS, NEIGHBOUR, REWORDED, Rows
from memtune.memory.gate import Gate, verdict

__all__ = ["UNRELATED", "Calibration", "calibrate"]

RESERVE = 0.6  # of the share that is promised: near misses that are made up are easier than real ones
UNRELATED = 10  # a stranger may fire so many times less often than a near miss
FAR = 0.6  # of the strangers, whose nearest stored question is farther than that of the rest
MARGIN = 0.25  # log-odds by which a stored question is kept above the strangers that were seen
NEVER = -1e3  # a score that reaches no threshold


@dataclass(frozen=True)
class Calibration:
    """``caution`` float32 (wordings,): log-odds on top of the threshold, for stored questions that strangers come near.

    ``nearness``: cosine of the index under which no question fires.
    """

    threshold: float
    nearness: float
    caution: Tensor
    expected_recall: float
    expected_false_fire: float


@torch.inference_mode()
def calibrate(gate: Gate, rows: Rows, wordings: int, false_fire: float) -> Calibration:
    """At most ``false_fire`` of near misses, and a tenth of that of strangers, pass the threshold.

    ``wordings``: how many questions are stored.
    """
    members = gate.members(rows.features)
    held_out = torch.stack([verdict(members[fold::FOLDS]) for fold in range(FOLDS)])
    scores = held_out.gather(0, rows.fold[None]).squeeze(0)
    is_near = (rows.kind == NEIGHBOUR) | (rows.kind == NEAR_MISS)
    strangers = _Strangers.of(rows, scores)
    nearness = strangers.nearness()
    strangers = strangers.nearer_than(nearness)
    near = _quantile(scores[is_near], 1 - RESERVE * false_fire)
    threshold = max(near, strangers.threshold(wordings, false_fire / UNRELATED))
    caution = (strangers.floors(wordings) - threshold).clamp_min(0.0)
    scores = (scores - caution[rows.pairs[:, 1]]).where(rows.features[:, 0] >= nearness, NEVER)

    def fires(which: Tensor) -> float:
        return float((scores[which] >= threshold).float().mean()) if which.any() else 0.0

    return Calibration(threshold, nearness, caution, fires(rows.kind == REWORDED), fires(is_near))


@dataclass(frozen=True)
class _Strangers:
    """Pairs of a stranger's question and a stored one near it."""

    asked: Tensor  # int64 (pairs,)
    stored: Tensor
    cosine: Tensor
    score: Tensor

    @classmethod
    def of(cls, rows: Rows, scores: Tensor) -> _Strangers:
        which = rows.kind == BACKGROUND
        asked, stored = rows.pairs[which].unbind(1)
        return cls(asked, stored, rows.features[which, 0], scores[which])

    def nearness(self) -> float:
        """The cosine that the share FAR of the strangers stays below."""
        return _quantile(self._best(self.cosine), FAR)

    def nearer_than(self, nearness: float) -> _Strangers:
        score = self.score.where(self.cosine >= nearness, NEVER)
        return _Strangers(self.asked, self.stored, self.cosine, score)

    def floors(self, wordings: int, fold: int | None = None) -> Tensor:
        """For each stored question a score that no stranger reached, those of one ``fold`` left out."""
        score = self.score if fold is None else self.score.where(self.asked % FOLDS != fold, NEVER)
        return torch.full((wordings,), NEVER).scatter_reduce(0, self.stored, score + MARGIN, "amax")

    def threshold(self, wordings: int, share: float) -> float:
        """What only ``share`` of the strangers reaches where caution is drawn from the other strangers alone."""
        floors = torch.stack([self.floors(wordings, fold) for fold in range(FOLDS)])
        passes = self.score >= floors[self.asked % FOLDS, self.stored]
        return _quantile(self._best(self.score.where(passes, NEVER)), 1 - share)

    def _best(self, figures: Tensor) -> Tensor:
        """The highest of each stranger's ``figures`` (pairs,): (strangers,)."""
        count = int(self.asked.max()) + 1 if len(self.asked) else 0
        return figures.new_full((count,), NEVER).scatter_reduce(0, self.asked, figures, "amax")


def _quantile(figures: Tensor, share: float) -> float:
    """Minus infinity where there is nothing to go by: a lone fact without a name has no near misses."""
    return float(figures.quantile(share)) if len(figures) else -math.inf
