"""The memory on a model: follows the token ids, asks the router at each question, writes before the LM head.

``Attachment`` hangs three hooks on a causal LM and changes none of its code or weights. What the memory does at a
position is a function of the token ids up to there alone, so a teacher-forced pass over a conversation, a prefill and a
decode step all agree. Only where an answer begins without a chat template do the ids not show: there a bundle's
``generate()`` tells where its prompt ends, and a pass outside of it takes what its cache was given first for the
prompt, so one over prompt and answer together writes nothing of that answer. The backbone's keys and values never see
the memory; where no fact fires, nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .attention import BETA, SLOPE, expert_attention
from .bank import Bank, BankSizes, Projections
from .calls import call_of
from .kernels import kernels_for
from .router import Route, Router, RouterSizes
from .routes import Routes
from .sequences import Seen, Span, follow, remember
from .sound import WIDEST, check_numbers, check_tensors, numbers_of, parts_of, sizes_of
from .states import StateReader
from .turns import Turn, TurnFormat

__all__ = ["Attachment", "Memory", "MemoryConfig"]

Ids = tuple[int, ...]


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
    def from_dict(cls, entries: Any) -> MemoryConfig:
        """Raises ValueError for anything but what ``to_dict`` could have made."""
        bank, router, turn, taps = parts_of("memory", entries, ("bank", "router", "format", "taps"))
        sizes = sizes_of(RouterSizes, router)
        runs = parts_of("format", turn, ("prefix", "opening", "closing", "newlines"))
        prefix, opening, closing, newlines = (numbers_of("format", run, 0, sizes.vocabulary - 1) for run in runs)
        turns = TurnFormat(prefix, opening, closing, frozenset(newlines))
        if not taps:
            raise ValueError("the memory reads no layer")
        return cls(sizes_of(BankSizes, bank), sizes, turns, numbers_of("taps", taps, 1, WIDEST))


class Memory(nn.Module):
    """Router, bank and projections: everything that memtune adds to a backbone, as tensors."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.router = Router(config.router)
        self.bank = Bank(config.bank)
        self.projections = Projections(config.bank.hidden, config.bank.d_key, config.bank.d_value)
        self._sound = False

    def check(self) -> None:
        """Raises ValueError, if it was not asked before, where a tensor points outside another one."""
        if not self._sound:
            self.router.settle()
            check_numbers(self.state_dict())
            self._sound = True

    @classmethod
    def sized(cls, config: MemoryConfig) -> Memory:
        """A memory whose tensors take no room until others are put in."""
        with torch.device("meta"):
            return cls(config)

    @classmethod
    def of(cls, config: MemoryConfig, tensors: dict[str, Tensor]) -> Memory:
        """The memory that ``tensors`` are, by name, taken as they stand, not copied. Raises ValueError."""
        memory = cls.sized(config)
        check_tensors(memory.state_dict(), tensors)
        memory.load_state_dict(tensors, assign=True)
        memory.check()
        return memory.requires_grad_(False)

    def fires(self, route: Route) -> bool:
        return route.fired and bool(self.bank.accepted[route.fact])

    def write(self, hidden: Tensor, facts: Tensor, steps: Tensor) -> Tensor:
        """What is added to final states ``(positions, hidden)`` at ``steps`` (positions,) of the answers ``facts``."""
        first, after = self.bank.offsets[facts], self.bank.offsets[facts + 1]
        runs = torch.stack([first, after - first], 1)
        queries = self.projections.query(hidden)
        if kernels := kernels_for(hidden):
            ends = torch.arange(len(hidden) + 1, device=hidden.device)  # each position is a sequence of its own
            bank = (self.bank.keys, self.bank.values, self.projections.up, self.bank.scales)
            sharpness = {"beta": BETA, "slope": SLOPE, "longest": 1}
            added: Tensor = kernels.expert_attention(
                torch.zeros_like(hidden), queries, steps, ends, runs, *bank, **sharpness
            )
            return added
        mixed = expert_attention(queries, steps, runs, self.bank.keys, self.bank.values, self.bank.scales)
        return (mixed @ self.projections.up.T).to(hidden.dtype)


@dataclass(frozen=True)
class _Write:
    """One place that is written: batch row, position in this chunk, fact and answer step."""

    row: int
    place: int
    fact: int
    step: int


