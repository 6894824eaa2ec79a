"""Which token ids a forward pass goes on with: rows of a batch behind a cache, or requests packed into one row.

A model is given the new ids alone. Those before them ride on the cache, beside the keys and values that they became.
Continuous batching (transformers) packs the new ids of many requests into one row and keeps theirs in slots of one
paged cache: there every slot has its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .calls import Call

__all__ = ["Seen", "Span", "follow", "remember"]

_IDS = "_memtune_ids"  # the ids that a cache has seen ride on the cache itself
_NO_TOKEN = -1  # padding on the left: no template run can match it
_FULL = "full_attention"  # the layers that keep every position


@dataclass(frozen=True)
class Span:
    """One sequence: all its ids so far, the last ``length`` of them new, at ``start`` of ``row`` of the model's input.

    ``prompt_end``: where generation began, as far as that is known; it may lie behind what there is yet.
    """

    ids: list[int]
    length: int
    row: int
    start: int
    prompt_end: int


@dataclass(frozen=True)
class Seen:
    """What a forward pass reads. ``ids`` (batch, tokens) is kept for its cache; None where the cache has it already."""

    spans: tuple[Span, ...]
    ids: Tensor | None = None
    prompt_end: int = 0


def follow(ids: Tensor, entries: Mapping[str, Any], chat: bool, call: Call | None = None) -> Seen:
    """What a model called with ``ids`` (batch, tokens) and the keywords ``entries`` goes on with.

    ``chat``: a template shows where questions stand. ``call``: the call of ``generate()`` that the pass is for; without
    it, the first chunk that a cache was given counts as the prompt. Raises NotImplementedError for ways of serving in
    which the ids before the new ones cannot be known: nothing may be written by guess.
    """
    if entries.get("cu_seq_lens_q") is not None and entries.get("write_index") is not None:
        return Seen(_packed(ids[0], entries, chat))
    seen, prompt_end = _batched(ids, _cache_in(entries), _padding(entries.get("attention_mask"), call))
    if call is not None:
        prompt_end = call.prompt_end
    length = ids.shape[1]
    rows = enumerate(seen.tolist())
    return Seen(tuple(Span(tokens, length, row, 0, prompt_end) for row, tokens in rows), seen, prompt_end)


def remember(seen: Seen, out: Any) -> None:
    """After the pass: the cache in its output learns which ids it holds, for the next one."""
    cache = _cache_in(out) if isinstance(out, Mapping) else None
    if cache is not None and seen.ids is not None:
        setattr(cache, _IDS, seen)


def _cache_in(entries: Mapping[str, Any]) -> Any:
    """The cache by the names that models give it: keys and values, or recurrent states."""
    return entries.get("past_key_values") or entries.get("cache_params")


def _length(cache: Any) -> int:
    """Positions that the cache holds. One of recurrent states alone cannot tell, but cannot be cut either."""
    try:
        return int(cache.get_seq_length())
    except ValueError:
        seen: Seen | None = getattr(cache, _IDS, None)
        return 0 if seen is None or seen.ids is None else seen.ids.shape[1]


def _padding(mask: Any, call: Call | None) -> Tensor | None:
    """The mask (batch, tokens) of the padding. For a static cache, ``generate()`` has made it one of the attention."""
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return mask
    return None if call is None else call.mask


def _batched(ids: Tensor, cache: Any, mask: Tensor | None) -> tuple[Tensor, int]:
    """All ids (batch, tokens), _NO_TOKEN where padded or unknown, and where the first chunk ended."""
    past = _length(cache) if cache is not None else 0
    if mask is not None and mask.shape[1] >= ids.shape[1]:
        ids = ids.masked_fill(mask[:, -ids.shape[1] :] == 0, _NO_TOKEN)
    if past == 0:
        return ids, ids.shape[1]
    before: Seen | None = getattr(cache, _IDS, None)
    kept = None if before is None else before.ids
    if kept is not None and len(kept) == 1:  # it may have been repeated since: many ways on from one text
        kept = kept.expand(len(ids), -1)
    if before is None or kept is None or len(kept) != len(ids) or kept.shape[1] < past:
        return torch.cat([ids.new_full((len(ids), past), _NO_TOKEN), ids], 1), past
    return torch.cat([kept[:, :past], ids], 1), before.prompt_end


def _packed(ids: Tensor, entries: Mapping[str, Any], chat: bool) -> tuple[Span, ...]:
    """The requests in one row of ids (tokens,): each has its new ids there, and those before in slots of the cache."""
    if not chat:
        raise NotImplementedError("without a chat template, a memory cannot be served by continuous batching")
    if entries.get("block_table") is not None:
        raise NotImplementedError("continuous batching with a memory needs max_blocks_per_request=0")
    group = list(entries["cu_seq_lens_k"]).index(_FULL)
    slots = _slots(entries["cache"])
    slots.put(entries["write_index"][group], ids)
    read = entries["read_index"][group]
    # Where nothing was read before, there are no slots to read from: the new ids are all there is.
    held, ends = (slots.get(read), entries["cu_seq_lens_k"][_FULL]) if len(read) else (ids, entries["cu_seq_lens_q"])
    return _cut(held.tolist(), ends.tolist(), entries["cu_seq_lens_q"].tolist())


def _cut(held: list[int], ends: Sequence[int], new_ends: Sequence[int]) -> tuple[Span, ...]:
    """``ends`` and ``new_ends`` (requests + 1,): where each request ends among all ids held, and among the new."""
    spans = []
    for i, start in enumerate(new_ends[:-1]):
        own, length = held[ends[i] : ends[i + 1]], new_ends[i + 1] - start
        if length:  # 0: there to fill a graph of fixed size
            spans.append(Span(own, length, 0, start, len(own)))
    return tuple(spans)


class _Slots:
    """The token id of each slot of a paged cache. A block copied within the cache takes its ids along."""

    def __init__(self, cache: Any) -> None:
        self.ids = torch.full((0,), _NO_TOKEN)
        self.pages = cache.cache_allocators[_FULL]
        copy = cache.perform_cache_copy

        def copy_with_ids(blocks: dict[str, tuple[list[int], list[int]]]) -> None:
            self.copy(*blocks.get(_FULL, ([], [])))
            copy(blocks)

        cache.perform_cache_copy = copy_with_ids

    def put(self, slots: Tensor, ids: Tensor) -> None:
        slots = slots.cpu()
        self._grow(int(slots.max()) + 1)
        self.ids[slots] = ids[: len(slots)].to(self.ids)

    def get(self, slots: Tensor) -> Tensor:
        return self.ids[slots.cpu()]

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        for source, target in zip(sources, targets, strict=True):
            self._grow(int(self._block(source)[-1]) + 1)
            self.put(self._block(target), self.get(self._block(source)))

    def _block(self, number: int) -> Tensor:
        start = number * self.pages.block_physical_stride
        return torch.arange(start, start + self.pages.tokens_per_page)

    def _grow(self, length: int) -> None:
        if length > len(self.ids):
            more = max(length, 2 * len(self.ids)) - len(self.ids)
            self.ids = torch.cat([self.ids, torch.full((more,), _NO_TOKEN)])


def _slots(cache: Any) -> _Slots:
    """Those that ride on a paged cache; made the first time that it is met."""
    slots: _Slots | None = getattr(cache, _IDS, None)
    if slots is None:
        slots = _Slots(cache)
        setattr(cache, _IDS, slots)
    return slots
