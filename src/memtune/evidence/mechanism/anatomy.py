"""What a decoder is made of: its layers, the two parts of each that write to the residual stream, its final norm.

Nothing here knows a model by name. A part is found by what it does: the outputs of a layer's parts, each times a
number, are what the layer adds to its input. Of the two, attention is the one that carries something from one position
to another, whatever it is called; the other one is the MLP, a mixture of experts included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from memtune.backbone import Backbone
from memtune.errors import ModelError
from memtune.memory.states import decoder_layers

__all__ = ["Anatomy", "Parts", "hooked", "states_in", "with_first"]

EXACT = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}  # of what a layer adds, rounding included
TRIED = 8  # tokens of the question that the model is asked about itself with
Hook = Callable[..., Any]
Names = tuple[str, ...]
Made = dict[nn.Module, Any]  # what each module gave in one pass


@dataclass(frozen=True)
class Parts:
    """The modules of one layer whose outputs ``(batch, tokens, hidden)`` are added to the residual stream."""

    attention: nn.Module
    mlp: nn.Module


class Anatomy:
    """The modules of a backbone's decoder. ``layers`` run one after the other between embedding and final norm."""

    def __init__(self, backbone: Backbone) -> None:
        self.model: Any = backbone.model
        layers = decoder_layers(self.model)
        assert layers is not None  # a backbone without layers is not loaded
        self.layers = layers
        self.name = backbone.checkpoint.name
        self.exact = EXACT.get(backbone.readout.dtype, 5e-2)
        self._ids = torch.arange(1, TRIED + 1, device=backbone.device)[None] % backbone.head.out_features

    @property
    def embedding(self) -> nn.Module:
        embedding: nn.Module = self.model.get_input_embeddings()
        return embedding

    @cached_property
    def behind(self) -> tuple[nn.Module, ...]:
        """What stands between the last layer and the LM head, in its order: mostly the final norm alone.

        Raises ModelError where it is no chain of modules.
        """
        inside = {id(module) for module in self.layers.modules()}
        others = [module for module in self.model.get_decoder().modules() if id(module) not in inside]
        calls: list[tuple[nn.Module, Tensor, Tensor]] = []

        def heard(module: nn.Module, args: Any, out: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(out, Tensor):
                calls.append((module, args[0], out))

        seen, final = self._asked([(module, heard) for module in others])
        at, chain = seen[-1], []
        for module, given, made in calls:
            if given.shape == at.shape and torch.equal(given, at):
                chain.append(module)
                at = made
        if not torch.equal(at, final):
            raise ModelError(f"between the last layer of {self.name} and its LM head is more than a norm: no lens")
        return tuple(chain)

    @cached_property
    def parts(self) -> tuple[Parts, ...]:
        """Attention and MLP of every layer. Raises ModelError where a layer has other parts than these two."""
        made: Made = {}

        def keep(module: nn.Module, _args: Any, out: Any) -> None:
            made[module] = _first(out)

        states, _ = self._asked([(module, keep) for layer in self.layers for module in layer.modules()])
        named: dict[tuple[type, Names], Names] = {}  # kind of layer, its two parts -> the same, attention first
        found = []
        for number, (layer, given, said) in enumerate(zip(self.layers, states, states[1:], strict=False)):
            pair = self._pair_in(number, said - given, made, [names for _, names in named])
            key = (type(layer), pair)
            if key not in named:
                named[key] = self._attention_first(number, pair, made)
            found.append(Parts(*(layer.get_submodule(name) for name in named[key])))
        return tuple(found)

    def final(self, states: Tensor) -> Tensor:
        """What the LM head would read if ``states`` ``(..., hidden)`` were those of the last layer."""
        for module in self.behind:
            states = module(states)
        return states

    @torch.inference_mode()
    def _asked(self, hooks: Sequence[tuple[nn.Module, Hook]]) -> tuple[list[Tensor], Tensor]:
        """The input of the first layer and each layer's output, and what the decoder ends with."""
        with states_in(self) as states, hooked(hooks):
            final: Tensor = self.model.get_decoder()(input_ids=self._ids, use_cache=False).last_hidden_state
        return states, final

    def _pair_in(self, number: int, added: Tensor, made: Made, likely: Sequence[Names]) -> Names:
        """The two parts that make up what the layer adds; ``likely`` ones, those of a layer before, are tried first."""
        layer = self.layers[number]
        largest = sorted(layer.named_modules(), key=lambda named: -sum(p.numel() for p in named[1].parameters()))
        outputs = {name: made[module] for name, module in largest if name and isinstance(made.get(module), Tensor)}
        outputs = _distinct(outputs, added)
        for pair in (*likely, *combinations(outputs, 2)):
            if all(name in outputs for name in pair) and self._explain(added, [outputs[name] for name in pair]):
                return pair[0], pair[1]
        raise ModelError(
            f"layer {number + 1} of {self.name} is not attention and an MLP: there is nothing to restore apart",
            hint="ask without --trace",
        )

    def _explain(self, added: Tensor, outputs: Sequence[Tensor]) -> bool:
        """Whether ``added`` is a sum of these, each times a number (1 in most models), and not of one of them alone.

        Every position counts alike: in trained models the first one is often a thousand times as long as the others.
        """
        lengths = added.float().norm(dim=-1, keepdim=True).clamp_min(1e-12)
        columns = [(out.float() / lengths).flatten().cpu() for out in outputs]
        wanted = (added.float() / lengths).flatten().cpu()
        left = _left(wanted, columns)
        return left <= self.exact and all(_left(wanted, [column]) > 2 * self.exact for column in columns)

    def _attention_first(self, number: int, pair: Names, made: Made) -> Names:
        one, other = (self.layers[number].get_submodule(name) for name in pair)
        mixing = (self._mixes(number, one, other, made), self._mixes(number, other, one, made))
        if mixing[0] == mixing[1]:
            raise ModelError(
                f"layer {number + 1} of {self.name} has no part that is attention", hint="ask without --trace"
            )
        return pair if mixing[0] else pair[::-1]

    def _mixes(self, number: int, part: nn.Module, other: nn.Module, made: Made) -> bool:
        """Whether its output changes behind a position that is changed, while the other part is held."""
        changed: list[Tensor] = []

        def disturb(_module: nn.Module, args: Any, kwargs: Any) -> Any:
            states = (args[0] if args else kwargs["hidden_states"]).clone()
            states[:, 0] = states[:, 1].flip(-1)
            return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})

        def hold(_module: nn.Module, _args: Any, out: Any) -> Any:
            return with_first(out, made[other])

        def watch(_module: nn.Module, _args: Any, out: Any) -> None:
            changed.append(_first(out))

        hook = self.layers[number].register_forward_pre_hook(disturb, with_kwargs=True)
        try:
            self._asked([(other, hold), (part, watch)])
        finally:
            hook.remove()
        now, before = changed[0][:, 1:].float(), made[part][:, 1:].float()
        return bool((now - before).abs().max() > self.exact * before.abs().max())


