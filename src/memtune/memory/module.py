"""The memory on a model: follows the token ids, asks the router at each question, writes before the LM head.

``attach`` hangs three hooks on a causal LM and changes none of its code or weights. What the memory does at a position
is a function of the token ids up to there alone, so a teacher-forced pass over a conversation, a prefill and a decode
step all agree. The backbone's keys and values never see the memory; where no fact fires, nothing is written.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memtune.memory.attention import expert_attention
from memtune.memory.bank import Bank, BankSizes, Projections
from memtune.memory.early import EarlyStates
from memtune.memory.router import Route, Router, RouterSizes
from memtune.memory.turns import TurnFormat

__all__ = ["Memory", "MemoryConfig", "attach"]

Ids = tuple[int, ...]
ROUTES_KEPT = 4096
_IDS = "_memtune_ids"  # the ids that a cache has seen ride on the cache itself
_NO_TOKEN = -1  # padding on the left: no template run can match it


@dataclass(frozen=True)
class MemoryConfig:
    """All that is needed to build an empty memory of the right sizes; JSON in a bundle's config."""

    bank: BankSizes
    router: RouterSizes
    format: TurnFormat
    taps: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        turn = asdict(self.format) | {"newlines": sorted(self.format.newlines)}
        return {"bank": asdict(self.bank), "router": asdict(self.router), "format": turn, "taps": list(self.taps)}

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> MemoryConfig:
        turn = entries["format"]
        runs = {name: tuple(turn[name]) for name in ("prefix", "opening", "closing")}
        return cls(
            BankSizes(**entries["bank"]),
            RouterSizes(**entries["router"]),
            TurnFormat(**runs, newlines=frozenset(turn["newlines"])),
            tuple(entries["taps"]),
        )


class Memory(nn.Module):
    """Router, bank and projections: everything that memtune adds to a backbone."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.router = Router(config.router)
        self.bank = Bank(config.bank)
        self.projections = Projections(config.bank.hidden, config.bank.d_key, config.bank.d_value)
        self.enabled = True
        self._routes: dict[Ids, Route] = {}
        self._early: EarlyStates | None = None
        self._writes: _Writes | None = None

    def route(self, questions: list[Ids]) -> list[Route]:
        """The routes of questions, each asked alone. Decisions are kept: a decode step looks its question up."""
        assert self._early is not None, "attach the memory to a model first"
        new = [q for q in dict.fromkeys(questions) if q not in self._routes]
        if len(self._routes) + len(new) > ROUTES_KEPT:
            self._routes.clear()
            new = list(dict.fromkeys(questions))
        self._routes |= zip(new, self.router.route(new, self._early(new)), strict=True)
        return [self._routes[q] for q in questions]

    def fires(self, route: Route) -> bool:
        return route.fired and bool(self.bank.accepted[route.fact])

    def write(self, hidden: Tensor, facts: Tensor, steps: Tensor) -> Tensor:
        """What is added to final states ``(positions, hidden)`` at ``steps`` (positions,) of the answers ``facts``."""
        first, after = self.bank.offsets[facts], self.bank.offsets[facts + 1]
        runs = torch.stack([first, after - first], 1)
        queries = self.projections.query(hidden)
        mixed = expert_attention(queries, steps, runs, self.bank.keys, self.bank.values)
        return (mixed @ self.projections.up.T).to(hidden.dtype)


@dataclass
class _Writes:
    """Where one forward pass is written to: batch row, position in this chunk, fact and answer step of each place."""

    rows: list[int]
    places: list[int]
    facts: list[int]
    steps: list[int]
    length: int  # positions in this chunk
    kept: Any  # the caller's logits_to_keep


def attach(model: Any, memory: Memory) -> None:
    """Makes ``memory`` part of ``model``'s forward pass. The hooks are removed by ``memory.detach()``."""
    memory._early = EarlyStates(model, memory.config.format.prefix, memory.config.taps)
    handles = [
        model.register_forward_pre_hook(lambda _m, a, k: _follow(memory, a, k), with_kwargs=True),
        model.get_output_embeddings().register_forward_pre_hook(lambda _m, a: _write(memory, a)),
        model.register_forward_hook(lambda _m, a, k, out: _remember(memory, out), with_kwargs=True),
    ]

    def detach() -> None:
        for handle in handles:
            handle.remove()

    memory.detach = detach  # type: ignore[assignment]


