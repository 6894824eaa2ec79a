"""Builds the router for a set of facts: whitening, word counts, stored questions, a trained gate and its threshold.

The gate learns from the user's own questions and the background prompts that ship with memtune, never from a test set.
Each network of the gate is trained without one third of the facts, so that every score behind the threshold is one
that the network gave to a fact it had not seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch
import torch.nn.functional as F
from torch import Tensor

from memtune.backbone import Backbone
from memtune.memory.gate import Gate, gate_features
from memtune.memory.questions import Questions, Reader, Whitening, count_words
from memtune.memory.router import Router, RouterSizes, all_pairs, search
from memtune.memory.words import Vocabulary, is_entity, word_bucket
from memtune.rewordings import near_misses, rewordings

__all__ = ["RouterReport", "Wording", "background_prompts", "build_router"]

Ids = tuple[int, ...]

D_INDEX = 384
D_GATE = 64
TRAINED_FACTS = 1500  # more facts teach the gate nothing new, they only take time
REWORDINGS = 4
NEIGHBOURS = 3
STEPS = 600
RARE = 0.01  # a word in fewer of the documents than this may be a name, where no capital or digit tells


@dataclass(frozen=True)
class Wording:
    """One stored question of fact number ``fact``."""

    fact: int
    text: str
    ids: Ids


@dataclass(frozen=True)
class RouterReport:
    """What the held-out scores promise. ``confusable``: pairs of facts with the score of mistaking one for the other."""

    threshold: float
    expected_recall: float
    expected_false_fire: float
    confusable: tuple[tuple[int, int, float], ...]


@cache
def background_prompts() -> tuple[str, ...]:
    """What people ask that is stored nowhere: 600 prompts on everything, in some 20 languages."""
    return tuple(files("memtune").joinpath("background.txt").read_text(encoding="utf-8").splitlines())


def build_router(
    backbone: Backbone, wordings: Sequence[Wording], *, false_fire: float, seed: int
) -> tuple[Router, RouterReport]:
    """A router over ``wordings``; at most ``false_fire`` of near-miss questions should pass its threshold."""
    background = [backbone.prompts.question(line) for line in background_prompts()]
    vocabulary = backbone.prompts.vocabulary()
    states = backbone.states.early(background)
    counts = count_words([w.ids for w in wordings] + background, vocabulary)
    documents = float(len(wordings) + len(background))
    flat = torch.cat(states, 1)
    kept = flat.shape[-1]
    index = Whitening.of(flat[0], min(D_INDEX, kept))
    gates = [Whitening.of(tap, min(D_GATE, kept)) for tap in flat]
    reader = Reader(vocabulary, index, gates, counts, documents)
    workshop = _Workshop(backbone, reader)
    stored = workshop.read([w.ids for w in wordings])
    owner = torch.tensor([w.fact for w in wordings], dtype=torch.int64)
    router = _empty_router(reader, stored, len(backbone.states.taps), kept)
    router.store(stored, owner)
    rows = _training_rows(workshop, wordings, stored, owner, Questions.cat([reader.read(*p) for p in zip(background, states, strict=True)]), seed)
    _train(router.gate, rows, seed)
    report = _calibrate(router, rows, false_fire)
    return router, _with_confusable(router, report, stored, owner)


@dataclass
class _Workshop:
    """Reads any text as the router would."""

    backbone: Backbone
    reader: Reader

    def read(self, ids: Sequence[Ids]) -> Questions:
        states = self.backbone.states.early(ids)
        return Questions.cat([self.reader.read(i, s) for i, s in zip(ids, states, strict=True)])

    def read_texts(self, texts: Sequence[str]) -> Questions:
        return self.read([self.backbone.prompts.question(text) for text in texts])

    def names(self, words: list[str]) -> list[bool]:
        """Which words name the thing asked about: capitals and digits, or else the rare ones."""
        cores = [re.sub(r"^\W+|\W+$", "", word) for word in words]
        flags = [bool(c) and is_entity(" ".join(words[:i]), c) for i, c in enumerate(cores)]
        if any(flags):
            return flags
        limit = RARE * self.reader.documents
        return [bool(c) and float(self.reader.counts[word_bucket(c.casefold())]) <= limit for c in cores]


def _empty_router(reader: Reader, stored: Questions, taps: int, hidden: int) -> Router:
    vocabulary: Vocabulary = reader.vocabulary
    sizes = RouterSizes(
        wordings=len(stored),
        words=len(stored.buckets),
        hidden=hidden,
        taps=taps,
        d_index=reader.index.map.shape[1],
        d_gate=reader.gates[0].map.shape[1],
        vocabulary=len(vocabulary.offsets) - 1,
        pieces=len(vocabulary.data),
    )
    router = Router(sizes)
    buffers = {
        "counts": reader.counts,
        "documents": torch.tensor([reader.documents]),
        "piece_data": vocabulary.data,
        "piece_offsets": vocabulary.offsets,
        "index_mean": reader.index.mean,
        "index_map": reader.index.map,
        "gate_mean": torch.stack([gate.mean for gate in reader.gates]),
        "gate_map": torch.stack([gate.map for gate in reader.gates]),
    }
    for name, tensor in buffers.items():
        router.get_buffer(name).copy_(tensor)
    return router


@dataclass(frozen=True)
class _Rows:
    """The gate's training set. ``kind``: what a row is; ``fold``: the third of the facts that it belongs to."""

    features: Tensor  # float32 (rows, features)
    kind: Tensor  # int64 (rows,)
    fold: Tensor  # int64 (rows,)

    @property
    def positive(self) -> Tensor:
        return self.kind <= REWORDED


