"""Makes the memory of a set of facts: their router, an empty bank, and the projections of the backbone.

The router knows the questions and never an answer. A memory of the same questions with other answers has the same one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from memtune.additions import experts_of
from memtune.backbone import Backbone
from memtune.config import Config
from memtune.events import Note, OnEvent
from memtune.fact import Fact
from memtune.lessons import background_prompts
from memtune.memory.bank import Bank, Projections
from memtune.memory.module import Memory, MemoryConfig
from memtune.routing import RouterReport, build_router
from memtune.wordings import Wordings

__all__ = ["made_memory", "with_answers"]

MEAN_PROMPTS = 64  # enough for the average final state


def made_memory(
    facts: Sequence[Fact], backbone: Backbone, config: Config, on_event: OnEvent
) -> tuple[Memory, RouterReport]:
    """A memory with a router of its own and an empty bank. Raises DataError for facts that the model cannot say."""
    wordings = Wordings(facts, backbone.prompts.question)
    experts = experts_of(facts, wordings, backbone)
    on_event(Note(f"routing {len(wordings)} wordings of {len(facts)} facts"))
    router, report = build_router(backbone, wordings, false_fire=config.false_fire, seed=config.seed, on_event=on_event)
    bank = Bank.assigned([fact.id for fact in facts], experts, backbone.hidden, config.rows)
    turns = backbone.prompts.format
    memory = Memory.sized(MemoryConfig(bank.sizes, router.sizes, turns, backbone.states.taps))  # all of it is replaced
    memory.router, memory.bank = router, bank
    memory.projections = _projections(backbone, bank, config.seed)
    return memory, report


def with_answers(memory: Memory, facts: Sequence[Fact], backbone: Backbone) -> Memory:
    """An empty bank for ``facts``, which ask in their order what those of ``memory`` ask, behind the same router.

    Raises DataError for facts that the model cannot say.
    """
    experts = experts_of(facts, Wordings(facts, backbone.prompts.question), backbone)
    bank = Bank.assigned([fact.id for fact in facts], experts, backbone.hidden, memory.bank.rows)
    kept = memory.config
    other = Memory.sized(MemoryConfig(bank.sizes, kept.router, kept.format, kept.taps))
    other.router, other.bank, other.projections = memory.router, bank, memory.projections
    return other


def _projections(backbone: Backbone, bank: Bank, seed: int) -> Projections:
    lines = background_prompts()[:: max(1, len(background_prompts()) // MEAN_PROMPTS)]
    rows = [backbone.prompts.question(line) + backbone.prompts.format.closing for line in lines]
    mean = torch.cat([final for together in backbone.states.whole(rows) for _, _, final in together]).mean(0)
    sizes = bank.sizes
    return Projections.for_backbone(backbone.readout.weight, mean, d_key=sizes.d_key, d_value=sizes.d_value, seed=seed)
