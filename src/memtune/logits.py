"""The memory at the logits, for an engine that shows prompts and logits but no hidden state.

The router needs the question alone, and reads it with the backbone's first layers, which are loaded a second time. What
a value row adds to the final state, the LM head turns into a row of logits, which is added where the engine samples.
What cannot be done here is the attention among the experts of a fact: its query is the final state. The position
decides instead, which the attention's own position slope comes to in all but a few places.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import cached_file

from memtune.bundle import MEMORY_FILE, PREFIX
from memtune.checkpoints import quiet_transformers
from memtune.errors import ModelError
from memtune.memory.module import Memory, MemoryConfig
from memtune.memory.readout import Readout, capped, uncapped
from memtune.memory.routes import Routes
from memtune.memory.states import StateReader, decoder_layers

__all__ = ["LogitMemory", "StoredAnswer"]


@dataclass(frozen=True)
class StoredAnswer:
    """The answer to a prompt: ``experts`` experts, ``first`` and following, one a token from position ``start`` on."""

    first: int
    experts: int
    start: int

    def expert(self, length: int) -> int | None:
        """The expert that says the token behind ``length`` tokens of the sequence; None once all are said."""
        step = length - self.start
        return self.first + step if step < self.experts else None


class LogitMemory:
    """A bundle's memory, with the first layers of its backbone."""

    def __init__(self, memory: Memory, model: Any) -> None:
        """``model``: the backbone, or as much of it as ``early_backbone`` loads."""
        readout = Readout.of(model, torch.arange(1, 9, device=model.device)[None] % model.config.vocab_size)
        if readout is None:
            raise ModelError("the logits of this model are not its LM head times its final state, scaled or capped")
        self.memory = memory
        self._cap = readout.cap
        self._added = readout.rows(memory.projections.up)  # (vocabulary, d_value)
        self._routes = Routes(memory.router, StateReader(model, memory.config.format.prefix, memory.config.taps).early)

    @classmethod
    def load(cls, bundle: str, device: torch.device | str = "cpu") -> LogitMemory:
        """``bundle``: a directory or hub id. Raises ModelError where it is no bundle or cannot be loaded."""
        memory = _memory(bundle).to(device)
        return cls(memory, early_backbone(bundle, max(memory.config.taps)).to(device))

    @torch.inference_mode()
    def answer_to(self, prompt: Sequence[int]) -> StoredAnswer | None:
        """The stored answer that goes on where ``prompt`` ends; None where its last turn asks for no stored fact.

        A prompt may end inside the answer: then the rest of it is what goes on.
        """
        ids = list(prompt)
        turns = self.memory.config.format.turns(ids, len(ids))
        if not turns or turns[-1].until < len(ids):  # a later turn is open
            return None
        [route] = self._routes.of([tuple(ids[turns[-1].start : turns[-1].end])])
        if not self.memory.fires(route):
            return None
        bank = self.memory.bank
        return StoredAnswer(int(bank.offsets[route.fact]), bank.experts_of(route.fact), turns[-1].answer)

    @torch.inference_mode()
    def write(self, logits: Tensor, rows: Sequence[int], experts: Sequence[int]) -> None:
        """Adds to ``logits`` (batch, vocabulary), in place, what ``experts`` say at ``rows``. No other row is touched.

        A logit of minus infinity, by which engines forbid a token, stays.
        """
        at, said_by = (torch.tensor(numbers, device=logits.device) for numbers in (rows, experts))
        bank = self.memory.bank
        values = bank.values[said_by].float() * bank.scales[said_by, None]
        before = logits[at].float()
        after = capped(uncapped(before, self._cap) + values @ self._added[: logits.shape[1]].T, self._cap)
        logits[at] = torch.where(before.isneginf(), before, after).to(logits.dtype)


def _memory(bundle: str) -> Memory:
    """Raises ModelError where there is none, or it is damaged."""
    hint = "memtune export my-model writes a bundle, which does"
    try:
        config, tensors = (Path(str(cached_file(bundle, name))) for name in ("config.json", MEMORY_FILE))
        entries = json.loads(config.read_text(encoding="utf-8"))["memtune"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{bundle} holds no memory", hint=hint) from error
    try:
        named = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(tensors).items()}
        return Memory.of(MemoryConfig.from_dict(entries), named)
    except (ValueError, SafetensorError) as error:
        raise ModelError(
            f"{bundle} holds no sound memory: {error}", hint="export it again: memtune export OUT"
        ) from error


def early_backbone(location: str, layers: int) -> Any:
    """The checkpoint with its first ``layers`` layers alone, its embeddings and its head; the rest is never read.

    Raises ModelError where a model of so few layers cannot be built from it.
    """
    with quiet_transformers():
        config = AutoConfig.from_pretrained(location, trust_remote_code=False)
        _cut(config.get_text_config(), layers)
        model, found = AutoModelForCausalLM.from_pretrained(
            location, config=config, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    stack = decoder_layers(model)
    if found["missing_keys"] or stack is None or len(stack) != layers:
        raise ModelError(f"{location} does not load with its first {layers} layers alone")
    return model.eval().requires_grad_(False)


def _cut(config: Any, layers: int) -> None:
    """Of what the config says layer by layer, the first ones: a list as long as the model is deep."""
    deep = config.num_hidden_layers
    for name, entry in list(vars(config).items()):
        if isinstance(entry, list) and len(entry) == deep:
            setattr(config, name, entry[:layers])
    config.num_hidden_layers = layers
