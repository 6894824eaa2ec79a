"""Words, read from token ids through a table of the vocabulary's bytes: the router needs no tokenizer.

A word is a run of letters, marks and digits; in scripts without spaces every character is one. A word is compared by
its character trigrams, folded into a fixed number of buckets, and weighed by how rare it is (its IDF).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["SKETCH", "Vocabulary", "Word", "is_entity", "sketches", "word_bucket", "words_of"]

SKETCH = 128  # buckets of a word's trigram sketch
BUCKETS = 1 << 16  # buckets of the word counts behind the IDF

# Han, Kana and the scripts of South-East Asia are written without spaces: there each character is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Vowel signs and accents are part of a word, but not of ``\w``: without them Hindi names lose half their letters.
_MARKS = "".join(re.escape(chr(c)) for c in range(0x300, 0x2E80) if unicodedata.category(chr(c))[0] == "M")
_LETTER = rf"(?:[^\W_{_UNSPACED}]|[{_MARKS}])"
_SYMBOL = "\u2190-\u2bff\U0001f000-\U0001faff"  # arrows, signs, emoji: each stands for itself
_WORD = re.compile(rf"[{_UNSPACED}{_SYMBOL}][{_MARKS}]*|{_LETTER}+(?:[.,'’\-/][0-9A-Z]+)*")


@dataclass(frozen=True)
class Word:
    text: str  # case-folded
    start: int  # byte offset in the question
    end: int
    entity: bool  # a digit, or a capital that does not open a sentence: likely to name one thing


class Vocabulary:
    """The bytes of every token id. ``data`` uint8 (bytes,), ``offsets`` int32 (vocabulary + 1,)."""

    def __init__(self, data: Tensor, offsets: Tensor) -> None:
        self.data, self.offsets = data, offsets
        self._bytes = bytes(data.cpu().numpy().tobytes())
        self._offsets: list[int] = offsets.tolist()

    @classmethod
    def from_pieces(cls, pieces: list[bytes]) -> Vocabulary:
        lengths = torch.tensor([len(piece) for piece in pieces])
        offsets = torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0).to(torch.int32)])
        return cls(torch.frombuffer(bytearray(b"".join(pieces)) or bytearray(1), dtype=torch.uint8), offsets)

    def piece(self, token: int) -> bytes:
        return self._bytes[self._offsets[token] : self._offsets[token + 1]]


def words_of(ids: tuple[int, ...], vocabulary: Vocabulary) -> tuple[list[Word], list[int]]:
    """The words of a question, and for each token the number of the word that it belongs to (-1: none)."""
    pieces = [vocabulary.piece(token) for token in ids]
    text = b"".join(pieces).decode("utf-8", "replace")
    words, byte, seen = [], 0, 0
    for found in _WORD.finditer(text):
        byte += len(text[seen : found.start()].encode())
        raw, seen = found.group(), found.end()
        length = len(raw.encode())
        words.append(Word(raw.casefold(), byte, byte + length, is_entity(text[: found.start()], raw)))
        byte += length
    return words, _owners(pieces, words)


def is_entity(before: str, word: str) -> bool:
    """A digit, a capital inside, or a first capital that does not open a sentence. ``before`` stands in front of it."""
    if any(character.isdigit() for character in word):
        return True
    before = before.rstrip(" \"'“”„«»()[]¿¡")
    opens = not before or before[-1] in ".!?:;\n"
    return any(character.isupper() for character in word[1:]) or (word[0].isupper() and not opens)


def _owners(pieces: list[bytes], words: list[Word]) -> list[int]:
    owners, end, number = [], 0, 0
    for piece in pieces:
        start, end = end, end + len(piece)
        while number < len(words) and words[number].end <= start:
            number += 1
        owners.append(number if number < len(words) and words[number].start < end else -1)
    return owners


@lru_cache(maxsize=1 << 16)
def _sketch_buckets(word: str) -> tuple[int, ...]:
    padded = f"^{word}$"
    grams = {padded[i : i + 3] for i in range(max(1, len(padded) - 2))}
    return tuple(sorted({zlib.crc32(gram.encode()) % SKETCH for gram in grams}))


def sketches(words: list[Word]) -> Tensor:
    """Trigram sketches, bool ``(words, SKETCH)``: overlap over union of two rows nears their Jaccard index."""
    rows = torch.zeros(len(words), SKETCH, dtype=torch.bool)
    for row, word in enumerate(words):
        rows[row, list(_sketch_buckets(word.text))] = True
    return rows


def word_bucket(word: str) -> int:
    """Where the counts of ``word`` stand in the table behind the IDF."""
    return zlib.crc32(word.encode()) % BUCKETS
