"""How sure the router must be: set from scores that each network of the gate gave to what it had not been trained on.

Two kinds of question must stay silent. *Near misses* ask the same of something else; their scores set the threshold.
*Strangers* were written with no fact in mind. Few of them come near any stored question, so how near it is is their
first bar. Of those that do, some are *kin*: they speak of a thing that the facts name too, and in a large file one may
even ask for what is stored. They make the stored question cautious, within bounds; the others must stay below the
threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memtune.gate_training import BACKGROUND, FOLDS, NEAR_MISS, NEIGHBOUR, REWORDED, Rows
from memtune.memory.compare import heard, kin
from memtune.memory.gate import Gate, verdict

__all__ = ["UNRELATED", "Calibration", "calibrate"]

TAIL, LEAST, MOST = 0.1, 10, 50  # the near misses with the highest scores: a share of them, within bounds
UNRELATED = 10  # a stranger may fire so many times less often than a near miss
FAR = 0.85  # of the strangers, whose nearest stored question is farther than that of the rest
MARGIN = 0.25  # log-odds by which a stored question is kept above the strangers that were seen
CAREFUL = 2.0  # log-odds, at most: what is kin may have asked for the very fact
NEVER = -1e3  # a score that reaches no threshold
EVEN = 0.0  # log-odds: the threshold where no question is known that it should keep silent


@dataclass(frozen=True)
class Calibration:
    """``caution`` float32 (wordings,): log-odds on top of the threshold, for stored questions that strangers come near.

    ``nearness``: cosine of the index under which only kin fires.
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
    members = gate.votes(rows.features)
    held_out = torch.stack([verdict(members[fold::FOLDS]) for fold in range(FOLDS)])
    scores = held_out.gather(0, rows.fold[None]).squeeze(0)
    strangers = _Strangers.of(rows, scores)
    nearness = strangers.nearness()
    strangers = strangers.nearer_than(nearness)
    near = _near_misses(rows, scores)
    threshold = max(_passed_by(near, false_fire), strangers.threshold(wordings, false_fire / UNRELATED))
    threshold = EVEN if threshold == -math.inf else threshold
    caution = (strangers.floors(wordings) - threshold).clamp(0.0, CAREFUL)
    cautious = (scores - caution[rows.pairs[:, 1]]).where(heard(rows.features, nearness), NEVER)
    rewordings = cautious[rows.kind == REWORDED]
    return Calibration(threshold, nearness, caution, _share(rewordings, threshold), _share(near, threshold))


def _near_misses(rows: Rows, scores: Tensor) -> Tensor:
    """How high each near miss comes, that is its best pair: a stored question beside the other facts', or a made-up
    one beside the question that it was made from.
    """
    found = []
    for kind in (NEIGHBOUR, NEAR_MISS):
        which = rows.kind == kind
        best = _best(scores[which], rows.pairs[which, 0])
        found.append(best[best > NEVER])
    return torch.cat(found)


@dataclass(frozen=True)
class _Strangers:
    """Pairs of a stranger's question and a stored one near it."""

    asked: Tensor  # int64 (pairs,)
    stored: Tensor
    cosine: Tensor
    score: Tensor
    kin: Tensor  # bool

    @classmethod
    def of(cls, rows: Rows, scores: Tensor) -> _Strangers:
        which = rows.kind == BACKGROUND
        asked, stored = rows.pairs[which].unbind(1)
        features = rows.features[which]
        return cls(asked, stored, features[:, 0], scores[which], kin(features))

    def nearness(self) -> float:
        """The cosine that the share FAR of the strangers stays below."""
        best = _best(self.cosine, self.asked)
        return float(best.quantile(FAR)) if len(best) else -math.inf

    def nearer_than(self, nearness: float) -> _Strangers:
        return replace(self, score=self.score.where((self.cosine >= nearness) | self.kin, NEVER))

    def floors(self, wordings: int, fold: int | None = None) -> Tensor:
        """For each stored question a score that no stranger reached, those of one ``fold`` left out."""
        score = self.score if fold is None else self.score.where(self.asked % FOLDS != fold, NEVER)
        return torch.full((wordings,), NEVER).scatter_reduce(0, self.stored, score + MARGIN, "amax")

    def threshold(self, wordings: int, share: float) -> float:
        """What only ``share`` of the strangers that are no kin reaches, with caution drawn from the others alone."""
        floors = torch.stack([self.floors(wordings, fold) for fold in range(FOLDS)])
        passes = (self.score >= floors[self.asked % FOLDS, self.stored]) & ~self.kin
        return _bar(_best(self.score.where(passes, NEVER), self.asked), share)


def _best(figures: Tensor, asked: Tensor) -> Tensor:
    """The highest of the ``figures`` (pairs,) of each asked question: (questions,), NEVER where it has none."""
    count = int(asked.max()) + 1 if len(asked) else 0
    return figures.new_full((count,), NEVER).scatter_reduce(0, asked, figures, "amax")


def _share(figures: Tensor, threshold: float) -> float:
    return float((figures >= threshold).float().mean()) if len(figures) else 0.0


def _passed_by(scores: Tensor, share: float) -> float:
    """The score that ``share`` of all near misses passes, of which ``scores`` are some; no lower than ``_bar``.

    The highest of them fall off exponentially (peaks over threshold, Pickands 1975). How fast many do says more than
    where the few that pass happen to lie, and where there are few it reaches beyond the highest.
    """
    seen, count = _bar(scores, share), min(MOST, max(LEAST, int(TAIL * len(scores))))
    if not 0 < share * len(scores) < count < len(scores):
        return seen
    highest = scores.topk(count + 1).values
    slope = highest[:count].mean() - highest[count]
    return max(seen, float(highest[count] + slope * math.log(count / len(scores) / share)))


def _bar(scores: Tensor, share: float) -> float:
    """The lowest threshold that at most ``share`` of the scores reach. Minus infinity where the others reach none at
    all, and without any: a lone fact that names nothing has no near misses.
    """
    stopped = scores.sort(descending=True).values[int(share * len(scores)) :][:1]
    if not (stopped > NEVER).any():
        return -math.inf
    return float(torch.nextafter(stopped, torch.tensor(math.inf)))
