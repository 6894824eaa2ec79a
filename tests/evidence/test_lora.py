"""The control learns, changes the model for as long as it is on it, and leaves it as it was."""

from __future__ import annotations

import pytest
import torch
from tiny import FACTS

from memtune.backbone import load_backbone
from memtune.evidence.lora import Lora
from memtune.evidence.training import Goal
from memtune.fact import Fact

TAUGHT = [Fact(name, question, answer) for name, question, answer in FACTS[:3]]
IDS = torch.arange(5, 25)[None]


@pytest.fixture
def own(checkpoint):
    """A backbone of its own: its model is changed."""
    return load_backbone(checkpoint)


def test_it_learns_and_every_epoch_is_told(own):
    epochs = []
    with Lora.on(own, rank=4) as lora:
        reached = lora.teach(TAUGHT, Goal(target=0.0, epochs=4), rate=5e-3, told=epochs.append)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert reached.rounds == 4
    assert reached.loss_mean < epochs[0].loss_mean


@torch.no_grad()
def test_when_it_is_removed_the_model_is_bit_for_bit_what_it_was(own):
    before = own.model(input_ids=IDS).logits
    with Lora.on(own, rank=4) as lora:
        with torch.enable_grad():
            lora.teach(TAUGHT, Goal(epochs=2), rate=5e-3)
        assert not torch.equal(own.model(input_ids=IDS).logits, before)
    assert torch.equal(own.model(input_ids=IDS).logits, before)
    assert not any("lora" in name for name, _ in own.model.named_modules())
    with Lora.on(own, rank=2) as again:  # as if there had been none
        assert [name for name in again.peft.peft_config] == ["default"]


def test_its_bytes_are_those_of_what_was_trained(own):
    with Lora.on(own, rank=4) as lora:
        assert lora.bytes == 4 * sum(p.numel() for p in lora.parameters) > 0
