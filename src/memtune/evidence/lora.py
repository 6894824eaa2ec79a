"""The control: fine-tuning with LoRA (peft), rank 32 on every linear layer, until every fact is at the target."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from memtune.backbone import Backbone
from memtune.checkpoints import quiet_transformers
from memtune.evidence.training import Batch, Epoch, Goal, Reached, batches_of, fact_losses, fit
from memtune.fact import Fact
from memtune.store import bytes_of

__all__ = ["ALPHA", "RANK", "RATE", "Lora"]

RANK = 32
ALPHA = 64  # twice the rank, as is common
RATE = 5e-4


def _no_one(_epoch: Epoch) -> None:
    pass


@dataclass
class Lora:
    """Adapters in a backbone's model, which is another model until ``remove``. Use it as a context manager.

    >>> # with Lora.on(backbone) as lora:
    >>> #     lora.teach(facts, Goal(epochs=20))
    >>> #     ...                                   backbone.model answers as fine-tuned
    """

    backbone: Backbone
    peft: Any

    @classmethod
    def on(cls, backbone: Backbone, rank: int = RANK, alpha: int = ALPHA) -> Lora:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peft uses of transformers is to change: nobody here can mend it
            return cls(backbone, get_peft_model(backbone.model, config))

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.peft.parameters() if p.requires_grad]

    @property
    def bytes(self) -> int:
        return bytes_of(self.parameters)

    def teach(
        self, facts: Sequence[Fact], goal: Goal, *, rate: float = RATE, told: Callable[[Epoch], None] = _no_one
    ) -> Reached:
        decoder, head = self.backbone.model.get_decoder(), self.backbone.head

        def losses_of(batch: Batch) -> Tensor:
            return fact_losses(decoder(input_ids=batch.ids, use_cache=False).last_hidden_state, head, batch)

        return fit(self.parameters, batches_of(self.backbone, facts), losses_of, goal, rate, told)

    def merge(self) -> None:
        """Folds the adapters into the weights, as one does to serve: faster to ask, and for good."""
        self.peft.merge_adapter()

    def remove(self) -> None:
        """The backbone as it was, if its weights were not merged."""
        self.peft.unload()
        vars(self.backbone.model).pop("peft_config", None)  # or peft takes the next adapters for second ones

    def __enter__(self) -> Lora:
        return self

    def __exit__(self, *_error: object) -> None:
        self.remove()
