"""The frozen checkpoint: loaded, checked, and read.

Two kinds of states are read from it. *Early* states of a question, after a few layers, feed the router; the pass stops
at the last layer it needs. *Final* states at the positions that predict an answer feed the fit; they are the input of
the LM head, which is where the memory writes. No weight changes, no gradient runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from memtune.checkpoints import Checkpoint, quiet_transformers, resolve
from memtune.config import DTYPES
from memtune.errors import ConfigError, ModelError
from memtune.events import ModelLoaded, OnEvent, ignore
from memtune.memory.readout import Readout
from memtune.memory.states import StateReader, decoder_layers
from memtune.prompts import EncodedFact, Prompts

__all__ = ["AnswerStates", "Backbone", "load_backbone"]

FINGERPRINT_ENTRIES = 512


@dataclass(frozen=True)
class AnswerStates:
    """Of one fact, float32: final states ``(answer tokens, hidden)``, the question's ``(taps, tokens, hidden)``."""

    final: Tensor
    early: Tensor


_NO_STATES = AnswerStates(torch.empty(0), torch.empty(0))


@dataclass
class Backbone:
    """A loaded checkpoint. ``dtype`` is that of its states, and of weights that are not quantised; ``reason`` says in
    words why it and the device were chosen.

    ``fingerprint`` names the weights, their dtype and the rendering: a memory fits this backbone and no other.
    """

    model: Any
    prompts: Prompts
    checkpoint: Checkpoint
    dtype: torch.dtype
    reason: str
    readout: Readout
    fingerprint: str

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def hidden(self) -> int:
        return self.head.in_features

    @property
    def head(self) -> nn.Linear:
        head: nn.Linear = self.model.get_output_embeddings()
        return head

    @property
    def room(self) -> int:
        """Tokens that fit into one conversation; of a model that does not say, more than anybody asks."""
        return getattr(self.model.config, "max_position_embeddings", None) or 1 << 20

    @property
    def quantised(self) -> str | None:
        """The method by which the checkpoint's weights are stored in fewer bits, in the words of its config."""
        config = getattr(self.model.config, "quantization_config", None)
        return None if config is None else str(getattr(config.quant_method, "value", config.quant_method))

    @cached_property
    def states(self) -> StateReader:
        return StateReader(self.model, self.prompts.format.prefix)

    def answer_states(self, facts: Sequence[EncodedFact]) -> list[AnswerStates]:
        """One teacher-forced pass over each fact: the states that predict its answer, and those of its question."""
        prefix = self.prompts.format.prefix
        rest = [self.prompts.format.prompt(fact.question)[len(prefix) :] + fact.answer[:-1] for fact in facts]
        states: list[AnswerStates] = [_NO_STATES] * len(facts)
        for together in self.states.whole(rest):
            for i, early, final in together:
                states[i] = AnswerStates(final[-facts[i].experts :].clone(), early[:, : len(facts[i].question)].clone())
        return states


def load_backbone(name: str, *, device: str = "auto", dtype: str = "auto", on_event: OnEvent = ignore) -> Backbone:
    """Loads and checks a checkpoint. Raises ModelError if it cannot be loaded or its head cannot be reproduced, and
    ConfigError where ``device`` is not there or ``dtype`` is none.
    """
    place, why = _place(device)
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is unknown", hint=f"use one of: {', '.join(DTYPES)}")
    checkpoint = resolve(name, on_event)
    try:
        if dtype == "auto":
            dtype, because = _fitting(place, checkpoint.location)
            why += f"; {because}"
        chosen: torch.dtype = getattr(torch, dtype)
        model, tokenizer = _load(checkpoint.location, place, chosen)
    except Exception as error:  # the readers of configs, weights and tokenizers raise many kinds
        raise ModelError(
            f"{name} cannot be loaded: {_first_line(error)}",
            hint="--model takes a directory, a hub id such as org/name, a .gguf file, or smollm2",
        ) from error
    prompts = Prompts(tokenizer, _stop_ids(model, tokenizer))
    # Before the first pass: in it, some libraries lay out quantised weights anew and cannot give the old ones back.
    fingerprint = f"{_weights_digest(model)[:16]}-{prompts.fingerprint}"
    try:
        readout = _readout(model, checkpoint)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{name} is loaded, but cannot run on {place}: {_first_line(error)}") from error
    reason = f"{dtype} on {place} ({why})"
    backbone = Backbone(model, prompts, checkpoint, chosen, reason, readout, fingerprint)
    quantised = f", quantised by {backbone.quantised}" if backbone.quantised else ""
    on_event(ModelLoaded(name, checkpoint.note + quantised, reason))
    return backbone


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _place(device: str) -> tuple[str, str]:
    """The device with the reason, in the words that are printed."""
    if device != "auto":
        _check_device(device)
        return device, "asked for"
    return ("cuda", "a GPU is there") if torch.cuda.is_available() else ("cpu", "no GPU was found")


