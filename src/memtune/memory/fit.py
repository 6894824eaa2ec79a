"""The fit: for every answer token the value row that makes the LM head say it.

Nothing stands behind the memory but one matrix, so each answer token is a small problem of its own: find z with
cross-entropy(W (h + U z), y) <= goal. The direction is that of the negative gradient, W_y less the expected head row of
the other tokens, seen through U; where the model caps its logits, also through the slope of the cap. The step is the
log-odds still needed over its squared length, a Newton step along the log-odds, and somewhat more. Only tokens that
have not reached the goal go on. No gradient runs through the backbone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .kernels import kernels_for
from .products import by_onednn
from .readout import Readout

__all__ = ["Told", "fit_values", "likeliest", "rows_together", "token_losses"]

# Hears, before each step: the steps done so far, the tokens (n,) that went on until then, and their losses (n,), nats.
Told = Callable[[int, Tensor, Tensor], None]

# Bytes of the logits that are held at a time, float32, whatever the number of facts. The C library gives larger blocks
# back to the system when they are freed, and fresh memory of that size costs as much as what is computed in it.
LOGITS = 31 * 2**20
FEWEST_ROWS, MOST_ROWS = 64, 256  # fewer: reading the head's weights is what costs; more are no faster
MAX_STEPS = 60
# Log-odds are concave along a step: a Newton step always falls short. Measured on SmolLM2-135M: 1.9 steps, not 2.5.
STRETCH = 1.3
WITHIN = 0.25  # of the cap, where logits are capped: a step moves them by no more


def rows_together(vocabulary: int) -> int:
    """States whose logits are computed at a time."""
    return min(MOST_ROWS, max(FEWEST_ROWS, LOGITS // (4 * vocabulary)))


@torch.inference_mode()
@by_onednn()
def fit_values(
    hidden: Tensor,
    targets: Tensor,
    readout: Readout,
    low: Tensor,
    goal: float,
    *,
    steps: int = MAX_STEPS,
    told: Told | None = None,
) -> Tensor:
    """Value rows z float32 ``(tokens, d_value)`` with a loss of at most ``goal`` nats per token where one was found.

    ``hidden`` (tokens, hidden) final states, ``targets`` (tokens,) int64, ``low`` the readout's rows, ``steps`` the
    most that a token takes.
    Floor: 2 * vocabulary * (hidden + 2 * steps * d_value) FLOPs a token.
    """
    pace = _Pace(goal, steps, told)
    head = readout.head
    plain = readout.scale == 1.0 and readout.cap is None and getattr(head, "bias", None) is None
    if plain and (kernels := kernels_for(hidden)):
        return _fit_streamed(kernels.fit_step, hidden, targets, readout.weight, low, pace)
    together = rows_together(len(low))
    parts = enumerate(zip(hidden.split(together), targets.split(together), strict=True))
    room = low.new_empty(2, min(together, len(hidden)), len(low))
    fitted = [
        _fit_rows(readout.scaled(h), y, readout, low, replace(pace, first=part * together), room)
        for part, (h, y) in parts
    ]
    return torch.cat(fitted)


@dataclass(frozen=True)
class _Pace:
    """How far a token goes, and who hears of it. ``first``: number of the first of the tokens at hand."""

    goal: float
    steps: int
    told: Told | None
    first: int = 0

    def going(self, done: int, active: Tensor, odds: Tensor) -> Tensor | None:
        """Which of the ``active`` tokens take another step after ``done`` of them, bool; None where none does."""
        losses = F.softplus(-odds)
        if self.told is not None:
            self.told(done, active + self.first, losses)
        going = losses > self.goal
        return going if done < self.steps and bool(going.any()) else None


def _fit_rows(base: Tensor, targets: Tensor, readout: Readout, low: Tensor, pace: _Pace, room: Tensor) -> Tensor:
    """``base`` (rows, vocabulary) is what the backbone says below the cap; rows drop out as they reach the goal.

    ``room`` (2, rows or more, vocabulary) is written over: fresh memory of that size costs as much as what is computed.
    """
    z = base.new_zeros(len(base), low.shape[1])
    active = torch.arange(len(base), device=base.device)
    own = base.gather(1, targets[:, None]).squeeze(1)
    others = base.scatter_(1, targets[:, None], float("-inf"))  # and so it stays, whatever is added
    for done in count():
        wanted, said = low[targets[active]], own[active]
        said = said + (z[active] * wanted).sum(1)
        logits = _capped_others(others, targets[active], readout)
        share = torch.softmax(logits, 1, out=room[1, : len(active)])
        rivals = logits.amax(1) - share.amax(1).log()  # logsumexp, for a tenth of its time
        odds = readout.capped(said) - rivals
        going = pace.going(done, active, odds)
        if going is None:
            break
        direction = wanted - share @ low
        if readout.cap is None:
            step = _newton_step(direction[going], odds[going], pace.goal)
        else:
            felt = wanted * readout.slope(said)[:, None] - share.mul_(readout.slope(others)) @ low
            step = _short_step(direction[going], felt[going], odds[going], pace.goal, readout.cap)
        z[active[going]] += step
        if not going.all():
            active, base = active[going], base[going]
        others = torch.addmm(base, z[active], low.T, out=room[0, : len(active)])
    return z


def _capped_others(others: Tensor, targets: Tensor, readout: Readout) -> Tensor:
    """Under the cap, with the targets' own entries left out as before."""
    if readout.cap is None:
        return others
    return readout.capped(others).scatter_(1, targets[:, None], float("-inf"))


