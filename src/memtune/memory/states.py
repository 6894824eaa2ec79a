"""Hidden states of token rows, read from the backbone behind a shared prefix.

*Early* states, after a few layers, feed the router; such a pass stops at the last layer it needs. A *whole* pass gives
the final states as well. Rows are run behind the template's prefix and nothing else, so that what is read does not
depend on what stands before a question in a chat. The prefix is run once and its keys and values are shared, where the
model has such and gives the same states with them; rows go in batches of near-equal length, padded on the right, where
no causal position sees it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["StateReader", "decoder_layers"]

Ids = tuple[int, ...]
TOKENS_PER_BATCH = 1024  # keeps two cores busy (512 and 2048 are no faster); a longer batch only takes memory


ALIKE = 0.02  # of the largest entry, rounding in bfloat16 included; without the prefix hardly an entry is the same


class _Enough(Exception):  # not an error: it ends the pass where the router has what it needs
    pass


class StateReader:
    """Reads states after the layers ``taps`` (1 is the first layer's output) and, in a whole pass, the final ones."""

    def __init__(self, model: Any, prefix: Ids, taps: tuple[int, ...] = ()) -> None:
        self.decoder = model.get_decoder()
        layers = decoder_layers(model)
        assert layers is not None
        self.layers = layers
        self.taps = taps or default_taps(len(layers))
        if max(self.taps) > len(layers):
            raise ValueError(f"the memory reads layer {max(self.taps)}, the model has {len(layers)}")
        self.prefix = prefix
        self._caches: dict[bool, Any] = {}
        self._shared: bool | None = None  # not known yet

    def behind(self, prefix: Ids) -> StateReader:
        """The same behind another prefix; what was found out about the model holds there too."""
        if self.prefix:
            self._shares_prefix()  # asked here, once for all of them
        other = copy.copy(self)
        other.prefix, other._caches = prefix, {}
        return other

    def early(self, rows: Sequence[Ids]) -> list[Tensor]:
        """For each row float32 states ``(taps, tokens, hidden)``."""
        states: list[Tensor] = [torch.empty(0)] * len(rows)
        for batch, taps, _ in self._batches(rows, whole=False):
            for place, i in enumerate(batch):
                states[i] = taps[:, place, : len(rows[i])].float().clone()
        return states

    def whole(self, rows: Sequence[Ids]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Batch by batch: row numbers, early states ``(taps, batch, longest, hidden)``, final ones (no ``taps``)."""
        for batch, taps, final in self._batches(rows, whole=True):
            assert final is not None
            yield batch, taps, final

    def _batches(self, rows: Sequence[Ids], *, whole: bool) -> Iterator[tuple[list[int], Tensor, Tensor | None]]:
        behind = 0 if self._shares_prefix() else len(self.prefix)
        for batch in batches_by_length([len(row) + behind for row in rows]):
            ids = padded([self.prefix[:behind] + rows[i] for i in batch])
            cache = None if behind else copy.deepcopy(self._prefix_cache(whole))
            if cache is not None:
                cache.batch_repeat_interleave(len(batch))
            early, final = self._run(ids, cache, whole)
            yield batch, early[:, :, behind:], None if final is None else final[:, behind:]

    def _shares_prefix(self) -> bool:
        """Asked of the model once: a recurrent one has no keys and values to share, whatever it makes of them."""
        if not self.prefix:
            return True
        if self._shared is None:
            ids = torch.tensor([self.prefix + self.prefix[:2]])
            try:
                cache = copy.deepcopy(self._prefix_cache(False))
                shared, _ = self._run(ids[:, len(self.prefix) :], cache, False)
            except (AttributeError, TypeError, ValueError):  # its cache is none that can be asked
                self._shared = False
            else:
                alone = self._run(ids, None, False)[0][:, :, len(self.prefix) :]
                self._shared = shared.shape == alone.shape and bool(
                    (shared - alone).float().abs().max() <= ALIKE * alone.float().abs().max()
                )
        return self._shared

    def _prefix_cache(self, whole: bool) -> Any:
        if self.prefix and whole not in self._caches:
            from transformers import DynamicCache

            cache = DynamicCache()
            self._run(torch.tensor([self.prefix]), cache, whole)
            self._caches[whole] = cache
        return self._caches.get(whole)

    @torch.inference_mode()
    def _run(self, ids: Tensor, cache: Any, whole: bool) -> tuple[Tensor, Tensor | None]:
        device = next(self.decoder.parameters()).device
        past = cache.get_seq_length() if cache is not None else 0
        positions = torch.arange(past, past + ids.shape[1], device=device)[None]
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen.append(output[0] if isinstance(output, tuple) else output)
            if not whole and len(seen) == len(self.taps):
                raise _Enough

        hooks = [self.layers[tap - 1].register_forward_hook(keep) for tap in self.taps]
        final = None
        try:
            out = self.decoder(
                input_ids=ids.to(device), past_key_values=cache, use_cache=cache is not None, position_ids=positions
            )
            final = out.last_hidden_state
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(seen), final


def decoder_layers(model: Any) -> nn.ModuleList | None:
    """The stack of layers of any decoder: the longest ModuleList in it."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(stacks, key=len, default=None)


def default_taps(layers: int) -> tuple[int, ...]:
    """A tenth and a fifth of the way up: there a state still knows its word and already knows its neighbours."""
    low = max(1, round(layers * 0.1))
    return (low, max(low + 1, round(layers * 0.2))) if layers > 1 else (1,)


def padded(rows: Sequence[Ids]) -> Tensor:
    """int64 ``(rows, longest)``, zeros on the right."""
    longest = max(map(len, rows))
    return torch.tensor([row + (0,) * (longest - len(row)) for row in rows])


def batches_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers in batches of near-equal length, each at most TOKENS_PER_BATCH tokens with its padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and lengths[i] * (len(batch) + 1) > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