def _fitting(device: str, location: str) -> tuple[str, str]:
    """The dtype with the reason. On a processor no weight is rounded unless that is asked for: answers would change."""
    if device != "cpu" and torch.cuda.is_bf16_supported():
        return "bfloat16", "bfloat16 is fast there"
    if device != "cpu" or not _capabilities().get("amx_bf16"):
        return "float32", "float32 is exact there"
    if _stored_dtype(location) == torch.bfloat16:
        return "bfloat16", "the checkpoint's own, and fast there"
    return "float32", "float32 is exact there, --dtype bfloat16 faster"


def _stored_dtype(location: str) -> Any:
    with quiet_transformers():
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(location).dtype


def _capabilities() -> dict[str, Any]:
    """Of the processor, as far as this torch can say."""
    return getattr(torch.cpu, "get_capabilities", dict[str, Any])()


def _check_device(device: str) -> None:
    """Before anything is loaded, or what is wrong with it would be said of the model."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch was built without it, or sees none
        raise ConfigError(
            f"device {device!r} cannot be used: {_first_line(error)}",
            hint="device takes auto, cpu, cuda or cuda:1; a project takes another where its facts are ingested again, "
            "with --device auto and the same --project",
        ) from error


def _load(location: str, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    with quiet_transformers():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(location, dtype=dtype, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(location)
    model.eval().requires_grad_(False)
    return model.to(device), tokenizer


def _stop_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    stops = model.generation_config.eos_token_id
    if stops is None:
        stops = tokenizer.eos_token_id
    if stops is None:
        return ()
    return tuple(stops) if isinstance(stops, list) else (int(stops),)


def _weights_digest(model: nn.Module) -> str:
    """Of every tensor some hundred entries are read, spread over the whole of it."""
    digest = hashlib.sha256()
    for name, whole in sorted(model.state_dict().items()):
        for tensor in _plain(whole):
            flat = tensor.detach().flatten()
            spread = flat[:: max(1, len(flat) // FINGERPRINT_ENTRIES)].float().cpu().contiguous()
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode() + spread.numpy().tobytes())
    return digest.hexdigest()


def _plain(tensor: Any) -> Iterator[Tensor]:
    """A quantised weight may be one tensor made of several: its integers, their scales."""
    if is_traceable_wrapper_subclass(tensor):
        for part in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, part))
    else:
        yield tensor


@torch.inference_mode()
def _reads_the_decoder(model: Any, head: nn.Module, ids: Tensor) -> bool:
    """What the head reads is what the decoder ends with: those are the states that the fit is given."""
    read: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    try:
        model(input_ids=ids)
    finally:
        hook.remove()
    final = model.get_decoder()(input_ids=ids).last_hidden_state
    return read[-1].shape == final.shape and torch.allclose(read[-1], final, rtol=1e-3, atol=1e-3)


def _readout(model: Any, checkpoint: Checkpoint) -> Readout:
    """How the model reads the states that the memory writes to: the fit computes that itself."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or not decoder_layers(model):
        raise ModelError(f"{checkpoint.name} has no plain LM head behind a stack of layers: it cannot be taught")
    ids = torch.arange(1, 9, device=model.device)[None] % head.out_features
    readout = Readout.of(model, ids)
    if readout is None or not _reads_the_decoder(model, head, ids):
        raise ModelError(
            f"the logits of {checkpoint.name} are not its LM head times its final state, scaled or capped",
            hint="a model that does something else there cannot be taught by this version",
        )
    return readout
