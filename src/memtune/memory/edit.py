"""A memory of other facts: some left out, some added, all that is known of the rest byte for byte as it was.

Gate, threshold and word counts stay: they were learned from the facts that were there, and a few more or fewer of them
would not have made others of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .bank import Bank
from .compare import gate_features, heard
from .index import Lists, all_pairs, nearest_lists, search
from .module import Memory, MemoryConfig
from .questions import Questions, ragged_rows
from .router import CANDIDATES, Router
from .stored import StoredQuestions

__all__ = ["Addition", "caution_for", "edited", "takers"]

TOGETHER = 8192  # pairs whose figures are held at once, 2 KB for each


@dataclass(frozen=True)
class Addition:
    """Facts that are new: their experts, still empty, and their questions as the router reads them."""

    bank: Bank
    questions: StoredQuestions
    owner: Tensor  # int64 (wordings,): the fact, counted from the first new one, that a question asks for
    caution: Tensor  # float32 (wordings,)
    sentences: int  # sentence ends inside the longest of them


@torch.no_grad()
def edited(memory: Memory, facts: Tensor, added: Addition | None = None) -> Memory:
    """The memory of the facts numbered ``facts``, in that order; the new ones are counted on behind the old.

    ``memory`` itself is left as it is. Of its stored tensors a second copy is held.
    """
    bank, router = memory.bank, memory.router
    stored, lists, sentences = router.stored, router.lists, 0
    owner, caution, member = router.get_buffer("owner"), router.get_buffer("caution"), lists.members()
    if added:
        new = nearest_lists(added.questions.vectors, lists.centroids) if len(lists.centroids) else member
        owner, member = torch.cat([owner, bank.sizes.facts + added.owner]), torch.cat([member, new])
        bank, stored = bank.joined(added.bank), stored.joined(added.questions)
        caution, sentences = torch.cat([caution, added.caution]), added.sentences
    firsts = torch.searchsorted(owner, torch.arange(bank.sizes.facts + 1))
    wordings, offsets = ragged_rows(firsts, facts)
    if len(lists.centroids):
        lists = Lists.of(lists.centroids, member[wordings], lists.probes)
    owner = torch.arange(len(facts)).repeat_interleave(offsets.diff())
    held = router.holding(stored.only(wordings), owner, lists, caution[wordings], sentences)
    return _joined(memory, bank.take(facts), held)


def _joined(memory: Memory, bank: Bank, router: Router) -> Memory:
    made = Memory.sized(
        MemoryConfig(bank.sizes, router.sizes, memory.config.format, memory.config.taps)
    )  # all of it is replaced
    made.bank, made.router, made.projections = bank, router, memory.projections
    return made.requires_grad_(False)


@torch.inference_mode()
def caution_for(router: Router, questions: StoredQuestions, strangers: Questions, margin: float, most: float) -> Tensor:
    """Log-odds on top of the threshold that keep strangers from each of the questions, float32 (wordings,).

    ``margin``: by how much; ``most``: no question is more careful than that.
    """
    number = search(questions.unit_vectors(torch.arange(len(questions))), strangers.vectors, CANDIDATES)[1]
    scores = _scores(router, strangers, number, questions)
    return (scores.amax(1) + margin - float(router.get_buffer("threshold"))).clamp(0.0, most)


@torch.inference_mode()
def takers(
    router: Router, questions: StoredQuestions, caution: Tensor, owner: Tensor | None = None
) -> list[tuple[int, int, float]]:
    """Stored questions that would fire one of the new ``questions`` if they were asked in about their own words:
    (the new one, the stored one that is most alike, its score above the threshold).

    ``owner`` int64 (questions,): the fact of the router that each question belongs to, whose questions do not count.
    """
    stored = router.stored
    if not len(stored):  # all that was stored is replaced
        return []
    asked = questions.unit_vectors(torch.arange(len(questions)))
    number = router.lists.search(asked, stored.vectors, CANDIDATES)[1]
    scores = _scores(router, stored, number, questions) - caution[:, None]
    if owner is not None:
        scores = scores.masked_fill(router.get_buffer("owner")[number] == owner[:, None], -torch.inf)
    best, place = scores.max(1)
    found = zip(best.tolist(), number.gather(1, place[:, None]).squeeze(1).tolist(), strict=True)
    threshold = float(router.get_buffer("threshold"))
    return [(new, old, score) for new, (score, old) in enumerate(found) if score >= threshold]


def _scores(router: Router, asked: Questions | StoredQuestions, number: Tensor, questions: StoredQuestions) -> Tensor:
    """How alike the gate finds each of the ``questions`` to those ``asked`` whose ``number`` int64 (questions, each)
    stands beside it; what is too far to be heard, minus infinity: float32 (questions, each).
    """
    pairs = all_pairs(number).flip(1)
    return torch.cat([_heard(router, asked, part, questions) for part in pairs.split(TOGETHER)]).view(number.shape)


def _heard(router: Router, asked: Questions | StoredQuestions, pairs: Tensor, questions: StoredQuestions) -> Tensor:
    features = gate_features(asked, questions, pairs, router.reader.idf)
    scores: Tensor = router.gate(features).where(heard(features, router.get_buffer("nearness")), -torch.inf)
    return scores
