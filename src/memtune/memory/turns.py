"""Where the questions stand in a sequence of token ids, and where each answer begins.

The memory sees token ids and nothing else. A chat template shows itself by three fixed runs of ids, found once by
rendering it: ``prefix`` (everything before the first question), ``opening`` (what stands before any user turn) and
``closing`` (what stands between a question and its answer). A model without a template has none of them: there the
question is the last paragraph of the prompt, and the answer begins where the prompt ends.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Turn", "TurnFormat"]

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Turn:
    """One question in a sequence: its tokens are ``ids[start:end]``, its answer begins at ``ids[answer]``."""

    start: int
    end: int
    answer: int
    until: int  # the next user turn opens here (or the sequence ends): the answer cannot reach further


@dataclass(frozen=True)
class TurnFormat:
    """The fixed runs of ids around a question. ``newlines``: ids whose text ends in a line break."""

    prefix: Ids = ()
    opening: Ids = ()
    closing: Ids = ()
    newlines: frozenset[int] = frozenset()

    @property
    def is_chat(self) -> bool:
        return bool(self.opening and self.closing)

    def prompt(self, question: Ids) -> Ids:
        """The ids that the backbone reads before it answers ``question``, asked alone."""
        return self.prefix + question + self.closing

    def turns(self, ids: list[int], prompt_end: int) -> list[Turn]:
        """All questions in ``ids``, in order. ``prompt_end``: where generation begins; a template does not need it."""
        if not self.is_chat:
            return self._last_paragraph(ids, prompt_end)
        openings = find_runs(ids, self.opening)
        found = []
        for place, opened in enumerate(openings):
            until = openings[place + 1] if place + 1 < len(openings) else len(ids)
            start = opened + len(self.opening)
            closings = find_runs(ids[start:until], self.closing)
            if closings and closings[0] > 0:
                end = start + closings[0]
                found.append(Turn(start, end, end + len(self.closing), until))
        return found

    def _last_paragraph(self, ids: list[int], prompt_end: int) -> list[Turn]:
        if prompt_end > len(ids):  # the rest of the prompt is still to come
            return []
        start = next((place for place, token in enumerate(ids) if token >= 0), len(ids))  # padding stands on the left
        if tuple(ids[start : start + len(self.prefix)]) == self.prefix:
            start += len(self.prefix)
        for place in range(start, prompt_end - 1):
            if ids[place] in self.newlines or ids[place] < 0:
                start = place + 1
        return [Turn(start, prompt_end, prompt_end, len(ids))] if start < prompt_end else []


def find_runs(ids: list[int], run: Ids) -> list[int]:
    """The places where ``run`` starts in ``ids``, without overlap.

    >>> find_runs([1, 2, 3, 1, 2], (1, 2))
    [0, 3]
    """
    places, place, last = [], 0, len(ids) - len(run)
    while place <= last:
        try:
            place = ids.index(run[0], place, last + 1)
        except ValueError:
            break
        if tuple(ids[place : place + len(run)]) == run:
            places.append(place)
            place += len(run)
        else:
            place += 1
    return places
