"""A bundle is a complete checkpoint that answers where memtune is not installed, or it is not there at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from tiny import FACTS, unlearn

from memtune import bundle as bundling
from memtune import export as exporting
from memtune import teaching
from memtune import tune as tuning
from memtune.backbone import load_backbone, quiet_transformers
from memtune.change import update
from memtune.errors import ConfigError, MemtuneError, ProjectError
from memtune.export import FORMATS, export
from memtune.exported import STALE, exports_again, exports_of
from memtune.fact import Fact
from memtune.project import Project

UNKNOWN = "What is the capital of France?"


@pytest.fixture
def refused(monkeypatch):
    """Makes one step of the export fail."""

    def fail(step, error):
        def raises(*arguments):
            raise error

        monkeypatch.setattr(exporting, step, raises)

    return fail


@pytest.fixture
def held(tuned, tmp_path_factory):
    """A copy of the tuned project, which will know of its exports."""
    return shutil.copytree(tuned, tmp_path_factory.mktemp("held") / "project")


def files(directory):
    return sorted(path.name for path in directory.iterdir())


def test_it_tells_what_it_wrote_and_that_it_was_asked(held, backbone, tmp_path):
    result = export(held, tmp_path / "bundle", backbone=backbone)
    assert (result.facts, result.asked, result.exact, result.lost) == (len(FACTS),) * 3 + ((),)
    assert result.met
    assert result.bytes == sum(path.stat().st_size for path in (tmp_path / "bundle").iterdir())
    assert result.memory_bytes == (tmp_path / "bundle" / "memory.safetensors").stat().st_size
    assert files(tmp_path) == ["bundle"]


def test_it_loads_and_says_every_fact(model, answer):
    assert answer(model, *(question for _, question, _ in FACTS)) == [text for _, _, text in FACTS]


def test_it_says_what_the_backbone_says_to_anything_else(model, answer, backbone):
    assert answer(model, UNKNOWN) == answer(backbone.model, UNKNOWN)


def test_stored_and_unknown_questions_share_a_batch(model, answer):
    alone = [answer(model, question)[0] for question in (FACTS[3][1], UNKNOWN, FACTS[1][1])]
    assert answer(model, FACTS[3][1], UNKNOWN, FACTS[1][1]) == alone


@torch.inference_mode()
def test_without_trust_in_its_code_it_is_the_plain_backbone(load, backbone):
    plain = load()
    assert type(plain) is transformers.LlamaForCausalLM
    ids = torch.tensor([backbone.prompts.format.prompt(backbone.prompts.question(FACTS[0][1]))])
    assert torch.equal(plain(ids).logits, backbone.model(ids).logits)


def test_in_bfloat16_the_memory_stays_in_float32_and_answers(load, answer):
    model = load(trust_remote_code=True, dtype=torch.bfloat16)
    assert model.lm_head.weight.dtype == torch.bfloat16
    kinds = {name: tensor.dtype for name, tensor in model.memory.state_dict().items() if tensor.is_floating_point()}
    expected = {name: t.dtype for name, t in load(trust_remote_code=True).memory.state_dict().items() if name in kinds}
    assert kinds == expected
    assert answer(model, *(question for _, question, _ in FACTS)) == [text for _, _, text in FACTS]


def test_its_tensors_are_those_of_the_project(model, memory):
    loaded = model.memory.state_dict()
    assert loaded.keys() == memory.state_dict().keys()
    for name, tensor in memory.state_dict().items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor), name


def test_a_bundle_that_was_saved_again_still_answers(model, load, answer, tmp_path, bundle):
    """With its code beside it, as push_to_hub of a loaded bundle would leave it."""
    with quiet_transformers():
        model.save_pretrained(tmp_path)
    for path in bundle.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    again = load(tmp_path, trust_remote_code=True)
    assert answer(again, FACTS[0][1], UNKNOWN) == answer(model, FACTS[0][1], UNKNOWN)


def test_everything_that_it_needs_is_in_it_and_can_be_read(bundle):
    index = json.loads((bundle / "model.safetensors.index.json").read_text())
    assert {"config.json", "generation_config.json", "tokenizer.json", "README.md"} <= set(files(bundle))
    assert {*index["weight_map"].values(), "modeling_memtune.py", "chat_template.jinja"} <= set(files(bundle))
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in bundle.iterdir())
    assert not any(re.search(r"(import|from) memtune", path.read_text()) for path in bundle.glob("*.py"))


def test_the_card_holds_what_was_measured(bundle):
    card = (bundle / "README.md").read_text()
    assert f"exact | {len(FACTS)} of {len(FACTS)} |" in card
    assert 'from_pretrained("bundle", trust_remote_code=True)' in card


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("format", FORMATS)
def test_only_facts_that_were_learned_are_promised(held, backbone, tmp_path, format):
    unlearn(held)
    export(held, tmp_path / "out", format=format, backbone=backbone)
    card = (tmp_path / "out" / "README.md").read_text()
    known, every = len(FACTS) - 1, len(FACTS)
    assert f"{known} facts" in card and f"{known} questions" in card and f"{known} of {every} |" in card
    assert f"{every} facts" not in card and f"{every} questions" not in card
    assert "meant to stay silent elsewhere; the table says how often" in card  # near misses fire: no card denies it
    for code in (tmp_path / "out").glob("modeling_memtune.py"):
        assert code.read_text().startswith(f'"""A language model that knows {known} more facts')


