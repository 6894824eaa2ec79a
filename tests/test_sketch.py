"""A sketch tells another model from the same one that is held in another way."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from peft import LoraConfig
from tiny import save_checkpoint, save_kind

from memtune.backbone import quiet_transformers
from memtune.project import Project
from memtune.sketch import differences, sketch_of

Q = "self_attn.q_proj.weight"
ALL = ["embedding", "head", *(f"{layer}.{Q}" for layer in range(4))]
SIZES = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}


def loaded(location, **options):
    with quiet_transformers():
        return transformers.AutoModelForCausalLM.from_pretrained(location, **options).eval()


@pytest.fixture
def model(checkpoint):
    return loaded(checkpoint)


@pytest.fixture(scope="module")
def sketch(checkpoint):
    return sketch_of(loaded(checkpoint))


def test_it_is_of_both_ends_and_the_layers_between_them(sketch):
    assert list(sketch) == ALL
    assert [len(text.split()) for text in sketch.values()] == [16, 16, 12, 12, 12, 12]  # of 600 and of 192 rows


def test_of_a_deep_model_it_is_short(tmp_path):
    sketch = sketch_of(loaded(save_kind(tmp_path, "llama", num_hidden_layers=33, **SIZES)))
    assert [name for name in sketch if Q in name] == [f"{layer}.{Q}" for layer in (0, 5, 10, 15, 20, 25, 30)]
    assert len(json.dumps(sketch)) < 3000


def test_a_project_has_that_of_its_model(ingested, sketch):
    assert Project(ingested).need("model", "memtune ingest FACTS")["sketch"] == sketch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_to_another_dtype_is_no_difference(checkpoint, sketch, dtype):
    rounded = loaded(checkpoint, dtype=dtype)
    assert differences(rounded, sketch) == ([], len(ALL))
    assert differences(loaded(checkpoint), sketch_of(rounded)) == ([], len(ALL))


def test_other_weights_of_the_same_shape_are(tmp_path, sketch):
    assert differences(loaded(save_checkpoint(tmp_path, seed=1)), sketch) == (ALL, len(ALL))


def test_weights_that_were_trained_on_in_one_place_are(model, sketch):
    model.model.layers[2].self_attn.q_proj.weight.data *= 1.02
    assert differences(model, sketch) == ([f"2.{Q}"], len(ALL))


def test_a_matrix_of_another_shape_is(tmp_path, sketch):
    """Sizes of a model that has the same hidden size."""
    entries = {"hidden_size": 192, "intermediate_size": 64, "num_hidden_layers": 4, "head_dim": 4}
    other = loaded(save_kind(tmp_path, "llama", num_attention_heads=2, num_key_value_heads=2, **entries))
    assert differences(other, sketch) == (ALL, len(ALL))


def test_adapters_are_looked_behind(model, sketch):
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"], modules_to_save=["lm_head"]))
    assert differences(model, sketch) == ([], len(ALL))
    assert sketch_of(model) == sketch


def test_a_vocabulary_that_grew_is_no_difference(model, sketch):
    model.resize_token_embeddings(model.config.vocab_size + 8, mean_resizing=False)
    assert differences(model, sketch) == ([], len(ALL))


def test_tied_ends_are_compared_like_others(tmp_path):
    tied = save_kind(tmp_path, "llama", num_hidden_layers=2, tie_word_embeddings=True, **SIZES)
    sketch = sketch_of(loaded(tied))
    assert sketch["embedding"] == sketch["head"]
    assert differences(loaded(tied, dtype=torch.bfloat16), sketch) == ([], 4)


def test_weights_that_are_not_at_hand_are_not_compared(model, sketch):
    """As where a device is short of memory, and they come from the disk when they are used."""
    model.model.layers[0].to("meta")
    assert differences(model, sketch) == ([], len(ALL) - 1)
    assert differences(model.to("meta"), sketch) == ([], 0)
    assert sketch_of(model) == {}
