"""The memory as a PEFT method does what any adapter does: saved, loaded, switched, put beside others, taken off."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import FACTS, chat_answers, save_checkpoint

from memtune.backbone import quiet_transformers
from memtune.config import Config
from memtune.errors import ConfigError, ModelError
from memtune.facts import Fact
from memtune.ingest import ingest
from memtune.peft import MomeConfig, MomeHead
from memtune.tune import tune

# peft asks transformers for it by an old name
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

UNKNOWN = "What is the capital of France?"
OTHERS = (Fact("other", "Who keeps the key of the old mill?", "Agnes Trelawny."),)


@pytest.fixture
def base(checkpoint):
    with quiet_transformers():
        return transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="module")
def saved(tuned, checkpoint, tmp_path_factory):
    """An adapter as ``save_pretrained`` writes it."""
    with quiet_transformers():
        model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    out = tmp_path_factory.mktemp("adapter")
    get_peft_model(model, MomeConfig(project=str(tuned))).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def other_project(checkpoint, backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    file = folder / "facts.jsonl"
    file.write_text("".join(json.dumps({"question": f.question, "answer": f.answer}) + "\n" for f in OTHERS))
    ingest(file, folder / "project", Config(model=checkpoint), backbone=backbone)
    assert tune(folder / "project", Config(model=checkpoint, verify="all"), backbone=backbone).met
    return folder / "project"


@pytest.fixture
def answer(checkpoint):
    return partial(chat_answers, transformers.AutoTokenizer.from_pretrained(checkpoint, padding_side="left"))


@pytest.fixture
def ids(backbone):
    """A taught question with the beginning of its answer: there the memory writes."""
    prompts = backbone.prompts
    return torch.tensor([prompts.format.prompt(prompts.question(FACTS[0][1])) + prompts.answer(FACTS[0][2])[:2]])


def all_known(answer, model):
    return answer(model, *(question for _, question, _ in FACTS)) == [text for _, _, text in FACTS]


def test_a_project_is_put_on_a_model_like_any_adapter(base, tuned, answer):
    assert all_known(answer, get_peft_model(base, MomeConfig(project=str(tuned))))


def test_what_is_saved_is_loaded_by_peft(base, saved, answer):
    model = PeftModel.from_pretrained(base, saved)
    assert all_known(answer, model)
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_what_is_saved_holds_the_memory_alone_and_no_path(saved, memory, tuned):
    config = json.loads((saved / "adapter_config.json").read_text())
    assert (config["peft_type"], config["project"], config["head"]) == ("MOME", None, "lm_head")
    assert str(tuned) not in (saved / "adapter_config.json").read_text()
    from safetensors.torch import load_file

    tensors = load_file(saved / "adapter_model.safetensors")
    prefix = "base_model.model.lm_head.mome_memory."
    assert {name.removeprefix(prefix) for name in tensors} == set(memory.state_dict())
    assert all(tensors[prefix + name].equal(tensor) for name, tensor in memory.state_dict().items())


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_on_a_model_that_has_a_lora_both_are_at_work(base, saved, answer):
    base.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), "style")
    model = PeftModel.from_pretrained(base, saved)
    base.set_adapter(["default", "style"])
    assert all_known(answer, model)


@torch.inference_mode()
def test_switched_off_it_is_the_base_bit_for_bit(base, saved, ids):
    before = base(input_ids=ids).logits
    model = PeftModel.from_pretrained(base, saved)
    assert not model(input_ids=ids).logits.equal(before)
    with model.disable_adapter():
        assert model(input_ids=ids).logits.equal(before)
    assert not model(input_ids=ids).logits.equal(before)


@torch.inference_mode()
def test_unloaded_it_leaves_nothing_behind(base, saved, ids):
    before, modules = base(input_ids=ids).logits, [name for name, _ in base.named_modules()]
    model = PeftModel.from_pretrained(base, saved).unload()
    assert model is base and [name for name, _ in base.named_modules()] == modules
    assert base(input_ids=ids).logits.equal(before) and not base._forward_hooks and not base._forward_pre_hooks


def test_two_memories_take_turns(base, saved, other_project, answer):
    model = PeftModel.from_pretrained(base, saved, adapter_name="parts")
    plain = answer(base.__class__.from_pretrained(base.name_or_path).eval(), OTHERS[0].question)
    model.add_adapter("mill", MomeConfig(project=str(other_project)))
    assert answer(model, OTHERS[0].question) == plain
    model.set_adapter("mill")
    assert answer(model, OTHERS[0].question) == [OTHERS[0].answer] and not all_known(answer, model)
    model.set_adapter("parts")
    assert all_known(answer, model)
    model.delete_adapter("mill")
    assert all_known(answer, model)


def test_a_second_adapter_is_loaded_from_its_directory(base, saved, other_project, answer, tmp_path):
    with quiet_transformers():
        plain = transformers.AutoModelForCausalLM.from_pretrained(base.name_or_path).eval()
    get_peft_model(plain, MomeConfig(project=str(other_project))).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(base, saved)
    model.load_adapter(tmp_path, "mill")
    model.set_adapter("mill")
    assert answer(model, OTHERS[0].question) == [OTHERS[0].answer]


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_beside_a_lora_both_are_at_work(base, saved, answer):
    """The LoRA changes what the model says; which fact is asked for is read without it."""
    torch.manual_seed(0)
    model = PeftModel.from_pretrained(base, saved)
    alone = answer(model, UNKNOWN)
    base.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), "style")
    base.set_adapter(["default", "style"])
    assert all_known(answer, model) and answer(model, UNKNOWN) == alone  # a new LoRA does nothing yet
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    for parameter in trained.values():
        torch.nn.init.normal_(parameter)
    assert answer(model, UNKNOWN) != alone
    [head] = [module for module in base.modules() if isinstance(module, MomeHead)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(base.name_or_path)
    questions = [tuple(tokenizer(question, add_special_tokens=False)["input_ids"]) for _, question, _ in FACTS]
    head.attachments["default"]._routes.clear()
    routes = head.attachments["default"].route(questions)
    assert [route.fact for route in routes if route.fired] == list(range(len(FACTS)))
    with model.disable_adapter():
        assert answer(model, UNKNOWN) == alone


def test_no_gradient_ever_runs_into_a_memory(base, saved):
    model = PeftModel.from_pretrained(base, saved, is_trainable=True)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("merge", [lambda model: model.merge_and_unload(), lambda model: model.merge_adapter()])
def test_it_cannot_be_merged_into_weights(base, saved, merge):
    with pytest.raises(ModelError) as caught:
        merge(PeftModel.from_pretrained(base, saved))
    assert "memtune export" in caught.value.hint


def test_on_a_model_of_another_size_it_says_so(saved, tmp_path):
    with quiet_transformers():
        other = transformers.AutoModelForCausalLM.from_pretrained(save_checkpoint(tmp_path, hidden=96)).eval()
    with pytest.raises(ModelError, match="made for states of 192 numbers, this model has 96"):
        PeftModel.from_pretrained(other, saved)


@pytest.fixture
def other(tmp_path):
    """A model of the same shape, with other weights."""
    with quiet_transformers():
        return transformers.AutoModelForCausalLM.from_pretrained(save_checkpoint(tmp_path / "other", seed=1)).eval()


@pytest.mark.parametrize("put", ["adapter", "project"])
def test_on_another_model_of_the_same_size_it_says_so(put, other, saved, tuned):
    modules = [name for name, _ in other.named_modules()]
    with pytest.raises(ModelError, match=r"another model than .*other: 6 of 6 weights .* embedding among") as caught:
        if put == "adapter":
            PeftModel.from_pretrained(other, saved)
        else:
            get_peft_model(other, MomeConfig(project=str(tuned)))
    assert caught.value.hint == "put it on the model that it was tuned on"
    assert [name for name, _ in other.named_modules()] == modules


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_beside_a_lora_on_another_model_it_says_so(other, saved):
    other.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), "style")
    with pytest.raises(ModelError, match="6 of 6 weights that were compared differ"):
        PeftModel.from_pretrained(other, saved)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_its_own_model_in_another_dtype_is_no_other_model(dtype, checkpoint, saved, answer):
    with quiet_transformers():
        rounded = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).eval()
    assert all_known(answer, PeftModel.from_pretrained(rounded, saved))


def with_sketch(saved, directory, sketch):
    shutil.copytree(saved, directory)
    config = json.loads((directory / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps(config | {"sketch": sketch}))
    return directory


def test_an_adapter_from_before_does_not_know_its_model(saved, other, tmp_path):
    PeftModel.from_pretrained(other, with_sketch(saved, tmp_path / "before", None))


@pytest.mark.parametrize("sketch", [5, ["embedding"], {"embedding": 5}, {"embedding": "0.1 red"}])
def test_a_sketch_that_is_none_is_refused(saved, base, tmp_path, sketch):
    with pytest.raises(ModelError, match="says of its model is damaged: sketch is") as caught:
        PeftModel.from_pretrained(base, with_sketch(saved, tmp_path / "damaged", sketch))
    assert "memtune export" in caught.value.hint


def test_a_config_without_a_memory_says_where_to_take_one():
    with pytest.raises(ConfigError, match="needs a memory"):
        MomeConfig()


def test_a_fresh_process_loads_it(saved, checkpoint, run_python):
    said = run_python(
        """
        import sys
        import memtune.peft
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer
        base = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
        model = PeftModel.from_pretrained(base, sys.argv[2])
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
        chat = [{"role": "user", "content": sys.argv[3]}]
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**inputs, do_sample=False, max_new_tokens=40)
        print(tokenizer.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
        """,
        checkpoint,
        saved,
        FACTS[0][1],
    )
    assert said.strip() == FACTS[0][2]
