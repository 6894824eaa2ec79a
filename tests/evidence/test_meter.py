"""What a piece of work asked of a model is counted, whoever called it."""

from __future__ import annotations

import torch

from memtune.evidence.rewinding.meter import Meter


def test_a_meter_counts_passes_and_tokens_while_it_is_open(backbone):
    ids = torch.ones(2, 5, dtype=torch.long)
    with torch.inference_mode(), Meter(backbone.model) as meter:
        backbone.model(ids)
        backbone.model(input_ids=ids[:, :1])
    with torch.inference_mode():
        backbone.model(ids)
    assert (meter.cost.calls, meter.cost.tokens) == (2, 12)
    assert meter.cost.seconds > 0
