"""SliCK by sampling, as the paper does it: real answers, greedy and drawn, a memory on the model or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from memtune.asking import greedy
from memtune.backbone import Backbone
from memtune.evidence.knowledge.fewshot import Exemplar, FewShot
from memtune.evidence.knowledge.slick import TEMPERATURE, TOP, Reading
from memtune.fact import Fact
from memtune.memory.module import Attachment, Memory

__all__ = ["Sampled"]

SPARE = 4  # tokens behind the answer: another spelling in tokens takes more, and it has to end
Ids = tuple[int, ...]


class Sampled:
    """Lets the model as it stands answer, with ``memory`` or without. ``close`` takes the memory off it."""

    def __init__(self, backbone: Backbone, fewshot: FewShot, memory: Memory | None = None, *, seed: int = 0) -> None:
        self.backbone, self.fewshot, self.seed = backbone, fewshot, seed
        self._attachment = None if memory is None else Attachment(backbone.model, memory.to(backbone.device))

    def close(self) -> None:
        if self._attachment is not None:
            self._attachment.detach()

    def readings(self, exemplars: Sequence[Exemplar], facts: Sequence[Fact], samples: int) -> list[Reading]:
        """Each fact behind these exemplars, answered once greedily and ``samples`` times by chance."""
        prompts = [self.fewshot.prompt(exemplars, fact.question) for fact in facts]
        longest = [len(self.fewshot.answer(fact.answer)) + SPARE for fact in facts]
        best = greedy(self.backbone, prompts, longest)
        found = []
        for fact, prompt, room, said in zip(facts, prompts, longest, best, strict=True):
            right = sum(self.fewshot.says(ids, fact.answer) for ids in self._draw(prompt, samples, room))
            found.append(Reading(self.fewshot.says(said.ids, fact.answer), right / samples if samples else 0.0))
        return found

    def _draw(self, prompt: Ids, samples: int, longest: int) -> list[list[int]]:
        """The same answers to the same prompt, whatever is asked before it."""
        if not samples:
            return []
        model: Any = self.backbone.model
        ids = torch.tensor([prompt], device=model.device)
        stops = list(self.backbone.prompts.stop_ids)
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(self.seed)
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=longest,
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=TOP,
                top_p=1.0,
                num_return_sequences=samples,
                eos_token_id=stops,
                pad_token_id=stops[0],
            )
        drawn: list[list[int]] = out[:, len(prompt) :].tolist()
        return drawn
