"""What can be seen of a reply without knowing the right answer, from the backbone alone."""

from __future__ import annotations

import torch
from torch import Tensor

from memtune.evidence.mechanism.lens import Lens, entropy_of

__all__ = ["LONGEST", "OBSERVABLES", "observe"]

LONGEST = 16  # tokens of a reply that are looked at: short answers stand in them
NEAR = 10  # the rank by which a layer has a token in view
Ids = tuple[int, ...]

# Name, and whether it is higher (1) or lower (-1) where a reply is wrong: said before anything is measured.
OBSERVABLES = (
    ("entropy of the first token", 1),
    ("probability of the first token", -1),
    ("mean log-probability of the reply", -1),
    ("log-probability of its least likely token", -1),
    ("greatest entropy in the reply", 1),
    ("share of layers that have its least likely token in view", -1),
)


def observe(lens: Lens, states: Tensor, reply: Ids) -> tuple[float, ...]:
    """One figure for each of OBSERVABLES, in nats where it is one of information.

    ``reply``: without a stop token, as long as it is looked at. ``states``: those that predict its tokens, before the
    first layer and behind each, ``(layers + 1, tokens, hidden)``; of an empty reply the one that predicts its end.
    """
    reply = reply or (lens.backbone.prompts.stop,)
    chances = lens.logits(states[-1]).log_softmax(-1)
    entropy = entropy_of(chances)
    own = chances.gather(1, torch.tensor(reply, device=chances.device)[:, None]).squeeze(1)
    weakest = int(own.argmin())
    return (
        float(entropy[0]),
        float(own[0].exp()),
        float(own.mean()),
        float(own[weakest]),
        float(entropy.max()),
        _in_view(lens.logits(states[:, weakest]), reply[weakest]),
    )


def _in_view(logits: Tensor, token: int) -> float:
    """Of layers ``(layers + 1, vocabulary)`` the share that rank the token NEAR or better."""
    ranks = (logits > logits[:, token, None]).sum(1) + 1
    return float((ranks <= NEAR).float().mean())
