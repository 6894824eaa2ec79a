"""Builds the router for a set of facts: whitening, word counts, stored questions, a trained gate and its threshold.

The gate learns from the user's own questions and the background prompts that ship with memtune, never from a test set.
Each network of the gate is trained without one third of the facts, so that every score behind the threshold is one
that the network gave to a fact it had not seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from memtune.backbone import Backbone
from memtune.events import OnEvent, ignore
from memtune.lessons import background_prompts
from memtune.memory.gate import Gate, gate_features
from memtune.memory.questions import Questions, Reader, count_words
from memtune.memory.router import Router, RouterSizes, all_pairs, search
from memtune.memory.words import is_entity, word_bucket
from memtune.prior import Prior, prior_for
from memtune.rewordings import near_misses, overlaps, rewordings

__all__ = ["RouterReport", "Wording", "build_router"]

Ids = tuple[int, ...]

TRAINED_FACTS = 1500  # more facts teach the gate nothing new, they only take time
REWORDINGS = 4
NEIGHBOURS = 3
STEPS = 400
LESSON_SHARE = 0.2  # of the loss; the rest is the user's own questions
RARE = 0.01  # a word in fewer of the documents than this may be a name, where no capital or digit tells


@dataclass(frozen=True)
class Wording:
    """One stored question of fact number ``fact``."""

    fact: int
    text: str
    ids: Ids


@dataclass(frozen=True)
class RouterReport:
    """What the held-out scores promise. ``confusable``: pairs of facts and the score of their mix-up."""

    threshold: float
    expected_recall: float
    expected_false_fire: float
    confusable: tuple[tuple[int, int, float], ...]


def build_router(
    backbone: Backbone, wordings: Sequence[Wording], *, false_fire: float, seed: int, on_event: OnEvent = ignore
) -> tuple[Router, RouterReport]:
    """A router over ``wordings``; at most ``false_fire`` of near-miss questions should pass its threshold."""
    prior = prior_for(backbone, on_event)
    vocabulary = backbone.prompts.vocabulary()
    counts = prior.counts + count_words([w.ids for w in wordings], vocabulary)
    reader = Reader(vocabulary, prior.views, counts, float(prior.documents) + len(wordings))
    workshop = _Workshop(backbone, reader)
    stored = workshop.read([w.ids for w in wordings])
    owner = torch.tensor([w.fact for w in wordings], dtype=torch.int64)
    router = _empty_router(reader, stored)
    router.store(stored, owner)
    rows = _training_rows(workshop, wordings, stored, owner, seed)
    _train(router.gate, rows, prior, seed)
    report = _calibrate(router, rows, false_fire)
    return router, _with_confusable(router, report, stored, owner)


@dataclass
class _Workshop:
    """Reads any text as the router would."""

    backbone: Backbone
    reader: Reader

    def read(self, ids: Sequence[Ids]) -> Questions:
        return self.reader.read_all(ids, self.backbone.states.early(ids))

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


def _empty_router(reader: Reader, stored: Questions) -> Router:
    hidden, d_index = reader.views.index.map.shape
    sizes = RouterSizes(
        wordings=len(stored),
        words=len(stored.buckets),
        hidden=hidden,
        d_index=d_index,
        d_gate=reader.views.relation.shape[1],
        vocabulary=len(reader.vocabulary.offsets) - 1,
        pieces=len(reader.vocabulary.data),
    )
    router = Router(sizes)
    router.set_reader(reader)
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


SAME, REWORDED, NEIGHBOUR, NEAR_MISS, OVERLAP, BACKGROUND = range(6)
FOLDS = 3


def _training_rows(
    workshop: _Workshop, wordings: Sequence[Wording], stored: Questions, owner: Tensor, seed: int
) -> _Rows:
    """The user's own questions against each other, against synthetic wordings of themselves, and the background."""
    chosen = list(range(0, len(wordings), max(1, -(-len(wordings) // TRAINED_FACTS))))
    own = torch.tensor(chosen)
    lines = list(background_prompts())
    kinds: dict[int, Callable[[str], list[str]]] = {
        REWORDED: lambda text: rewordings(text, workshop.names, REWORDINGS, seed),
        NEAR_MISS: lambda text: near_misses(text, lines, workshop.names, seed),
        OVERLAP: lambda text: overlaps(text, lines, workshop.names, seed),
    }
    parts: list[tuple[Tensor, int, Tensor]] = []

    def add(asked: Questions, pairs: Tensor, kind: int, fold: Tensor) -> None:
        parts.append((gate_features(asked, stored, pairs, workshop.reader.idf), kind, fold))

    def fold_of(wording: Tensor) -> Tensor:
        if len(own) < 10 * FOLDS:  # so few facts that none can be spared: the rewordings are held out instead
            return torch.arange(len(wording)) % FOLDS
        return owner[wording] % FOLDS

    def add_neighbours(asked: Questions, mine: Tensor, count: int) -> None:
        pairs = _nearest_others(asked, stored, owner, mine, count)
        add(asked, pairs, NEIGHBOUR, fold_of(mine[pairs[:, 0]]))

    add(stored, torch.stack([own, own], 1), SAME, fold_of(own))
    add_neighbours(stored.take(own), own, NEIGHBOURS)
    for kind, write in kinds.items():
        made = [(i, text) for i in chosen for text in write(wordings[i].text)]
        if made:
            asked, mine = workshop.read_texts([text for _, text in made]), torch.tensor([i for i, _ in made])
            add(asked, torch.stack([torch.arange(len(made)), mine], 1), kind, fold_of(mine))
            if kind == REWORDED:
                add_neighbours(asked, mine, 1)
    background = workshop.read_texts(lines)
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


def _train(gate: Gate, rows: _Rows, prior: Prior, seed: int) -> None:
    """Full-batch AdamW on the lessons and the user's own rows; network m sees no row of fold m % FOLDS."""
    features = torch.cat([prior.features, rows.features])
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as if nothing had been drawn
        torch.manual_seed(seed)
        gate.reset(features)
    members = len(gate.outer)
    taught = torch.zeros(len(prior.same), dtype=torch.bool)
    target = torch.cat([prior.same, rows.positive]).float().expand(members, -1)
    groups = [F.pad(prior.same, (0, len(rows.kind))), F.pad(~prior.same, (0, len(rows.kind)))]
    groups += [torch.cat([taught, side]) for side in (rows.positive, ~rows.positive)]
    fold = F.pad(rows.fold, (len(taught), 0), value=-1)
    shares = (LESSON_SHARE, LESSON_SHARE, 1 - LESSON_SHARE, 1 - LESSON_SHARE)
    weight = torch.stack([_weights(groups, shares, fold != m % FOLDS) for m in range(members)])
    optimiser = torch.optim.AdamW(gate.parameters(), lr=5e-3, weight_decay=3e-2)
    for _ in range(STEPS):
        losses = F.binary_cross_entropy_with_logits(gate.members(features), target, reduction="none")
        loss = (losses * weight).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    gate.requires_grad_(False)


def _weights(groups: Sequence[Tensor], shares: Sequence[float], used: Tensor) -> Tensor:
    """Weights (rows,): each group has its share in the loss, however many rows it has."""
    weight = torch.zeros(len(used))
    for group, share in zip(groups, shares, strict=True):
        weight[group & used] = 0.5 * share / max(1, int((group & used).sum()))
    return weight


@torch.inference_mode()
def _calibrate(router: Router, rows: _Rows, false_fire: float) -> RouterReport:
    """Sets the threshold from scores of rows that the scoring network was not trained on."""
    members = router.gate.members(rows.features)
    held_out = torch.stack([members[fold::FOLDS].mean(0) for fold in range(FOLDS)])
    scores = held_out.gather(0, rows.fold[None]).squeeze(0)
    near = scores[(rows.kind == NEIGHBOUR) | (rows.kind == NEAR_MISS)]
    other = scores[rows.kind == BACKGROUND]
    reworded = scores[rows.kind == REWORDED]
    threshold = max(_quantile(near, 1 - false_fire), _quantile(other, 1 - false_fire / 10))
    router.get_buffer("threshold").fill_(threshold)
    return RouterReport(
        threshold,
        float((reworded >= threshold).float().mean()),
        float((near >= threshold).float().mean()) if len(near) else 0.0,
        (),
    )


def _quantile(scores: Tensor, share: float) -> float:
    """Minus infinity where there is nothing to go by: a lone fact without a name has no near misses."""
    return float(scores.quantile(share)) if len(scores) else -math.inf


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