@contextmanager
def hooked(hooks: Sequence[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Forward hooks that are gone afterwards."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def states_in(anatomy: Anatomy) -> Iterator[list[Tensor]]:
    """Of each pass inside: the residual stream before the first layer and behind each, ``(batch, tokens, hidden)``."""
    states: list[Tensor] = []

    def before(_module: nn.Module, args: Any, kwargs: Any) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    first = anatomy.layers[0].register_forward_pre_hook(before, with_kwargs=True)
    try:
        with hooked([(layer, lambda _m, _args, out: states.append(_first(out))) for layer in anatomy.layers]):
            yield states
    finally:
        first.remove()


def with_first(out: Any, tensor: Tensor) -> Any:
    """What a module gave, with another tensor as the first of it, or as all of it."""
    return (tensor, *out[1:]) if isinstance(out, tuple) else tensor


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, tuple) else out


def _left(wanted: Tensor, columns: Sequence[Tensor]) -> float:
    """The share of ``wanted`` that the best sum of the columns leaves over."""
    matrix = torch.stack(list(columns), 1)
    factors = torch.linalg.lstsq(matrix, wanted[:, None]).solution
    return float((matrix @ factors - wanted[:, None]).norm() / wanted.norm())


def _distinct(outputs: dict[str, Tensor], like: Tensor) -> dict[str, Tensor]:
    """Each of the shape of ``like`` once, by its largest module: an attention, not the projection that ends it."""
    kept: dict[str, Tensor] = {}
    for name, out in outputs.items():
        if out.shape == like.shape and not any(torch.equal(out, other) for other in kept.values()):
            kept[name] = out
    return kept
