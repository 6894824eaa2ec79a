"""What stands between the state that the memory writes to and the logits: the LM head, and in some models a scale and
a soft cap.

    logits = cap * tanh(scale * head(state) / cap)

Scale and cap are found by asking the model, whatever its kind: states of its own are made longer on their way into the
head, and what comes out is compared. The matrix of a quantised head is found by asking the head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

__all__ = ["Readout", "capped", "uncapped"]

FAR = 1e4  # logits, where a cap shows itself: no model has one that large
FIT = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}  # of the largest logit, rounding included


@dataclass(frozen=True)
class Readout:
    """``scale`` multiplies what the head says, its bias included; ``cap`` bounds it. Most models have 1 and none.

    ``dtype`` is that of the states that the head reads, whatever its weight is stored in.
    """

    head: nn.Linear
    scale: float = 1.0
    cap: float | None = None
    dtype: torch.dtype = torch.float32

    @classmethod
    @torch.inference_mode()
    def of(cls, model: Any, ids: Tensor) -> Readout | None:
        """As the model itself reads the states of ``ids`` (1, tokens); None where it does something else."""
        head = model.get_output_embeddings()
        near, said_near, dtype = _asked(model, ids, 1.0)
        if near.shape != said_near.shape:
            return None
        far, said_far, _ = _asked(model, ids, FAR / float(near.abs().max().clamp_min(1e-6)))
        cap = float(said_far.abs().max())
        straight, bent = _ratio(near, said_near), _ratio(near, uncapped(said_near, cap))
        for readout in (cls(head, straight, None, dtype), cls(head, bent, cap, dtype)):
            if readout._says(near, said_near) and readout._says(far, said_far):
                return readout._rounded()
        return None

    @property
    @torch.inference_mode()
    def weight(self) -> Tensor:
        """The head's matrix ``(vocabulary, hidden)``. A quantised one is what the head makes of unit states."""
        stored: Any = self.head.weight  # of a quantised head another kind of tensor
        if stored.dtype == self.dtype and not is_traceable_wrapper_subclass(stored):
            plain: Tensor = stored.detach()
            return plain
        units = torch.eye(self.head.in_features, dtype=self.dtype, device=stored.device)
        columns: Tensor = self.head(units) - self.head(torch.zeros_like(units[:1]))  # a bias falls out
        return columns.T

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits float32 ``(..., vocabulary)`` of states ``(..., hidden)``."""
        return self.capped(self.scaled(hidden))

    def scaled(self, hidden: Tensor) -> Tensor:
        """What the cap is put on. It is linear in the state."""
        said: Tensor = self.head(hidden.to(self.dtype)).float()
        return said if self.scale == 1.0 else said * self.scale

    def capped(self, scaled: Tensor) -> Tensor:
        return capped(scaled, self.cap)

    def slope(self, scaled: Tensor) -> Tensor:
        """How much of a small step gets through the cap: 1 far below it, 0 at it."""
        return torch.ones_like(scaled) if self.cap is None else 1 - torch.tanh(scaled / self.cap).square()

    def rows(self, up: Tensor) -> Tensor:
        """What a value row adds to each logit below the cap: ``(vocabulary, d_value)`` for ``up`` (hidden, d_value)."""
        return self.scale * (self.weight.float() @ up)

    def _says(self, raw: Tensor, said: Tensor) -> bool:
        error = (self.capped(self.scale * raw) - said).abs().max()
        return bool(error <= FIT.get(self.dtype, 3e-2) * said.abs().max())

    def _rounded(self) -> Readout:
        """A scale of 1 exactly, where it is that but for rounding: then nothing is multiplied."""
        return replace(self, scale=1.0) if abs(self.scale - 1) < 1e-4 else self


def capped(scaled: Tensor, cap: float | None) -> Tensor:
    return scaled if cap is None else cap * torch.tanh(scaled / cap)


def uncapped(logits: Tensor, cap: float | None) -> Tensor:
    """What ``capped`` made these logits of; of one at the cap itself, where that cannot be told, a large one."""
    if cap is None:
        return logits
    inside = (logits.double() / cap).clamp(-1 + 1e-9, 1 - 1e-9)
    return cap * torch.atanh(inside)


def _asked(model: Any, ids: Tensor, longer: float) -> tuple[Tensor, Tensor, torch.dtype]:
    """What the head says, and what the model makes of it, float32, when the head's input is ``longer``; the dtype of
    that input.
    """
    heard: list[tuple[Tensor, torch.dtype]] = []
    hooks = [
        model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0] * longer, *args[1:])),
        model.get_output_embeddings().register_forward_hook(
            lambda _, args, out: heard.append((out.float(), args[0].dtype))
        ),
    ]
    try:
        said = model(input_ids=ids).logits.float()
    finally:
        for hook in hooks:
            hook.remove()
    return heard[-1][0], said, heard[-1][1]


def _ratio(raw: Tensor, said: Tensor) -> float:
    """The factor by which ``said`` is nearest to ``raw``."""
    raw, said = raw.double(), said.double()
    return float((raw * said).sum() / (raw * raw).sum().clamp_min(1e-12))
