"""Early states of a question: the backbone's first layers, run on the question alone.

Alone means behind the template's prefix and nothing else, so that what the router sees does not depend on what stands
before the question in a chat, and ingest and inference agree.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["EarlyStates", "decoder_layers"]

TOKENS_PER_BATCH = 1024


class _Enough(Exception):  # noqa: N818 - not an error: it ends the pass where the router has what it needs
    pass


def decoder_layers(model: Any) -> nn.ModuleList | None:
    """The stack of layers of any decoder: the longest ModuleList in it."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(stacks, key=len, default=None)


class EarlyStates:
    """Reads states after the layers ``taps`` (1 is the first layer's output)."""

    def __init__(self, model: Any, prefix: tuple[int, ...], taps: tuple[int, ...] | None = None) -> None:
        self.decoder = model.get_decoder()
        layers = decoder_layers(model)
        assert layers is not None
        self.layers = layers
        self.taps = taps or default_taps(len(layers))
        self.prefix = prefix
        self._cached: Any = None

    @torch.inference_mode()
    def __call__(self, questions: list[tuple[int, ...]]) -> list[Tensor]:
        """For each question float32 states ``(taps, tokens, hidden)``."""
        states: list[Tensor] = [torch.empty(0)] * len(questions)
        batch: list[int] = []
        for i in sorted(range(len(questions)), key=lambda i: (len(questions[i]), i)):
            if batch and len(questions[i]) * (len(batch) + 1) > TOKENS_PER_BATCH:
                self._read(questions, batch, states)
                batch = []
            batch.append(i)
        if batch:
            self._read(questions, batch, states)
        return states

    def _read(self, questions: list[tuple[int, ...]], batch: list[int], states: list[Tensor]) -> None:
        device = next(self.decoder.parameters()).device
        longest = max(len(questions[i]) for i in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        for row, i in enumerate(batch):
            ids[row, : len(questions[i])] = torch.tensor(questions[i])
        past = len(self.prefix)
        cache = copy.deepcopy(self._prefix_cache(device)) if past else None
        if cache is not None:
            cache.batch_repeat_interleave(len(batch))
        positions = torch.arange(past, past + longest, device=device)[None]
        taps = self._run(ids.to(device), cache, positions)
        for row, i in enumerate(batch):
            states[i] = taps[:, row, : len(questions[i])].float().clone()

    def _prefix_cache(self, device: torch.device) -> Any:
        if self._cached is None:
            from transformers import DynamicCache

            ids = torch.tensor([self.prefix], device=device)
            cache = DynamicCache()
            self._run(ids, cache, torch.arange(len(self.prefix), device=device)[None])
            self._cached = cache
        return self._cached

    def _run(self, ids: Tensor, cache: Any, positions: Tensor) -> Tensor:
        """Runs the decoder up to the last tap and returns the taps ``(taps, batch, tokens, hidden)``."""
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen.append(output[0] if isinstance(output, tuple) else output)
            if len(seen) == len(self.taps):
                raise _Enough

        handles = [self.layers[tap - 1].register_forward_hook(keep) for tap in self.taps]
        try:
            self.decoder(input_ids=ids, past_key_values=cache, use_cache=cache is not None, position_ids=positions)
        except _Enough:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return torch.stack(seen)


def default_taps(layers: int) -> tuple[int, ...]:
    """A tenth and a fifth of the way up: there a state still knows its word and already knows its neighbours."""
    low = max(1, round(layers * 0.1))
    return (low, max(low + 1, round(layers * 0.2))) if layers > 1 else (1,)
