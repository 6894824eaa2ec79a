"""The logit lens: what each layer's residual stream would say, read as if it were the last one (final norm, LM head).

Early layers are read with a norm and a matrix that were trained for the last one, so a token that is not seen there may
be there in another form. What is said of the last layer is what the model says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memtune.backbone import Backbone
from memtune.evidence.mechanism.anatomy import Anatomy, states_in

__all__ = ["ENTRIES", "Curve", "Lens", "Seen", "entropy_of"]

ENTRIES = (100, 10, 1)  # ranks: at which layer a token first comes so far up
TOP = 3  # likeliest tokens that are kept of each layer
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Curve:
    """One token through the layers: before the first one, then behind each. Rank 1 is what would be said.

    ``enters``: for 100, 10 and 1 the first layer with at least that rank, None where there is none.
    """

    token: str
    ranks: tuple[int, ...]
    probabilities: tuple[float, ...]
    enters: Mapping[int, int | None]

    @classmethod
    def of(cls, token: str, ranks: Tensor, log_probabilities: Tensor) -> Curve:
        """From ``(layers + 1,)`` each."""
        up = {best: next((i for i, r in enumerate(ranks.tolist()) if r <= best), None) for best in ENTRIES}
        return cls(token, tuple(ranks.tolist()), tuple(log_probabilities.exp().tolist()), up)

    @property
    def rank(self) -> int:
        """Behind the last layer."""
        return self.ranks[-1]

    @property
    def probability(self) -> float:
        return self.probabilities[-1]


@dataclass(frozen=True)
class Seen:
    """What the lens shows at some positions of one row, for some tokens at each of them."""

    ranks: Tensor  # int64 (layers + 1, positions, tokens), 1 is the best
    log_probabilities: Tensor  # float32 (layers + 1, positions, tokens), nats
    entropy: Tensor  # float32 (layers + 1, positions), nats
    top: Tensor  # int64 (layers + 1, positions, TOP): the likeliest tokens, the first one is of rank 1


class Lens:
    """Reads the backbone behind every layer. A memory that is attached is left out: it writes behind the last one."""

    def __init__(self, backbone: Backbone, anatomy: Anatomy | None = None) -> None:
        self.backbone = backbone
        self.anatomy = anatomy or Anatomy(backbone)

    @torch.inference_mode()
    def read(self, row: Ids, positions: Sequence[int], tokens: Sequence[Sequence[int]]) -> Seen:
        """``tokens``: as many at each position, whose ranks are wanted. Raises ModelError where there is no lens."""
        wanted = torch.tensor(tokens, device=self.backbone.device)
        layers = [self._said(states, wanted) for states in self.states(row)[:, list(positions)]]
        return Seen(*(torch.stack(column) for column in zip(*layers, strict=True)))

    def states(self, row: Ids) -> Tensor:
        """The residual stream before the first layer and behind each: ``(layers + 1, tokens, hidden)``."""
        ids = torch.tensor([row], device=self.backbone.device)
        with torch.inference_mode(), states_in(self.anatomy) as states:
            self.backbone.model.get_decoder()(input_ids=ids, use_cache=False)
        return torch.stack([state[0] for state in states])

    def logits(self, states: Tensor) -> Tensor:
        """Of states ``(..., hidden)`` behind any layer: float32 ``(..., vocabulary)``."""
        return self.backbone.readout(self.anatomy.final(states))

    def _said(self, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One layer: ``(positions, hidden)``; a vocabulary is large, so no two layers' logits are held at once."""
        logits = self.logits(states)
        chances = logits.log_softmax(-1)
        own = logits.gather(1, tokens)
        ranks = torch.stack([(logits > own[:, i, None]).sum(1) for i in range(tokens.shape[1])], 1) + 1
        return ranks.cpu(), chances.gather(1, tokens).cpu(), entropy_of(chances).cpu(), logits.topk(TOP).indices.cpu()


def entropy_of(chances: Tensor) -> Tensor:
    """Of log-probabilities ``(rows, vocabulary)``: ``(rows,)``, nats."""
    return -(chances.exp() * chances).sum(1)
