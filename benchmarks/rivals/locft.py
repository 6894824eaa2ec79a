"""Localised breadth-first fine-tuning (LocFT-BF, arXiv 2509.22072): one late MLP matrix, epochs over all facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from torch import Tensor, nn

from memtune.backbone import Backbone
from memtune.evidence.training import Batch, Goal, batches_of, fact_losses, fit
from memtune.facts import Fact
from memtune.memory.states import decoder_layers

from .lora import Trained
from .training import Upper, say_epoch

DEPTH = 0.8  # of the way up
RATE = 1e-3


def late_layer(backbone: Backbone, depth: float) -> tuple[int, nn.Linear]:
    """Number of the layer that far up, and the matrix by which its MLP writes."""
    layers = decoder_layers(backbone.model)
    assert layers is not None
    number = min(int(depth * len(layers)), len(layers) - 1)
    matrix: nn.Linear = layers[number].mlp.down_proj
    return number, matrix


def teach(backbone: Backbone, facts: Sequence[Fact], goal: Goal) -> Trained:
    number, matrix = late_layer(backbone, DEPTH)
    batches = batches_of(backbone, facts)
    upper = Upper(backbone, number, batches)
    matrix.weight.requires_grad_(True)

    def losses_of(batch: Batch) -> Tensor:
        return fact_losses(upper.final(batch), backbone.head, batch)

    reached = fit([matrix.weight], batches, losses_of, goal, RATE, say_epoch("locft"))
    matrix.weight.requires_grad_(False)
    size = matrix.weight.numel() * matrix.weight.element_size()
    settings = {"layer": number, "matrix": "mlp.down_proj", "rate": RATE}
    return Trained(backbone, size, settings | asdict(reached))
