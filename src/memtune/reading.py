"""Reads questions through the backbone's early layers, part by part: a bounded number of states is held at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from memtune.backbone import Backbone
from memtune.memory.questions import Questions, Reader

__all__ = ["Reading"]

TOGETHER = 1024  # questions of a part: their states take some 100 MB
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """Any text as the router would read it."""

    backbone: Backbone
    reader: Reader

    def parts(self, ids: Iterable[Ids]) -> Iterator[Questions]:
        """All questions in their order, some at a time."""
        waiting = iter(ids)
        while part := list(islice(waiting, TOGETHER)):
            yield self.reader.read(part, self.backbone.states.early(part))

    def questions(self, ids: Iterable[Ids]) -> Questions:
        return Questions.cat(list(self.parts(ids)))

    def texts(self, texts: Iterable[str]) -> Questions:
        return self.questions(map(self.backbone.prompts.question, texts))
