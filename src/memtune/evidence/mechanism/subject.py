"""The subject of a question, the thing that it asks about: the name in it, or else its rarest word.

Names are found as the router's training finds them (capitals inside a sentence, digits, rare words; no list of words):
of several, the one that holds the rarest word of memtune's documents and of the user's questions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from memtune.memory.questions import Reader
from memtune.memory.words import word_bucket
from memtune.names import NameFinder, name_runs

__all__ = ["Subject", "subject_of"]

Ids = tuple[int, ...]
_CORE = re.compile(r"[^\W_](?:\S*[^\W_])?")  # a word without the signs at its ends


@dataclass(frozen=True)
class Subject:
    """Its text, and the places of its tokens among those of the question."""

    text: str
    tokens: range


def subject_of(question: str, ids: Ids, reader: Reader) -> Subject | None:
    """``ids``: the question's own, as ``Prompts.question`` gives them. None where it has no word.

    A word between two that have a capital belongs to the name: "Bank of America". In a script without spaces the
    subject is the whole run of it.
    """
    question = question.strip()
    words = list(re.finditer(r"\S+", question))
    cores = [_CORE.search(question, word.start(), word.end()) for word in words]
    counts = [float(reader.counts[word_bucket(core[0].casefold())]) if core else float("inf") for core in cores]
    texts = [word[0] for word in words]
    runs = name_runs(texts, NameFinder.of(reader)(texts))
    if not runs:
        runs = [range(i, i + 1) for i, core in enumerate(cores) if core]
    chosen = min(runs, key=lambda run: (min(counts[i] for i in run), -len(run)), default=range(0))
    named = [core for core in cores[chosen.start : chosen.stop] if core]
    return _placed(question, named[0].start(), named[-1].end(), ids, reader) if named else None


def _placed(question: str, start: int, end: int, ids: Ids, reader: Reader) -> Subject | None:
    """The tokens that spell ``question[start:end]``; None where the tokenizer reads something else."""
    pieces = [reader.vocabulary.piece(token) for token in ids]
    text = question[start:end].encode()
    # Some tokenizers put a space before the first word, none takes anything away.
    begin = b"".join(pieces).find(text, len(question[:start].encode()))
    inside, at = [], 0
    for place, piece in enumerate(pieces):
        if begin >= 0 and at < begin + len(text) and at + len(piece) > begin:
            inside.append(place)
        at += len(piece)
    return Subject(question[start:end], range(inside[0], inside[-1] + 1)) if inside else None
