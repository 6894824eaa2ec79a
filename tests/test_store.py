"""The memory as files: a fixed number of stacked tensors, read back as they were, or not at all."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import SafetensorError, safe_open
from tiny import FACTS

from memtune import store
from memtune.errors import ProjectError
from memtune.memory.module import Memory
from memtune.project import Project
from memtune.store import check_backbone, load_facts, load_memory, save_bank, save_memory


@pytest.fixture
def project(done):
    return Project(done)


def shapes(path):
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def test_a_memory_comes_back_bit_for_bit(project):
    memory = load_memory(project)
    with project.writing():
        project.commit(save_memory(project, memory))
    again = load_memory(Project(project.root))
    assert again.config == memory.config
    for name, tensor in memory.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_saving_the_same_memory_writes_the_same_bytes(project):
    memory = load_memory(project)
    assert save_memory(project, memory) == {kind: project.state["files"][kind] for kind in ("router", "bank")}


def test_a_new_bank_replaces_the_old_one_and_leaves_the_router(project):
    memory, before = load_memory(project), project.state["files"]
    memory.bank.values.add_(1)
    with project.writing():
        project.commit(save_bank(project, memory.bank))
    assert project.state["files"]["router"] == before["router"]
    assert torch.equal(load_memory(Project(project.root)).bank.values, memory.bank.values)


def test_keys_values_and_ids_are_stacked(project, memory):
    experts = memory.bank.sizes.experts
    bank = shapes(project.path("bank"))
    assert bank["keys"] == (experts, memory.bank.sizes.d_key) and bank["values"] == (experts, memory.bank.sizes.d_value)
    assert bank["ids"] == (sum(len(name) for name, _, _ in FACTS),)
    assert set(bank) | set(shapes(project.path("router"))) == {
        name.removeprefix("bank.") for name in Memory(memory.config).state_dict()
    }


def test_a_memory_is_ready_to_be_used_not_trained(project):
    assert not any(parameter.requires_grad for parameter in load_memory(project).parameters())


def test_every_file_may_be_read_by_whom_the_users_files_may(project):
    modes = {path.stat().st_mode for path in project.root.iterdir() if path.name != "lock"}
    assert modes == {(project.root / "project.json").stat().st_mode}


def test_a_loaded_memory_that_is_written_to_leaves_the_files_as_they_were(project):
    load_memory(project).bank.values.add_(1)
    again = load_memory(project)  # checks the checksums
    again.router.get_buffer("threshold").add_(1)
    load_memory(project)


def test_a_full_disk_is_said_with_the_file(project, memory, monkeypatch):
    def full(*_arguments, **_options):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(store, "save_file", full)
    before = sorted(path.name for path in project.root.iterdir())
    with pytest.raises(ProjectError, match=r"bank.safetensors cannot be written: .*No space left"):
        save_bank(project, memory.bank)
    assert sorted(path.name for path in project.root.iterdir()) == before


@pytest.mark.parametrize("kind", ["bank", "router", "facts"])
def test_bytes_that_changed_are_noticed(project, kind):
    path = project.path(kind)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ProjectError, match=f"{kind}.* is damaged"):
        load_facts(project) if kind == "facts" else load_memory(project)


@pytest.mark.parametrize("kind", ["bank", "router", "facts"])
def test_a_file_that_is_gone_is_named(project, kind):
    project.path(kind).unlink()
    with pytest.raises(ProjectError, match=f"{kind}.* is missing"):
        load_facts(project) if kind == "facts" else load_memory(project)


def test_facts_come_back_in_their_order(project):
    assert [(fact.id, fact.question, fact.answer) for fact in load_facts(project)] == list(FACTS)


def test_facts_that_are_not_those_of_the_bank_are_refused(project):
    path = project.root / "project.json"
    state = json.loads(path.read_text())
    state["ingest"]["facts"] += 1
    path.write_text(json.dumps(state))
    with pytest.raises(ProjectError, match="holds other facts"):
        load_facts(Project(project.root))


def test_the_memory_belongs_to_the_model_that_it_was_made_for(project, backbone, base_backbone):
    check_backbone(project, backbone)
    with pytest.raises(ProjectError, match="not the model") as caught:
        check_backbone(project, base_backbone)
    assert caught.value.hint == f"run again: memtune ingest FACTS --project {project.root}"
