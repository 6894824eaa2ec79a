"""The fit: for every answer token the value row that makes the LM head say it.

Nothing stands behind the memory but one matrix, so each answer token is a small problem of its own: find z with
cross-entropy(W (h + U z), y) <= goal. The direction is that of the negative gradient, W_y less the expected head row of
the other tokens, seen through U; the step is the log-odds still needed over its squared length, a Newton step along
the log-odds, and somewhat more. Only tokens that have not reached the goal go on. No gradient runs through the
backbone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kernels import kernels_for

__all__ = ["fit_values", "head_rows", "token_losses"]

# Rows of the logits at a time: (ROWS, vocabulary) float32 is what the fit holds, whatever the number of facts.
ROWS = 256
MAX_STEPS = 60
# Log-odds are concave along a step: a Newton step always falls short. Measured on SmolLM2-135M: 1.9 steps, not 2.5.
STRETCH = 1.3


@torch.inference_mode()
def head_rows(head: nn.Linear, up: Tensor) -> Tensor:
    """What a value row adds to each logit: the head's rows through ``up``, float32 ``(vocabulary, d_value)``."""
    return head.weight.float() @ up


@torch.inference_mode()
def fit_values(hidden: Tensor, targets: Tensor, head: nn.Linear, low: Tensor, goal: float) -> Tensor:
    """Value rows z float32 ``(tokens, d_value)`` with a loss of at most ``goal`` nats per token where one was found.

    ``hidden`` (tokens, hidden) final states, ``targets`` (tokens,) int64, ``low`` the ``head_rows``.
    Floor: 2 * vocabulary * (hidden + 2 * steps * d_value) FLOPs a token.
    """
    if "bias" not in dict(head.named_parameters()) and (kernels := kernels_for(hidden)):
        return _fit_streamed(kernels.fit_step, hidden, targets, head.weight, low, goal)
    rows = zip(hidden.split(ROWS), targets.split(ROWS), strict=True)
    room = low.new_empty(2, min(ROWS, len(hidden)), len(low))
    fitted = [_fit_rows(head(h.to(head.weight.dtype)).float(), y, low, goal, room) for h, y in rows]
    return torch.cat(fitted) if fitted else hidden.new_zeros(0, low.shape[1])


def _fit_rows(base: Tensor, targets: Tensor, low: Tensor, goal: float, room: Tensor) -> Tensor:
    """``base`` (rows, vocabulary) are the backbone's logits; rows drop out as they reach the goal.

    ``room`` (2, rows or more, vocabulary) is written over: fresh memory of that size costs as much as what is computed.
    """
    z = base.new_zeros(len(base), low.shape[1])
    active = torch.arange(len(base), device=base.device)
    own = base.gather(1, targets[:, None]).squeeze(1)
    others = base.scatter_(1, targets[:, None], float("-inf"))  # and so it stays, whatever is added
    for _ in range(MAX_STEPS):
        wanted = low[targets[active]]
        share = torch.softmax(others, 1, out=room[1, : len(active)])
        rivals = others.amax(1) - share.amax(1).log()  # logsumexp, for a tenth of its time
        odds = own[active] + (z[active] * wanted).sum(1) - rivals
        going = F.softplus(-odds) > goal
        if not going.any():
            break
        z[active[going]] += _newton_step((wanted - share @ low)[going], odds[going], goal)
        if not going.all():
            active, base = active[going], base[going]
        others = torch.addmm(base, z[active], low.T, out=room[0, : len(active)])
    return z


def _fit_streamed(
    step: Callable[..., Any], hidden: Tensor, targets: Tensor, weight: Tensor, low: Tensor, goal: float
) -> Tensor:
    """``_fit_rows`` for all tokens at once: ``step`` streams over the vocabulary, no logits are kept between steps."""
    z = low.new_zeros(len(hidden), low.shape[1])
    active = torch.arange(len(hidden), device=hidden.device)
    for _ in range(MAX_STEPS):
        found = step(hidden[active], z[active], targets[active], weight, low)
        going = F.softplus(-found.odds) > goal
        if not going.any():
            break
        active, odds = active[going], found.odds[going]
        direction = low[targets[active]] - found.expected[going]
        z[active] += _newton_step(direction, odds, goal)
    return z


def _newton_step(direction: Tensor, odds: Tensor, goal: float) -> Tensor:
    """Along ``direction`` (rows, d_value), beyond the log-odds of half the goal: the last step must not fall short."""
    aim = -math.log(math.expm1(goal / 2))
    length = direction.square().sum(1, keepdim=True).clamp_min(1e-12)
    return STRETCH * (aim - odds).clamp_min(0.0)[:, None] * direction / length


@torch.inference_mode()
def token_losses(hidden: Tensor, targets: Tensor, head: nn.Linear) -> Tensor:
    """Cross-entropy in nats ``(tokens,)`` of final states ``(tokens, hidden)`` that the LM head reads."""
    rows = zip(hidden.split(ROWS), targets.split(ROWS), strict=True)
    losses = [F.cross_entropy(head(h.to(head.weight.dtype)).float(), y, reduction="none") for h, y in rows]
    return torch.cat(losses) if losses else hidden.new_zeros(0)
