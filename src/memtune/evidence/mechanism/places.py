"""Where a model would say an answer: at the start of its reply, or behind words of its own, "The capital of France is".

A chat model seldom begins with the answer itself. Its own reply is read token by token, and the gold answer's first
token is looked for at each place of it, spelt as it would stand there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from memtune.backbone import Backbone
from memtune.evidence.likelihood import token_logits

__all__ = ["Place", "holds_answer", "places_of", "rank_of"]

LONGEST = 32  # tokens of the model's own reply that are looked through
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """The state at the last of ``row`` predicts ``said``, the model's choice, or ``gold``, ids without a stop token.

    ``behind``: the model's own words that stand there; none at the start.
    """

    row: Ids
    behind: str
    gold: Ids
    said: int


def places_of(backbone: Backbone, prompt: Ids, reply: Ids, gold: str | None) -> tuple[Place, Place]:
    """The start of the reply, and the place where the gold answer's first token ranks best, which may be the same.

    Without a gold answer there is no better place than the start.

    The model as it stands: a memory that is attached has to be silent.
    """
    own = reply[:LONGEST]
    [(_, logits)] = token_logits(backbone, [prompt], [(*own, 0)])  # one position more: behind all of it
    if gold is None:
        start = Place(prompt, "", (), int(logits[0].argmax()))
        return start, start
    scored: dict[Place, tuple[int, float]] = {}
    for step in range(max(1, len(own))):
        for ids in _spelt(backbone, gold, step):
            place = Place(prompt + own[:step], backbone.prompts.text(own[:step]), ids, int(logits[step].argmax()))
            scored[place] = (rank_of(logits[step], ids[0]), -float(logits[step].log_softmax(-1)[ids[0]]))
    starts = [place for place in scored if place.row == prompt]
    return min(starts, key=scored.__getitem__), min(scored, key=scored.__getitem__)


def holds_answer(reply: str, answer: str) -> bool:
    """Whether the answer stands in the reply as whole words; case and the sign at its end do not count."""
    wanted = re.escape(answer.strip().rstrip(".!").casefold())
    return re.search(rf"(?<!\w){wanted}(?!\w)", reply.casefold()) is not None


def rank_of(logits: Tensor, token: int) -> int:
    """1 for the token that would be said. ``logits``: ``(vocabulary,)``."""
    return int((logits > logits[token]).sum()) + 1


def _spelt(backbone: Backbone, text: str, step: int) -> Iterator[Ids]:
    """As it stands behind a prompt, and behind a word. A token that is nothing but the space between says nothing."""
    found = {backbone.prompts.answer(text)[:-1]}
    if step:
        found.add(backbone.prompts.ids(f" {text}"))
    for ids in sorted(found):
        first = next((i for i, token in enumerate(ids) if backbone.prompts.piece(token).strip()), 0)
        yield ids[first:]
