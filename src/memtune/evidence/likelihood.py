"""How likely the model finds a continuation: one teacher-forced pass, a memory on it or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from memtune.backbone import Backbone
from memtune.memory.forest import batches_by_length, padded

__all__ = ["token_log_probabilities", "token_logits"]

Ids = tuple[int, ...]


def token_log_probabilities(backbone: Backbone, prompts: Sequence[Ids], answers: Sequence[Ids]) -> list[Tensor]:
    """Of each answer's tokens behind its prompt, nats: float32 ``(answer tokens,)``, at most 0.

    The model as it stands, so a memory that is attached takes part. It sees where an answer begins by the chat
    template; without one only generation shows it, and here the memory stays silent.
    """
    found: dict[int, Tensor] = {}
    for i, logits in token_logits(backbone, prompts, answers):
        chances = logits.log_softmax(-1)
        found[i] = chances.gather(1, torch.tensor(answers[i])[:, None]).squeeze(1)
    return [found[i] for i in range(len(answers))]


@torch.inference_mode()
def token_logits(backbone: Backbone, prompts: Sequence[Ids], answers: Sequence[Ids]) -> Iterator[tuple[int, Tensor]]:
    """The number of each answer with what predicts its tokens: float32 ``(answer tokens, vocabulary)`` on the CPU.

    They come as they are computed, rows of a batch together, because they take ``vocabulary x 4`` bytes a token.
    """
    rows = [prompt + answer[:-1] for prompt, answer in zip(prompts, answers, strict=True)]
    for batch in batches_by_length([len(row) for row in rows]):
        spans = {i: range(len(prompts[i]) - 1, len(rows[i])) for i in batch}
        places = sorted(set().union(*spans.values()))
        logits = _at(backbone, [rows[i] for i in batch], places)
        for row, i in enumerate(batch):
            first = places.index(spans[i].start)
            yield i, logits[row, first : first + len(spans[i])]


def _at(backbone: Backbone, rows: Sequence[Ids], places: Sequence[int]) -> Tensor:
    """The logits of each row at ``places``. Padding stands on the right, where no causal position sees it."""
    model: Any = backbone.model
    mask = padded([(1,) * len(row) for row in rows]).to(model.device)
    kept = torch.tensor(places, device=model.device)
    ids = padded(rows).to(model.device)
    logits: Tensor = model(input_ids=ids, attention_mask=mask, logits_to_keep=kept, use_cache=False).logits
    return logits.float().cpu()
