"""Words come from ids through the bytes of the vocabulary: same text, same words, in any script, however it is cut."""

from __future__ import annotations

import random
import zlib

import pytest
import torch

from memtune.memory.words import (
    CAPITAL,
    DIGIT,
    NAME,
    PLAIN,
    SKETCH,
    Vocabulary,
    endings,
    kind_of,
    sketch_marks,
    sketches,
    words_of,
)

# A vocabulary of all single bytes: token 0 is special and has none, token b + 1 is byte b.
BYTES = Vocabulary.from_pieces([b"", *(bytes([byte]) for byte in range(256))])

SCRIPTS = "abcXYZ 019 .,'-?!\n\t_ äßÉ Привет עברית سلام 한국어등대 灯塔是谁 かなカナ ไทย 🗼👩‍🚀 é"


def ids_of(text):
    return tuple(byte + 1 for byte in text.encode())


def texts(text):
    return [word.text for word in words_of(ids_of(text), BYTES)[0]]


def random_texts(count, seed=0):
    draw = random.Random(seed)
    for _ in range(count):
        wild = "".join(chr(draw.choice((draw.randrange(32, 0xD800), draw.randrange(0xE000, 0x110000)))) for _ in "123")
        yield "".join(draw.choices(SCRIPTS + wild, k=draw.randrange(40)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Who built the Tower?", ["who", "built", "the", "tower"]),
        ("What is part HT-4471?", ["what", "is", "part", "ht-4471"]),
        ("등대는 누가 지었나요?", ["등대는", "누가", "지었나요"]),
        ("灯塔是谁造的", list("灯塔是谁造的")),
        ("かなと漢字 mixed", [*"かなと漢字", "mixed"]),
        ("🗼 in Paris 🗼", ["🗼", "in", "paris", "🗼"]),
        ("Straße", ["strasse"]),
        ("", []),
        (" ?! _ ", []),
    ],
)
def test_words_are_runs_of_letters_and_digits_or_single_signs(text, words):
    assert texts(text) == words


def test_byte_offsets_point_at_the_word_in_any_text():
    for text in random_texts(500):
        data, end = text.encode(), 0
        for word in words_of(ids_of(text), BYTES)[0]:
            assert end <= word.start < word.end
            assert data[word.start : word.end].decode().casefold() == word.text
            end = word.end


def test_every_byte_of_a_word_is_owned_by_it_and_no_other_byte():
    for text in random_texts(300, seed=1):
        words, owners = words_of(ids_of(text), BYTES)
        expected = [-1] * len(text.encode())
        for number, word in enumerate(words):
            expected[word.start : word.end] = [number] * (word.end - word.start)
        assert owners == expected


def test_the_words_do_not_depend_on_where_the_tokens_are_cut():
    draw = random.Random(2)
    for text in random_texts(300, seed=2):
        pieces, rest = [], text.encode()
        while rest:
            length = draw.randrange(1, 6)
            pieces.append(rest[:length])
            rest = rest[length:]
        words, owners = words_of(tuple(range(len(pieces))), Vocabulary.from_pieces(pieces))
        assert words == words_of(ids_of(text), BYTES)[0]
        start = 0
        for piece, owner in zip(pieces, owners, strict=True):
            end = start + len(piece)
            touched = [number for number, word in enumerate(words) if word.start < end and word.end > start]
            assert owner == (touched[0] if touched else -1)
            start = end


def test_bytes_that_are_no_text_are_read_without_an_error():
    draw = random.Random(3)
    for _ in range(300):
        ids = tuple(draw.randrange(257) for _ in range(draw.randrange(30)))
        words, owners = words_of(ids, BYTES)
        assert len(owners) == len(ids) and all(-1 <= owner < len(words) for owner in owners)


@pytest.mark.parametrize(
    ("before", "word", "expected"),
    [
        ("", "Who", CAPITAL),
        ("Where is ", "Paris", NAME),
        ("Really? ", "Paris", CAPITAL),
        ("Where is ", "paris", PLAIN),
        ("where is ", "unit7", DIGIT),
        ("", "McDonald", NAME),
        ("", "HT", NAME),
        ("He said “", "Paris", NAME),
        ("¿", "Quién", CAPITAL),
        ("등대 ", "등대", PLAIN),
    ],
)
def test_a_name_has_a_digit_or_a_capital_that_opens_no_sentence(before, word, expected):
    assert kind_of(before, word) == expected


