"""A long answer as its statements: sentences, list entries, and the parts between semicolons."""

from __future__ import annotations

import re

__all__ = ["statements"]

_MARKER = re.compile(r"^\s*(?:[-*+•#>]+|\(?\d{1,3}[.)])\s+")  # of a list, a heading or a quotation
# A sentence ends behind its mark, where no small letter follows: "e.g. a valve" goes on. Chinese leaves no space.
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[^a-z\s])|(?<=[。！？])|;\s+")
_ABBREVIATED = re.compile(r"(?:^|\W)(?:[^\W\d_]|[^\W\d_aeiouAEIOU]{2,3})\.$")  # "J." and "Dr." end no sentence


def statements(answer: str, *, whole: bool = True) -> list[str]:
    """The statements in their order. Questions, and lines that only announce a list, state nothing.

    ``whole``: False if the answer was cut off, so that what stands behind its last full stop is no sentence.

    >>> statements("The Curlew 3 is a sensor. It costs £684; the Curlew 4 costs more. Is that much?")
    ['The Curlew 3 is a sensor.', 'It costs £684', 'the Curlew 4 costs more.']
    """
    found = [part for line in answer.splitlines() for part in _sentences(_MARKER.sub("", line))]
    if found and not whole and not found[-1].endswith((".", "!", "…", "。", "！")):
        found.pop()
    return [part for part in found if re.search(r"\w", part) and not part.endswith(("?", "？", ":", "："))]


def _sentences(line: str) -> list[str]:
    parts: list[str] = []
    for part in _END.split(line):
        if parts and _ABBREVIATED.search(parts[-1]):
            parts[-1] = f"{parts[-1]} {part}"
        else:
            parts.append(part)
    return [part.strip() for part in parts if part.strip()]
