"""Settings: a flag wins over memtune.yaml, that over the defaults, and no mistake in the file passes in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtune.config import CONFIG_FILE, Config
from memtune.errors import ConfigError


def load(folder: Path, text: str) -> Config:
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    return Config.load(folder / CONFIG_FILE)


def refused(folder: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return caught.value


def test_without_a_file_or_with_an_empty_one_the_defaults_hold(tmp_path: Path) -> None:
    assert Config.load(tmp_path / CONFIG_FILE) == Config()
    assert load(tmp_path, "# nothing yet\n") == Config()


def test_a_flag_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "until_loss: 0.02\nseed: 7\n").with_flags(seed=3, until_loss=None, verify=None)
    assert (config.until_loss, config.seed, config.verify) == (0.02, 3, "sample")


@pytest.mark.parametrize("spelling", ["1e-4", "1.0e-4", "0.0001", "'1e-4'"])
def test_a_number_is_a_number_however_yaml_reads_it(tmp_path: Path, spelling: str) -> None:
    assert load(tmp_path, f"until_loss: {spelling}").until_loss == 0.0001


def test_a_dash_in_a_key_is_an_underscore(tmp_path: Path) -> None:
    assert load(tmp_path, "until-loss: 0.5").until_loss == 0.5


def test_an_unknown_key_names_the_file_and_the_key_that_was_meant(tmp_path: Path) -> None:
    error = refused(tmp_path, "untill_loss: 0.5")
    assert str(error) == f"{tmp_path / CONFIG_FILE}: unknown key 'untill_loss'"
    assert error.hint == "did you mean 'until_loss'?"
    assert refused(tmp_path, "zzz: 1").hint.startswith("known keys: model, until_loss,")


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    assert "the key 'seed' stands twice" in str(refused(tmp_path, "seed: 1\nseed: 2\n"))


@pytest.mark.parametrize("value", ["no", "on", "true", "~"])
def test_what_yaml_takes_for_a_boolean_or_nothing_is_no_text(tmp_path: Path, value: str) -> None:
    error = refused(tmp_path, f"model: {value}")
    assert "model is " in str(error) and "expected str" in str(error)
    assert error.hint == "put the value in quotes"


@pytest.mark.parametrize("data", [b"- model", b"just words", b"model: [", b"model: \xff"])
def test_what_is_no_mapping_of_settings_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        Config.load(tmp_path / CONFIG_FILE)
    assert str(caught.value).startswith(f"{tmp_path / CONFIG_FILE}: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("until_loss", 0.0),
        ("until_loss", 0.7),
        ("until_loss", float("nan")),
        ("false_fire", 1.0),
        ("verify", "some"),
        ("seed", -1),
        ("seed", 1 << 63),
        ("dtype", "int4"),
        ("rows", "int4"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_possible(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} is ") as caught:
        Config().with_flags(**{name: value})
    assert caught.value.hint.startswith(f"{name} takes ")


@pytest.mark.parametrize("text", ["seed: 1.7", "seed: .inf", "model: [a]", "until_loss: {a: 1}"])
def test_a_value_of_another_kind_is_not_bent(tmp_path: Path, text: str) -> None:
    assert "expected " in str(refused(tmp_path, text))


LAUGHS = "- &a0 [x]\n" + "".join(f"- &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "aliases and tags are not read"),
        ("seed: &s 1\nmodel: *s", "aliases and tags are not read"),
        ("seed: !!python/object/apply:os.system [id]", "aliases and tags are not read"),
        ("model: !!timestamp x", "aliases and tags are not read"),
        ("[" * 5000, "maximum recursion depth exceeded"),
        ("seed: 2020-99-99", "month must be in 1..12"),
        (f"seed: {'9' * 5000}", "Exceeds the limit"),
        ('"\\e[31m": 1', "unknown key '\\x1b[31m'"),
        (f"{'k' * 900}: 1", "unknown key 'kkkk"),
    ],
)
def test_hostile_settings_are_refused_in_a_line(tmp_path: Path, text: str, reason: str) -> None:
    message = str(refused(tmp_path, text))
    assert reason in message and message.isprintable() and len(message) < 400


def test_settings_that_cannot_be_opened_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    assert str(refused_as_it_is(tmp_path)) == f"{tmp_path / CONFIG_FILE}: Permission denied"


def refused_as_it_is(folder: Path) -> ConfigError:
    (folder / CONFIG_FILE).touch()
    with pytest.raises(ConfigError) as caught:
        Config.load(folder / CONFIG_FILE)
    return caught.value
