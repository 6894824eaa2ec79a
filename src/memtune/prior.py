"""The router's prior for a backbone: what it can learn about questions before it sees a fact.

Made once for each backbone from the lessons that ship with memtune, and kept in the user's cache: whitening of the
early states, word counts, the *relation* and *task* projections, the gate's features of all lesson pairs, and questions
that are stored nowhere; every ingest trains on these beside the user's own questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from memtune.backbone import Backbone
from memtune.checkpoints import cache_dir
from memtune.events import Note, OnEvent
from memtune.lessons import FOLDS, Lessons, background_prompts, lessons, spread
from memtune.memory.compare import FEATURES, gate_features
from memtune.memory.questions import Questions, Reader, Views, Whitening, count_words
from memtune.prior_maps import D_GATE, relation_map, seen_through, task_map, without_names
from memtune.project import write_beside
from memtune.reading import Reading

__all__ = ["Prior", "prior_for"]

VERSION = 10
D_INDEX = 384
PAIRS = 7000  # of each kind: more make every ingest slower and the gate no better
STRANGERS = 4  # every fourth lesson text is among the questions that are stored nowhere, and another in lower case


_STRANGERS = "strangers."


@dataclass(frozen=True)
class Prior:
    """All tensors, float32 unless said otherwise."""

    index_mean: Tensor  # (hidden,)
    index_map: Tensor  # (hidden, d_index)
    meaning_mean: Tensor  # (hidden,)
    meaning_map: Tensor  # (hidden, d_gate)
    relation_map: Tensor  # (hidden, d_gate)
    task_map: Tensor  # (hidden,)
    counts: Tensor  # (BUCKETS,) documents of the lessons and the background that hold a word
    documents: Tensor  # (1,)
    features: Tensor  # (pairs, FEATURES), each read with a relation map that had not seen the pair
    same: Tensor  # bool (pairs,)
    strangers: Questions

    @property
    def views(self) -> Views:
        index = Whitening(self.index_mean, self.index_map)
        return Views(index, Whitening(self.meaning_mean, self.meaning_map), self.relation_map, self.task_map)


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
    unmapped = Views(index, meaning, torch.eye(hidden), torch.zeros(hidden))
    raw = Reader(vocabulary, unmapped, counts, len(documents))
    texts = [question(text) for text in learned.texts]
    read = Reading(backbone, raw).questions(texts)
    family = torch.tensor(learned.family)
    pooled = without_names(read, learned, backbone, raw)
    known = [family % FOLDS != fold for fold in range(FOLDS)] + [torch.ones_like(family, dtype=torch.bool)]
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as if nothing had been drawn
        relations = [relation_map(pooled, family, used) for used in known]
    wrapped = Reading(backbone, raw).texts(one.text for one in learned.wrapped)
    task = task_map(read, wrapped, learned, raw.idf)
    others = Questions.cat([raw.read(background, seen), Reading(backbone, raw).questions(lower)])
    strangers = Questions.cat([others, read.take(torch.arange(0, len(texts), STRANGERS))])
    seen_by = [seen_through(relation, task, read) for relation in relations[:FOLDS]]
    features, same = _lesson_features(seen_by, learned, family % FOLDS, raw)
    return Prior(
        index_mean=index.mean,
        index_map=index.map,
        meaning_mean=meaning.mean,
        meaning_map=meaning.map,
        relation_map=relations[-1],
        task_map=task,
        counts=counts,
        documents=torch.tensor([float(len(documents))]),
        features=features,
        same=same,
        strangers=seen_through(relations[-1], task, strangers),
    )


def _lesson_features(
    seen_by: Sequence[Questions], learned: Lessons, fold: Tensor, reader: Reader
) -> tuple[Tensor, Tensor]:
    """Gate features of all pairs, each seen through a map that was fitted without its stored question's family."""
    alike, different = (torch.tensor(kind)[spread(len(kind), PAIRS)] for kind in (learned.same, learned.different))
    pairs = torch.cat([alike, different])
    same = torch.arange(len(pairs)) < len(alike)
    features = torch.zeros(len(pairs), FEATURES)
    for number, seen in enumerate(seen_by):
        mine = fold[pairs[:, 0]] == number
        features[mine] = gate_features(seen, seen, pairs[mine], reader.idf)
    return features, same
