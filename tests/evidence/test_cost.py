"""Operations are those that torch counts; a step of LoRA costs more than a pass; energy is watts times seconds."""

from __future__ import annotations

import pytest
import torch
from tiny import FACTS

from memtune.backbone import load_backbone
from memtune.evidence.cost import Cost, Work, counted_flops, full_tuning, lora
from memtune.fact import Fact

STORED = [Fact(name, question, answer) for name, question, answer in FACTS]

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def work(backbone):
    return Work.of(backbone, [backbone.prompts.fact(fact) for fact in STORED])


def test_work_is_every_token_that_the_model_reads(backbone, work):
    lengths = [len(backbone.prompts.ids(backbone.prompts.shown(fact))) for fact in STORED]
    assert (work.facts, work.tokens) == (len(FACTS), sum(lengths))
    assert 0 < work.answer_tokens < work.tokens


def test_matrix_products_are_counted():
    one, other = torch.zeros(3, 5), torch.zeros(5, 7)
    assert counted_flops(lambda: one @ other) == 2 * 3 * 5 * 7
    assert counted_flops(lambda: one + 1) is None


@torch.inference_mode()
def test_a_pass_takes_two_operations_a_weight_and_token(backbone):
    ids = torch.arange(5, 69)[None]
    counted = counted_flops(lambda: backbone.model(input_ids=ids))
    weights = sum(m.weight.numel() for m in backbone.model.modules() if isinstance(m, torch.nn.Linear))
    assert counted == pytest.approx(2 * weights * 64, rel=0.1)  # attention is the rest


def test_full_tuning_is_six_operations_a_weight_and_token(backbone, work):
    found = full_tuning(backbone, work, epochs=3)
    weights = sum(p.numel() for p in backbone.model.parameters())
    assert found.flops == 6 * weights * work.tokens * 3
    assert found.seconds is None


def test_a_step_of_lora_is_a_pass_forward_and_back_and_leaves_the_model(checkpoint, work):
    own = load_backbone(checkpoint)
    before = {name: tensor.clone() for name, tensor in own.model.state_dict().items()}
    found = lora(own, STORED, work, epochs=10)
    weights = sum(m.weight.numel() for m in own.model.modules() if isinstance(m, torch.nn.Linear))
    assert found.flops > 10 * 2 * 2 * weights * work.tokens * 0.9
    assert found.seconds > 0 and found.bytes > 0 and found.epochs == 10
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.model.state_dict().items())


def test_energy_needs_to_know_what_the_machine_draws():
    cost = Cost("memtune", 1, 1e9, 20.0, 100, "")
    assert cost.joules(50) == 1000
    assert cost.joules(None) is None
