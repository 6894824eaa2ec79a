"""The lens of the last layer is the model itself; of every other layer it is what that layer's state would say."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import save_kind

from memtune.backbone import load_backbone
from memtune.evidence.mechanism.lens import Curve, Lens

SIZES = {
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}
GPT2 = {"n_embd": 96, "n_layer": 3, "n_head": 4, "n_inner": 64, "initializer_range": 0.1}
KINDS = [
    ("llama", SIZES),
    ("gpt2", GPT2),
    ("gpt_neox", SIZES),
    ("gemma2", SIZES | {"head_dim": 24}),  # caps its logits
    ("granite", SIZES | {"logits_scaling": 8.0}),  # scales them
    ("mamba", SIZES | {"state_size": 16}),  # has no attention
]
ROW = tuple(range(5, 25))
PLACES = [3, 19]
TOKENS = [[7, 9, 11], [8, 10, 12]]

pytestmark = pytest.mark.filterwarnings("ignore:.*falling back:UserWarning")


@pytest.fixture(scope="module", params=KINDS, ids=[kind for kind, _ in KINDS])
def kind(request, tmp_path_factory):
    name, entries = request.param
    return load_backbone(save_kind(tmp_path_factory.mktemp(name) / "model", name, **entries))


@torch.inference_mode()
def test_the_last_layer_says_what_the_model_says(kind):
    expected = kind.model(input_ids=torch.tensor([ROW])).logits[0, PLACES].float()
    lens = Lens(kind)
    torch.testing.assert_close(lens.logits(lens.states(ROW)[-1, PLACES]), expected, rtol=1e-4, atol=1e-4)
    seen = lens.read(ROW, PLACES, TOKENS)
    chances = expected.log_softmax(-1)
    torch.testing.assert_close(seen.log_probabilities[-1], chances.gather(1, torch.tensor(TOKENS)))
    assert seen.top[-1].tolist() == expected.topk(3).indices.tolist()
    torch.testing.assert_close(seen.entropy[-1], torch.distributions.Categorical(logits=expected).entropy())
    order = expected.argsort(1, descending=True)
    for place, tokens in enumerate(TOKENS):
        for i, token in enumerate(tokens):
            assert order[place, seen.ranks[-1, place, i] - 1] == token


@torch.inference_mode()
def test_every_layer_is_read_as_if_it_were_the_last(backbone):
    """By what transformers gives of each layer."""
    states = backbone.model(input_ids=torch.tensor([ROW]), output_hidden_states=True).hidden_states
    seen = Lens(backbone).read(ROW, PLACES, TOKENS)
    assert len(seen.ranks) == len(states)
    for layer, state in enumerate(states[:-1]):  # transformers gives the last one behind the norm
        logits = backbone.head(backbone.model.get_decoder().norm(state[0, PLACES]))
        torch.testing.assert_close(
            seen.log_probabilities[layer], logits.log_softmax(-1).gather(1, torch.tensor(TOKENS)), rtol=1e-4, atol=1e-4
        )


def test_a_memory_that_is_attached_is_left_out(backbone, rendered, attachment):
    lens, (row, place, token) = Lens(backbone), rendered
    before = lens.read(row, [place], [[token]])
    attachment.enabled = False
    after = lens.read(row, [place], [[token]])
    assert torch.equal(before.ranks, after.ranks) and torch.equal(before.log_probabilities, after.log_probabilities)


@pytest.fixture
def rendered(backbone):
    prompts = backbone.prompts
    row = prompts.format.prompt(prompts.question("What is the part number of the brass valve?"))
    return row, len(row) - 1, prompts.answer("HT-4471")[0]


def test_a_curve_says_where_a_token_comes_up():
    ranks = torch.tensor([500, 100, 99, 9, 30, 1])
    curve = Curve.of("x", ranks, torch.full((6,), math.log(0.25)))
    assert curve.enters == {100: 1, 10: 3, 1: 5}
    assert (curve.rank, curve.probability) == (1, pytest.approx(0.25))
    assert Curve.of("x", torch.tensor([400, 300]), torch.zeros(2)).enters == {100: None, 10: None, 1: None}