class Attachment:
    """A memory at work on a model. ``enabled`` switches it; ``detach`` removes it without a trace."""

    def __init__(self, model: Any, memory: Memory) -> None:
        self.memory = memory
        self.enabled = True
        self._states = StateReader(model, memory.config.format.prefix, memory.config.taps)
        self._routes = Routes(memory.router, self.read)
        self._writes: list[_Write] = []
        self._chunk: tuple[int, Any] = (0, 0)  # positions in this chunk, the caller's logits_to_keep
        self._seen: Seen | None = None
        write = torch.compiler.disable(self._write)  # what it does depends on the ids: traced, it is compiled each time
        self._hooks = [
            model.register_forward_pre_hook(self._follow, with_kwargs=True),
            model.get_output_embeddings().register_forward_pre_hook(write),
            model.register_forward_hook(self._remember),
        ]

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def route(self, questions: list[Ids]) -> list[Route]:
        """The routes of user turns, each asked alone. Raises ValueError for a memory that is not sound."""
        self.memory.check()
        return self._routes.of(questions)

    def read(self, questions: list[Ids]) -> list[Tensor]:
        """The early states of each question, read alone: float32 (taps, tokens, hidden)."""
        return self._states.early(questions)

    def _follow(self, _model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a forward pass: which positions of this chunk belong to the answer of a stored question?"""
        self._writes, self._seen = [], None
        ids = kwargs.get("input_ids", args[0] if args else None)
        if not self.enabled or ids is None:
            return
        self._seen = follow(ids, kwargs, self.memory.config.format.is_chat, call_of(self))
        self._chunk = (ids.shape[1], kwargs.get("logits_to_keep", 0))
        self._writes = self._plan(self._seen.spans)

    def _plan(self, spans: Sequence[Span]) -> list[_Write]:
        """Routes the questions whose answers reach into the new ids of each sequence."""
        asked: list[tuple[Span, Turn]] = []
        for span in spans:
            old, total = len(span.ids) - span.length, len(span.ids)
            for turn in self.memory.config.format.turns(span.ids, span.prompt_end):
                # The state at position p predicts token p + 1: the answer is written from one position earlier.
                if turn.until > old and turn.answer <= total:
                    asked.append((span, turn))
        routes = self.route([tuple(span.ids[turn.start : turn.end]) for span, turn in asked])
        fired = [(*one, route.fact) for one, route in zip(asked, routes, strict=True) if self.memory.fires(route)]
        return [write for span, turn, fact in fired for write in self._places(span, turn, fact)]

    def _places(self, span: Span, turn: Turn, fact: int) -> Iterator[_Write]:
        """Where the answer ``fact`` to ``turn`` is written among the new ids."""
        old, total = len(span.ids) - span.length, len(span.ids)
        first = turn.answer - 1
        end = min(first + self.memory.bank.experts_of(fact), turn.until, total)
        for place in range(max(first, old), end):
            yield _Write(span.row, span.start + place - old, fact, place - first)

    def _write(self, _head: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """At the LM head's input: adds the memory where it fires. None, which changes nothing, where it does not."""
        planned, self._writes = self._writes, []
        if not planned:
            return None
        hidden: Tensor = args[0]
        kept = self._kept_places(hidden.shape[1])
        writes = [(w.row, at, w.fact, w.step) for w in planned for at in kept.get(w.place, ())]
        if not writes:
            return None
        rows, at, facts, steps = torch.tensor(writes, device=hidden.device).T
        written = hidden.clone()
        written[rows, at] += self.memory.write(hidden[rows, at], facts, steps)
        return (written, *args[1:])

    def _kept_places(self, width: int) -> dict[int, list[int]]:
        """Position in the chunk -> positions in what the head sees: ``logits_to_keep`` may have cut or repeated it."""
        length, kept = self._chunk
        places = kept.tolist() if isinstance(kept, Tensor) else range(length - width, length)
        found: dict[int, list[int]] = {}
        for at, place in enumerate(places):
            found.setdefault(place % length, []).append(at)
        return found

    def _remember(self, _model: Any, _args: Any, out: Any) -> None:
        """After a forward pass: the cache learns which ids it holds, for the next decode step."""
        if self._seen is not None:
            remember(self._seen, out)
        self._seen = None
