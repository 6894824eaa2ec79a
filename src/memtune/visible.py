"""Text that came from a user, a file or a model, made harmless for whoever looks at it."""

from __future__ import annotations

import reprlib
import unicodedata

__all__ = ["show", "spelt", "visible"]

SHOWN = 60  # characters of a value
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories that act on a terminal, or do not show
JOINERS = "\u200c\u200d"  # part of the spelling of Persian, Hindi and emoji
_REPR = reprlib.Repr()
_REPR.maxstring = SHOWN


def visible(text: str, *, keep: str = "") -> str:
    """The text with every character that would act on a terminal spelt out, as ``\\x1b``; those in ``keep`` stay.

    Control characters, escape sequences, direction marks and overrides, spaces of no width, lone surrogates. What is
    left of an escape sequence is plain text, and Rich is given it as such: markup is not read.
    """
    kept = JOINERS + keep
    return "".join(c if c in kept or unicodedata.category(c) not in HIDDEN else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def show(value: object) -> str:
    """The value in Python's notation, at most 60 characters of it: what cannot be printed is escaped."""
    text = _REPR.repr(list(value) if isinstance(value, list) else value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def spelt(name: object) -> str:
    """The name of a file as text: bytes of it that are no UTF-8 are escaped, so that it can be written anywhere."""
    return str(name).encode(errors="backslashreplace").decode()