def test_a_directory_that_holds_something_is_left_alone(held, backbone, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ProjectError, match="is there already"):
        export(held, tmp_path / "out", backbone=backbone)
    assert files(tmp_path / "out") == ["mine.txt"]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_exported_already_is_named_with_the_command_that_replaces_it(
    held, bundle, backbone, tmp_path, monkeypatch, format
):
    out = shutil.copytree(bundle, tmp_path / "my model")
    kind = {"bundle": "", "adapter": " --format adapter"}[format]
    with pytest.raises(ProjectError, match="is there already") as caught:
        export(held, out, format=format, backbone=backbone)
    assert caught.value.hint == f"make it anew with: memtune export '{out}' --replace{kind} --project {held}"
    monkeypatch.setenv("MEMTUNE_PROJECT", str(held))
    with pytest.raises(ProjectError) as caught:
        export(held, out, format=format, backbone=backbone)
    assert caught.value.hint == f"make it anew with: memtune export '{out}' --replace{kind}"


def test_a_file_is_left_alone(held, backbone, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ProjectError, match="is there already"):
        export(held, tmp_path / "out", backbone=backbone)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    "mine",
    [
        {"adapter_config.json": '{"peft_type": "LORA"}', "adapter_model.safetensors": "weights"},
        {"config.json": '{"model_type": "llama"}', "memory.safetensors": "weights"},
        {"config.json": '{"memtune": {}}', "model.safetensors": "weights"},
        {"adapter_config.json": "[]", "config.json": "{"},
    ],
    ids=["a LoRA", "a checkpoint with a memory", "a checkpoint without one", "no JSON"],
)
def test_only_what_memtune_exported_is_replaced(held, backbone, tmp_path, mine):
    out = tmp_path / "out"
    out.mkdir()
    for name, text in mine.items():
        (out / name).write_text(text)
    with pytest.raises(ProjectError, match="is no export of memtune"):
        export(held, out, replace=True, backbone=backbone)
    assert {path.name: path.read_text() for path in out.iterdir()} == mine


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_export_is_replaced_by_one_of_the_other_format(held, backbone, tmp_path):
    for format in ("adapter", "bundle", "adapter"):
        assert export(held, tmp_path / "out", format=format, replace=True, backbone=backbone).met
    assert files(tmp_path / "out") == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert files(tmp_path) == ["out"]


