"""How long the index takes to find 32 candidates among very many stored questions, and what its lists miss.

    python benchmarks/routing.py --keys 1000000 --out benchmarks/results/routing.json

Reading a million questions would take hours, so a few thousand synthetic ones are read, with their wordings, and the
vectors of the others are put together from what was read. An index vector is a weighed sum of token states; it is
split into three sums: the two words of the name, and the frame around it. Another question of the same relation takes
the first name (with its frame) from one question and the last name from another. Its wordings are put together from
the wordings of the same two. So every key shares its frame with an eighth of all keys, its first name with tens of them
and its last name with as many others, which is more than in a real file: ``cosines`` in the results say how near the
nearest, the second and the 32nd stored vector stand, among read questions and among those put together. What is lost
is what the two words of a name change in each other's states.

Probes are chosen on one half of the asked wordings, everything else is measured on the other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from common import peak_bytes, timed, write_results
from torch import Tensor

from memtune.backbone import Backbone, load_backbone
from memtune.events import ignore
from memtune.evidence import synthetic
from memtune.facts import Fact
from memtune.memory.index import Lists, build_lists, lengths_of, search
from memtune.memory.questions import PUNCTUATION_WEIGHT, Reader, count_words
from memtune.memory.rounding import rounded
from memtune.memory.words import word_bucket, words_of
from memtune.prior import prior_for

COUNT = 32  # candidates
TOGETHER = 256
RELATIONS = len(synthetic.RELATIONS)
FRAME, FIRST, LAST = range(3)  # parts of a question
NEAR = (0, 1, COUNT - 1)  # of the candidates' cosines, those that are reported


def read_parts(backbone: Backbone, facts: Sequence[Fact]) -> Tensor:
    """What each part adds to an index vector, float32 (wordings, facts, parts, d_index); wording 0 is the question."""
    prior, vocabulary = prior_for(backbone, ignore), backbone.prompts.vocabulary()
    counts = prior.counts + count_words([backbone.prompts.question(fact.question) for fact in facts], vocabulary)
    reader = Reader(vocabulary, prior.views, counts, float(prior.documents) + len(facts))
    wordings = zip(*((fact.question, *fact.paraphrases) for fact in facts), strict=True)
    frames = zip(*([template.format("") for template in every] for every in synthetic.RELATIONS), strict=True)
    return torch.stack([_column(backbone, reader, *column) for column in zip(wordings, frames, strict=True)])


def _column(backbone: Backbone, reader: Reader, texts: Sequence[str], frames: Sequence[str]) -> Tensor:
    """One wording of each fact, float32 (facts, parts, d_index); fact i has the frame ``frames[i % RELATIONS]``."""
    known = [{word.text for word in _words(backbone, reader, frame)[0]} for frame in frames]
    rows = []
    for start in range(0, len(texts), 1000):
        part = [backbone.prompts.question(text) for text in texts[start : start + 1000]]
        for number, (ids, states) in enumerate(zip(part, backbone.states.early(part), strict=True), start):
            rows.append(_parts(reader, ids, states[0], known[number % RELATIONS]))
    return torch.stack(rows)


def _words(backbone: Backbone, reader: Reader, text: str) -> Any:
    return words_of(backbone.prompts.question(text), reader.vocabulary)


def _parts(reader: Reader, ids: tuple[int, ...], states: Tensor, frame: set[str]) -> Tensor:
    """As ``Reader`` makes an index vector, but summed by part and not yet of unit length: (parts, d_index)."""
    words, owners = words_of(ids, reader.vocabulary)
    names = torch.tensor([word.text not in frame for word in words])
    part = F.pad(names * names.cumsum(0).clamp_max(LAST), (0, 1))  # owner -1 is the last entry
    buckets = torch.tensor([word_bucket(word.text) for word in words])
    weight = F.pad(reader.idf(buckets), (0, 1), value=PUNCTUATION_WEIGHT)
    rows = reader.views.index(states) * weight[owners][:, None]
    return torch.zeros(3, rows.shape[1]).index_add_(0, part[owners], rows)


class Crowd:
    """Any number of questions, put together from ``parts``."""

    def __init__(self, parts: Tensor, seed: int) -> None:
        self.parts, self.each = parts, parts.shape[1] // RELATIONS
        self.pairs = torch.randperm(self.each**2, generator=torch.Generator().manual_seed(seed))

    def vectors(self, numbers: Tensor, wording: int) -> Tensor:
        """Unit rows float32 (numbers, d_index)."""
        pair, relation, parts = self.pairs[numbers // RELATIONS], numbers % RELATIONS, self.parts[wording]
        first, last = (place * RELATIONS + relation for place in (pair // self.each, pair % self.each))
        return F.normalize(parts[first, FRAME] + parts[first, FIRST] + parts[last, LAST], dim=1)

    def stored(self, keys: int) -> Tensor:
        """int8 (keys, d_index)."""
        return torch.cat([rounded(self.vectors(numbers, 0)) for numbers in torch.arange(keys).split(1 << 14)])

    def asked(self, keys: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Numbers of ``count`` stored questions and the vectors of one wording of each."""
        numbers = torch.randperm(keys, generator=torch.Generator().manual_seed(seed))[:count]
        wording = 1 + torch.arange(len(numbers)) % (len(self.parts) - 1)
        rows = torch.empty(len(numbers), self.parts.shape[-1])
        for which in range(1, len(self.parts)):
            rows[wording == which] = self.vectors(numbers[wording == which], which)
        return numbers, rows


