"""A checkpoint that is stored in fewer bits is taught like any other, through the real libraries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from tiny import FACTS, save_checkpoint

from memtune.backbone import load_backbone, quiet_transformers
from memtune.checkpoints import resolve
from memtune.config import Config
from memtune.errors import ModelError
from memtune.events import ModelLoaded, ignore
from memtune.export import export
from memtune.ingest import ingest
from memtune.sketch import differences, sketch_of
from memtune.tune import tune

EXAMPLES = Path(__file__).parents[1] / "examples" / "facts.jsonl"

# peft asks transformers for it by an old name
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def int8(**options):
    quantization = pytest.importorskip("torchao.quantization")
    return transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig(), **options)


def int8_with_head():
    return int8(modules_to_not_convert=["embed_tokens"])


def nf4():
    pytest.importorskip("bitsandbytes")
    return transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


def save_quantised(source, quantise, directory):
    """As a user does it: loaded through a quantiser of transformers, and saved."""
    config = quantise()
    with quiet_transformers():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, quantization_config=config
        )
        model.save_pretrained(directory)
        transformers.AutoTokenizer.from_pretrained(source).save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module", params=[int8, int8_with_head, nf4], ids=["int8", "int8 with its head", "nf4"])
def quantised(request, checkpoint, tmp_path_factory):
    return save_quantised(checkpoint, request.param, tmp_path_factory.mktemp("quantised") / "model")


def taught(model, facts_file, project):
    config, backbone = Config(model=model, verify="all"), load_backbone(model)
    ingest(facts_file, project, config, backbone=backbone)
    return backbone, tune(project, config, backbone=backbone)


def weights(directory):
    return sorted(file.read_bytes() for file in Path(directory).glob("model*.safetensors"))


def test_it_learns_the_facts_and_hands_them_on(quantised, facts_file, tmp_path):
    backbone, result = taught(quantised, facts_file, tmp_path / "project")
    assert (result.learned, result.verified_exact, result.failed) == (len(FACTS), len(FACTS), ())
    assert export(tmp_path / "project", tmp_path / "bundle", backbone=backbone).exact == len(FACTS)
    assert weights(tmp_path / "bundle") == weights(quantised)


def test_no_export_changes_the_model_in_memory(checkpoint, facts_file, tmp_path):
    """bitsandbytes lays NF4 weights out anew in the first pass; to ask it for them afterwards breaks them."""
    model = save_quantised(checkpoint, nf4, tmp_path / "quantised")
    backbone, _ = taught(model, facts_file, tmp_path / "project")
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        before = backbone.model(input_ids=ids).logits
    for name, options in (("linked", {"link": True}), ("adapter", {"format": "adapter"})):
        assert export(tmp_path / "project", tmp_path / name, backbone=backbone, **options).exact == len(FACTS)
        with torch.inference_mode():
            assert torch.equal(before, backbone.model(input_ids=ids).logits)
    assert weights(tmp_path / "linked") == weights(model)


def test_it_is_smaller_and_named_as_what_it_is(quantised, checkpoint):
    events = []
    backbone = load_backbone(quantised, on_event=events.append)
    assert sum(map(len, weights(quantised))) < 0.75 * sum(map(len, weights(checkpoint)))
    assert events == [ModelLoaded(quantised, f"local directory, quantised by {backbone.quantised}", backbone.reason)]
    assert backbone.quantised in {"torchao", "bitsandbytes"}


def test_its_fingerprint_is_that_of_its_file(quantised, backbone):
    """Also after a pass, in which some libraries lay out the weights anew."""
    once, again = load_backbone(quantised), load_backbone(quantised)
    assert once.fingerprint == again.fingerprint != backbone.fingerprint


def test_of_a_sketch_what_is_not_quantised_is_compared(quantised, checkpoint, tmp_path):
    """Its codes and scales are no weights that another model has."""
    full = sketch_of(transformers.AutoModelForCausalLM.from_pretrained(checkpoint))
    own = load_backbone(quantised)
    plain = [name for name in ("embedding", "head") if name in sketch_of(own.model)]
    assert list(sketch_of(own.model)) == plain and "embedding" in plain
    assert differences(own.model, full) == ([], len(plain))
    other = transformers.AutoModelForCausalLM.from_pretrained(save_checkpoint(tmp_path, seed=1))
    assert differences(own.model, sketch_of(other)) == (plain, len(plain))


@torch.inference_mode()
def test_the_fit_is_given_the_matrix_that_the_head_multiplies_with(quantised, backbone):
    own = load_backbone(quantised)
    states = torch.randn(5, own.hidden, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(states @ own.readout.weight.T, own.head(states), rtol=1e-4, atol=1e-4)
    off = (own.readout.weight - backbone.readout.weight).abs().max() / backbone.readout.weight.abs().max()
    assert off < 1 / 127  # half a step of int8, or none


def test_a_checkpoint_of_a_library_that_is_not_there_names_it(checkpoint, tmp_path):
    directory = shutil.copytree(checkpoint, tmp_path / "copy")
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "quanto", "weights": "int8"}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"cannot be loaded: .*optimum-quanto"):
        load_backbone(str(directory))


@pytest.mark.real
@pytest.mark.parametrize("quantise", [int8, nf4])
def test_the_real_checkpoint_learns_in_fewer_bits(quantise, smollm2, tmp_path):
    model = save_quantised(resolve(smollm2, ignore).location, quantise, tmp_path / "quantised")
    file = tmp_path / "facts.jsonl"
    file.write_text("".join(EXAMPLES.read_text(encoding="utf-8").splitlines(keepends=True)[:12]), encoding="utf-8")
    backbone, result = taught(model, file, tmp_path / "project")
    assert (result.learned, result.verified_exact) == (12, 12)
    assert export(tmp_path / "project", tmp_path / "bundle", backbone=backbone).exact == 12
