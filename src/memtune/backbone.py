"""The frozen checkpoint: loaded, checked, and read.

Two kinds of states are read from it. *Early* states of a question, after a few layers, feed the router; the pass stops
at the last layer it needs. *Final* states at the positions that predict an answer feed the fit; they are the input of
the LM head, which is where the memory writes. No weight changes, no gradient runs.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memtune.checkpoints import Checkpoint, resolve
from memtune.errors import ModelError
from memtune.memory.early import EarlyStates, decoder_layers
from memtune.prompts import EncodedFact, Prompts

__all__ = ["Backbone", "load_backbone"]

Event = Callable[[str, dict[str, Any]], None]
TOKENS_PER_BATCH = 1024  # a batch this long keeps two cores busy; a longer one only takes memory


@dataclass
class Backbone:
    """A loaded checkpoint. ``reason`` says in words why this dtype and device were chosen."""

    model: Any
    prompts: Prompts
    checkpoint: Checkpoint
    reason: str

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def hidden(self) -> int:
        return int(self.head.weight.shape[1])

    @property
    def head(self) -> nn.Linear:
        head: nn.Linear = self.model.get_output_embeddings()
        return head

    @property
    def fingerprint(self) -> str:
        """Names the weights and the rendering: a memory fits this backbone and no other."""
        weight = self.head.weight
        rows = weight[:: max(1, len(weight) // 64)].detach().float().cpu()
        import hashlib

        digest = hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()[:16]
        return f"{digest}-{self.prompts.fingerprint}"

    def early(self) -> EarlyStates:
        return EarlyStates(self.model, self.prompts.format.prefix)

    @torch.inference_mode()
    def answer_states(self, facts: Sequence[EncodedFact]) -> list[Tensor]:
        """For each fact the final states ``(answer tokens, hidden)`` that predict its answer, teacher-forced.

        The template's prefix is run once and its keys and values are shared; conversations go in batches of near-equal
        length, so that padding costs next to nothing.
        """
        prefix = self.prompts.format.prefix
        cached = self._prefix_cache(prefix)
        rest = [self.prompts.format.prompt(fact.question)[len(prefix) :] + fact.answer[:-1] for fact in facts]
        states: list[Tensor] = [torch.empty(0)] * len(facts)
        for batch in batches_by_length([len(ids) for ids in rest]):
            final = self._final([rest[i] for i in batch], len(prefix), cached)
            for row, i in enumerate(batch):
                end = len(rest[i])
                states[i] = final[row, end - facts[i].experts : end].float().clone()
        return states

    def _prefix_cache(self, prefix: tuple[int, ...]) -> Any:
        if not prefix:
            return None
        ids = torch.tensor([prefix], device=self.device)
        return self.model.get_decoder()(input_ids=ids, use_cache=True).past_key_values

    def _final(self, rows: list[tuple[int, ...]], past: int, cached: Any) -> Tensor:
        """Final states ``(rows, longest, hidden)``; padding stands on the right, where no causal position sees it."""
        longest = max(map(len, rows))
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        cache = copy.deepcopy(cached)
        if cache is not None:
            cache.batch_repeat_interleave(len(rows))
        out = self.model.get_decoder()(
            input_ids=ids.to(self.device),
            past_key_values=cache,
            use_cache=cache is not None,
            position_ids=torch.arange(past, past + longest, device=self.device)[None],
        )
        return out.last_hidden_state


def batches_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Item numbers in batches of near-equal length, each at most TOKENS_PER_BATCH tokens with its padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and lengths[i] * (len(batch) + 1) > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def load_backbone(name: str, *, device: str = "auto", dtype: str = "auto", on_event: Event) -> Backbone:
    """Loads and checks a checkpoint. Raises ModelError if it cannot be loaded or its head cannot be reproduced."""
    checkpoint = resolve(name, on_event)
    chosen, reason = _choose(device, dtype)
    try:
        model, tokenizer = _load(checkpoint.location, chosen)
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{name} cannot be loaded: {first}",
            hint="--model takes a directory, a hub id such as org/name, a .gguf file, or smollm2",
        ) from error
    backbone = Backbone(model, Prompts(tokenizer, _stop_ids(model, tokenizer)), checkpoint, reason)
    _check_head(backbone)
    on_event("model", {"name": name, "note": checkpoint.note, "reason": reason, "hidden": backbone.hidden})
    return backbone


def _choose(device: str, dtype: str) -> tuple[dict[str, Any], str]:
    """Device and dtype with the reason, in the words that are printed."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        why = "a GPU is there" if device == "cuda" else "no GPU was found"
    else:
        why = "asked for"
    if dtype == "auto":
        fast = device != "cpu" and torch.cuda.is_bf16_supported()
        dtype = "bfloat16" if fast else "float32"
        why += "; bfloat16 is fast there" if fast else "; float32 is exact and fastest there"
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in known:
        raise ModelError(f"dtype {dtype!r} is unknown", hint=f"use one of: auto, {', '.join(known)}")
    return {"device": device, "dtype": known[dtype]}, f"{dtype} on {device} ({why})"


def _load(location: str, chosen: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(location, dtype=chosen["dtype"])
        tokenizer = AutoTokenizer.from_pretrained(location)
    model.eval().requires_grad_(False)
    return model.to(chosen["device"]), tokenizer


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Progress bars of transformers would be written over ours."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _stop_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    stops = model.generation_config.eos_token_id
    if stops is None:
        stops = tokenizer.eos_token_id
    if stops is None:
        return ()
    return tuple(stops) if isinstance(stops, list) else (int(stops),)


@torch.inference_mode()
def _check_head(backbone: Backbone) -> None:
    """The fit computes ``head(final state)`` itself, so it must be what the model computes, on the model's own logits."""
    model = backbone.model
    if not isinstance(backbone.head, nn.Linear) or not decoder_layers(model):
        raise ModelError(f"{backbone.checkpoint.name} has no plain LM head behind a stack of layers: it cannot be taught")
    ids = torch.arange(1, 9, device=backbone.device)[None] % len(backbone.head.weight)
    logits = model(input_ids=ids).logits
    own = backbone.head(model.get_decoder()(input_ids=ids).last_hidden_state)
    if logits.shape != own.shape or not torch.allclose(logits, own, rtol=1e-3, atol=1e-3):
        raise ModelError(
            f"the logits of {backbone.checkpoint.name} are not its LM head times its final state",
            hint="models that scale or cap their logits are not supported by this version",
        )


def directory_bytes(path: Path) -> int:
    """Size of a checkpoint directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
