"""A model that writes an answer and can take back what it wrote.

Keys and values of what was taken back are cut from the cache, so that going on is as if it had never been read. A model
that keeps anything else (a state-space model) cannot go back: it reads the whole text again.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from memtune.backbone import Backbone
from memtune.errors import ModelError
from memtune.evidence.rewinding.tree import TokenSet
from memtune.memory.forest import common_start

__all__ = ["Writer"]

Ids = tuple[int, ...]
SAMPLED_FROM = 15  # the likeliest tokens, of which a token set is sampled
ENDS = (".", "?", "!")
WIDE_ENDS = ("。", "？", "！", "\n")  # no space follows these


class Writer:
    """One answer to ``prompt``, at most ``longest`` tokens of it; the memory takes part as it is attached.

    Raises ModelError where the model can neither go back nor be shown where its answer begins.
    """

    def __init__(self, backbone: Backbone, prompt: Ids, longest: int, seed: int = 0) -> None:
        self.prompts, self.prompt, self.longest = backbone.prompts, prompt, longest
        self._model: Any = backbone.model
        self._drawn = torch.Generator().manual_seed(seed)
        self._held: Ids = ()  # what the cache holds
        self._states = torch.empty(0)
        self._cache = _cache_for(self._model)
        if self._cache is None and not self.prompts.has_template:
            raise ModelError(
                "this model cannot take back what it has read, and no chat template shows where an answer begins",
                hint="guard a checkpoint that has a chat template",
            )
        self._next = self._read(prompt)  # alone: without a template the memory sees by it where the answer begins

    def ended(self, text: Ids) -> bool:
        return len(text) >= self.longest or any(stop in text for stop in self.prompts.stop_ids)

    def logits(self, text: Ids) -> Tensor:
        """What follows ``text``, an answer so far: float32 ``(vocabulary,)`` on the CPU."""
        if self.prompt + text != self._held:
            self._next = self._read(self.prompt + text)
        return self._next

    def states(self, text: Ids) -> Tensor:
        """The final state of each token, before the memory: float32 ``(tokens, hidden)`` on the CPU."""
        self.logits(text)
        return self._states[len(self.prompt) :]

    def sets(self, text: Ids, length: int, count: int) -> list[TokenSet]:
        """Different continuations, the likeliest token by token first, then sampled ones; one of each."""
        if length == 1:
            best, likeliest = self.logits(text).topk(count)
            pairs = zip(likeliest.tolist(), best.softmax(-1).tolist(), strict=True)
            return [TokenSet((token,), chance) for token, chance in pairs]
        rows, chances = self._branches(text, min(length, self.longest - len(text)), count)
        found: dict[Ids, TokenSet] = {}
        for row, chance in zip(rows.tolist(), chances.tolist(), strict=True):
            end = next((at + 1 for at, token in enumerate(row) if token in self.prompts.stop_ids), len(row))
            tokens = tuple(row[:end])
            found.setdefault(tokens, TokenSet(tokens, sum_of_logs(chance[:end])))
        return list(found.values())

    def finish(self, text: Ids) -> Ids:
        """The text sampled on to the end of its sentence: what comes then is not judged with it."""
        while not self.ended(text):
            token = int(torch.multinomial(self.logits(text).softmax(-1), 1, generator=self._drawn))
            if text and self._ends_before(token, text):
                break
            text += (token,)
        return text

    def _ends_before(self, token: int, text: Ids) -> bool:
        """A point ends a sentence where space follows, or nothing: not inside 5.2.1."""
        last, after = self.prompts.piece(text[-1]), self.prompts.piece(token)
        return last.endswith(WIDE_ENDS) or (
            last.endswith(ENDS) and (token in self.prompts.stop_ids or after[:1].isspace())
        )

    @torch.inference_mode()
    def _branches(self, text: Ids, length: int, count: int) -> tuple[Tensor, Tensor]:
        """``count`` ways on, sampled at once, the first greedy: tokens and log-probabilities ``(count, length)``."""
        logits = self.logits(text).expand(count, -1)
        cache = copy.deepcopy(self._cache)
        if cache is not None:
            cache.batch_repeat_interleave(count)
        read = torch.tensor([self.prompt + text]).expand(count, -1)
        chosen, chances = [], []
        for step in range(length):
            best, ids = logits.topk(SAMPLED_FROM)
            picks = torch.multinomial(best.softmax(-1), 1, generator=self._drawn)
            picks[0] = 0  # topk sorts
            chosen.append(ids.gather(1, picks))
            chances.append(best.log_softmax(-1).gather(1, picks))
            read = chosen[-1] if cache is not None else torch.cat([read, chosen[-1]], 1)
            if step < length - 1:
                logits, _ = self._forward(read, cache)
        return torch.cat(chosen, 1), torch.cat(chances, 1)

    def _read(self, whole: Ids) -> Tensor:
        stays = 0
        if self._cache is not None:
            stays = min(common_start((self._held, whole)), len(whole) - 1)
            self._cache.crop(min(stays - len(self._held), 0))
        logits, states = self._forward(torch.tensor([whole[stays:]]), self._cache)
        self._states = torch.cat([self._states[:stays], states[0]])
        self._held = whole
        return logits[0]

    @torch.inference_mode()
    def _forward(self, ids: Tensor, cache: Any) -> tuple[Tensor, Tensor]:
        """Logits behind the last token ``(rows, vocabulary)`` and the final states ``(rows, tokens, hidden)``."""
        seen: list[Tensor] = []
        hook = self._model.get_decoder().register_forward_hook(lambda _m, _i, out: seen.append(out.last_hidden_state))
        try:
            ids = ids.to(self._model.device)
            out = self._model(input_ids=ids, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1)
        finally:
            hook.remove()
        return out.logits[:, -1].float().cpu(), seen[-1].float().cpu()


def sum_of_logs(chances: list[float]) -> float:
    return float(torch.tensor(chances).sum().exp())


@torch.inference_mode()
def _cache_for(model: Any) -> Any:
    """An empty cache that can be cut, if the model keeps keys and values and nothing else; or None."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    ids = torch.ones(1, 1, dtype=torch.long, device=model.device)
    kept = model(input_ids=ids, use_cache=True).get("past_key_values")
    plain = isinstance(kept, DynamicCache) and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in kept.layers
    )
    return DynamicCache() if plain else None  # made without a config it keeps every position, windows or not
