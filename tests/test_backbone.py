"""A checkpoint is loaded, checked, named by a fingerprint and read; what cannot be taught is refused."""

from __future__ import annotations

import shutil

import pytest
import torch
import transformers
from tiny import save_checkpoint, save_kind

from memtune import backbone as backbones
from memtune.backbone import load_backbone, quiet_transformers
from memtune.errors import ConfigError, ModelError
from memtune.events import ModelLoaded
from memtune.facts import Fact


@pytest.fixture
def saved(tmp_path):
    """Saves a model of any class beside the tiny tokenizer, without a chat template."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return lambda kind, **entries: save_kind(tmp_path, kind, None, **sizes, num_key_value_heads=2, **entries)


@pytest.fixture
def changed(tmp_path, checkpoint):
    """The tiny checkpoint with some of its weights changed."""

    def change(part):
        directory = shutil.copytree(checkpoint, tmp_path / "changed")
        model = transformers.AutoModelForCausalLM.from_pretrained(directory)
        with torch.no_grad():
            model.get_submodule(part).weight.mul_(1.5)
        with quiet_transformers():
            model.save_pretrained(directory)
        return load_backbone(str(directory))

    return change


def test_what_was_loaded_is_told_with_the_reason(checkpoint):
    events = []
    backbone = load_backbone(checkpoint, on_event=events.append)
    assert events == [ModelLoaded(checkpoint, "local directory", backbone.reason)]
    assert backbone.reason.startswith("float32 on cpu") or torch.cuda.is_available()


def test_no_weight_can_be_trained(backbone):
    assert not any(weight.requires_grad for weight in backbone.model.parameters())
    assert not backbone.model.training


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_is_the_one_that_was_asked_for(checkpoint, dtype):
    backbone = load_backbone(checkpoint, device="cpu", dtype=dtype)
    assert backbone.head.weight.dtype == getattr(torch, dtype)
    assert backbone.reason == f"{dtype} on cpu (asked for)"


@pytest.fixture(scope="module")
def in_sixteen_bits(checkpoint, tmp_path_factory):
    """The same checkpoint, stored in bfloat16."""
    copy = shutil.copytree(checkpoint, tmp_path_factory.mktemp("stored") / "bfloat16")
    with quiet_transformers():
        transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).save_pretrained(copy)
    return str(copy)


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_is_chosen_on_a_processor_that_is_fast_at_it_where_no_weight_is_rounded_by_it(
    checkpoint, in_sixteen_bits, monkeypatch, able
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(backbones, "_capabilities", lambda: {"amx_bf16": able})
    rounded, own = load_backbone(checkpoint), load_backbone(in_sixteen_bits)
    assert rounded.dtype == torch.float32
    assert rounded.reason.startswith("float32 on cpu") and rounded.reason.endswith("--dtype bfloat16 faster)") == able
    assert own.dtype == own.head.weight.dtype == (torch.bfloat16 if able else torch.float32)
    assert ("the checkpoint's own" in own.reason) == able


def test_an_unknown_dtype_is_refused(checkpoint):
    with pytest.raises(ConfigError, match="'int4' is unknown"):
        load_backbone(checkpoint, dtype="int4")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu cuda"])
def test_a_device_that_is_not_there_is_no_fault_of_the_model(device):
    """It is said before the checkpoint is looked at, which may take half a minute."""
    with pytest.raises(ConfigError, match=f"^device '{device}' cannot be used: ") as caught:
        load_backbone("./no-such-model", device=device)
    assert "device takes auto, cpu, cuda" in caught.value.hint and "the same --project" in caught.value.hint
    assert "memtune ingest" not in caught.value.hint  # pasted as it stands, it would make another project


def test_a_checkpoint_that_cannot_be_read_is_a_model_error(tmp_path, checkpoint):
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_backbone(str(broken))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_checkpoint_is_a_model_error(tmp_path, checkpoint, name):
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    (broken / name).write_bytes((broken / name).read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_backbone(str(broken))


def test_a_hub_id_that_is_not_there_is_a_model_error():
    with pytest.raises(ModelError, match="no-such-model cannot be loaded"):
        load_backbone("no-such-model")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gemma", "phi"])
def test_plain_decoders_are_taken(saved, kind):
    backbone = load_backbone(saved(kind))
    assert backbone.hidden == 32


@pytest.mark.parametrize(
    ("kind", "entries", "scale", "cap"),
    [
        ("llama", {}, 1.0, None),
        ("granite", {"logits_scaling": 8.0}, 0.125, None),
        ("cohere", {"logit_scale": 0.0625}, 0.0625, None),
        ("gemma2", {"final_logit_softcapping": 30.0, "head_dim": 16}, 1.0, 30.0),
    ],
    ids=["llama", "granite", "cohere", "gemma2"],
)
def test_scale_and_cap_are_found_by_asking_the_model(saved, kind, entries, scale, cap):
    readout = load_backbone(saved(kind, **entries)).readout
    assert readout.scale == pytest.approx(scale, rel=1e-4)
    assert readout.cap == (None if cap is None else pytest.approx(cap, rel=1e-4))


def test_a_model_that_does_something_else_with_its_logits_is_refused(saved, monkeypatch):
    forward = transformers.LlamaForCausalLM.forward

    def squared(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits * out.logits.abs()
        return out

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", squared)
    with pytest.raises(ModelError, match="scaled or capped"):
        load_backbone(saved("llama"))


def test_a_model_that_loads_but_does_not_run_is_refused(saved, monkeypatch):
    """As quantised weights do whose library has no kernel for this device."""

    def fail(*args, **kwargs):
        raise RuntimeError("no kernel for these blocks\nand more")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", fail)
    with pytest.raises(ModelError, match=r"cannot run on cpu: no kernel for these blocks$"):
        load_backbone(saved("llama"), device="cpu")


def test_a_model_that_changes_the_state_before_the_head_is_refused(saved, monkeypatch):
    get_decoder = transformers.LlamaForCausalLM.get_decoder

    def another(model):
        decoder = get_decoder(model)
        decoder.norm.weight.data[:] = 2.0 if decoder.norm.weight.data[0] == 1.0 else 1.0
        return decoder

    monkeypatch.setattr(transformers.LlamaForCausalLM, "get_decoder", another)
    with pytest.raises(ModelError, match="scaled or capped"):
        load_backbone(saved("llama"))


def test_the_fingerprint_is_that_of_the_checkpoint(checkpoint, backbone, tmp_path):
    assert load_backbone(checkpoint).fingerprint == backbone.fingerprint
    assert load_backbone(save_checkpoint(tmp_path, seed=1)).fingerprint != backbone.fingerprint


def test_the_fingerprint_names_the_dtype_even_where_it_rounds_nothing(in_sixteen_bits):
    made = {load_backbone(in_sixteen_bits, dtype=dtype).fingerprint for dtype in ("float32", "bfloat16")}
    assert len(made) == 2


@pytest.mark.parametrize("part", ["lm_head", "model.layers.2.self_attn.o_proj", "model.embed_tokens"])
def test_the_fingerprint_names_every_part_of_the_weights(changed, backbone, part):
    assert changed(part).fingerprint != backbone.fingerprint


@pytest.mark.parametrize("name", ["backbone", "base_backbone"])
def test_answer_states_are_those_that_predict_the_answer(request, name):
    backbone = request.getfixturevalue(name)
    texts = [("Who?", "Ann Brock."), ("Where does the tram end, and when was it opened?", "x")]
    facts = [backbone.prompts.fact(Fact("i", question, answer)) for question, answer in texts]
    for fact, states in zip(facts, backbone.answer_states(facts), strict=True):
        prompt = backbone.prompts.format.prompt(fact.question)
        with torch.inference_mode():
            logits = backbone.model(input_ids=torch.tensor([prompt + fact.answer])).logits[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(backbone.readout(states.final), logits, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(states.early, backbone.states.early([fact.question])[0], rtol=1e-4, atol=1e-4)
