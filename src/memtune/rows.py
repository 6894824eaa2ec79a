"""What a raw row says: its question, answer, id and paraphrases, and everything that makes it unusable."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import NamedTuple

from memtune.located import CHAT_KEYS, PARAPHRASE_KEYS
from memtune.visible import show

__all__ = ["ANSWER_KEYS", "QUESTION_KEYS", "Fields", "Keys", "missing_keys", "row_fields"]

QUESTION_KEYS = ("question", "prompt", "input", "instruction")
ANSWER_KEYS = ("answer", "completion", "output", "response", "target")
KEYS_SHOWN = 8

_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_FORBIDDEN_KINDS = {"Cc": "control character", "Cs": "lone surrogate", "Cf": "bidirectional control"}
_ROLES = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Keys:
    """The names under which a row may hold its question and its answer; no answer names: questions only."""

    question: tuple[str, ...] = QUESTION_KEYS
    answer: tuple[str, ...] = ANSWER_KEYS
    needs_answer: bool = True  # False: a row may do without


class Fields(NamedTuple):
    """The text of a row; meaningful only if it has no problems."""

    question: str = ""
    answer: str = ""
    id: str = ""
    paraphrases: tuple[str, ...] = ()


def row_fields(value: object, keys: Keys, problems: list[str]) -> Fields:
    """What the row says; each reason not to use it is added to ``problems``."""
    if isinstance(value, str) and not (keys.answer and keys.needs_answer):
        return Fields(_text(value, "question", problems))
    if not isinstance(value, dict):
        problems.append(f"the row is {_kind(value)}, not an object with a question and an answer: {show(value)}")
        return Fields()
    question, answer = _pair(value, keys, problems)
    return Fields(question, answer, _optional_id(value, problems), _paraphrases(value, problems))


def missing_keys(row: Collection[str], keys: Keys) -> list[str]:
    """One problem for the question and one for the answer, where no key of the row holds it."""
    wanted = (("question", keys.question), ("answer", keys.answer if keys.needs_answer else ()))
    return [_missing(name, names, row) for name, names in wanted if names and _find_key(row, names) is None]


def _missing(name: str, names: tuple[str, ...], row: Collection[str]) -> str:
    found = list(islice(row, KEYS_SHOWN))
    rest = f" and {len(row) - KEYS_SHOWN} more" if len(row) > KEYS_SHOWN else ""
    guesses = [
        f"; is {show(key)} meant as {show(close[0])}?"
        for key in found
        if (close := get_close_matches(key.casefold(), names, 1, 0.7))
    ]
    among = f"among {', '.join(map(show, found))}{rest}" if found else "in an empty row"
    return f"no {name} ({' or '.join(names)}) {among}{''.join(guesses)}"


def _find_key(row: Collection[str], names: tuple[str, ...]) -> str | None:
    """The key of the row that is the first of these names to occur, whatever its case."""
    folded = {key.strip().casefold(): key for key in row}
    for name in names:
        if name in row:
            return name
        if name.casefold() in folded:
            return folded[name.casefold()]
    return None


def _pair(row: dict[str, object], keys: Keys, problems: list[str]) -> tuple[str, str]:
    """The question and the answer; either is empty if the row has none."""
    question = _find_key(row, keys.question)
    chat = _find_key(row, CHAT_KEYS)
    if question is None and chat is not None and keys.question == QUESTION_KEYS:
        return _chat(chat, row[chat], keys, problems)
    problems.extend(missing_keys(row, keys))
    answer = _find_key(row, keys.answer)
    if answer is not None and not keys.needs_answer and row[answer] in (None, ""):
        answer = None  # an empty cell
    return (
        "" if question is None else _question(row, question, keys, problems),
        "" if answer is None else _text(row[answer], "answer", problems),
    )


def _question(row: dict[str, object], key: str, keys: Keys, problems: list[str]) -> str:
    """The text under the key, with the instruction that it belongs to in front of it."""
    instruction = _find_key(row, ("instruction",))
    if keys.question != QUESTION_KEYS or instruction is None or key.strip().casefold() != "input":
        return _text(row[key], "question", problems)
    task = _text(row[instruction], "instruction", problems)
    context = row[key]
    if context is None or (isinstance(context, str) and not context.strip()):
        return task
    return f"{task}\n{_text(context, 'input', problems)}"


def _chat(key: str, turns: object, keys: Keys, problems: list[str]) -> tuple[str, str]:
    """The text of the one user turn and of the one assistant turn after it."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        problems.append(f"{key} is not a list of turns with a role and a content: {show(turns)}")
        return "", ""
    roles = [_role(turn) for turn in turns]
    single = [["user", "assistant"]] if keys.answer else [["user", "assistant"], ["user"]]
    if roles not in single:
        problems.append(_chat_problem(key, roles))
        return "", ""
    texts = [_text(turn.get("content", turn.get("value")), f"{_role(turn)} content", problems) for turn in turns]
    return texts[0], texts[-1]


def _role(turn: dict[str, object]) -> str:
    role = turn.get("role", turn.get("from"))
    return _ROLES.get(role.casefold(), role.casefold()) if isinstance(role, str) else "a turn without a role"


def _chat_problem(key: str, roles: list[str]) -> str:
    if "system" in roles:
        return f"{key} has a system turn, which would be lost: put its text into the question or remove it"
    found = show(", ".join(roles))
    return f"memtune stores single questions: {key} must be one user turn and one assistant turn, not {found}"


def _optional_id(row: dict[str, object], problems: list[str]) -> str:
    key = _find_key(row, ("id",))
    return "" if key is None or row[key] in (None, "") else _text(row[key], "id", problems)


def _paraphrases(row: dict[str, object], problems: list[str]) -> tuple[str, ...]:
    """The paraphrases of the row; a single one may stand without a list."""
    key = _find_key(row, PARAPHRASE_KEYS)
    if key is None or row[key] in (None, ""):
        return ()
    value = row[key]
    items = value if isinstance(value, list) else [value]
    return tuple(_text(item, f"paraphrase {number}", problems) for number, item in enumerate(items, 1))


def _text(value: object, name: str, problems: list[str]) -> str:
    """The text without the white space around it; what makes it unusable is added to ``problems``."""
    if not isinstance(value, str):
        problems.append(f"{name} is {_kind(value)}, not text: {_advice(value)}")
        return ""
    text = value.replace("\r\n", "\n")
    if found := _FORBIDDEN.search(text):
        kind = _FORBIDDEN_KINDS[unicodedata.category(found.group())]
        problems.append(
            f"{name} holds the {kind} U+{ord(found.group()):04X}: {show(text[max(0, found.start() - 20) :])}"
        )
    elif not text.strip():
        problems.append(f"{name} is empty")
    return text.strip()


def _kind(value: object) -> str:
    """What a value is called in JSON."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    return json.dumps(value)


def _advice(value: object) -> str:
    if isinstance(value, dict | list):
        return show(value)
    return f'if the word is meant, quote it: "{_kind(value)}"'
