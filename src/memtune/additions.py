"""Facts on their way into a memory: what each takes, how its question is read, and whose route it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memtune.backbone import Backbone
from memtune.calibration import CAREFUL, MARGIN
from memtune.difference import Difference
from memtune.errors import DataError
from memtune.events import OnEvent, ignore
from memtune.fact import Fact, PackedFacts
from memtune.memory.bank import Bank
from memtune.memory.edit import Addition, caution_for, edited, takers
from memtune.memory.index import Lists
from memtune.memory.module import Memory
from memtune.memory.stored import StoredQuestions
from memtune.memory.words import sentence_starts
from memtune.prior import prior_for
from memtune.reading import Reading
from memtune.visible import show
from memtune.wordings import Wordings

__all__ = ["Conflict", "addition", "changed_memory", "conflicts", "experts_of", "settled"]


@dataclass(frozen=True)
class Conflict:
    """A new fact and a stored one that would be taken for one another: the score of their questions, and what is
    asked when it happens.
    """

    new: str
    stored: str
    asked: str
    score: float
    threshold: float

    def __str__(self) -> str:
        taken = f"{show(self.asked)} asks for {self.stored!r} too"
        return f"{self.new!r}: {taken} (score {self.score:.2f}, threshold {self.threshold:.2f})"


def experts_of(facts: Sequence[Fact], wordings: Wordings, backbone: Backbone) -> list[int]:
    """How many experts each fact takes; raises DataError for those that the model cannot say or has no room for."""
    room = backbone.room
    experts, problems = [], []
    for number, fact in enumerate(facts):
        answer = backbone.prompts.answer(fact.answer)
        length = len(backbone.prompts.format.prompt(wordings.question_of(number))) + len(answer)
        if length > room:
            problems.append(f"{fact.source}: question and answer take {length} tokens, the model has room for {room}")
        elif (said := backbone.prompts.text(answer).strip()) != fact.answer:
            problems.append(
                f"{fact.source}: the model's tokenizer spells the answer {said[:60]!r}, not {fact.answer[:60]!r}"
            )
        experts.append(len(answer))
    if problems:
        raise DataError(problems, hint="shorten or reword these answers, then run the command again")
    return experts


def addition(
    memory: Memory, facts: Sequence[Fact], wordings: Wordings, backbone: Backbone, on_event: OnEvent
) -> Addition:
    """The facts, read as ``memory`` reads questions. Raises DataError for those that the model cannot say."""
    bank = Bank.assigned(
        [fact.id for fact in facts], experts_of(facts, wordings, backbone), memory.bank.hidden, memory.bank.rows
    )
    reader = memory.router.reader
    questions = StoredQuestions.pack(Reading(backbone, reader).parts(wordings.ids()))
    strangers = prior_for(backbone, on_event).strangers
    ends = (len(sentence_starts(ids, reader.vocabulary)) for ids in wordings.ids())
    caution = caution_for(memory.router, questions, strangers, MARGIN, CAREFUL)
    return Addition(bank, questions, wordings.owner, caution, max(ends))


def changed_memory(
    memory: Memory, facts: PackedFacts, found: Difference, backbone: Backbone, on_event: OnEvent
) -> tuple[Memory, Addition | None]:
    """The memory of ``facts``: ``memory`` holds those that ``found`` knows, the others have yet to be fitted."""
    new = facts.only(found.new)
    added = addition(memory, new, Wordings(new, backbone.prompts.question), backbone, on_event) if len(new) else None
    return edited(memory, found.order(memory.bank.sizes.facts), added), added


def settled(
    memory: Memory, facts: PackedFacts, found: Difference, backbone: Backbone, on_event: OnEvent
) -> tuple[Memory, list[Conflict]]:
    """As ``changed_memory``, with what the new facts would be taken for."""
    made, added = changed_memory(memory, facts, found, backbone, on_event)
    if added is None:
        return made, []
    stays = torch.nonzero(found.origin >= 0).squeeze(1)
    kept, new = facts.only(stays.tolist()), facts.only(found.new)
    old = memory
    if len(kept) < memory.bank.sizes.facts:
        only = Difference(found.origin[stays], (), (), ())
        old, _ = changed_memory(memory, kept, only, backbone, ignore)
    return made, conflicts(old, added, new, Wordings(new, backbone.prompts.question), kept)


@torch.inference_mode()
def conflicts(
    memory: Memory, added: Addition, facts: Sequence[Fact], wordings: Sequence[str], stored: Sequence[Fact]
) -> list[Conflict]:
    """Every stored fact that fires when a new one is asked for, every one whose question would fire a new one, and new
    ones that would be taken for each other: there the earlier one counts as stored.
    """
    router = memory.router
    found: dict[tuple[str, str], Conflict] = {}

    def note(new: str, old: str, asked: str, score: float) -> None:
        threshold = float(router.get_buffer("threshold"))
        found.setdefault((new, old), Conflict(new, old, asked, score, threshold))

    owner = added.owner.tolist()
    asked = added.questions.take(torch.arange(len(added.questions)))
    for number, route in enumerate(router.decide(asked)):
        if route.fired:
            note(facts[owner[number]].id, stored[route.fact].id, wordings[number], route.score)
    mine: Tensor = router.get_buffer("owner")
    for number, question, score in takers(router, added.questions, added.caution):
        old = stored[int(mine[question])]
        note(facts[owner[number]].id, old.id, old.question, score)
    exact = Lists.none(router.lists.centroids.shape[1])
    new = router.holding(added.questions, added.owner, exact, added.caution, added.sentences)
    for number, question, score in takers(new, added.questions, added.caution, added.owner):
        earlier, later = sorted((owner[number], owner[question]))
        note(facts[later].id, facts[earlier].id, facts[later].question, score)
    return list(found.values())