@pytest.mark.parametrize(
    ("turn", "parts"),
    [
        ("Who built it?", []),
        ("I was there. Who built it?", ["Who built it?"]),
        (
            "One. Two! Three? Four. Who built it?",
            ["Three? Four. Who built it?", "Four. Who built it?", "Who built it?"],
        ),
        ("A title\nWho built it?", ["Who built it?"]),
        ("我去过那里。谁建的？", ["谁建的？"]),
        ("هل تعلم؟ من بناه", ["من بناه"]),
        ("Translate this question: Who built it?", []),
        ("What does version 3.5 of memtune.py do?", []),
        ("Who built it? ", []),
        ("It was built as the . . . tower?", []),
        ("A year !! Who built it?", ["Who built it?"]),
        ("Well... who built it?! Say.", ["who built it?! Say.", "Say."]),
        ('He said "no." Who built it?', ["Who built it?"]),
        ("Read memtune.py.\n\nWho built it?", ["Who built it?"]),
    ],
)
def test_a_long_request_is_also_read_from_each_of_its_last_sentences(turn, parts):
    found = [b"".join(map(BYTES.piece, part)).decode() for part in endings(ids_of(turn), BYTES, 3)]
    assert found[0] == turn
    assert [part.strip() for part in found[1:]] == parts


def test_a_sentence_is_read_as_if_it_opened_the_turn():
    vocabulary = Vocabulary.from_pieces([b"Hi.", b" Who", b"Who", b" is", b" xq"])
    assert endings((0, 1, 3), vocabulary, 3) == [(0, 1, 3), (2, 3)]
    assert endings((0, 4, 3), vocabulary, 3) == [(0, 4, 3), (4, 3)]


def test_a_code_is_one_word_to_its_last_letter():
    assert [word.text for word in words_of(ids_of("HT-4471a, 5.2.7b or well-known"), BYTES)[0]] == [
        "ht-4471a",
        "5.2.7b",
        "or",
        "well",
        "known",
    ]


def test_signs_that_tell_two_names_apart_are_words():
    assert [word.text for word in words_of(ids_of("C++ or C#?"), BYTES)[0]] == ["c", "+", "+", "or", "c", "#"]


def test_pieces_come_back():
    pieces = [b"", b"a", " 등".encode(), b"\xff\x00", b"", b"x" * 1000]
    vocabulary = Vocabulary.from_pieces(pieces)
    again = Vocabulary(vocabulary.data.clone(), vocabulary.offsets.clone())
    for one in (vocabulary, again):
        assert [one.piece(token) for token in range(len(pieces))] == pieces
    assert Vocabulary.from_pieces([b"", b""]).piece(1) == b""


def test_the_tokenizer_spells_every_text_out_of_its_pieces(backbone):
    vocabulary = backbone.prompts.vocabulary()
    for text in ["Who built the lighthouse?", "등대는 누가", "灯塔 é\n🗼", *random_texts(100, seed=4)]:
        assert b"".join(vocabulary.piece(token) for token in backbone.prompts.ids(text)).decode() == text


def test_special_tokens_have_no_bytes(backbone):
    vocabulary = backbone.prompts.vocabulary()
    assert {vocabulary.piece(token) for token in backbone.prompts.tokenizer.all_special_ids} == {b""}


def test_a_sketch_marks_the_short_runs_of_the_word():
    words = words_of(ids_of("valve valves 塔"), BYTES)[0]
    packed = sketches(words)
    assert packed.shape == (3, SKETCH // 8) and packed.dtype == torch.uint8
    rows = sketch_marks(packed).bool()
    padded = "^valve$"
    grams = {padded[i : i + n] for n in (1, 2, 3) for i in range(len(padded) - n + 1)}
    assert rows[0].nonzero().flatten().tolist() == sorted({zlib.crc32(gram.encode()) % SKETCH for gram in grams})
    assert int((rows[0] & rows[1]).sum()) >= 12 > int((rows[0] & rows[2]).sum())
    assert sketches([]).shape == (0, SKETCH // 8)
