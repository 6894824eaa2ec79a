"""The router's prior for a backbone: what it can learn about questions before it sees a fact.

Made once for each backbone from the lessons that ship with memtune, and kept in the user's cache: whitening of the
early states, word counts, the *relation* projection, the gate's features of all lesson pairs, and questions that are
stored nowhere; every ingest trains on these beside the user's own questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor

from memtune.backbone import Backbone
from memtune.checkpoints import cache_dir
from memtune.events import Note, OnEvent
from memtune.lessons import Lessons, background_prompts, lessons
from memtune.memory.compare import FEATURES, gate_features
from memtune.memory.questions import Questions, Reader, Views, Whitening, count_words
from memtune.memory.words import words_of
from memtune.project import write_beside
from memtune.reading import Reading

__all__ = ["Prior", "prior_for"]

VERSION = 9
D_INDEX = 384
D_GATE = 64
FOLDS = 3
WHITENED = 256
STEPS = 300
FAMILIES = 300  # a step of the contrastive fit
PER_FAMILY = 4
PAIRS = 7000  # of each kind
TEMPERATURE = 0.1
STRANGERS = 4  # every fourth lesson text is among the questions that are stored nowhere, and another in lower case
DROPOUT = 0.3  # of the whitened state: relations that are in no lesson then keep apart better (AUC 0.89 -> 0.90)


_STRANGERS = "strangers."


@dataclass(frozen=True)
class Prior:
    """All tensors, float32 unless said otherwise."""

    index_mean: Tensor  # (hidden,)
    index_map: Tensor  # (hidden, d_index)
    meaning_mean: Tensor  # (hidden,)
    meaning_map: Tensor  # (hidden, d_gate)
    relation_map: Tensor  # (hidden, d_gate)
    counts: Tensor  # (BUCKETS,) documents of the lessons and the background that hold a word
    documents: Tensor  # (1,)
    features: Tensor  # (pairs, FEATURES), each read with a relation map that had not seen the pair
    same: Tensor  # bool (pairs,)
    strangers: Questions

    @property
    def views(self) -> Views:
        index = Whitening(self.index_mean, self.index_map)
        return Views(index, Whitening(self.meaning_mean, self.meaning_map), self.relation_map)


def prior_for(backbone: Backbone, on_event: OnEvent) -> Prior:
    """From the cache, or made now (two or three minutes for a small model on two cores)."""
    identity = (
        f"{VERSION}:{FEATURES}:{backbone.fingerprint}:{backbone.states.taps}:{lessons().digest}:{background_prompts()}"
    )
    path = cache_dir() / "priors" / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.safetensors"
    if path.is_file():
        return _load(path)
    on_event(Note("preparing the router for this model, once (two or three minutes)"))
    prior = _make(backbone)
    _keep(path, prior)
    return prior


def _keep(path: Path, prior: Prior) -> None:
    tensors = {name: value for name, value in vars(prior).items() if isinstance(value, Tensor)}
    tensors |= {f"{_STRANGERS}{name}": column for name, column in vars(prior.strangers).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_beside(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def _load(path: Path) -> Prior:
    tensors = load_file(path)
    columns = {
        name.removeprefix(_STRANGERS): tensors.pop(name) for name in list(tensors) if name.startswith(_STRANGERS)
    }
    return Prior(**tensors, strangers=Questions(**columns))


def _make(backbone: Backbone) -> Prior:
    learned = lessons()
    question = backbone.prompts.question
    background = [question(text) for text in background_prompts()]
    lower = [question(text.lower()) for text in background_prompts() if text != text.lower()]
    lower += [question(text.lower()) for text in learned.texts[STRANGERS // 2 :: STRANGERS]]
    seen = backbone.states.early(background)
    taps = torch.cat(seen, 1)
    hidden = taps.shape[-1]
    index = Whitening.of(taps[0], min(D_INDEX, hidden))
    meaning = Whitening.of(taps[-1], min(D_GATE, hidden))
    vocabulary = backbone.prompts.vocabulary()
    frames = (t.replace(n, " ") if n else t for t, n in zip(learned.texts, learned.named, strict=True))
    documents = [question(text) for text in frames if text.strip()] + background
    counts = count_words(documents, vocabulary)
    raw = Reader(vocabulary, Views(index, meaning, torch.eye(hidden)), counts, len(documents))
    texts = [question(text) for text in learned.texts]
    read = Reading(backbone, raw).questions(texts)
    family = torch.tensor(learned.family)
    pooled = _without_names(read, learned, backbone, raw)
    known = [family % FOLDS != fold for fold in range(FOLDS)] + [torch.ones_like(family, dtype=torch.bool)]
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as if nothing had been drawn
        maps = [_relation_map(pooled, family, used) for used in known]
    others = Questions.cat([raw.read(background, seen), Reading(backbone, raw).questions(lower)])
    strangers = Questions.cat([others, read.take(torch.arange(0, len(texts), STRANGERS))])
    features, same = _lesson_features(read, learned, family % FOLDS, maps[:FOLDS], raw)
    return Prior(
        index_mean=index.mean,
        index_map=index.map,
        meaning_mean=meaning.mean,
        meaning_map=meaning.map,
        relation_map=maps[-1],
        counts=counts,
        documents=torch.tensor([float(len(documents))]),
        features=features,
        same=same,
        strangers=replace(strangers, relation=(strangers.relation.float() @ maps[-1]).half()),
    )


def _without_names(read: Questions, learned: Lessons, backbone: Backbone, reader: Reader) -> Tensor:
    """For each lesson text the weighed sum of its centred word states, its name left out: ``(texts, hidden)``."""
    names = {name: _words(name, backbone, reader) for name in set(learned.named)}
    rows = []
    for number, (text, name) in enumerate(zip(learned.texts, learned.named, strict=True)):
        words = slice(int(read.offsets[number]), int(read.offsets[number + 1]))
        inside = torch.tensor([word in names[name] for word in _words(text, backbone, reader)], dtype=torch.bool)
        weight = reader.idf(read.buckets[words]) * (~inside if not inside.all() else torch.ones_like(inside))
        rows.append((read.relation[words].float() * weight[:, None]).sum(0))
    return torch.stack(rows)


def _words(text: str, backbone: Backbone, reader: Reader) -> list[str]:
    return [word.text for word in words_of(backbone.prompts.question(text), reader.vocabulary)[0]] if text else []


def _relation_map(pooled: Tensor, family: Tensor, used: Tensor) -> Tensor:
    """``(hidden, d_gate)``: wordings of one family near each other, all others apart (InfoNCE, linear).

    Whitened first, so that the fit starts from directions of equal weight.
    """
    torch.manual_seed(0)
    used = used & (family >= 0)
    rows, family = pooled[used], family[used]
    white = Whitening.of(rows, min(WHITENED, rows.shape[1])).map
    states = rows @ white
    states = states / states.norm(dim=1).mean()
    project = torch.nn.Linear(states.shape[1], min(D_GATE, states.shape[1]), bias=False)
    torch.nn.init.orthogonal_(project.weight)
    optimiser = torch.optim.AdamW(project.parameters(), lr=3e-3, weight_decay=1e-2)
    members = [torch.nonzero(family == number).squeeze(1) for number in family.unique()]
    members = [group for group in members if len(group) > 1]
    for _ in range(STEPS):
        drawn = [members[i] for i in torch.randperm(len(members))[:FAMILIES].tolist()]
        batch = torch.cat([group[torch.randperm(len(group))[:PER_FAMILY]] for group in drawn])
        loss = _contrast(F.normalize(project(F.dropout(states[batch], DROPOUT)), dim=-1), family[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return white @ project.weight.detach().T


def _contrast(rows: Tensor, family: Tensor) -> Tensor:
    itself = torch.eye(len(rows), dtype=torch.bool)
    same = (family[:, None] == family) & ~itself
    logits = (rows @ rows.T / TEMPERATURE).masked_fill(itself, -1e9)
    return -(logits.log_softmax(1).masked_fill(~same, 0.0).sum(1) / same.sum(1).clamp_min(1)).mean()


def _lesson_features(
    read: Questions, learned: Lessons, fold: Tensor, maps: Sequence[Tensor], reader: Reader
) -> tuple[Tensor, Tensor]:
    """Gate features of all pairs, each seen through a map that was fitted without its stored question's family."""
    pairs = torch.tensor([*_thinned(learned.same), *_thinned(learned.different)])
    same = torch.arange(len(pairs)) < len(_thinned(learned.same))
    features = torch.zeros(len(pairs), FEATURES)
    for number, projection in enumerate(maps):
        seen = replace(read, relation=(read.relation.float() @ projection).half())
        mine = fold[pairs[:, 0]] == number
        features[mine] = gate_features(seen, seen, pairs[mine], reader.idf)
    return features, same


def _thinned(pairs: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """At most PAIRS of them, evenly taken: more pairs make every ingest slower and the gate no better."""
    return pairs[:: max(1, -(-len(pairs) // PAIRS))]
