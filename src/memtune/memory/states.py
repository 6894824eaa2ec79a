"""Hidden states of token rows, read from the backbone behind a shared prefix.

*Early* states, after a few layers, feed the router; such a pass stops at the last layer it needs. A *whole* pass gives
the final states as well. Rows are run behind the template's prefix and nothing else, so that what is read does not
depend on what stands before a question in a chat. The prefix is run once and its keys and values are shared, and rows
that begin alike are merged, where the model has keys and values and gives the same states with them. Bins of rows go in
batches of near-equal length, padded on the right, where no causal position sees it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .forest import Bin, batches_by_length, bins_of, one_by_one, padded, sees
from .products import by_onednn

__all__ = ["StateReader", "decoder_layers"]

Ids = tuple[int, ...]
EXACT, ROUNDED = 1e-3, 5e-2  # of a state's length: more than the order of sums changes in float32, in sixteen bits
NEAR = 128  # tokens with the prefix. A mask of one's own overrules a layer's window: none is narrower (gpt-oss)


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
        self._merged: bool | None = None

    def behind(self, prefix: Ids) -> StateReader:
        """The same behind another prefix; what was found out about the model holds there too."""
        self._merges()  # and with it, whether the prefix is shared: asked here, once for all of them
        other = copy.copy(self)
        other.prefix, other._caches = prefix, {}
        if prefix and self._shared is None:  # this one has no prefix to have asked with
            self._shared = other._shares_prefix()
        return other

    def early(self, rows: Sequence[Ids]) -> list[Tensor]:
        """For each row float32 states ``(taps, tokens, hidden)``, on the CPU, where the router is."""
        states = {i: early for together in self._read(rows, whole=False) for i, early, _ in together}
        return [states[i] for i in range(len(rows))]

    def whole(self, rows: Sequence[Ids]) -> Iterator[list[tuple[int, Tensor, Tensor]]]:
        """Pass by pass, of each row read in it: its number, float32 early states ``(taps, tokens, hidden)`` on the CPU,
        final ones (no ``taps``) on the backbone's device.
        """
        return self._read(rows, whole=True)

    def _read(self, rows: Sequence[Ids], *, whole: bool) -> Iterator[list[tuple[int, Tensor, Tensor]]]:
        near = {i: row for i, row in enumerate(rows) if len(self.prefix) + len(row) <= NEAR}
        if len(near) < 2 or not self._merges():
            near = {}
        behind = 0 if self._shares_prefix() else len(self.prefix)
        far = {i: self.prefix[:behind] + row for i, row in enumerate(rows) if i not in near}
        yield from self._of(bins_of(near), 0, whole)
        yield from self._of(one_by_one(far), behind, whole)

    def _of(self, bins: Sequence[Bin], behind: int, whole: bool) -> Iterator[list[tuple[int, Tensor, Tensor]]]:
        """Of each row its states from the ``behind``-th token on; before that, it holds the prefix itself. No final
        states where the pass is not ``whole``.
        """
        for batch in batches_by_length([len(one.ids) for one in bins]):
            together = [bins[i] for i in batch]
            cache = None if behind else copy.deepcopy(self._prefix_cache(whole))
            if cache is not None:
                cache.batch_repeat_interleave(len(together))
            early, final = self._run(together, cache, whole)
            yield [
                (i, early[:, place, at[behind:]].float().cpu(), final[:, place, at[behind:]].flatten(0, 1).float())
                for place, one in enumerate(together)
                for i, at in one.places.items()
            ]

    def _shares_prefix(self) -> bool:
        """Asked of the model once: a recurrent one has no keys and values to share, whatever it makes of them."""
        if not self.prefix:
            return True
        if self._shared is None:
            try:
                cache = copy.deepcopy(self._prefix_cache(False))
                shared, _ = self._run(one_by_one({0: self.prefix[:2]}), cache, False)
            except (AttributeError, TypeError, ValueError):  # its cache is none that can be asked
                self._shared = False
            else:
                alone, _ = self._run(one_by_one({0: self.prefix + self.prefix[:2]}), None, False)
                self._shared = self._alike(shared, alone[:, :, len(self.prefix) :])
        return self._shared

    def _merges(self) -> bool:
        """Asked of the model once: another than a causal mask is something that not every one reads."""
        if not self._shares_prefix():
            return False
        if self._merged is None:
            rows = {0: (1, 2, 3, 4), 1: (1, 2, 5, 6, 7)}
            try:
                [merged] = self._of(bins_of(rows), 0, True)
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
                self._merged = False
            else:
                [alone] = self._of(one_by_one(rows), 0, True)
                self._merged = all(self._alike(one, two) for (*_, one), (*_, two) in zip(merged, alone, strict=True))
        return self._merged

    def _alike(self, one: Tensor, two: Tensor) -> bool:
        """The same states ``(..., hidden)`` but for rounding."""
        most = EXACT if self._weight.dtype == torch.float32 else ROUNDED
        return one.shape == two.shape and bool(
            ((one - two).float().norm(dim=-1) <= most * two.float().norm(dim=-1)).all()
        )

    @property
    def _weight(self) -> nn.Parameter:
        weight: nn.Parameter = next(self.decoder.parameters())
        return weight

    def _prefix_cache(self, whole: bool) -> Any:
        if self.prefix and whole not in self._caches:
            from transformers import DynamicCache

            cache = DynamicCache()
            self._run(one_by_one({0: self.prefix}), cache, whole)
            self._caches[whole] = cache
        return self._caches.get(whole)

    @torch.inference_mode()
    @by_onednn()
    def _run(self, bins: Sequence[Bin], cache: Any, whole: bool) -> tuple[Tensor, Tensor]:
        """States ``(taps, bins, longest, hidden)``, and the final ones ``(1, bins, longest, hidden)``; without a whole
        pass there are none of those: ``(0, bins, longest, hidden)``.
        """
        past = cache.get_seq_length() if cache is not None else 0
        entries = {
            "input_ids": padded([one.ids for one in bins]),
            "position_ids": past + padded([one.positions for one in bins]),
        }
        if any(len(one.places) > 1 for one in bins):  # with one in each, the causal mask says the same
            unseen = ~sees(bins, past)[:, None]
            dtype = self._weight.dtype
            entries["attention_mask"] = torch.zeros(unseen.shape, dtype=dtype).masked_fill_(
                unseen, torch.finfo(dtype).min
            )
        entries = {name: entry.to(self._weight.device) for name, entry in entries.items()}
        seen: list[Tensor] = []
        final: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen.append(output[0] if isinstance(output, tuple) else output)
            if not whole and len(seen) == len(self.taps):
                raise _Enough

        hooks = [self.layers[tap - 1].register_forward_hook(keep) for tap in self.taps]
        try:
            final.append(self.decoder(**entries, past_key_values=cache, use_cache=cache is not None).last_hidden_state)
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        early = torch.stack(seen)
        return early, torch.stack(final) if final else early[:0]


def decoder_layers(model: Any) -> nn.ModuleList | None:
    """The stack of layers of any decoder: the longest ModuleList in it."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(stacks, key=len, default=None)


def default_taps(layers: int) -> tuple[int, ...]:
    """A tenth and a fifth of the way up: there a state still knows its word and already knows its neighbours."""
    low = max(1, round(layers * 0.1))
    return (low, max(low + 1, round(layers * 0.2))) if layers > 1 else (1,)