def test_what_a_killed_export_left_is_removed_and_nothing_else_is(held, backbone, tmp_path, monkeypatch, refused):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: ended.pid)
        left = exporting._beside(tmp_path / "backup")
    mine = [f".backup-{ended.pid}-01", ".backup-2024-01", f".backup-{ended.pid}-20240131", f"{left.name}-mine"]
    other = exporting._beside(tmp_path / "b*")  # of an export to another place that goes on
    for name in mine:
        (tmp_path / name).mkdir()
    refused("_write", MemtuneError("no"))
    for out in ("b*", "backup"):
        assert left.exists()
        with pytest.raises(MemtuneError, match="no"):
            export(held, tmp_path / out, backbone=backbone)
    assert files(tmp_path) == sorted([*mine, other.name])


def test_an_empty_directory_may_be_filled(held, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_ask_in_fresh_process", lambda _, questions, *rest: ["?"] * len(questions))
    (tmp_path / "out").mkdir()
    result = export(held, tmp_path / "out", backbone=backbone)
    assert "config.json" in files(tmp_path / "out")
    assert not result.met and result.exact == 0 and result.lost == tuple(name for name, _, _ in FACTS)


@pytest.mark.parametrize("step", ["_write", "_ask_in_fresh_process", "_card"])
@pytest.mark.parametrize("error", [MemtuneError("no"), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_export_leaves_nothing_behind(held, backbone, tmp_path, refused, monkeypatch, step, error):
    monkeypatch.setattr(exporting, "_ask_in_fresh_process", lambda _, questions, *rest: ["?"] * len(questions))
    refused(step, error)
    with pytest.raises(type(error)):
        export(held, tmp_path / "bundle", backbone=backbone)
    assert files(tmp_path) == []


def test_a_bundle_that_does_not_load_is_not_handed_over(held, backbone, tmp_path, monkeypatch):
    code = bundling._code

    def broken(out, *arguments):
        code(out, *arguments)
        (out / "modeling_memtune.py").write_text("raise RuntimeError('broken bundle')")

    monkeypatch.setattr(bundling, "_code", broken)
    with pytest.raises(MemtuneError, match=r"does not load in a fresh process.*broken bundle"):
        export(held, tmp_path / "bundle", backbone=backbone)
    assert files(tmp_path) == []


def test_the_fresh_process_finds_what_is_installed_outside_of_site_packages(done, backbone, tmp_path, monkeypatch):
    """As what ``pip install --user`` installs, which a Python of its own environment does not look for."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "sitecustomize.py").write_text(f"open({str(tmp_path / 'found')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(outside))
    assert export(done, tmp_path / "bundle", backbone=backbone).met
    assert (tmp_path / "found").exists()


def test_a_bundle_that_imports_memtune_is_not_handed_over(done, backbone, tmp_path, monkeypatch):
    code = bundling._code

    def importing(out, *arguments):
        code(out, *arguments)
        file = out / "modeling_memtune.py"
        file.write_text(file.read_text().replace("from transformers", "import memtune\nfrom transformers", 1))

    monkeypatch.setattr(bundling, "_code", importing)
    with pytest.raises(MemtuneError, match="the bundle imported memtune"):
        export(done, tmp_path / "bundle", backbone=backbone)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_is_asked_on_its_backbone_and_leaves_that_as_it_was(held, backbone, tmp_path):
    modules = [name for name, _ in backbone.model.named_modules()]
    result = export(held, tmp_path / "adapter", format="adapter", backbone=backbone)
    assert result.met and result.exact == len(FACTS) and result.format == "adapter"
    assert files(tmp_path / "adapter") == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert result.memory_bytes == (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert 'PeftModel.from_pretrained(base, "adapter")' in (tmp_path / "adapter" / "README.md").read_text()
    assert [name for name, _ in backbone.model.named_modules()] == modules


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("format", FORMATS)
def test_a_change_that_comes_in_between_makes_the_export_stale(held, config, backbone, tmp_path, monkeypatch, format):
    """It holds what was there when it began, and says so, though it takes minutes to write and to ask."""

    def slow(project, backbone, on_event):
        update([Fact("valve", FACTS[1][1], "HT-1")], held, config, backbone=backbone)
        return backbone

    monkeypatch.setattr(exporting, "backbone_of", slow)
    result = export(held, tmp_path / "out", format=format, backbone=backbone)
    assert result.met and result.exact == len(FACTS)
    assert [one.state for one in exports_of(Project(held))] == ["stale"]
    assert (tmp_path / "out" / STALE).exists()


@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
def test_a_linked_bundle_holds_the_memory_and_leads_to_the_backbone(shards, held, checkpoint, tmp_path):
    directory = tmp_path / "backbone"
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    model.save_pretrained(directory, max_shard_size="300KB" if shards else "50GB")
    transformers.AutoTokenizer.from_pretrained(checkpoint).save_pretrained(directory)
    before = {file.name: (file.stat().st_mode, file.stat().st_mtime) for file in directory.iterdir()}
    result = export(held, tmp_path / "linked", link=True, backbone=load_backbone(str(directory)))
    links = [path for path in (tmp_path / "linked").iterdir() if path.is_symlink()]
    assert result.met and len(links) == len(list(directory.glob("*.safetensors"))) > shards
    assert all(path.resolve().parent == directory for path in links)
    assert result.bytes < 2 * result.memory_bytes
    assert (
        exports_again(Project(held), [str(tmp_path / "linked")])[0].split(" --project")[0].endswith("--replace --link")
    )
    assert {file.name: (file.stat().st_mode, file.stat().st_mtime) for file in directory.iterdir()} == before


def test_an_adapter_has_nothing_to_link(tmp_path):
    with pytest.raises(ConfigError, match="holds no backbone"):
        export(tmp_path / "nowhere", tmp_path / "out", format="adapter", link=True)


def test_a_format_that_is_none_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match="no format 'gguf'") as caught:
        export(tmp_path / "nowhere", tmp_path / "out", format="gguf")
    assert caught.value.hint == "use one of: bundle, adapter"


def test_facts_that_nobody_tuned_cannot_be_exported(ingested, backbone, tmp_path):
    with pytest.raises(ProjectError) as caught:
        export(ingested, tmp_path / "bundle", backbone=backbone)
    assert caught.value.hint.startswith("run first: memtune tune")


def test_a_project_that_learned_nothing_is_not_exported(fresh, config, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(
        teaching,
        "fit_values",
        lambda hidden, targets, head, low, goal, **how: hidden.new_zeros(len(hidden), low.shape[1]),
    )
    tuning.tune(fresh, config, backbone=backbone)
    with pytest.raises(ProjectError):
        export(fresh, tmp_path / "bundle", backbone=backbone)


def test_another_model_is_refused(held, base_backbone, tmp_path):
    with pytest.raises(ProjectError, match="not the model"):
        export(held, tmp_path / "bundle", backbone=base_backbone)
    assert files(tmp_path) == [] and Project(held).exists


@pytest.mark.parametrize("out", ["..", "new/..", "."])
def test_a_place_that_is_no_new_directory_is_refused(held, backbone, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match="names no new directory"):
        export(held, Path(out), backbone=backbone)
    assert files(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_the_card_holds_names_as_text_on_one_line(done, backbone, tmp_path):
    """Whoever made the project named the model."""
    state = json.loads((done / "project.json").read_text())
    state["ingest"]["model"] = "x\nlicense: mit\x1b[31m \u202e"
    (done / "project.json").write_text(json.dumps(state))
    export(done, tmp_path / 'a "quoted" name', format="adapter", backbone=backbone)
    card = (tmp_path / 'a "quoted" name' / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "x\\nlicense: mit\\x1b[31m \\u202e"
    assert 'from_pretrained(base, "a \\"quoted\\" name")' in card
    assert card.replace("\n", "").isprintable()
