"""Stored questions, packed: the router keeps about a kilobyte of each.

The index vector is rounded to eight bits and each of a word's two views to four; how a word is spelt is kept once for
all questions that hold it. Unit rows need no scale beside them: what is rounded is brought back to unit length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from hashlib import blake2b
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .questions import Questions, ragged_rows
from .rounding import rounded
from .words import SKETCH

__all__ = ["NO_WORDS", "StoredQuestions", "digests"]

NIBBLE = 7  # the largest integer of four bits, which are kept from 1 on
KINDS = 4  # PLAIN, CAPITAL, NAME and DIGIT share a byte with the number of tokens
NO_WORDS = 0  # digest of a question without words


@dataclass(frozen=True)
class StoredQuestions:
    """Any number of questions, ragged: the words of question i are rows ``offsets[i]:offsets[i + 1]``."""

    vectors: Tensor  # int8 (questions, d_index), of any length
    digests: Tensor  # int64 (questions,), of the words in their order
    offsets: Tensor  # int64 (questions + 1,)
    views: Tensor  # uint8 (words, d_gate): meaning in the low four bits, relation in the high ones
    strength: Tensor  # float16 (words,): length of the relation row
    task: Tensor  # float16 (words,)
    looks: Tensor  # uint8 (words,): kind, and KINDS times the tokens
    spelling: Tensor  # int32 (words,): which of the spellings below
    sketch: Tensor  # uint8 (spellings, SKETCH / 8)
    buckets: Tensor  # int32 (spellings,)

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def pack(cls, parts: Iterable[Questions]) -> StoredQuestions:
        """All questions of the parts, at least one, in their order. Each part is let go: it takes far more room."""
        packed, spellings = _Growing(), 0
        for part in parts:
            spelt, spelling = _distinct(torch.cat([part.sketch, part.buckets[:, None].view(torch.uint8)], 1))
            packed.add(_columns(part) | {"spelt": spelt, "spelling": spelling + spellings})
            spellings += len(spelt)
        columns = packed.columns()
        spelt, number = _distinct(columns.pop("spelt"))  # a word of two parts stands there twice
        sketch, bucket = spelt.tensor_split([SKETCH // 8], 1)
        return cls(
            offsets=F.pad(columns.pop("lengths").cumsum(0), (1, 0)),
            sketch=sketch.contiguous(),
            buckets=bucket.contiguous().view(torch.int32).squeeze(1),
            spelling=number.index_select(0, columns.pop("spelling")),
            **columns,
        )

    def only(self, which: Tensor) -> StoredQuestions:
        """The questions numbered ``which`` (any order), packed as they are; a word that none of them holds is gone."""
        rows, offsets = ragged_rows(self.offsets, which)
        used, spelling = self.spelling.index_select(0, rows).unique(return_inverse=True)
        columns = {name: getattr(self, name).index_select(0, which) for name in ("vectors", "digests")}
        columns |= {name: getattr(self, name).index_select(0, rows) for name in ("views", "strength", "task", "looks")}
        columns |= {name: getattr(self, name).index_select(0, used) for name in ("sketch", "buckets")}
        return StoredQuestions(offsets=offsets, spelling=spelling.int(), **columns)

    def joined(self, other: StoredQuestions) -> StoredQuestions:
        """These questions, then the others. A word that stands in both is spelt twice."""
        columns = {
            field.name: torch.cat([getattr(self, field.name), getattr(other, field.name)]) for field in fields(self)
        }
        columns["offsets"] = torch.cat([self.offsets, self.offsets[-1] + other.offsets[1:]])
        columns["spelling"] = torch.cat([self.spelling, len(self.sketch) + other.spelling])
        return StoredQuestions(**columns)

    def take(self, which: Tensor) -> Questions:
        """The questions numbered ``which`` (any order, repeats allowed), about as they were read."""
        rows, offsets = ragged_rows(self.offsets, which)
        # index_select: of rows of bytes it is six times as fast as an index in brackets.
        views, looks, spelling = (column.index_select(0, rows) for column in (self.views, self.looks, self.spelling))
        relation = _restored(views >> 4) * self.strength[rows, None]
        return Questions(
            vectors=self.unit_vectors(which),
            offsets=offsets,
            meaning=_restored(views & 15).half(),
            relation=relation.half(),
            task=self.task.index_select(0, rows),
            sketch=self.sketch.index_select(0, spelling),
            buckets=self.buckets.index_select(0, spelling),
            kind=looks % KINDS,
            tokens=looks // KINDS,
        )

    def unit_vectors(self, which: Tensor) -> Tensor:
        """The index vectors of the questions numbered ``which``, float32 ``(which, d_index)``."""
        return F.normalize(self.vectors.index_select(0, which).float(), dim=-1)


class _Growing:
    """Columns that grow in place: joined at the end, they would stand in memory twice."""

    def __init__(self) -> None:
        self._bytes: dict[str, bytearray] = defaultdict(bytearray)
        self._like: dict[str, Tensor] = {}

    def add(self, columns: dict[str, Tensor]) -> None:
        for name, column in columns.items():
            self._bytes[name] += column.numpy().tobytes()
            self._like.setdefault(name, column[:0])

    def columns(self) -> dict[str, Tensor]:
        return {name: _joined(self._bytes[name], like) for name, like in self._like.items()}


def _joined(data: bytearray, like: Tensor) -> Tensor:
    """The rows that ``data`` holds, which are of the kind of ``like``; torch reads no empty buffer."""
    return torch.frombuffer(data, dtype=like.dtype).view(-1, *like.shape[1:]) if data else like


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows, and which of them each row is, int32 ``(rows,)``."""
    different, which = torch.unique(rows, dim=0, return_inverse=True)
    return different, which.int()


def _columns(part: Questions) -> dict[str, Tensor]:
    """A part in columns that can be joined."""
    meaning, relation = (rounded(rows.float(), NIBBLE) + NIBBLE + 1 for rows in (part.meaning, part.relation))
    return {
        "vectors": rounded(part.vectors),
        "digests": digests(part),
        "lengths": part.offsets.diff(),
        "views": (meaning + 16 * relation.int()).to(torch.uint8),
        "strength": part.relation.float().norm(dim=1).half(),
        "task": part.task,
        "looks": part.kind + KINDS * part.tokens.clamp_max(255 // KINDS),
    }


def _restored(nibbles: Tensor) -> Tensor:
    """Unit rows, float32."""
    return F.normalize(nibbles.float() - (NIBBLE + 1), dim=-1)


def digests(questions: Questions) -> Tensor:
    """For each question a number that stands for its words in their order, int64 ``(questions,)``.

    Buckets alone would not do: in a file of many names another name falls into the bucket of one of them.
    """
    buckets, sketch = questions.buckets.cpu().numpy(), questions.sketch.cpu().numpy()

    def digest(start: int, end: int) -> int:
        words = buckets[start:end].tobytes() + sketch[start:end].tobytes()
        return int.from_bytes(blake2b(words, digest_size=8).digest(), "little", signed=True)

    runs = pairwise(questions.offsets.tolist())
    return torch.tensor([digest(*run) if run[1] > run[0] else NO_WORDS for run in runs], dtype=torch.int64)
