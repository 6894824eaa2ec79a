"""Text that came from a user, a file or a model, made harmless for whoever looks at it."""

from __future__ import annotations

import unicodedata

__all__ = ["visible"]

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories that act on a terminal, or do not show
JOINERS = "\u200c\u200d"  # part of the spelling of Persian, Hindi and emoji


def visible(text: str, *, keep: str = "") -> str:
    """The text with every character that would act on a terminal spelt out, as ``\\x1b``; those in ``keep`` stay.

    Control characters, escape sequences, direction marks and overrides, spaces of no width, lone surrogates. What is
    left of an escape sequence is plain text, and Rich is given it as such: markup is not read.
    """
    kept = JOINERS + keep
    return "".join(c if c in kept or unicodedata.category(c) not in HIDDEN else _spelt(c) for c in text)


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode()
