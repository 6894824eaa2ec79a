"""The router: from the ids of a question to one stored fact, or to the null route.

Two stages. The index compares one vector a question with all stored vectors, exactly, and keeps 32 candidates. The gate
then compares the question with each candidate word by word; the best one fires if its score reaches the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from .compare import gate_features, heard
from .gate import Gate
from .index import Lists, all_pairs, lengths_of
from .questions import Questions, Reader, Views, Whitening
from .stored import NO_WORDS, StoredQuestions, digests
from .words import BUCKETS, SKETCH, Vocabulary, endings

__all__ = ["CANDIDATES", "Route", "Router", "RouterSizes"]

CANDIDATES = 32
CERTAIN = 30.0  # the score of a question in the very words of a stored one; of one that is too far from it, negative
TOGETHER = 256  # questions that the gate compares at once: some 2 KB for each candidate of each
ENDINGS = 3  # sentence ends of a turn that a question may stand behind; more where a stored one has several itself
LISTS = ("centroids", "order", "list_offsets", "probes")  # as in Lists
STORED = tuple(field.name for field in fields(StoredQuestions))
Ids = tuple[int, ...]


@dataclass(frozen=True)
class RouterSizes:
    wordings: int  # stored questions: one a fact, and one more for each paraphrase in the file
    lists: int  # of the index, 0 where every stored question is compared
    words: int
    spellings: int  # different words
    hidden: int
    d_index: int
    d_gate: int
    vocabulary: int
    pieces: int  # bytes of all vocabulary entries


@dataclass(frozen=True)
class Route:
    """What the router decided. ``fact`` is the best candidate's number (-1: nothing stored); it fires if ``fired``."""

    fact: int
    score: float  # log-odds of the gate, less the caution that the stored question calls for
    threshold: float
    similarity: float  # cosine of the index

    @property
    def fired(self) -> bool:
        return self.fact >= 0 and self.score >= self.threshold


