"""What a call of ``generate()`` knows and the passes within it do not: where its prompt ends, which ids are padding.

A template shows where answers begin; without one that is where the prompt ends. A pass may hold less than the prompt (a
prefill in chunks), more (an assistant's draft behind it) or all over again (no cache). And the mask of the padding may
have become one of the attention, in which padding is hard to tell (a static cache).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Call", "call_of", "generating", "note_mask"]


@dataclass
class Call:
    """``owner``: whose prompt it is. ``mask`` (batch, tokens) is that of the next pass; None without padding."""

    owner: object
    prompt_end: int
    mask: Tensor | None = None


_CALL: ContextVar[Call | None] = ContextVar("memtune_call", default=None)  # a thread generates by itself


@contextmanager
def generating(owner: object, inputs: Tensor | None, keywords: Mapping[str, Any]) -> Iterator[None]:
    """Around ``generate(inputs, **keywords)`` of ``owner``.

    An assistant is called again and again, each time with more of the answer: what is its prompt, it does not know.
    """
    ids = keywords.get("input_ids") if inputs is None else inputs
    if ids is None or getattr(keywords.get("generation_config"), "is_assistant", False):
        yield
        return
    token = _CALL.set(Call(owner, _length(ids, keywords.get("attention_mask"))))
    try:
        yield
    finally:
        _CALL.reset(token)


def note_mask(owner: object, mask: Tensor | None) -> None:
    """The mask that the next pass of ``owner`` is prepared with."""
    if (call := call_of(owner)) is not None:
        call.mask = mask


def call_of(owner: object) -> Call | None:
    """The call that ``owner`` is generating for; None outside of one."""
    call = _CALL.get()
    return call if call is not None and call.owner is owner else None


def _length(ids: Tensor, mask: Tensor | None) -> int:
    """Of the prompt: a call that goes on from a cache may be given the new ids alone, but always the whole mask."""
    return int(ids.shape[-1] if mask is None else max(ids.shape[-1], mask.shape[-1]))
