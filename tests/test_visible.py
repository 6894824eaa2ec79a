"""What would act on a terminal, or not show, is spelt out wherever a person looks."""

from __future__ import annotations

import unicodedata

import pytest

from memtune.visible import visible

HOSTILE = "[/b] [str] :100: \x1b[31m"
SHOWN = "[/b] [str] :100: \\x1b[31m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, SHOWN),
        ("a\rb\x07\x9b2J", "a\\rb\\x07\\x9b2J"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\ud800 \U000e0041", "\\ud800 \\U000e0041"),
        ("one\ntwo\u2028three", "one\\ntwo\\u2028three"),
        ("می\u200cخواهم 👩\u200d🔧 김민수 C:\\new", "می\u200cخواهم 👩\u200d🔧 김민수 C:\\new"),
    ],
)
def test_what_would_act_on_a_terminal_is_spelt_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_no_control_character_of_all_of_unicode_is_left() -> None:
    every = "".join(map(chr, range(0x110000)))
    left = {c for c in visible(every) if unicodedata.category(c) in {"Cc", "Cf", "Cs"}}
    assert left == {"\u200c", "\u200d"}
    assert visible("a\nb\tc", keep="\n") == "a\nb\\tc"
