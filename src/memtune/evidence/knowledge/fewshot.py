"""A question behind exemplars, as the ids that a model reads, and where its answer ends.

Two formats. ``template`` is how memtune asks: exemplars are earlier turns of a chat; without a chat template they are
paragraphs, each a question and its answer. The last turn holds the question alone, so that a memory reads it there as
it stands in a fact file. ``qa`` is that of the paper, lines ``Q: ...`` and ``A: ...``; no memory sees a question in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from memtune.asking import said_by
from memtune.errors import ConfigError
from memtune.prompts import Prompts

__all__ = ["FORMATS", "Exemplar", "FewShot"]

FORMATS = ("template", "qa")
NEWLINE = ("\n", "Ċ", "<0x0A>")  # as text, in byte-level and in byte-fallback vocabularies
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Exemplar:
    """A question with its answer, shown before another question is asked."""

    question: str
    answer: str


@dataclass(frozen=True)
class FewShot:
    """Renders questions behind exemplars for one tokenizer."""

    prompts: Prompts
    format: str = "template"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(f"format is {self.format!r}", hint=f"--format takes one of: {', '.join(FORMATS)}")

    @property
    def in_turns(self) -> bool:
        """Each question and each answer is a turn of a chat; else a line break ends an answer."""
        return self.format == "template" and self.prompts.has_template

    @cached_property
    def ends(self) -> frozenset[int]:
        """The ids of which any ends an answer."""
        stops = frozenset((*self.prompts.stop_ids, self.prompts.stop))
        return stops if self.in_turns else stops | self._line_breaks

    @property
    def _line_breaks(self) -> frozenset[int]:
        tokenizer = self.prompts.tokenizer
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        return frozenset(i for i, token in enumerate(tokens) if token and token.startswith(NEWLINE))

    def prompt(self, exemplars: Sequence[Exemplar], question: str) -> Ids:
        """The ids before the answer."""
        if self.in_turns:
            turns = [turn for shown in exemplars for turn in _turns(shown)]
            return self.prompts.render([*turns, said_by("user", question.strip())])
        if self.format == "template":
            shown = [f"{one.question.strip()} {one.answer}\n\n" for one in exemplars]
            return self._plain("".join(shown) + question.strip())
        shown = [f"Q: {one.question.strip()}\nA: {one.answer}\n" for one in exemplars]
        return self._plain(f"{''.join(shown)}Q: {question.strip()}\nA:")

    def _plain(self, text: str) -> Ids:
        return (*self.prompts.tokenizer("")["input_ids"], *self.prompts.ids(text))

    def answer(self, text: str) -> Ids:
        """The ids of an answer behind its prompt, without the one that ends it."""
        return self.prompts.ids(text if self.in_turns else f" {text}")

    def says(self, ids: Sequence[int], answer: str) -> bool:
        """Whether generated ids are this answer and end there."""
        stop = next((place for place, token in enumerate(ids) if token in self.prompts.stop_ids), None)
        text = self.prompts.text(list(ids[:stop]))
        if self.in_turns:
            return stop is not None and text == answer
        text = text.removeprefix(" ")
        return text.startswith(f"{answer}\n") or (stop is not None and text == answer)


def _turns(shown: Exemplar) -> tuple[dict[str, str], dict[str, str]]:
    return said_by("user", shown.question.strip()), said_by("assistant", shown.answer)
