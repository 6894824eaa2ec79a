"""What teaching facts costs: floating-point operations, seconds, bytes and energy, by memtune and by what it replaces.

Operations are counted, not looked up: torch counts those of a few facts, whatever the architecture, and the rest of the
facts take as many a token. How long a step of another method takes is known by timing one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch.utils.flop_counter import FlopCounterMode

from memtune.backbone import Backbone
from memtune.evidence.lora import RATE, Lora
from memtune.evidence.training import BATCH, Epoch, Goal
from memtune.fact import Fact
from memtune.prompts import EncodedFact
from memtune.store import bytes_of

__all__ = ["COUNTED", "PAPER_EPOCHS", "Cost", "Work", "full_tuning", "lora", "memory"]

PAPER_EPOCHS = 100  # of gradient descent until a fact's loss is near zero: Lamini-1 (arXiv 2406.17642), appendix A
COUNTED = 8  # facts of which the operations are counted


@dataclass(frozen=True)
class Work:
    """The facts as a model reads them. ``tokens``: of all conversations, template and answers included."""

    facts: int
    tokens: int
    answer_tokens: int

    @classmethod
    def of(cls, backbone: Backbone, items: Sequence[EncodedFact]) -> Work:
        prompt = backbone.prompts.format.prompt
        tokens = sum(len(prompt(item.question)) + item.experts for item in items)
        return cls(len(items), tokens, sum(item.experts for item in items))


@dataclass(frozen=True)
class Cost:
    """One way to teach the facts. ``flops`` and ``seconds`` are of all ``epochs``; None where nothing tells.

    ``bytes``: what has to be kept beside the checkpoint, or of the checkpoint. ``how``: where the figures come from.
    """

    way: str
    epochs: int
    flops: float | None
    seconds: float | None
    bytes: int
    how: str

    def joules(self, watts: float | None) -> float | None:
        """Energy, if the machine draws ``watts`` meanwhile."""
        return None if watts is None or self.seconds is None else watts * self.seconds


def memory(teach: Callable[[], object], counted: Work, work: Work, seconds: float, size: int) -> Cost:
    """memtune: one pass over each fact, and the fit. ``teach`` teaches the facts of ``counted``."""
    flops = counted_flops(teach)
    whole = None if flops is None else flops * work.answer_tokens / max(1, counted.answer_tokens)
    return Cost("memtune", 1, whole, seconds, size, f"{counted.facts} facts counted")


def lora(backbone: Backbone, facts: Sequence[Fact], work: Work, epochs: int = PAPER_EPOCHS) -> Cost:
    """LoRA, rank 32 on every linear layer: one step on a few facts is timed and another counted.

    The backbone is as it was afterwards. A step holds what its backward pass needs: several times the model.
    """
    few = list(facts[:BATCH])
    share = epochs * work.tokens / max(1, Work.of(backbone, [backbone.prompts.fact(fact) for fact in few]).tokens)
    with Lora.on(backbone) as adapters:
        size = adapters.bytes
        _step(adapters, few)  # the first one makes room
        seconds = _step(adapters, few)
        with FlopCounterMode(display=False) as counter:
            flops: list[int] = []
            _step(adapters, few, lambda: flops.append(counter.get_total_flops()))
    return Cost("LoRA, rank 32", epochs, flops[0] * share, seconds * share, size, f"a step on {len(few)} facts timed")


def _step(adapters: Lora, facts: Sequence[Fact], done: Callable[[], object] = lambda: None) -> float:
    """Seconds of one step; ``done`` is called after it, before anything else is measured."""
    spent: list[float] = []

    def told(epoch: Epoch) -> None:
        spent.append(epoch.seconds)
        done()

    adapters.teach(facts, Goal(target=0.0, epochs=1), rate=RATE, told=told)
    return spent[0]


def full_tuning(backbone: Backbone, work: Work, epochs: int = PAPER_EPOCHS) -> Cost:
    """Every weight by gradient descent, by the rule of thumb of 6 operations a weight and token."""
    weights = sum(parameter.numel() for parameter in backbone.model.parameters())
    size = bytes_of(backbone.model.parameters())
    how = f"6 x {weights:,} weights x {work.tokens:,} tokens"
    return Cost("full fine-tuning", epochs, 6.0 * weights * work.tokens * epochs, None, size, how)


def counted_flops(do: Callable[[], object]) -> float | None:
    """The floating-point operations of matrix products in ``do``; None where torch sees none of them (own kernels)."""
    with FlopCounterMode(display=False) as counter:
        do()
    return float(counter.get_total_flops()) or None
