"""Whatever happens to a process, its disk or its files: what was reported done is there, and what is wrong is named."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess

import pytest
from tiny import FACTS, write_facts
from typer.testing import CliRunner

from memtune.audit import audit
from memtune.change import add, forget, update
from memtune.cli import app
from memtune.errors import MemtuneError, ProjectError
from memtune.export import export
from memtune.fact import Fact
from memtune.ingest import ingest
from memtune.probe import probe
from memtune.project import Project
from memtune.store import load_memory
from memtune.tune import tune

FERRY = Fact("ferry", "When does the last ferry leave?", "At 23:40")
VALVE = Fact("valve", FACTS[1][1], "HT-1")
VERBS = ["ingest", "tune", "add", "update", "forget"]

KILLED = """
    import json, os, random, shutil, signal, sys, time
    from pathlib import Path
    import tiny, torch
    from memtune import tune as tuning
    from memtune.backbone import load_backbone
    from memtune.change import add, forget, update
    from memtune.config import Config
    from memtune.errors import MemtuneError
    from memtune.export import export
    from memtune.fact import Fact, facts_to_jsonl
    from memtune.history import History
    from memtune.ingest import ingest
    from memtune.project import Project
    from memtune.store import load_facts, load_memory

    tiny.lighten(setattr)
    torch.set_num_threads(1)
    directory, model, kills = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    project, bundle, file = directory / "project", directory / "bundle", directory / "facts.jsonl"
    tuning.CHUNK, tuning.SAVE_EVERY, tuning.SHARE = 4, 0.0, float("inf")
    backbone, config = load_backbone(model), Config(model=model)
    draw = random.Random(0)
    units = [Fact(f"unit-{i}", f"What is the code of unit {i}?", f"HT-{7 * i:03}") for i in range(12)]
    boats = [Fact(f"boat-{i}", f"Who sails the boat number {i}?", f"Captain {i}") for i in range(200)]

    def said(facts):
        return {fact.id: fact.answer for fact in facts}

    def now():
        return said(load_facts(Project(project))) if Project(project).exists else {}

    # Each operation: what the facts are afterwards, and the work.
    def to_ingest(before):
        facts = units[: draw.randint(6, 12)]
        file.write_text(facts_to_jsonl(facts))
        return said(facts), lambda: ingest(file, project, config, backbone=backbone)

    def to_tune(before):
        return before, lambda: tuning.tune(project, config, backbone=backbone)

    def to_export(before):
        return before, lambda: export(project, bundle, link=True, replace=True, backbone=backbone)

    def to_add(before):
        fact = boats.pop()
        return before | said([fact]), lambda: add([fact], project, config, keep_both=True, backbone=backbone)

    def to_update(before):
        name = draw.choice(sorted(before))
        question = next(fact.question for fact in load_facts(Project(project)) if fact.id == name)
        fact = Fact(name, question, f"HT-{draw.randint(100, 999)}")
        return before | said([fact]), lambda: update([fact], project, config, keep_both=True, backbone=backbone)

    def to_forget(before):
        name = draw.choice(sorted(before))
        after = {key: value for key, value in before.items() if key != name}
        return after, lambda: forget([name], project, config, backbone=backbone)

    def begin(work):
        mine, its = os.pipe()
        child = os.fork()
        if not child:
            os.close(mine)
            work()
            os.write(its, b"done")
            os._exit(0)
        os.close(its)
        return child, mine

    def end(child, pipe):
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        with os.fdopen(pipe, "rb") as word:
            return killed, word.read() == b"done"

    def check(allowed, known):
        # The state is one of those that are allowed, and no fact that was learned and is the same is unlearned.
        found = now()
        assert found in allowed, (found, allowed)
        state = Project(project)
        bank = load_memory(state).bank
        assert [bank.id_of(i) for i in range(len(found))] == list(found)
        assert History(state).broken() is None
        learned = {name: found[name] for i, name in enumerate(found) if bank.accepted[i]}
        lost = {name for name, answer in known.items() if found.get(name) == answer and name not in learned}
        assert not lost, lost
        if bundle.exists():
            assert (bundle / "memory.safetensors").is_file() and (bundle / "config.json").is_file()
        return found, learned

    def whole(work, before, after, known):
        killed, done = end(*begin(work))
        assert done, (before, after)
        return check([after], known)[1]

    every = [to_ingest, to_tune, to_export, to_add, to_update, to_forget]
    order = [*every[:3], *every[3:] * 5]  # those that take longest, less often
    known, times, counts = {}, {}, {}
    for operation in every:  # how long each takes
        before = now()
        after, work = operation(before)
        started = time.monotonic()
        known = whole(work, before, after, known)
        times[operation] = time.monotonic() - started
    while sum(counts.values()) < kills:
        for operation in order:
            before = now()
            after, work = operation(before)
            child, pipe = begin(work)
            time.sleep(draw.uniform(0, 1.1 * times[operation]))
            os.kill(child, signal.SIGKILL)
            killed, done = end(child, pipe)
            counts[operation.__name__] = counts.get(operation.__name__, 0) + killed
            found, known = check([after] if done else [before, after], known)
            if not done:
                known = whole(work, before, after, known)  # the same command again
            if operation is to_forget:
                held = b"".join(path.read_bytes() for path in project.iterdir())
                gone = [answer for name, answer in before.items() if name not in after and name.startswith("boat")]
                assert not [answer for answer in gone if json.dumps(answer).encode() in held]
    left = [path.name for path in directory.iterdir() if path.name.startswith(".bundle")]
    print(json.dumps({"kills": counts, "left": left}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL and fork")
def test_fifty_kills_at_random_moments_lose_nothing_that_was_reported_done(tmp_path, config, run_python, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    report = json.loads(run_python(KILLED, tmp_path, config.model, 50).splitlines()[-1])
    print(report["kills"])
    assert len(report["kills"]) == 6 and sum(report["kills"].values()) >= 50 and all(report["kills"].values())
    assert len(report["left"]) <= 1, "what a killed export leaves is cleared up by the next one"


@pytest.fixture
def verbs(tmp_path, config, backbone):
    """Every verb that writes, over a tuned project."""
    other = write_facts(tmp_path / "other.jsonl", FACTS[1:])
    return {
        "ingest": lambda project: ingest(other, project, config, backbone=backbone),
        "tune": lambda project: tune(project, config.with_flags(until_loss=1e-5), backbone=backbone),
        "add": lambda project: add([FERRY], project, config, backbone=backbone),
        "update": lambda project: update([VALVE], project, config, backbone=backbone),
        "forget": lambda project: forget(["valve"], project, config, backbone=backbone),
    }


def whole(project):
    return {path.name: path.read_bytes() for path in project.iterdir() if path.name != "lock"}


@pytest.mark.parametrize("verb", VERBS)
def test_a_second_process_is_locked_out_with_a_clear_word(done, verbs, verb):
    with Project(done).writing(), pytest.raises(ProjectError, match="in use by another memtune command"):
        verbs[verb](done)


@pytest.mark.parametrize("verb", ["tune", "add", "update", "forget"])
def test_an_ingest_for_another_model_that_comes_in_between_is_seen(done, verbs, verb, monkeypatch):
    """Between the look at the model and the lock, which is held for the work alone."""
    module = importlib.import_module("memtune.tune" if verb == "tune" else "memtune.change")
    looked, after = module.backbone_of, {}

    def slow(project, backbone, on_event):
        found = looked(project, backbone, on_event)
        other = Project(done)
        other.commit({}, model=other.state["model"] | {"fingerprint": "of another model"})
        after.update(whole(done))
        return found

    monkeypatch.setattr(module, "backbone_of", slow)
    with pytest.raises(ProjectError, match="not the model these facts were ingested for"):
        verbs[verb](done)
    assert after and whole(done) == after


@pytest.fixture
def small_disk(tmp_path, tuned):
    """A file system of its own with the tuned project on it and hardly any room left."""
    place = tmp_path / "disk"
    place.mkdir()
    size = sum(-(-path.stat().st_size // 4096) * 4096 for path in tuned.iterdir())
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    options = ["-t", "tmpfs", "-o", f"size={size + (8 << 10)}"]
    if subprocess.run(["mount", *options, "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield shutil.copytree(tuned, place / "project")
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_said_and_the_state_stays(small_disk, verbs, verb):
    before = whole(small_disk)
    with pytest.raises(MemtuneError, match="cannot be written"):
        verbs[verb](small_disk)
    after = whole(small_disk)
    assert {name: data for name, data in after.items() if name in before} == before
    load_memory(Project(small_disk))


@pytest.mark.parametrize("kind", ["facts", "router", "bank", "log", "past"])
@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_file_is_named_by_every_verb_that_reads_it(done, verbs, backbone, tmp_path, kind, damage):
    verbs["update"](done)
    path = Project(done).path(kind)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    else:
        del data[-1:]
    path.write_bytes(data)
    before = whole(done)
    readers = [verbs["add"], verbs["forget"], audit]
    if kind in {"router", "bank"}:
        readers += [verbs["tune"], lambda project: list(probe(["Who?"], project, backbone=backbone))]
        readers += [lambda project: export(project, tmp_path / "out", backbone=backbone)]
    for reader in readers:
        with pytest.raises(ProjectError, match=path.name):
            reader(done)
    assert whole(done) == before


@pytest.mark.parametrize("kind", ["project.json", "facts", "router", "log"])
def test_what_is_said_of_a_damaged_file_can_be_done(done, facts_file, checkpoint, tmp_path, monkeypatch, kind):
    """Ingest over the same directory reads the damaged file too, and stops there."""
    monkeypatch.chdir(tmp_path)
    path = done / kind if kind == "project.json" else Project(done).path(kind)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ProjectError, match=path.name) as caught:
        audit(done)
    ingests = ["ingest", str(facts_file), "--model", checkpoint]
    over = CliRunner().invoke(app, [*ingests, "--project", str(done)])
    assert over.exit_code == 2 and path.name in over.stderr
    advice, _, command = caught.value.hint.partition(": memtune ")
    assert advice == "restore it from a backup, or start anew in another directory"
    words = command.replace("FACTS", str(facts_file)).replace("DIR", "new").split()
    anew = CliRunner().invoke(app, [*words, "--model", checkpoint])
    assert anew.exit_code == 0, anew.stderr
