"""Facts, their history, changes to them and audits, as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import RenderableType

from memtune.ui.parts import PAIR_CAP, few, fields

if TYPE_CHECKING:
    from memtune.audit import AuditResult
    from memtune.change import ChangeResult
    from memtune.ingest import Preview
    from memtune.listing import Listing, Log

__all__ = ["audit_view", "change_view", "facts_view", "history_lines", "listing_lines", "preview_view"]


def listing_lines(result: Listing) -> Iterable[str]:
    """One line a fact."""
    for fact in result.facts:
        state = {True: " (learned)", False: " (not learned)", None: ""}[fact.learned]
        yield f"{fact.id}  {fact.question} -> {fact.answer}{state}"
    yield from (f"{name}  forgotten since" for name in result.lost)


def facts_view(result: Listing) -> Iterable[RenderableType]:
    """All that is known of each."""
    for fact in result.facts:
        state = "learned" if fact.learned else "not learned"
        loss = "" if fact.loss is None else f", {fact.loss:.2g} nats per answer token"
        entries = {"id": fact.id, "question": fact.question, "answer": fact.answer, "source": fact.source}
        wordings = {"wordings": " | ".join(fact.paraphrases)} if fact.paraphrases else {}
        yield fields(**entries, **wordings, state=f"{state}{loss}")


def history_lines(result: Log) -> Iterable[str]:
    """One line a change, the first one first."""
    for entry in result.changes:
        said = ", ".join(_counted(added=entry.added, changed=entry.changed, removed=entry.removed))
        file = f" {entry.file}" if entry.file else ""
        none = "all new" if entry.number == 1 else "nothing new"  # the first one names no facts
        yield f"{entry.number}  {entry.at}  {entry.command}{file}: {entry.facts:,} facts; {said or none}"


def change_view(result: ChangeResult) -> Iterable[RenderableType]:
    """What changed and what did not, and what is out of date now."""
    said = ", ".join(_counted(added=result.added, changed=result.changed, removed=result.removed))
    entries = {"change": f"{said or 'nothing'}; {result.untouched:,} untouched"}
    entries["learned"] = f"{result.learned:,} of {result.facts:,} facts"
    if result.verified:
        entries["verified"] = f"{result.verified_exact:,} of {result.verified:,} new ones said exactly by generate()"
    if result.conflicts:
        entries["alike"] = "; ".join(map(str, result.conflicts[:PAIR_CAP]))
    if result.stale:
        entries["stale"] = ", ".join(result.stale)
    yield fields(**entries, time=f"{result.seconds:.1f} s")


def preview_view(result: Preview) -> Iterable[RenderableType]:
    """What ingest would do."""
    for name in ("added", "changed", "removed"):
        if ids := getattr(result, name):
            yield fields(**{name: f"{len(ids):,}: {few(ids)}"})
    router = "made anew" if result.rebuilt else "stays as it is"
    yield fields(untouched=f"{result.untouched:,}", router=router)


def audit_view(result: AuditResult) -> Iterable[RenderableType]:
    """The figures; what is wrong is the error's to list."""
    entries = {
        "facts": f"{result.facts:,}, {result.learned:,} of them learned",
        "root": result.root,
        "files": f"{len(result.files)}, each with the bytes that were written",
        "history": f"{result.changes_recorded:,} changes, {'unbroken' if result.broken is None else 'BROKEN'}",
    }
    if result.exports:
        entries["exports"] = ", ".join(f"{export.directory} ({export.state})" for export in result.exports)
    if result.since:
        changes = _counted(added=result.since.added, changed=result.since.changed, gone=result.since.gone)
        entries["since"] = ", ".join([f"{result.since.same:,} facts the same, byte for byte", *changes])
    if result.absent:
        entries["absent"] = f"{len(result.absent)} texts looked for, {len(result.found)} found"
    yield fields(**entries)


def _counted(**names: tuple[str, ...]) -> list[str]:
    return [f"{len(ids):,} {word} ({few(ids)})" for word, ids in names.items() if ids]