def _follow(memory: Memory, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Before a forward pass: which positions of this chunk belong to the answer of a stored question?"""
    memory._writes = None
    ids = kwargs.get("input_ids", args[0] if args else None)
    if not memory.enabled or ids is None:
        return
    seen = _seen_ids(ids, kwargs.get("past_key_values"), kwargs.get("attention_mask"))
    memory._writes = _plan(memory, seen, ids.shape[1], kwargs.get("logits_to_keep", 0))
    memory._pending = seen


def _remember(memory: Memory, out: Any) -> None:
    """After a forward pass: the cache learns which ids it holds, for the next decode step."""
    cache = getattr(out, "past_key_values", None)
    if cache is not None and getattr(memory, "_pending", None) is not None:
        setattr(cache, _IDS, memory._pending)
    memory._pending = None


@dataclass(frozen=True)
class _Seen:
    ids: Tensor  # (batch, tokens), _NO_TOKEN where padded
    prompt_end: int  # where the first chunk ended: generation began there


def _seen_ids(ids: Tensor, cache: Any, mask: Tensor | None) -> _Seen:
    past = int(cache.get_seq_length()) if cache is not None else 0
    if mask is not None and mask.dim() == 2 and mask.shape[1] >= ids.shape[1]:
        ids = ids.masked_fill(mask[:, -ids.shape[1] :] == 0, _NO_TOKEN)
    before: _Seen | None = getattr(cache, _IDS, None) if past else None
    if past == 0:
        return _Seen(ids, ids.shape[1])
    if before is None or len(before.ids) != len(ids) or before.ids.shape[1] < past:
        unknown = ids.new_full((len(ids), past), _NO_TOKEN)
        return _Seen(torch.cat([unknown, ids], 1), past)
    return _Seen(torch.cat([before.ids[:, :past], ids], 1), before.prompt_end)


def _plan(memory: Memory, seen: _Seen, length: int, kept: Any) -> _Writes | None:
    """Routes the questions whose answers reach into the last ``length`` positions."""
    total = seen.ids.shape[1]
    chunk = total - length
    open_turns = []
    for row, tokens in enumerate(seen.ids.tolist()):
        for turn in memory.config.format.turns(tokens, seen.prompt_end):
            # The state at position p predicts token p + 1, so the answer is written from one position earlier.
            if turn.until - 1 >= chunk and turn.answer - 1 < total:
                open_turns.append((row, turn, tuple(tokens[turn.start : turn.end])))
    routes = memory.route([question for _, _, question in open_turns])
    writes = _Writes([], [], [], [], length, kept)
    for (row, turn, _), route in zip(open_turns, routes, strict=True):
        if not memory.fires(route):
            continue
        run = memory.bank.run(route.fact)
        start = turn.answer - 1
        for place in range(max(start, chunk), min(turn.until, start + run.stop - run.start, total)):
            writes.rows.append(row)
            writes.places.append(place - chunk)
            writes.facts.append(route.fact)
            writes.steps.append(place - start)
    return writes if writes.rows else None


def _write(memory: Memory, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """At the LM head's input: adds the memory where it fires. Returns None, and so changes nothing, where it does not."""
    writes, memory._writes = memory._writes, None
    if writes is None:
        return None
    hidden: Tensor = args[0]
    places = _kept_places(writes, hidden.shape[1])
    chosen = [i for i, place in enumerate(writes.places) if place in places]
    if not chosen:
        return None
    device = hidden.device
    rows = torch.tensor([writes.rows[i] for i in chosen], device=device)
    at = torch.tensor([places[writes.places[i]] for i in chosen], device=device)
    facts = torch.tensor([writes.facts[i] for i in chosen], device=device)
    steps = torch.tensor([writes.steps[i] for i in chosen], device=device)
    written = hidden.clone()
    written[rows, at] += memory.write(hidden[rows, at], facts, steps)
    return (written, *args[1:])


def _kept_places(writes: _Writes, width: int) -> dict[int, int]:
    """Position in the chunk -> position in what the head sees: ``logits_to_keep`` may have cut it."""
    if isinstance(writes.kept, Tensor):
        return {place: i for i, place in enumerate(writes.kept.tolist())}
    return {place: i for i, place in enumerate(range(writes.length - width, writes.length))}