class Router(nn.Module):
    """Everything that routing needs, as tensors: a bundle carries it in its safetensors.

    It works on the CPU, wherever the backbone does: a question is a few words, which are looked up one by one.
    """

    def __init__(self, sizes: RouterSizes) -> None:
        super().__init__()
        self.sizes = sizes
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "owner": ((sizes.wordings,), torch.int64),  # the fact that a stored question asks for
            "vectors": ((sizes.wordings, sizes.d_index), torch.int8),
            "centroids": ((sizes.lists, sizes.d_index), torch.int8),
            "order": ((sizes.wordings if sizes.lists else 0,), torch.int32),
            "list_offsets": ((sizes.lists + 1,), torch.int32),
            "probes": ((1,), torch.int32),
            "digests": ((sizes.wordings,), torch.int64),
            "offsets": ((sizes.wordings + 1,), torch.int64),
            "views": ((sizes.words, sizes.d_gate), torch.uint8),
            "strength": ((sizes.words,), torch.float16),
            "task": ((sizes.words,), torch.float16),
            "looks": ((sizes.words,), torch.uint8),
            "spelling": ((sizes.words,), torch.int32),
            "sketch": ((sizes.spellings, SKETCH // 8), torch.uint8),
            "buckets": ((sizes.spellings,), torch.int32),
            "counts": ((BUCKETS,), torch.float32),
            "documents": ((1,), torch.float32),
            "threshold": ((1,), torch.float32),
            "sentences": ((1,), torch.int64),  # of a turn's end that are read by themselves
            "nearness": ((1,), torch.float32),  # cosine below which only kin fires
            "caution": ((sizes.wordings,), torch.float32),  # taken off the score: strangers ask much like this one
            "piece_data": ((sizes.pieces,), torch.uint8),
            "piece_offsets": ((sizes.vocabulary + 1,), torch.int32),
            "index_mean": ((sizes.hidden,), torch.float32),
            "index_map": ((sizes.hidden, sizes.d_index), torch.float32),
            "meaning_mean": ((sizes.hidden,), torch.float32),
            "meaning_map": ((sizes.hidden, sizes.d_gate), torch.float32),
            "relation_map": ((sizes.hidden, sizes.d_gate), torch.float32),
            "task_map": ((sizes.hidden,), torch.float32),
        }
        for name, (shape, dtype) in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=dtype))
        self.gate = Gate()
        self._reader: Reader | None = None
        self._by_digest: tuple[Tensor, Tensor] | None = None
        self._lengths: Tensor | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Router:
        """Is not moved with the rest of a model, and keeps its dtypes."""
        return self

    def settle(self) -> None:
        """Brings all tensors to the CPU, where a loader has put them beside the backbone."""
        super()._apply(Tensor.cpu)  # type: ignore[no-untyped-call]

    @property
    def reader(self) -> Reader:
        """Made on first use, when the buffers hold what was loaded."""
        if self._reader is None:
            b = self.get_buffer
            index = Whitening(b("index_mean"), b("index_map"))
            meaning = Whitening(b("meaning_mean"), b("meaning_map"))
            vocabulary = Vocabulary(b("piece_data"), b("piece_offsets"))
            views = Views(index, meaning, b("relation_map"), b("task_map"))
            self._reader = Reader(vocabulary, views, b("counts"), float(b("documents")))
        return self._reader

    @property
    def stored(self) -> StoredQuestions:
        return StoredQuestions(**{name: self.get_buffer(name) for name in STORED})

    @property
    def lists(self) -> Lists:
        return Lists(*map(self.get_buffer, LISTS))

    def own_routes(self) -> Iterator[Route]:
        """Fact by fact, the route of its own question as it is stored, its paraphrases left out."""
        owner: Tensor = self.get_buffer("owner")
        first = torch.nonzero(torch.diff(owner, prepend=owner.new_full((1,), -1))).squeeze(1)
        for numbers in first.split(TOGETHER):
            yield from self.decide(self.stored.take(numbers))

    def set_reader(self, reader: Reader) -> None:
        """Keeps what ``reader`` reads with."""
        views = reader.views
        buffers = {"counts": reader.counts, "documents": torch.tensor([reader.documents])}
        buffers |= {"piece_data": reader.vocabulary.data, "piece_offsets": reader.vocabulary.offsets}
        buffers |= {"index_mean": views.index.mean, "index_map": views.index.map}
        buffers |= {
            "meaning_mean": views.meaning.mean,
            "meaning_map": views.meaning.map,
            "relation_map": views.relation,
            "task_map": views.task,
        }
        self._keep(buffers)
        self._reader = None

    def store(self, questions: StoredQuestions, owner: Tensor, lists: Lists, sentences: int) -> None:
        """Question number i asks for the fact ``owner[i]``; none has more than ``sentences`` sentence ends inside."""
        self._keep(dict(zip(LISTS, vars(lists).values(), strict=True)) | vars(questions))
        self._keep({"owner": owner, "sentences": torch.tensor([ENDINGS + sentences])})
        self._by_digest = self._lengths = None

    def holding(
        self, questions: StoredQuestions, owner: Tensor, lists: Lists, caution: Tensor, sentences: int
    ) -> Router:
        """A router that reads and judges as this one does, over other questions; ``store`` and ``be_as_sure_as`` say
        what the rest is.
        """
        sizes = replace(
            self.sizes,
            wordings=len(questions),
            lists=len(lists.centroids),
            words=len(questions.spelling),
            spellings=len(questions.sketch),
        )
        with torch.device("meta"):  # all of it is replaced
            router = Router(sizes)
        router.gate = self.gate
        router.set_reader(self.reader)
        router.store(questions, owner, lists, max(sentences, int(self.get_buffer("sentences")) - ENDINGS))
        router.be_as_sure_as(float(self.get_buffer("threshold")), float(self.get_buffer("nearness")), caution)
        return router

    def parts(self, ids: Ids) -> list[Ids]:
        """What of a turn is routed: all of it, and each of its last sentences to the end."""
        return endings(ids, self.reader.vocabulary, int(self.get_buffer("sentences")))

    def be_as_sure_as(self, threshold: float, nearness: float, caution: Tensor) -> None:
        """Sets when a fact fires: ``caution`` float32 (wordings,) is asked for on top of the threshold."""
        self._keep({"threshold": torch.tensor([threshold]), "nearness": torch.tensor([nearness]), "caution": caution})

    def _keep(self, buffers: dict[str, Tensor]) -> None:
        """Takes the tensors themselves, not their content: of a large file there is room for one copy."""
        for name, tensor in buffers.items():
            mine = self.get_buffer(name)
            assert (mine.shape, mine.dtype) == (tensor.shape, tensor.dtype), name
            setattr(self, name, tensor)

    @torch.inference_mode()
    def route(self, questions: list[Ids], states: list[Tensor]) -> list[Route]:
        """``states``: float32 (taps, tokens, hidden) a question, from ``EarlyStates``."""
        if not questions:
            return []
        return self.decide(self.reader.read(questions, states))

    @torch.inference_mode()
    def decide(self, asked: Questions) -> list[Route]:
        """For questions that are read already. Those in the very words of a stored one need no gate."""
        nothing = Route(-1, float("-inf"), float(self.get_buffer("threshold")), 0.0)
        if not len(self.get_buffer("owner")):
            return [nothing] * len(asked)
        routes = self._in_stored_words(asked)
        asks = asked.offsets.diff() > 0  # a question without words asks for nothing
        others = [row for row, has_words in enumerate(asks.tolist()) if has_words and row not in routes]
        parts = torch.tensor(others, dtype=torch.int64).split(TOGETHER)
        routes |= zip(others, (route for part in parts for route in self._compared(asked.take(part))), strict=True)
        return [routes.get(row, nothing) for row in range(len(asked))]

    def _in_stored_words(self, asked: Questions) -> dict[int, Route]:
        """The routes of the asked questions whose words are those of a stored one, one by one."""
        if self._by_digest is None:
            self._by_digest = self.get_buffer("digests").sort(stable=True)
        known, numbers = self._by_digest
        own = digests(asked)
        place = torch.searchsorted(known, own).clamp_max(len(known) - 1)
        rows = torch.nonzero((known[place] == own) & (own != NO_WORDS)).squeeze(1)
        found = numbers[place[rows]]
        similarity = (asked.vectors[rows] * self.stored.unit_vectors(found)).sum(1)
        routes = self._routes(found, torch.full_like(similarity, CERTAIN), similarity)
        return dict(zip(rows.tolist(), routes, strict=True))

    def _compared(self, asked: Questions) -> list[Route]:
        """Index, then gate."""
        if not len(asked):
            return []
        stored = self.stored
        if self._lengths is None:
            self._lengths = lengths_of(stored.vectors)
        similarity, candidates = self.lists.search(asked.vectors, stored.vectors, CANDIDATES, self._lengths)
        features = gate_features(asked, stored, all_pairs(candidates), self.reader.idf)
        scores = self.gate(features).view(candidates.shape) - self.get_buffer("caution")[candidates]
        scores[~heard(features, self.get_buffer("nearness")).view(candidates.shape)] = -CERTAIN
        best = scores.argmax(1, keepdim=True)
        return self._routes(*(column.gather(1, best).squeeze(1) for column in (candidates, scores, similarity)))

    def _routes(self, stored: Tensor, scores: Tensor, similarity: Tensor) -> list[Route]:
        threshold, owner = float(self.get_buffer("threshold")), self.get_buffer("owner")[stored]
        columns = zip(owner.tolist(), scores.tolist(), similarity.tolist(), strict=True)
        return [Route(fact, score, threshold, cosine) for fact, score, cosine in columns]
