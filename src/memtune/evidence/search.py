"""Facts found by their words: SQLite's full-text index (FTS5), ranked by bm25."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable

from memtune.fact import Fact

__all__ = ["FactSearch"]


class FactSearch:
    """A full-text index, in memory, over questions, their other wordings and answers; it knows facts by number."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._db = sqlite3.connect(":memory:")
        self._db.execute("CREATE VIRTUAL TABLE facts USING fts5(question, answer)")
        rows = ((number, "\n".join(f.wordings), f.answer) for number, f in enumerate(facts))
        self._db.executemany("INSERT INTO facts(rowid, question, answer) VALUES (?, ?, ?)", rows)
        self._db.commit()  # the index is written then, not before

    @property
    def bytes(self) -> int:
        pages, size = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        return int(pages * size)

    def find(self, text: str, count: int) -> list[int]:
        """Numbers of at most ``count`` facts, best first; one that shares no word with ``text`` is never among them.

        The words are alternatives: a question never matches as a whole.
        """
        words = dict.fromkeys(re.findall(r"\w+", text.casefold()))
        if not words:
            return []
        query = " OR ".join(f'"{word}"' for word in words)
        found = self._db.execute("SELECT rowid FROM facts WHERE facts MATCH ? ORDER BY rank LIMIT ?", (query, count))
        return [number for (number,) in found]
