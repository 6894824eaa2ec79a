"""memtune and what one would use instead of it, each behind the same two calls: teach, then ask."""

from __future__ import annotations

from functools import partial

from . import grace, locft, lora, ours, rag
from .base import Method

METHODS = {
    "memtune": Method("memtune", ours.teach, ours.prepare),
    "lora": Method("LoRA, rank 32, all linear layers", lora.teach),
    "locft": Method("LocFT-BF, one late MLP matrix", locft.teach),
    "rag1": Method("retrieval (SQLite FTS5), 1 note in the prompt", partial(rag.teach, count=1)),
    "rag3": Method("retrieval, 3 notes in the prompt", partial(rag.teach, count=3)),
    "rag3turns": Method("retrieval, 3 notes as chat turns", partial(rag.teach, count=3, write=rag.as_turns)),
    "grace": Method("GRACE, codebook with a radius gate", grace.teach),
}
