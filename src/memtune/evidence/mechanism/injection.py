"""Where the memory puts an answer in: the LM head's input, behind the last layer, and nowhere before.

The mediator is known, because memtune wrote it, so this is no estimate: the residual stream of every layer is compared
with the memory on and off, and the head is asked with and without what is added.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memtune.asking import Asker
from memtune.evidence.mechanism.anatomy import Anatomy, states_in
from memtune.evidence.mechanism.places import rank_of

__all__ = ["Injection", "injection_of"]

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Injection:
    """The first token of the stored answer before the memory writes and after, and all of its tokens together.

    ``untouched``: the residual stream of every layer, bit for bit, with the memory on and off.
    """

    token: str
    rank_before: int
    rank_after: int
    probability_before: float
    probability_after: float
    likelihood_before: float  # mean log-probability of the answer's tokens, the stop token included, nats
    likelihood_after: float
    share: float  # length of what is added to the first state, over the length of that state
    untouched: bool


def injection_of(asker: Asker, anatomy: Anatomy, prompt: Ids, answer: Ids) -> Injection:
    """``answer``: the stored one behind ``prompt``, with its stop token. The memory is silent again afterwards."""
    row = prompt + answer[:-1]
    before, after = (_run(asker, anatomy, row, len(answer), on) for on in (False, True))
    targets = torch.tensor(answer, device=before.logits.device)[:, None]
    chances = [run.logits.log_softmax(-1).gather(1, targets).squeeze(1) for run in (before, after)]
    ranks = [rank_of(run.logits[0], answer[0]) for run in (before, after)]
    added = after.read[0] - before.read[0]
    return Injection(
        token=asker.backbone.prompts.piece(answer[0]),
        rank_before=ranks[0],
        rank_after=ranks[1],
        probability_before=float(chances[0][0].exp()),
        probability_after=float(chances[1][0].exp()),
        likelihood_before=float(chances[0].mean()),
        likelihood_after=float(chances[1].mean()),
        share=float(added.norm() / before.read[0].norm()),
        untouched=all(torch.equal(one, other) for one, other in zip(before.states, after.states, strict=True)),
    )


@dataclass(frozen=True)
class _Run:
    states: list[Tensor]  # of every layer
    read: Tensor  # the LM head's input (answer tokens, hidden), what the memory added included
    logits: Tensor  # float32 (answer tokens, vocabulary)


@torch.inference_mode()
def _run(asker: Asker, anatomy: Anatomy, row: Ids, kept: int, on: bool) -> _Run:
    model, read = asker.backbone.model, []
    hook = asker.backbone.head.register_forward_pre_hook(lambda _head, args: read.append(args[0][0].float()))
    asker.attachment.enabled = on
    try:
        with states_in(anatomy) as states:
            ids = torch.tensor([row], device=model.device)
            logits = model(input_ids=ids, logits_to_keep=kept, use_cache=False).logits[0].float()
    finally:
        asker.attachment.enabled = False
        hook.remove()
    return _Run(states, read[-1], logits)
