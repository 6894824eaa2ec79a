"""A detector of wrong replies: logistic regression on what can be seen of a reply, and how well it ranks them.

AUROC is the chance that a wrong reply gets a higher score than a right one: 0.5 is a coin, 1 a perfect order. It is
measured on replies that the fit has not seen, fold by fold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memtune.errors import ProjectError
from memtune.evidence.mechanism.lens import Lens
from memtune.evidence.mechanism.observables import LONGEST, OBSERVABLES, observe
from memtune.project import in_project, write_beside

__all__ = ["DETECTOR", "Auroc", "Detector", "Doubt", "auroc", "cross_validated", "doubt_of", "fit"]

DETECTOR = "detector.json"
FOLDS = 5
PENALTY = 1.0  # on the squared weights of standardised figures; the constant has none
STEPS = 25
RESAMPLES = 2000
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Auroc:
    """``low`` and ``high`` hold 95 % of the figures that resampled replies give."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Detector:
    """The probability that a reply is wrong, for this backbone. Figures as in OBSERVABLES."""

    fingerprint: str
    facts: str  # the file it was made from
    asked: int
    wrong: int
    auroc: Auroc  # on replies that the fit had not seen
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    weights: tuple[float, ...]
    constant: float

    def __call__(self, observed: tuple[float, ...]) -> float:
        figures = zip(observed, self.means, self.deviations, self.weights, strict=True)
        log_odds = self.constant + sum(w * (x - mean) / deviation for x, mean, deviation, w in figures)
        return float(torch.tensor(log_odds).sigmoid())

    def save(self, directory: Path) -> Path:
        path = directory / DETECTOR
        write_beside(path, (json.dumps(asdict(self), indent=1) + "\n").encode())
        return path

    @classmethod
    def load(cls, directory: Path) -> Detector | None:
        """None where there is none. Raises ProjectError for a file that ``save`` did not write."""
        path = directory / DETECTOR
        if not path.is_file():
            return None
        try:
            entries: Mapping[str, Any] = json.loads(path.read_bytes())
            columns = {name: tuple(map(float, entries[name])) for name in ("means", "deviations", "weights")}
            whole = Auroc(**{name: float(value) for name, value in entries["auroc"].items()})
            detector = cls(**{**entries, **columns, "auroc": whole})
            if {len(column) for column in columns.values()} == {len(OBSERVABLES)} and all(columns["deviations"]):
                return detector
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass
        raise ProjectError(
            f"{path} is no detector of this version",
            hint=f"make it again: memtune detect FACTS{in_project(directory)}, or remove {path}",
        )


@dataclass(frozen=True)
class Doubt:
    """How likely the backbone's own reply is wrong, and how well that was found to tell right from wrong."""

    wrong: float
    auroc: Auroc
    asked: int
    facts: str


def doubt_of(directory: Path, lens: Lens, prompt: Ids, reply: Ids) -> Doubt | None:
    """None where the directory holds no detector, or one of another backbone."""
    detector = Detector.load(directory)
    if detector is None or detector.fingerprint != lens.backbone.fingerprint:
        return None
    reply = reply[:LONGEST]
    states = lens.states(prompt + reply[:-1])[:, len(prompt) - 1 :]
    return Doubt(detector(observe(lens, states, reply)), detector.auroc, detector.asked, detector.facts)


def fit(figures: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Means, deviations, weights ``(columns,)`` and constant, by Newton's method. ``figures``: (replies, columns)."""
    figures, target = figures.double(), wrong.double()
    means, deviations = figures.mean(0), figures.std(0).clamp_min(1e-9)
    rows = torch.cat([(figures - means) / deviations, torch.ones(len(figures), 1)], 1)
    penalty = torch.full((rows.shape[1],), PENALTY, dtype=torch.float64)
    penalty[-1] = 0
    weights = torch.zeros(rows.shape[1], dtype=torch.float64)
    for _ in range(STEPS):
        chance = (rows @ weights).sigmoid()
        slope = rows.T @ (chance - target) + penalty * weights
        curvature = (rows.T * (chance * (1 - chance))) @ rows + torch.diag(penalty + 1e-9)
        weights = weights - torch.linalg.solve(curvature, slope)
    return means, deviations, weights[:-1], float(weights[-1])


def cross_validated(figures: Tensor, wrong: Tensor, seed: int) -> Tensor:
    """Log-odds of each reply, by a fit on the other folds ``(replies,)``. Right and wrong ones are spread evenly."""
    drawn = torch.Generator().manual_seed(seed)
    scores, folds = torch.zeros(len(wrong), dtype=torch.float64), torch.zeros(len(wrong), dtype=torch.long)
    for label in (True, False):
        places = (wrong == label).nonzero().squeeze(1)
        folds[places[torch.randperm(len(places), generator=drawn)]] = torch.arange(len(places)) % FOLDS
    for fold in range(FOLDS):
        out = folds == fold
        means, deviations, weights, constant = fit(figures[~out], wrong[~out])
        scores[out] = ((figures[out].double() - means) / deviations) @ weights + constant
    return scores


def auroc(scores: Tensor, wrong: Tensor, seed: int) -> Auroc:
    """Over all pairs of a wrong and a right reply; a tie counts half. The interval is of replies drawn again."""
    bad, good = scores[wrong].double(), scores[~wrong].double()
    wins = (bad[:, None] > good).double() + (bad[:, None] == good).double() / 2
    drawn = torch.Generator().manual_seed(seed)
    times = [_times(len(side), drawn) for side in (bad, good)]
    again = ((times[0] @ wins) * times[1]).sum(1) / (len(bad) * len(good))
    low, high = again.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Auroc(float(wins.mean()), low, high)


def _times(count: int, drawn: torch.Generator) -> Tensor:
    """How often each of ``count`` is drawn, in each of RESAMPLES draws of as many: float64 ``(RESAMPLES, count)``."""
    picked = torch.randint(count, (RESAMPLES, count), generator=drawn)
    return torch.zeros(RESAMPLES, count, dtype=torch.float64).scatter_add(
        1, picked, torch.ones_like(picked, dtype=torch.float64)
    )
