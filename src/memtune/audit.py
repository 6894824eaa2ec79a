"""The verb audit: which facts are in a project, proved with hashes, and whether what should be gone is gone.

Every file is read anew and compared with its checksum, the history's chain is followed, and for each fact there is a
hash of what is taught and one of each of its rows. Kept, an audit is what a later one is compared with.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from memtune.bundle import backbone_files
from memtune.errors import ProjectError
from memtune.exported import Export, exports_of, is_bundle
from memtune.history import History
from memtune.memory.bank import Bank
from memtune.project import Project
from memtune.store import load_facts, load_memory

__all__ = ["AuditResult", "Changes", "Proof", "audit"]

DIGITS = 16  # of the SHA-256 of a row: two rows of a million facts have the same with a chance of one in a million
# What transformers calls the files of tokenizers.
_TOKENIZER = re.compile(
    r"tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|chat_template\.\w+"
    r"|vocab\.(json|txt)|merges\.txt|.+\.(model|spm|tiktoken)"
)
VALUES = "bank.values"  # what the name of the value rows ends with, in whatever file they are


@dataclass(frozen=True)
class Proof:
    """One fact. ``text``: SHA-256 of all that is taught; ``rows``: of each of its value rows, the first digits."""

    id: str
    learned: bool
    text: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """Ids of facts against an earlier audit: whose text and rows are the same, or not, or that are gone.

    ``left_behind``: FILE: ID for each file, of the project or an export, that still holds a row of a fact that is gone.
    """

    same: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    left_behind: tuple[str, ...]


@dataclass(frozen=True)
class AuditResult:
    """``root``: SHA-256 over the proofs in the order of their ids: equal for two memories of the same facts and rows.

    ``broken``: the number of the first entry of the history that does not follow from the one above it, or None.
    ``found``: FILE: TEXT for each text that should be absent and is not.
    """

    facts: int
    learned: int
    root: str
    proofs: tuple[Proof, ...]
    files: tuple[str, ...]  # that hold what they were written with; one that does not ends the audit
    changes_recorded: int
    broken: int | None
    exports: tuple[Export, ...]
    since: Changes | None
    absent: tuple[str, ...]
    found: tuple[str, ...]

    @property
    def met(self) -> bool:
        left_behind = self.since.left_behind if self.since else ()
        return self.broken is None and not self.found and not left_behind


def audit(project_dir: Path, *, since: Path | None = None, absent: Sequence[str] = ()) -> AuditResult:
    """``since``: the JSON of an earlier audit. ``absent``: texts that no file of the project or an export may hold.

    What a bundle has of its backbone is not read.
    Raises ProjectError for a damaged file, naming it, and for a ``since`` that is no audit.
    """
    project = Project(project_dir)
    project.need("ingest", "memtune ingest FACTS")
    files = [project.path(kind) for kind in project.state["files"]]
    proofs = tuple(_proofs(project))
    exports = exports_of(project)
    places = [project.root, *(Path(export.directory) for export in exports if export.state != "missing")]
    history = History(project)
    broken = history.broken()
    return AuditResult(
        facts=len(proofs),
        learned=sum(proof.learned for proof in proofs),
        root=_root(proofs),
        proofs=proofs,
        files=tuple(path.name for path in files),
        changes_recorded=len(history.entries),
        broken=broken.number if broken else None,
        exports=tuple(exports),
        since=_since(_earlier(since), proofs, places) if since else None,
        absent=tuple(absent),
        found=tuple(_found(absent, places)),
    )


def _proofs(project: Project) -> Iterator[Proof]:
    bank = load_memory(project).bank
    rows = [_short(row) for row in _rows(bank)]
    for number, fact in enumerate(load_facts(project)):
        yield Proof(fact.id, bool(bank.accepted[number]), fact.digest, tuple(rows[bank.run(number)]))


def _rows(bank: Bank) -> Iterator[bytes]:
    return (row.tobytes() for row in bank.values.numpy())


def _short(row: bytes) -> str:
    return hashlib.sha256(row).hexdigest()[:DIGITS]


def _root(proofs: Sequence[Proof]) -> str:
    digest = hashlib.sha256()
    for proof in sorted(proofs, key=lambda proof: proof.id):
        digest.update(json.dumps([proof.id, proof.learned, proof.text, proof.rows]).encode())
    return digest.hexdigest()


def _earlier(path: Path) -> dict[str, Proof]:
    try:
        entries: Any = json.loads(path.read_bytes())["proofs"]
        proofs = [Proof(e["id"], e["learned"], e["text"], tuple(e["rows"])) for e in entries]
        if not all(isinstance(text, str) for proof in proofs for text in (proof.id, proof.text, *proof.rows)):
            raise TypeError("an id or a hash is no text")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProjectError(f"{path} is no audit", hint="memtune audit --json > audit.json") from error
    return {proof.id: proof for proof in proofs}


def _since(before: Mapping[str, Proof], proofs: Sequence[Proof], places: Sequence[Path]) -> Changes:
    now = {proof.id: proof for proof in proofs}
    both = [(before[name], proof) for name, proof in now.items() if name in before]
    changed = tuple(new.id for old, new in both if (old.text, old.rows) != (new.text, new.rows))
    gone = tuple(name for name in before if name not in now)
    return Changes(
        same=len(both) - len(changed),
        added=tuple(name for name in now if name not in before),
        changed=changed,
        gone=gone,
        left_behind=tuple(_left_behind([before[name] for name in gone], places)),
    )


def _left_behind(gone: Sequence[Proof], places: Sequence[Path]) -> Iterator[str]:
    """Rows of facts that are gone, wherever a file holds value rows. A row of zeros was never fitted."""
    owner = {row: proof.id for proof in gone if proof.learned for row in proof.rows}
    for path in _files(places) if owner else ():
        if path.suffix == ".safetensors":
            names = {owner[row] for row in _value_rows(path) if row in owner}
            yield from (f"{path}: {name}" for name in sorted(names))


def _value_rows(path: Path) -> Iterator[str]:
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118
            if name == "values" or name.endswith(VALUES):
                yield from (_short(row.tobytes()) for row in file.get_tensor(name))


def _found(texts: Sequence[str], places: Sequence[Path]) -> Iterator[str]:
    """As UTF-8, and as JSON writes it, with escapes for what it must escape or for all that is not ASCII."""
    wanted = {text: {text.encode(), _in_json(text, True), _in_json(text, False)} for text in texts}
    for path in _files(places) if wanted else ():
        data = path.read_bytes()
        yield from (f"{path}: {text}" for text, forms in wanted.items() if any(form in data for form in forms))


def _in_json(text: str, ascii: bool) -> bytes:
    return json.dumps(text, ensure_ascii=ascii)[1:-1].encode()


def _files(places: Sequence[Path]) -> Iterator[Path]:
    """Every file, links left out. Of a bundle not what it has of its backbone, weights and tokenizer: no fact gets into
    those, they take long to read, and a tokenizer holds any common word.
    """
    for place in places:
        weights = backbone_files(place) if is_bundle(place) else frozenset()
        for path in sorted(place.rglob("*")):
            tokenizer = weights and _TOKENIZER.fullmatch(path.name)
            if path.is_file() and not path.is_symlink() and path.name not in weights and not tokenizer:
                yield path
