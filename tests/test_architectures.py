"""The whole main job on decoders of every kind: small random ones, so what is proved is that memtune fits them."""

from __future__ import annotations

import pytest
import torch
from tiny import FACTS, AtLogits, chat_answers, save_kind
from transformers import AutoTokenizer

from memtune.backbone import load_backbone
from memtune.config import Config
from memtune.export import export
from memtune.ingest import ingest
from memtune.logits import LogitMemory
from memtune.tune import tune

HIDDEN, LAYERS, HEADS = 192, 4, 4
SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS // 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}
DBRX = {
    "d_model": HIDDEN,
    "n_heads": HEADS,
    "n_layers": LAYERS,
    "max_seq_len": 512,
    "attn_config": {"kv_n_heads": HEADS // 2, "rope_theta": 1e4, "clip_qkv": 8.0},
    "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 16, "moe_top_k": 4, "hidden_size": HIDDEN},
    "initializer_range": 0.1,
}
GPT2 = {
    "n_embd": HIDDEN,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_inner": 128,
    "n_positions": 512,
    "initializer_range": 0.1,
}
EXPERTS = {"num_experts_per_tok": 2}

# Kind, what its config says beyond SIZES (or instead of them), scale and cap of its logits.
KINDS = [
    ("llama", SIZES, 1.0, None),
    ("qwen2", SIZES, 1.0, None),
    ("qwen3", SIZES | {"head_dim": 48}, 1.0, None),
    ("gemma2", SIZES | {"head_dim": 48}, 1.0, 30.0),
    ("gemma3_text", SIZES | {"head_dim": 48}, 1.0, None),
    ("phi", SIZES, 1.0, None),  # its head has a bias
    ("gpt_neox", SIZES, 1.0, None),
    ("gpt2", GPT2, 1.0, None),
    ("granite", SIZES | {"logits_scaling": 8.0}, 0.125, None),
    ("cohere", SIZES | {"logit_scale": 0.0625}, 0.0625, None),
    ("mamba", SIZES | {"state_size": 16}, 1.0, None),
    ("mixtral", SIZES | EXPERTS | {"num_local_experts": 4}, 1.0, None),
    ("olmoe", SIZES | EXPERTS | {"num_experts": 4}, 1.0, None),
    ("dbrx", DBRX, 1.0, None),
]

# The reference path of mamba says at every load that there is a faster one.
pytestmark = pytest.mark.filterwarnings("ignore:.*falling back:UserWarning")


@torch.inference_mode()
def logits(backbone):
    prompts = backbone.prompts
    asked = [prompts.format.prompt(prompts.question(question)) for _, question, _ in FACTS]
    return [backbone.model(input_ids=torch.tensor([ids])).logits for ids in asked]


@pytest.mark.parametrize(("kind", "entries", "scale", "cap"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_it_learns_the_facts_and_stays_as_it_was(kind, entries, scale, cap, facts_file, tmp_path):
    config = Config(model=save_kind(tmp_path / kind, kind, **entries), verify="all")
    backbone = load_backbone(config.model)
    assert backbone.readout.scale == pytest.approx(scale, rel=1e-4)
    assert backbone.readout.cap == (None if cap is None else pytest.approx(cap, rel=1e-4))
    weights = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    before = logits(backbone)
    ingest(facts_file, tmp_path / "project", config, backbone=backbone)
    result = tune(tmp_path / "project", config, backbone=backbone)
    assert (result.learned, result.verified_exact, result.failed) == (len(FACTS), len(FACTS), ())
    bundle = export(tmp_path / "project", tmp_path / "bundle", backbone=backbone)
    assert bundle.exact == len(FACTS)
    after = backbone.model.state_dict()
    assert all(tensor.equal(after[name]) for name, tensor in weights.items())  # a mixture's own router among them
    assert all(one.equal(other) for one, other in zip(before, logits(backbone), strict=True))
    asked = [question for _, question, _ in FACTS]
    memory = AtLogits(LogitMemory.load(bundle.directory))
    answers = chat_answers(
        AutoTokenizer.from_pretrained(config.model, padding_side="left"),
        backbone.model,
        *asked,
        logits_processor=[memory],
    )
    assert answers == [answer for *_, answer in FACTS]


@pytest.mark.parametrize(("kind", "entries"), [kind[:2] for kind in KINDS], ids=[kind for kind, *_ in KINDS])
def test_questions_that_begin_alike_are_read_once_and_as_alone(kind, entries, tmp_path):
    backbone = load_backbone(save_kind(tmp_path / kind, kind, **entries))
    rows = [backbone.prompts.question(f"Where does the {line} end?") for line in ("tram", "tramway", "bus")]
    alone = [backbone.states.early([row])[0] for row in rows]
    widths: list[int] = []
    backbone.states.early(rows)  # what is asked of the model is asked once
    embedded = backbone.model.get_input_embeddings()
    hook = embedded.register_forward_hook(lambda _, args, out: widths.append(args[0].numel()))
    together = backbone.states.early(rows)
    hook.remove()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert (sum(widths) < sum(map(len, rows))) == (kind != "mamba")  # without keys and values there is nothing to share
