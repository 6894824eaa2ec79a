"""The memory in vLLM: a logits processor for both of its model runners, and a loader that serves a bundle as it is.

    vllm serve my-model --load-format memtune --logits-processors memtune.vllm:MemoryProcessor

vLLM is asked for the processor by name. As an entry point it would run on every server of an environment that holds
memtune, and the newer runner stops at a processor that only the older one knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SlotProcessor

from memtune.bundle import PREFIX
from memtune.logits import LogitMemory, StoredAnswer

__all__ = ["BackboneLoader", "MemoryProcessor", "register"]

NAME = "memtune"  # of --load-format, and the key of --additional-config that names a bundle


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A request of the older runner that asks for a stored fact; ``said`` is its list of output tokens, which grows."""

    answer: StoredAnswer
    prompt: int  # tokens
    said: Sequence[int]


class MemoryProcessor(LogitsProcessor, SlotProcessor):  # type: ignore[misc]  # vLLM is not always there
    """Adds to the logits what the memory says to each request.

    The older runner tells which row of the batch a request comes to, moves to and leaves. The newer one gives each
    request a slot for as long as it lives, and says with every batch which slot and position a row is of.
    """

    def __init__(self, vllm_config: Any, place: Any, is_pin_memory: bool = False) -> None:
        """``place``: the device, or of the newer runner the state of its slots. Raises ModelError without a bundle."""
        bundle = vllm_config.additional_config.get(NAME) or vllm_config.model_config.model
        on_device = isinstance(place, torch.device)
        self._memory = LogitMemory.load(bundle, place if on_device else place.device)
        self._asked: dict[int, _Asked] = {}  # by row
        self._slots, self._new = place, list[int]()
        self._answers: dict[int, StoredAnswer] = {}  # by slot

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """The older runner's batch: who left, who came, who moved."""
        process_dict_updates(self._asked, batch_update, self._arrives)

    def _arrives(self, _params: Any, prompt: list[int] | None, said: list[int]) -> _Asked | None:
        if prompt is None or (answer := self._memory.answer_to(prompt)) is None:  # embeddings have no ids
            return None
        return _Asked(answer, len(prompt), said)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """The newer runner's slot ``req_idx`` has a new request. Its ids are there when the writes are applied."""
        self._answers.pop(req_idx, None)
        self._new.append(req_idx)
        return True

    def apply_staged_writes(self) -> None:
        for slot in self._new:
            length = int(self._slots.prompt_len.np[slot])
            if answer := self._memory.answer_to(self._slots.all_token_ids.gpu[slot, :length].tolist()):
                self._answers[slot] = answer
        self._new.clear()

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """``logits`` float32 (rows, vocabulary), written in place. ``ctx``: the newer runner's batch."""
        said_by = self._by_row() if ctx is None else self._by_slot(ctx)
        writes = {row: expert for row, expert in said_by if expert is not None}
        if writes:
            self._memory.write(logits, list(writes), list(writes.values()))
        return logits

    def _by_row(self) -> Iterable[tuple[int, int | None]]:
        return ((row, a.answer.expert(a.prompt + len(a.said))) for row, a in self._asked.items())

    def _by_slot(self, ctx: Any) -> Iterable[tuple[int, int | None]]:
        if self._answers.keys().isdisjoint(ctx.idx_mapping_np.tolist()):
            return ()  # without asking the device
        places = enumerate(zip(ctx.expanded_idx_mapping.tolist(), ctx.pos.tolist(), strict=True))
        return ((row, self._answers[slot].expert(at + 1)) for row, (slot, at) in places if slot in self._answers)


class BackboneLoader(DefaultModelLoader):  # type: ignore[misc]
    """Of a bundle's weights the backbone's: no model class of vLLM knows the others."""

    def __init__(self, load_config: Any) -> None:
        super().__init__(dataclasses.replace(load_config, load_format="auto"))

    def get_all_weights(self, model_config: Any, model: Any) -> Iterable[tuple[str, Tensor]]:
        weights = super().get_all_weights(model_config, model)
        return ((name, tensor) for name, tensor in weights if not name.startswith(PREFIX))


def register() -> None:
    """Makes ``--load-format memtune`` known; vLLM calls it in each of its processes and nothing else changes."""
    register_model_loader(NAME)(BackboneLoader)