def measure(parts: Tensor, keys: int, asked: int, seed: int, lists: int | None = None) -> dict[str, Any]:
    crowd = Crowd(parts, seed)
    stored = crowd.stored(keys)
    numbers, rows = crowd.asked(keys, asked, seed)
    half = len(rows) // 2
    (built, chosen), build_seconds = timed(lambda: build_lists(stored, rows[:half], COUNT, seed, lists))
    numbers, rows, lengths = numbers[half:], rows[half:], lengths_of(stored)
    bytes_compared = {"exact": stored.nbytes, "lists": _compared(built, rows) * stored.shape[1]}
    ways = {
        "exact": lambda some: search(some, stored, COUNT, lengths),
        "lists": lambda some: built.search(some, stored, COUNT, lengths),
    }
    (exact, exact_seconds), (found, found_seconds) = (timed(lambda way=way: way(rows)) for way in ways.values())
    return {
        "keys": keys,
        "lists": len(built.centroids),
        "build_seconds": build_seconds,
        "chosen": vars(chosen),
        "agreement": _agreement(exact[0], found[0]),
        "right": {"first": _right(exact[1][:, :1], numbers), "among_candidates": _right(exact[1], numbers)},
        "cosines": {"put_together": _near(exact[0]), "read": _near(_among_read(parts)[0])},
        "bytes_per_key": _bytes_per_key(stored, built),
        "copy_gigabytes_per_second": copy_speed(stored),
        "ways": speeds(ways, bytes_compared, rows),
        "all_at_once": {
            "questions": len(rows),
            "exact_ms": 1000 * exact_seconds / len(rows),
            "lists_ms": 1000 * found_seconds / len(rows),
        },
        "peak_bytes": peak_bytes(),
    }


def _among_read(parts: Tensor) -> tuple[Tensor, Tensor]:
    """A wording of each of a thousand read questions, looked up among all that were read."""
    numbers = torch.arange(parts.shape[1])[:1000]
    asked = parts[1 + numbers // RELATIONS % (len(parts) - 1), numbers].sum(1)
    return search(F.normalize(asked, dim=1), rounded(F.normalize(parts[0].sum(1), dim=1)), COUNT)


def _near(cosines: Tensor) -> list[float]:
    return cosines.mean(0)[list(NEAR)].tolist()


def _right(found: Tensor, numbers: Tensor) -> float:
    return float((found == numbers[:, None]).any(1).double().mean())


def _agreement(exact: Tensor, found: Tensor) -> dict[str, float]:
    """By cosine, so that equal vectors may stand for each other."""
    best = found[:, 0] >= exact[:, 0] - 1e-6
    candidates = found >= exact[:, -1:] - 1e-6
    return {"best": float(best.double().mean()), "candidates": float(candidates.double().mean())}


def _compared(lists: Lists, asked: Tensor) -> float:
    """Stored vectors that a question is compared with, the mean."""
    nearest = search(asked, lists.centroids, int(lists.probes))[1]
    return float(lists.offsets.diff()[nearest].sum(1).double().mean()) + len(lists.centroids)


def _bytes_per_key(stored: Tensor, lists: Lists) -> dict[str, float]:
    keys = len(stored)
    tables = lists.order.nbytes + lists.offsets.nbytes
    return {"vector": stored.shape[1], "lists": tables / keys, "centroids": lists.centroids.nbytes / keys}


def copy_speed(stored: Tensor) -> float:
    """Bytes read and bytes written of a plain copy, in the best of five."""
    room = torch.empty_like(stored)
    return 2 * stored.nbytes / min(timed(lambda: room.copy_(stored))[1] for _ in range(5)) / 1e9


def speeds(
    ways: dict[str, Callable[[Tensor], Any]], compared: dict[str, float], asked: Tensor, times: int = 40
) -> dict[str, dict[str, float]]:
    """Milliseconds a question, alone and in company; the ways take turns, so that all of them see the same machine."""
    alone: dict[str, list[float]] = {name: [] for name in ways}
    together: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(times):
        for name, way in ways.items():
            alone[name].append(1000 * timed(lambda way=way, turn=turn: way(asked[turn % len(asked)][None]))[1])
    for _ in range(3):
        for name, way in ways.items():
            batch = asked[:TOGETHER]
            together[name].append(1000 * timed(lambda way=way, batch=batch: way(batch))[1] / len(batch))
    return {
        name: {
            "ms_alone": median(alone[name]),
            "ms_alone_best": min(alone[name]),
            "ms_together": median(together[name]),
            "gigabytes_per_second_alone": compared[name] / median(alone[name]) / 1e6,
        }
        for name in ways
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--read", type=int, default=8000, help="synthetic facts that are read, with their wordings")
    parser.add_argument("--asked", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    args = parser.parse_args()
    parts, reading = timed(lambda: read_parts(load_backbone(args.model), list(synthetic.facts(args.read))))
    write_results(args, {"read_seconds": reading} | measure(parts, args.keys, args.asked, args.seed))


if __name__ == "__main__":
    main()