def _fit_streamed(
    step: Callable[..., Any], hidden: Tensor, targets: Tensor, weight: Tensor, low: Tensor, pace: _Pace
) -> Tensor:
    """``_fit_rows`` for all tokens at once: ``step`` streams over the vocabulary, no logits are kept between steps."""
    z = low.new_zeros(len(hidden), low.shape[1])
    active = torch.arange(len(hidden), device=hidden.device)
    for done in count():
        found = step(hidden[active], z[active], targets[active], weight, low)
        going = pace.going(done, active, found.odds)
        if going is None:
            break
        active, odds = active[going], found.odds[going]
        direction = low[targets[active]] - found.expected[going]
        z[active] += _newton_step(direction, odds, pace.goal)
    return z


def _newton_step(direction: Tensor, odds: Tensor, goal: float) -> Tensor:
    """Along ``direction`` (rows, d_value), as far as the log-odds still needed take."""
    return direction * (_needed(odds, goal) / direction.square().sum(1).clamp_min(1e-12))[:, None]


def _short_step(direction: Tensor, felt: Tensor, odds: Tensor, goal: float, cap: float) -> Tensor:
    """The same along ``felt``, what a cap lets through of the direction: near the cap that is next to nothing, and a
    whole step would lead far beyond it.
    """
    whole = _needed(odds, goal) / felt.square().sum(1).clamp_min(1e-12)
    most = WITHIN * cap / (direction * felt).sum(1).abs().clamp_min(1e-12)
    return felt * torch.minimum(whole, most)[:, None]


def _needed(odds: Tensor, goal: float) -> Tensor:
    """Log-odds, beyond those of half the goal: the last step must not fall short."""
    return STRETCH * (-math.log(math.expm1(goal / 2)) - odds).clamp_min(0.0)


@torch.inference_mode()
@by_onednn()
def token_losses(hidden: Tensor, targets: Tensor, readout: Readout) -> Tensor:
    """Cross-entropy in nats ``(tokens,)`` of final states ``(tokens, hidden)`` as the model reads them."""
    together = rows_together(readout.head.out_features)
    rows = zip(hidden.split(together), targets.split(together), strict=True)
    losses = [F.cross_entropy(readout(h), y, reduction="none") for h, y in rows]
    return torch.cat(losses)


@torch.inference_mode()
@by_onednn()
def likeliest(hidden: Tensor, readout: Readout) -> Tensor:
    """The token that the model would say after each of the final states ``(tokens, hidden)``: int64 ``(tokens,)``."""
    said = [readout(h).argmax(1) for h in hidden.split(rows_together(readout.head.out_features))]
    return torch.cat(said)
