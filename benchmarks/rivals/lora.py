"""Fine-tuning with LoRA (peft): rank 32 on every linear layer, AdamW, until every fact is at the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from memtune.asking import greedy
from memtune.backbone import Backbone
from memtune.facts import Fact

from .base import Goal, Reply, plain_prompts
from .training import Batch, batches_of, fact_losses, fit

RANK = 32
ALPHA = 64  # twice the rank, as is common
RATE = 5e-4


class Trained:
    """A model whose weights were changed; it is asked like any other."""

    def __init__(self, backbone: Backbone, size: int, details: dict[str, Any]) -> None:
        self.backbone, self.bytes, self.details = backbone, size, details

    def ask(self, questions: Sequence[str], longest: int) -> list[Reply]:
        return [Reply(answer) for answer in greedy(self.backbone, plain_prompts(self.backbone, questions), longest)]


def teach(backbone: Backbone, facts: Sequence[Fact], goal: Goal, rate: float = RATE) -> Trained:
    """Puts adapters into the backbone's model, trains them and folds them into its weights, as one does to serve."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(backbone.model, config)
    parameters = [p for p in adapted.parameters() if p.requires_grad]
    decoder, head = backbone.model.get_decoder(), backbone.head

    def losses_of(batch: Batch) -> Tensor:
        return fact_losses(decoder(input_ids=batch.ids, use_cache=False).last_hidden_state, head, batch)

    reached = fit("lora", parameters, batches_of(backbone, facts), losses_of, goal, rate)
    adapted.merge_adapter()
    size = sum(p.numel() * p.element_size() for p in parameters)
    settings = {"rank": RANK, "alpha": ALPHA, "rate": rate}
    return Trained(backbone, size, settings | reached.details())