SAME, REWORDED, NEIGHBOUR, NEAR_MISS, BACKGROUND = range(5)
FOLDS = 3


def _training_rows(
    workshop: _Workshop,
    wordings: Sequence[Wording],
    stored: Questions,
    owner: Tensor,
    background: Questions,
    seed: int,
) -> _Rows:
    chosen = list(range(0, len(wordings), max(1, -(-len(wordings) // TRAINED_FACTS))))
    own = torch.tensor(chosen)
    lines = list(background_prompts())
    reworded = [(i, t) for i in chosen for t in rewordings(wordings[i].text, workshop.names, REWORDINGS, seed)]
    missed = [(i, t) for i in chosen for t in near_misses(wordings[i].text, lines, workshop.names, seed)]
    R, N = (workshop.read_texts([text for _, text in made]) for made in (reworded, missed))
    r_own, n_own = (torch.tensor([i for i, _ in made], dtype=torch.int64) for made in (reworded, missed))
    idf = workshop.reader.idf
    parts: list[tuple[Tensor, int, Tensor]] = []

    def add(asked: Questions, pairs: Tensor, kind: int, fold: Tensor) -> None:
        parts.append((gate_features(asked, stored, pairs, idf), kind, fold))

    def fold_of(wording: Tensor) -> Tensor:
        if len(own) < 10 * FOLDS:  # so few facts that none can be spared: the rewordings are held out instead
            return torch.arange(len(wording)) % FOLDS
        return owner[wording] % FOLDS

    add(stored, torch.stack([own, own], 1), SAME, fold_of(own))
    add(R, torch.stack([torch.arange(len(R)), r_own], 1), REWORDED, fold_of(r_own))
    for asked, mine, count in ((stored.take(own), own, NEIGHBOURS), (R, r_own, 1)):
        pairs = _nearest_others(asked, stored, owner, mine, count)
        add(asked, pairs, NEIGHBOUR, fold_of(mine[pairs[:, 0]]))
    if len(N):
        add(N, torch.stack([torch.arange(len(N)), n_own], 1), NEAR_MISS, fold_of(n_own))
    pairs = all_pairs(search(background.vectors, stored.vectors, 2)[1])
    add(background, pairs, BACKGROUND, pairs[:, 0] % FOLDS)
    return _Rows(
        torch.cat([features for features, _, _ in parts]),
        torch.cat([torch.full((len(features),), kind) for features, kind, _ in parts]),
        torch.cat([fold for _, _, fold in parts]),
    )


def _nearest_others(asked: Questions, stored: Questions, owner: Tensor, mine: Tensor, count: int) -> Tensor:
    """Pairs of each asked question with the ``count`` nearest stored ones of other facts."""
    number = search(asked.vectors, stored.vectors, count + 8)[1]
    pairs = all_pairs(number)
    other = (owner[number] != owner[mine][:, None]).long()
    wanted = (other.cumsum(1) <= count) & (other > 0)
    return pairs[wanted.flatten()]


def _train(gate: Gate, rows: _Rows, seed: int) -> None:
    """Full-batch AdamW; network m sees no row of fold m."""
    torch.manual_seed(seed)
    gate.reset(rows.features)
    target = rows.positive.float().expand(FOLDS, -1)
    weight = torch.stack([_balanced(rows, rows.fold != fold) for fold in range(FOLDS)])
    optimiser = torch.optim.AdamW(gate.parameters(), lr=5e-3, weight_decay=3e-2)
    for _ in range(STEPS):
        losses = F.binary_cross_entropy_with_logits(gate.members(rows.features), target, reduction="none")
        loss = (losses * weight).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    gate.requires_grad_(False)


def _balanced(rows: _Rows, used: Tensor) -> Tensor:
    """Weights (rows,) that give yes and no half each."""
    weight = torch.zeros(len(used))
    for side in (rows.positive & used, ~rows.positive & used):
        weight[side] = 0.5 / max(1, int(side.sum()))
    return weight


@torch.inference_mode()
def _calibrate(router: Router, rows: _Rows, false_fire: float) -> RouterReport:
    """Sets the threshold from scores of rows that the scoring network was not trained on."""
    scores = router.gate.members(rows.features).gather(0, rows.fold[None]).squeeze(0)
    near = scores[(rows.kind == NEIGHBOUR) | (rows.kind == NEAR_MISS)]
    other = scores[rows.kind == BACKGROUND]
    reworded = scores[rows.kind == REWORDED]
    threshold = max(0.0, float(near.quantile(1 - false_fire)), float(other.max()))
    router.get_buffer("threshold").fill_(threshold)
    return RouterReport(
        threshold,
        float((reworded >= threshold).float().mean()),
        float((near >= threshold).float().mean()),
        (),
    )


def _with_confusable(router: Router, report: RouterReport, stored: Questions, owner: Tensor) -> RouterReport:
    """Adds the pairs of different facts whose questions score highest against each other."""
    pairs = _nearest_others(stored, stored, owner, torch.arange(len(stored)), 1)
    if not len(pairs):
        return report
    with torch.inference_mode():
        scores = router.gate(gate_features(stored, stored, pairs, router.reader.idf))
    best: dict[tuple[int, int], float] = {}
    for (one, two), score in zip(owner[pairs].tolist(), scores.tolist(), strict=True):
        key = (min(one, two), max(one, two))
        best[key] = max(score, best.get(key, score))
    ranked = sorted(((*pair, score) for pair, score in best.items()), key=lambda row: -row[2])
    return RouterReport(report.threshold, report.expected_recall, report.expected_false_fire, tuple(ranked[:10]))
