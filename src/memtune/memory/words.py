"""Words, read from token ids through a table of the vocabulary's bytes: the router needs no tokenizer.

A word is a run of letters, marks and digits; in scripts without spaces every character is one. A word is compared by
its runs of one to three characters, folded into a fixed number of buckets, and weighed by how rare it is (its IDF).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

__all__ = [
    "CAPITAL",
    "DIGIT",
    "NAME",
    "PLAIN",
    "SKETCH",
    "Vocabulary",
    "Word",
    "endings",
    "kind_of",
    "sentence_starts",
    "sketch_marks",
    "sketches",
    "word_bucket",
    "words_of",
]

SKETCH = 256  # marks of a word's sketch
BUCKETS = 1 << 16  # buckets of the word counts behind the IDF
_BITS = ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).float()  # (byte, bit)

# What a word's letters say of it. CAPITAL opens a sentence, where any word has one: there only rarity tells a name.
PLAIN, CAPITAL, NAME, DIGIT = range(4)

# Han, Kana and the scripts of South-East Asia are written without spaces: there each character is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Vowel signs and accents are part of a word, but not of ``\w``: without them Hindi names lose half their letters.
_MARKS = "".join(re.escape(chr(c)) for c in range(0x300, 0x2E80) if unicodedata.category(chr(c))[0] == "M")
_LETTER = rf"(?:[^\W_{_UNSPACED}]|[{_MARKS}])"
_SYMBOL = "+#%$€£&@=<>*~^|\u2190-\u2bff\U0001f000-\U0001faff"  # C++ is not C; arrows and emoji: each for itself
_WORD = re.compile(rf"[{_UNSPACED}{_SYMBOL}][{_MARKS}]*|{_LETTER}+(?:[.,'’\-/](?:[0-9][0-9A-Za-z]*|[0-9A-Z]+))*")

# Behind these a sentence is over; a colon is no end: "translate this question: ..." is one request. Nor is a lone dot:
# ". . ." stands for a word that is left out.
_END = re.compile(
    rb"(?:(?:[^\s.]\.|[!?])[.!?]*[\"')\]]*|\xe3\x80\x82|\xef\xbc\x81|\xef\xbc\x9f|\xd8\x9f|\xe0\xa5\xa4|\n)(?P<gap>\s*)"
)
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Word:
    text: str  # case-folded
    start: int  # byte offset in the question
    end: int
    kind: int  # PLAIN, CAPITAL, NAME or DIGIT


class Vocabulary:
    """The bytes of every token id. ``data`` uint8 (bytes,), ``offsets`` int32 (vocabulary + 1,)."""

    def __init__(self, data: Tensor, offsets: Tensor) -> None:
        self.data, self.offsets = data, offsets
        self._bytes = bytes(data.cpu().numpy().tobytes())
        self._offsets: list[int] = offsets.tolist()
        self._numbers: dict[bytes, int] | None = None

    @classmethod
    def from_pieces(cls, pieces: list[bytes]) -> Vocabulary:
        lengths = torch.tensor([len(piece) for piece in pieces])
        offsets = torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0).to(torch.int32)])
        return cls(torch.frombuffer(bytearray(b"".join(pieces)) or bytearray(1), dtype=torch.uint8), offsets)

    def piece(self, token: int) -> bytes:
        return self._bytes[self._offsets[token] : self._offsets[token + 1]]

    def opening(self, token: int) -> int:
        """The token that spells ``token`` without the space before it, or ``token`` where there is none."""
        if self._numbers is None:
            self._numbers = {}
            for number in range(len(self._offsets) - 1):
                self._numbers.setdefault(self.piece(number), number)
        return self._numbers.get(self.piece(token).lstrip(), token)


def endings(ids: Ids, vocabulary: Vocabulary, last: int) -> list[Ids]:
    """The whole turn, and what follows each of its ``last`` sentence ends: the question of a long request stands there.

    A part begins as a turn does, without the space that parts it from the sentence before.
    """
    parts = [ids[start:] for start in sentence_starts(ids, vocabulary)[-last:]]
    return [ids, *((vocabulary.opening(part[0]), *part[1:]) for part in parts)]


def sentence_starts(ids: Ids, vocabulary: Vocabulary) -> list[int]:
    """The places of the tokens that begin a sentence, the first of the turn left out."""
    pieces = [vocabulary.piece(token) for token in ids]
    text = b"".join(pieces)
    over = {at for found in _END.finditer(text) for at in range(found.start("gap"), found.end("gap") + 1)}
    starts, at = [], 0
    for place, piece in enumerate(pieces):
        # "3.5" and "e.g.x" go on: an end in Latin script is followed by a space.
        if (
            at in over
            and piece.strip()
            and (piece[:1].isspace() or text[at - 1 : at].isspace() or text[at - 1] >= 0x80)
        ):
            starts.append(place)
        at += len(piece)
    return [start for start in starts if start]


def words_of(ids: tuple[int, ...], vocabulary: Vocabulary) -> tuple[list[Word], list[int]]:
    """The words of a question, and for each token the number of the word that it belongs to (-1: none)."""
    pieces = [vocabulary.piece(token) for token in ids]
    text = b"".join(pieces).decode("utf-8", "replace")
    words, byte, seen = [], 0, 0
    for found in _WORD.finditer(text):
        byte += len(text[seen : found.start()].encode())
        raw, seen = found.group(), found.end()
        length = len(raw.encode())
        words.append(Word(raw.casefold(), byte, byte + length, kind_of(text[: found.start()], raw)))
        byte += length
    return words, _owners(pieces, words)


def kind_of(before: str, word: str) -> int:
    """DIGIT if it holds one, NAME with a capital inside or a first one that does not open a sentence, else CAPITAL or
    PLAIN. ``before`` stands in front of it.
    """
    if any(character.isdigit() for character in word):
        return DIGIT
    before = before.rstrip(" \"'“”„«»()[]¿¡")
    opens = not before or before[-1] in ".!?:;\n"
    if any(character.isupper() for character in word[1:]) or (word[0].isupper() and not opens):
        return NAME
    return CAPITAL if word[0].isupper() else PLAIN


def _owners(pieces: list[bytes], words: list[Word]) -> list[int]:
    owners, end, number = [], 0, 0
    for piece in pieces:
        start, end = end, end + len(piece)
        while number < len(words) and words[number].end <= start:
            number += 1
        owners.append(number if number < len(words) and words[number].start < end else -1)
    return owners


@lru_cache(maxsize=1 << 16)
def _sketch(word: str) -> bytes:
    padded = f"^{word}$"
    # Single letters and pairs as well: a typo or an ending then costs little, another name that ends alike much.
    grams = {padded[i : i + n] for n in (1, 2, 3) for i in range(max(1, len(padded) - n + 1))}
    marks = {zlib.crc32(gram.encode()) % SKETCH for gram in grams}
    return sum(1 << mark for mark in marks).to_bytes(SKETCH // 8, "little")


def sketches(words: Sequence[Word]) -> Tensor:
    """Sketches, uint8 ``(words, SKETCH / 8)``: a bit for each mark, the first one lowest."""
    marks = bytearray().join(_sketch(word.text) for word in words)
    empty = torch.zeros(0, dtype=torch.uint8)  # torch reads no empty buffer
    return (torch.frombuffer(marks, dtype=torch.uint8) if marks else empty).view(len(words), SKETCH // 8)


def sketch_marks(sketch: Tensor) -> Tensor:
    """0 or 1 for each mark, float32 ``(..., SKETCH)``: overlap over union of two rows nears their Jaccard index."""
    return _BITS[sketch.long()].flatten(-2)


def word_bucket(word: str) -> int:
    """Where the counts of ``word`` stand in the table behind the IDF."""
    return zlib.crc32(word.encode()) % BUCKETS
