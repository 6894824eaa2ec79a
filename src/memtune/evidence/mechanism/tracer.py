"""One row of ids run again and again, with noise on some embeddings and outputs of modules put back.

What stands before the first change is the same in all runs and is read once, where the model has keys and values to
share.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from memtune.backbone import Backbone
from memtune.evidence.mechanism.anatomy import Anatomy, hooked, with_first

__all__ = ["Tracer"]

ALIKE = 1e-2  # of the largest logit: how far reading the prefix apart may move them
Ids = tuple[int, ...]


class Tracer:
    """Runs one row of ids with noise on some embeddings and with outputs of modules put back.

    ``first``: where the runs begin to differ. All positions are those of the row. A memory has to be silent.
    """

    def __init__(self, backbone: Backbone, ids: Ids, first: int, anatomy: Anatomy | None = None) -> None:
        self.backbone, self.ids = backbone, ids
        self.anatomy = anatomy or Anatomy(backbone)
        self.first = 0
        self._prefix: Any = None  # the cache of what stands before
        alone = self.run(torch.zeros(1, 0, 0), range(0))
        self._share(first, alone)

    def run(self, noise: Tensor, at: range, restored: Sequence[tuple[nn.Module, Tensor, Tensor]] = ()) -> Tensor:
        """Logits of the last position, float32 ``(rows, vocabulary)``.

        ``noise``: ``(rows, len(at), hidden)``, added to the embeddings. ``restored``: a module, what it gives ``(tokens
        from first on, hidden)``, and where it is put back, bool ``(rows, tokens from first on)``.
        """
        places = slice(at.start - self.first, at.stop - self.first)
        hooks = [(self.anatomy.embedding, partial(_add_noise, noise, places))] if len(at) else []
        hooks += [(module, partial(_put_back, given, where)) for module, given, where in restored]
        with hooked(hooks):
            return self._forward(len(noise))

    def record(self, modules: Sequence[nn.Module]) -> list[Tensor]:
        """What modules give in the clean run: ``(tokens from first on, hidden)`` each."""
        given: dict[nn.Module, Tensor] = {}

        def keep(module: nn.Module, _args: Any, out: Any) -> None:
            given[module] = (out[0] if isinstance(out, tuple) else out)[0]

        with hooked([(module, keep) for module in modules]):
            self._forward(1)
        return [given[module] for module in modules]

    @torch.inference_mode()
    def _forward(self, rows: int) -> Tensor:
        model: Any = self.backbone.model
        ids = torch.tensor([self.ids[self.first :]] * rows, device=model.device)
        positions = torch.arange(self.first, len(self.ids), device=model.device)[None]
        cache = copy.deepcopy(self._prefix)
        if cache is not None and rows > 1:
            cache.batch_repeat_interleave(rows)
        known = {"past_key_values": cache, "use_cache": True} if cache is not None else {"use_cache": False}
        logits: Tensor = model(input_ids=ids, position_ids=positions, logits_to_keep=1, **known).logits
        return logits[:, -1].float()

    def _share(self, first: int, alone: Tensor) -> None:
        """Keys and values of what stands before ``first``, if the model says the same with them."""
        from transformers import DynamicCache

        model: Any = self.backbone.model
        if first == 0:
            return
        try:
            cache = DynamicCache(config=model.config)
            with torch.inference_mode():
                ids = torch.tensor([self.ids[:first]], device=model.device)
                model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            self.first, self._prefix = first, cache
            same = (self._forward(1) - alone).abs().max() <= ALIKE * alone.abs().max()
        except (AttributeError, IndexError, TypeError, ValueError):  # its cache is none that can be shared
            same = torch.tensor(False)
        if not same:
            self.first, self._prefix = 0, None


def _put_back(given: Tensor, where: Tensor, _module: nn.Module, _args: Any, out: Any) -> Any:
    now = out[0] if isinstance(out, tuple) else out
    return with_first(out, torch.where(where[..., None], given, now))


def _add_noise(noise: Tensor, places: slice, _module: nn.Module, _args: Any, out: Tensor) -> Tensor:
    noisy = out.clone()
    noisy[:, places] += noise.to(out.dtype)
    return noisy
