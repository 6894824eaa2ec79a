"""Questions and answers as the token ids that the model really sees.

The rendering is found once per checkpoint by rendering its own chat template, is stored with the memory, and is used
again by probe and export: a memory tuned under one rendering and asked under another is the commonest way to lose it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from memtune.errors import DataError, ModelError
from memtune.memory.turns import TurnFormat
from memtune.memory.words import Vocabulary

if TYPE_CHECKING:
    from memtune.fact import Fact

__all__ = ["EncodedFact", "Prompts"]

_BYTE_LEVEL = "ByteLevel"
# What a template that tells the model the date is given as today, or facts tuned today would be asked for by another
# prompt tomorrow. It is the day that Llama's templates name where they know none.
_TODAY = datetime(2024, 7, 26)
_DATE = re.compile(r"""\bstrftime_now\(\s*(?P<quote>['"])(?P<format>.*?)(?P=quote)\s*\)""")


@dataclass(frozen=True)
class EncodedFact:
    """A fact as ids. ``answer`` ends with the stop token, which is taught like every other answer token."""

    id: str
    question: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def experts(self) -> int:
        return len(self.answer)


class Prompts:
    """Renders, encodes and decodes for one tokenizer. ``format`` holds the fixed ids around a question."""

    def __init__(self, tokenizer: Any, stop_ids: tuple[int, ...]) -> None:
        self.tokenizer = tokenizer
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        self.stop_ids = stop_ids
        self.format = _chat_format(self) if self.has_template else _plain_format(tokenizer)
        self.stop = _stop_of(self)

    @property
    def fingerprint(self) -> str:
        """Changes when a question would reach the model as other ids than those that were tuned."""
        runs = [self.format.prefix, self.format.opening, self.format.closing, (self.stop,)]
        probe = self.ids("The 3 Überprüfungen of HT-4471 — 한국어, עברית?")
        return hashlib.sha256(json.dumps([runs, probe]).encode()).hexdigest()[:16]

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, ids: tuple[int, ...] | list[int]) -> str:
        """What a user reads: the ids without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def answer_text(self, ids: tuple[int, ...] | list[int]) -> str:
        """An answer as a user reads it: without the space that joins it to a prompt without a template."""
        return self.text(ids) if self.has_template else self.text(ids).removeprefix(" ")

    def piece(self, token: int) -> str:
        """One token as text, special tokens by name."""
        return str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def render(self, turns: list[dict[str, str]]) -> tuple[int, ...]:
        """The ids of a conversation, ready for the model's next answer."""
        if not self.has_template:
            return self.format.prefix + self.ids("\n\n".join(turn["content"] for turn in turns))
        return self.chat(turns, asking=True)

    def chat(self, turns: list[dict[str, str]], *, asking: bool = False) -> tuple[int, ...]:
        """The ids that the template makes of a conversation; ``asking``: ready for the model's next answer."""
        text = self.tokenizer.apply_chat_template(
            turns, chat_template=self._undated, tokenize=False, add_generation_prompt=asking
        )
        return self.ids(text)

    @cached_property
    def _undated(self) -> str:
        """The template with _TODAY for the date that it asks for. transformers hands it no other clock than its own."""
        template: str = self.tokenizer.get_chat_template()
        return _DATE.sub(lambda found: repr(_TODAY.strftime(found["format"])), template)

    def question(self, text: str) -> tuple[int, ...]:
        """The ids of one question as they stand in its rendered prompt.

        >>> # prompts.format.prompt(prompts.question(text)) == prompts.render([{"role": "user", "content": text}])
        """
        if not text.strip():
            raise DataError(["the question is empty"])
        prompt = self.render([{"role": "user", "content": text.strip()}])
        turns = self.format.turns(list(prompt), len(prompt))
        whole = len(turns) == 1 and (turns[0].start, turns[0].answer) == (len(self.format.prefix), len(prompt))
        if not whole and self.has_template:
            raise ModelError(
                f"the chat template hides the question {text[:60]!r}: it holds the template's own markers",
                hint="reword the question without the special tokens of the model's chat template",
            )
        if not whole:
            raise ModelError(
                f"the question {text[:60]!r} has several lines; without a chat template only the last one is asked",
                hint="write the question in one line, or use a checkpoint with a template",
            )
        return prompt[turns[0].start : turns[0].end]

    def last_question(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        """The ids of the last question in a rendered conversation, as a memory reads them; none where there is none."""
        turns = self.format.turns(list(prompt), len(prompt))
        return prompt[turns[-1].start : turns[-1].end] if turns else ()

    def answer(self, text: str) -> tuple[int, ...]:
        """The ids of an answer as they stand behind its prompt, the stop token included."""
        return (*self.ids(text if self.has_template else " " + text), self.stop)

    def shown(self, fact: Fact) -> str:
        """The fact as the model reads it, template and stop token included."""
        item = self.fact(fact)
        return str(self.tokenizer.decode(list(self.format.prompt(item.question) + item.answer)))

    def fact(self, fact: Fact) -> EncodedFact:
        return EncodedFact(fact.id, self.question(fact.question), self.answer(fact.answer))

    def vocabulary(self) -> Vocabulary:
        """The bytes behind every token id; special tokens have none."""
        tokenizer = self.tokenizer
        size = len(tokenizer)
        tokens = tokenizer.convert_ids_to_tokens(list(range(size)))
        special = set(tokenizer.all_special_ids)
        decoder = str(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", ""))
        as_bytes = _byte_level_bytes if _BYTE_LEVEL in decoder else _metaspace_bytes
        return Vocabulary.from_pieces(
            [b"" if i in special or token is None else as_bytes(token) for i, token in enumerate(tokens)]
        )


def _chat_format(prompts: Prompts) -> TurnFormat:
    """Renders two conversations around made-up words and keeps what stands around the words."""
    word, other = "Zq7 memtune", "Xk9 memtune"
    try:
        one = prompts.render([{"role": "user", "content": word}])
        two = prompts.render(
            [
                {"role": "user", "content": other},
                {"role": "assistant", "content": other},
                {"role": "user", "content": word},
            ]
        )
    except Exception as error:  # a template is code of the checkpoint: whatever it raises is the checkpoint's fault
        raise ModelError(
            f"the model's chat template cannot render a question: {error}",
            hint="repair chat_template in the checkpoint's tokenizer files, or remove it (a base model has none)",
        ) from error
    inner = prompts.ids(word)
    start = _find_once(one, inner)
    prefix, closing = one[:start], one[start + len(inner) :]
    before = two[: len(two) - len(inner) - len(closing)]
    opening = _common_end(prefix, before)
    if not opening or not closing:
        raise ModelError("the model's chat template puts nothing around a question, so turns cannot be told apart")
    return TurnFormat(prefix, opening, closing)


def _plain_format(tokenizer: Any) -> TurnFormat:
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    newlines = frozenset(i for i, token in enumerate(tokens) if token and token.endswith(("\n\n", "ĊĊ", "\n", "Ċ")))
    return TurnFormat(prefix=tuple(tokenizer("")["input_ids"]), newlines=newlines)


def _stop_of(prompts: Prompts) -> int:
    """The id that ends an answer: the template's own if the model stops at it, else the model's first stop id."""
    if not prompts.stop_ids:
        raise ModelError(
            "the checkpoint names no end-of-sequence token, so an answer could never stop",
            hint="set eos_token_id in the checkpoint's generation_config.json",
        )
    if prompts.has_template:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        rendered = prompts.chat(turns)
        prompt = prompts.render(turns[:1])
        for token in rendered[len(prompt) :]:
            if token in prompts.stop_ids:
                return token
    return prompts.stop_ids[0]


def _find_once(ids: tuple[int, ...], inner: tuple[int, ...]) -> int:
    for place in range(len(ids) - len(inner) + 1):
        if ids[place : place + len(inner)] == inner:
            return place
    raise ModelError("the model's chat template changes the text of a question, so it cannot be found again")


def _common_end(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, ...]:
    length = 0
    while length < min(len(one), len(two)) and one[-1 - length] == two[-1 - length]:
        length += 1
    return one[len(one) - length :]


def _byte_level_bytes(token: str) -> bytes:
    return bytes(_UNICODE_TO_BYTE.get(c, 32) for c in token)


def _metaspace_bytes(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").removeprefix("##").encode()


def _byte_table() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: printable Latin-1 as itself, the rest from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    rest = (byte for byte in range(256) if byte not in printable)
    return table | {chr(256 + place): byte for place, byte in enumerate(rest)}


_UNICODE_TO_BYTE = _byte_table()
