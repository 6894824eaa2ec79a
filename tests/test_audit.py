"""An audit proves which facts are in, that the rest did not change, and that what is gone is in no file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tiny import FACTS

from memtune.audit import audit
from memtune.change import forget, update
from memtune.errors import ProjectError
from memtune.export import export
from memtune.fact import Fact
from memtune.project import Project

NAMES = [name for name, _, _ in FACTS]
VALVE = FACTS[1]


@pytest.fixture
def kept(done, tmp_path):
    """The audit of the tuned project, as a user keeps it."""
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(dataclasses.asdict(audit(done))))
    return path


def test_every_fact_has_a_hash_of_its_text_and_of_each_row(done, memory):
    result = audit(done)
    assert (result.facts, result.learned, result.broken, result.met) == (len(FACTS), len(FACTS), None, True)
    assert [proof.id for proof in result.proofs] == NAMES
    assert [len(proof.rows) for proof in result.proofs] == [memory.bank.experts_of(i) for i in range(len(FACTS))]
    assert len({row for proof in result.proofs for row in proof.rows}) == memory.bank.sizes.experts
    assert audit(done).root == result.root and len(result.files) == 5


def test_what_changed_since_an_earlier_audit_is_named_and_the_rest_is_the_same(done, kept, config, backbone):
    before = audit(done)
    update([Fact("tram", FACTS[2][1], "At the new station.")], done, config, backbone=backbone)
    forget(["valve"], done, config, backbone=backbone)
    result = audit(done, since=kept)
    assert (result.since.changed, result.since.gone, result.since.added) == (("tram",), ("valve",), ())
    assert result.since.same == len(FACTS) - 2 and result.since.left_behind == ()
    assert result.root != before.root and result.changes_recorded == 3 and result.met


def test_a_forgotten_fact_that_an_export_still_holds_is_found_there(done, kept, config, backbone, tmp_path):
    bundle = tmp_path / "bundle"
    export(done, bundle, backbone=backbone)
    forget(["valve"], done, config, backbone=backbone)
    result = audit(done, since=kept)
    assert result.since.left_behind == (f"{bundle / 'memory.safetensors'}: valve",) and not result.met
    assert [one.state for one in result.exports] == ["stale"]
    export(done, bundle, replace=True, backbone=backbone)
    assert audit(done, since=kept).met


def test_a_text_is_looked_for_in_every_file(done, config, backbone):
    texts = [VALVE[2], FACTS[4][2], "nobody said this"]
    found = audit(done, absent=texts).found
    assert {(line.split(": ")[1]) for line in found} == {VALVE[2], FACTS[4][2]}
    forget(["valve", "keeper"], done, config, backbone=backbone)
    assert audit(done, absent=texts).found == ()


def test_a_text_is_found_as_json_writes_it(done):
    """With escapes for what it must escape, and for nothing else or for all that is not ASCII."""
    text = 'Größe "M"'
    for name, ascii in (("plain.json", False), ("ascii.json", True)):
        (done / name).write_text(json.dumps([text], ensure_ascii=ascii), encoding="utf-8")
    assert audit(done, absent=[text]).found == (f"{done / 'ascii.json'}: {text}", f"{done / 'plain.json'}: {text}")


def test_what_a_bundle_has_of_its_backbone_is_not_read(done, backbone, tmp_path, monkeypatch):
    """No fact gets into weights, which are large, or into a tokenizer, which holds many a text by itself."""
    bundle, text, read = tmp_path / "bundle", "add_prefix_space", set()
    export(done, bundle, backbone=backbone)
    assert text in (bundle / "tokenizer.json").read_text()
    for mine in (bundle / "notes.txt", done / "tokenizer.json"):
        mine.write_text(text)
    reading = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.add(path) or reading(path))
    assert audit(done, absent=[text]).found == (f"{done / 'tokenizer.json'}: {text}", f"{bundle / 'notes.txt'}: {text}")
    of_bundle = {path.name for path in read if path.parent == bundle}
    assert {"memory.safetensors", "README.md", "config.json", "modeling_memtune.py"} <= of_bundle
    assert not of_bundle & {"model-backbone.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_a_damaged_file_is_named(done):
    path = Project(done).path("bank")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ProjectError, match=path.name):
        audit(done)


def test_an_altered_history_is_seen(done):
    project = Project(done)
    entry = json.loads(project.path("log").read_text()) | {"above": "0" * 64}
    project.commit({"log": project.keep("log", "jsonl", lambda path: path.write_text(json.dumps(entry)))})
    assert audit(done).broken == 1 and not audit(done).met


PROOF = {"id": "x", "learned": True, "text": "0" * 64, "rows": ["0" * 16]}
SPOILT = [json.dumps({"proofs": [PROOF | other]}) for other in ({"id": []}, {"text": {}}, {"rows": [[]]}, {"rows": 1})]


@pytest.mark.parametrize("text", ["", "{}", '{"proofs": [1]}', "[" * 200_000, *SPOILT], ids=lambda text: text[:80])
def test_something_that_is_no_audit_is_refused(done, tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ProjectError, match="is no audit"):
        audit(done, since=tmp_path / "other.json")
