"""Whatever moment a command dies at, the project directory holds its last finished state."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memtune.errors import ProjectError
from memtune.project import Project, check_writable, write_beside

SLEEPER = "with Project(root).writing():\n    print('held', flush=True)\n    sys.stdin.read()\n"
KILLED = (
    "import os, signal\n"
    "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    "with Project(root).writing():\n"
    "    pass\n"
    "project = Project(root)\n"
    "record = project.keep('bank', 'bin', lambda path: path.write_bytes(b'new'))\n"
    "project.commit({'bank': record}, tune={'learned': 2})\n"
)


class Died(BaseException):
    """What no handler of the library expects."""


def other_process(root: Path, code: str) -> subprocess.Popen[str]:
    head = f"import sys\nfrom pathlib import Path\nfrom memtune.project import Project\nroot = Path({str(root)!r})\n"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", head + code], stdin=pipe, stdout=pipe, text=True)


def holding(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def finished(root: Path, data: bytes = b"old") -> Project:
    """A project with one file and one record, committed."""
    root.mkdir(parents=True, exist_ok=True)
    project = Project(root)
    project.commit({"bank": project.keep("bank", "bin", holding(data))}, tune={"learned": 1})
    return project


def files(root: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in root.iterdir()}


def test_what_was_committed_is_read_again(tmp_path: Path) -> None:
    assert not Project(tmp_path).exists
    finished(tmp_path)
    project = Project(tmp_path)
    assert project.exists
    assert project.need("tune", "memtune tune") == {"learned": 1}
    assert project.path("bank").read_bytes() == b"old"


def test_a_missing_stage_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="holds no finished ingest") as caught:
        Project(tmp_path).need("ingest", "memtune ingest FACTS")
    assert caught.value.hint.startswith("run first: memtune ingest FACTS")


@pytest.mark.parametrize("nth", [1, 2])
def test_death_before_a_rename_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """The first rename is that of the new file, the second that of the state."""
    project = finished(tmp_path)
    renames, replace = iter(range(1, 3)), Path.replace

    def dies(self: Path, target: Path) -> Path:
        if next(renames) == nth:
            raise Died
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(Died):
        project.commit({"bank": project.keep("bank", "bin", holding(b"new"))}, tune={"learned": 2})
    monkeypatch.undo()
    again = Project(tmp_path)
    assert again.need("tune", "") == {"learned": 1}
    assert again.path("bank").read_bytes() == b"old"
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_leaves_the_old_state_and_the_next_commit_clears_up(tmp_path: Path) -> None:
    finished(tmp_path)
    with other_process(tmp_path, KILLED) as process:
        assert process.wait(30) == -signal.SIGKILL
    assert list(tmp_path.glob(".*.tmp"))
    (tmp_path / ".tmpAbC123").write_text("what safetensors leaves if it is killed")
    assert Project(tmp_path).path("bank").read_bytes() == b"old"
    finished(tmp_path, b"newer")
    assert files(tmp_path) <= {"bank", "project.json", "lock"}


def test_a_failed_write_leaves_the_old_bytes_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_beside(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_beside(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = finished(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ProjectError, match=r"bank-\w+\.bin cannot be written: No space left on device"):
        project.keep("bank", "bin", holding(b"new"))


def test_a_file_is_named_by_its_content_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    project = finished(tmp_path)
    record = project.keep("bank", "bin", holding(b"new"))
    digest = hashlib.sha256(b"new").hexdigest()
    assert record == {"name": f"bank-{digest[:16]}.bin", "sha256": digest, "bytes": 3}
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_name_that_is_no_utf8_is_kept_as_it_is(tmp_path: Path) -> None:
    finished(tmp_path).commit({}, exports=[{"directory": "/o\udcff", "format": "bundle", "memory": []}])
    assert Project(tmp_path).state["exports"][0]["directory"] == "/o\udcff"


def test_a_directory_that_safetensors_cannot_open_is_refused_at_once() -> None:
    with pytest.raises(ProjectError, match=r"^p\\udcff is not UTF-8") as caught:
        Project(Path("p\udcff"))
    assert caught.value.hint == "use --project DIR"


def test_commit_removes_what_is_no_longer_named(tmp_path: Path) -> None:
    finished(tmp_path)
    finished(tmp_path, b"new")
    assert [path.read_bytes() for path in tmp_path.glob("bank-*")] == [b"new"]


def test_commit_leaves_the_files_of_others_alone(tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text("mine")
    finished(tmp_path)
    assert (tmp_path / "facts.jsonl").read_text() == "mine"


def test_a_file_with_other_bytes_is_named_as_damaged(tmp_path: Path) -> None:
    path = finished(tmp_path).path("bank")
    path.write_bytes(b"0ld")
    with pytest.raises(ProjectError, match=f"{path.name} is damaged"):
        Project(tmp_path).path("bank")
    path.unlink()
    with pytest.raises(ProjectError, match=f"{path.name} is missing"):
        Project(tmp_path).path("bank")


@pytest.mark.parametrize("state", [b"{", b"[]", b"\xff", json.dumps({"format": 99}).encode()])
def test_a_state_that_cannot_be_read_says_how_to_begin_again(tmp_path: Path, state: bytes) -> None:
    (tmp_path / "project.json").write_bytes(state)
    with pytest.raises(ProjectError) as caught:
        Project(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "memtune ingest FACTS" in caught.value.hint


def test_a_second_writer_is_told_who_is_in_the_way_and_a_reader_is_not(tmp_path: Path) -> None:
    finished(tmp_path)
    with other_process(tmp_path, SLEEPER) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(ProjectError, match="is in use by another memtune command"), Project(tmp_path).writing():
            pass
        assert Project(tmp_path).path("bank").read_bytes() == b"old"
        process.communicate()
    with Project(tmp_path).writing():
        pass


@pytest.mark.parametrize("place", ["file", "file/below", "new/below"])
def test_whether_a_place_can_be_written_is_seen_without_a_trace(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    before = list(tmp_path.iterdir())
    if place.startswith("new"):
        check_writable(tmp_path / place)
    else:
        with pytest.raises(OSError, match=r"File exists|Not a directory"):
            check_writable(tmp_path / place)
    assert list(tmp_path.iterdir()) == before


def test_a_place_that_is_no_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProjectError, match="cannot be written"), Project(tmp_path / "file").writing():
        pass
