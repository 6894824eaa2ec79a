"""A decoder's parts are found by what they do, whatever they are called."""

from __future__ import annotations

import pytest
import torch
from tiny import save_kind

from memtune.backbone import load_backbone
from memtune.errors import ModelError
from memtune.evidence.mechanism.anatomy import Anatomy, hooked, states_in

HIDDEN, LAYERS, HEADS = 96, 3, 4
SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS // 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}
GPT2 = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_inner": 64, "initializer_range": 0.1}
DBRX = {
    "d_model": HIDDEN,
    "n_heads": HEADS,
    "n_layers": LAYERS,
    "attn_config": {"kv_n_heads": HEADS // 2, "rope_theta": 1e4, "clip_qkv": 8.0},
    "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": HIDDEN},
    "initializer_range": 0.1,
}
EXPERTS = {"num_experts_per_tok": 2}

# Kind, what its config says, attention, MLP, final norm: what they are called there, which nothing here is told.
KINDS = [
    ("llama", SIZES, "self_attn", "mlp", "norm"),
    ("gpt2", GPT2, "attn", "mlp", "ln_f"),
    ("gpt_neox", SIZES, "attention", "mlp", "final_layer_norm"),  # both read the same state
    ("cohere", SIZES | {"logit_scale": 0.0625}, "self_attn", "mlp", "norm"),
    ("granite", SIZES | {"residual_multiplier": 0.3}, "self_attn", "mlp", "norm"),
    ("gemma2", SIZES | {"head_dim": 24}, "post_attention_layernorm", "post_feedforward_layernorm", "norm"),
    ("mixtral", SIZES | EXPERTS | {"num_local_experts": 4}, "self_attn", "mlp", "norm"),
    ("olmoe", SIZES | EXPERTS | {"num_experts": 4}, "self_attn", "mlp", "norm"),
    ("dbrx", DBRX, "norm_attn_norm.attn", "ffn", "norm_f"),
]

pytestmark = pytest.mark.filterwarnings("ignore:.*falling back:UserWarning")


@pytest.mark.parametrize(("kind", "entries", "attention", "mlp", "norm"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_attention_mlp_and_final_norm_are_found(kind, entries, attention, mlp, norm, tmp_path):
    backbone = load_backbone(save_kind(tmp_path / kind, kind, **entries))
    anatomy = Anatomy(backbone)
    assert list(anatomy.behind) == [backbone.model.get_decoder().get_submodule(norm)]
    for layer, parts in zip(anatomy.layers, anatomy.parts, strict=True):
        assert parts.attention is layer.get_submodule(attention)
        assert parts.mlp is layer.get_submodule(mlp)


def test_a_layer_of_one_part_has_nothing_to_restore_apart(tmp_path):
    backbone = load_backbone(save_kind(tmp_path / "mamba", "mamba", **SIZES, state_size=16))
    anatomy = Anatomy(backbone)
    assert len(anatomy.behind) == 1  # the lens works all the same
    with pytest.raises(ModelError, match=r"layer 1 of .*is not attention and an MLP") as caught:
        _ = anatomy.parts
    assert "without --trace" in caught.value.hint


def test_one_position_that_is_far_longer_than_the_others_hides_nothing(tmp_path):
    """As in trained models, where the MLP of a layer writes a huge state at the first token."""
    backbone = load_backbone(save_kind(tmp_path / "llama", "llama", **SIZES))
    anatomy = Anatomy(backbone)
    mlp = anatomy.layers[1].mlp

    def lengthen(_module, _args, out):
        return torch.cat([out[:, :1] * 1e5, out[:, 1:]], 1)

    with hooked([(mlp, lengthen)]):
        parts = anatomy.parts
    assert (parts[1].attention, parts[1].mlp) == (anatomy.layers[1].self_attn, mlp)


@torch.inference_mode()
def test_states_are_those_that_transformers_gives(backbone):
    ids = torch.arange(5, 25)[None]
    expected = backbone.model(input_ids=ids, output_hidden_states=True)
    anatomy = Anatomy(backbone)
    with states_in(anatomy) as states:
        backbone.model(input_ids=ids)
    assert len(states) == len(anatomy.layers) + 1
    for mine, theirs in zip(states[:-1], expected.hidden_states[:-1], strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(anatomy.final(states[-1]), expected.hidden_states[-1])


def test_hooks_are_gone_afterwards_whatever_happens(backbone):
    layer, calls = backbone.states.layers[0], []
    with pytest.raises(ZeroDivisionError), hooked([(layer, lambda *call: calls.append(call))]):
        raise ZeroDivisionError
    backbone.model(input_ids=torch.tensor([[5]]))
    assert not calls
