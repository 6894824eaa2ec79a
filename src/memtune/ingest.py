"""The verb ingest: read the facts, check them against the model, build their router, assign their experts."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from memtune.backbone import Backbone, load_backbone
from memtune.config import Config
from memtune.errors import DataError
from memtune.events import Note, OnEvent, ignore
from memtune.facts import Fact, PackedFacts, read_facts
from memtune.lessons import background_prompts
from memtune.memory.bank import Bank, Projections
from memtune.memory.module import Memory, MemoryConfig
from memtune.project import Project
from memtune.routing import RouterReport, build_router
from memtune.store import load_facts, load_memory, save_memory
from memtune.wordings import Wordings

__all__ = ["IngestResult", "ingest"]

MEAN_PROMPTS = 64  # enough for the average final state


@dataclass(frozen=True)
class IngestResult:
    """What ingest found and made. ``kept``: facts whose experts an earlier tune had fitted and that did not change."""

    facts: int
    wordings: int
    answer_tokens: int
    experts: int
    kept: int
    bytes: int
    model: str
    model_reason: str
    threshold: float
    expected_recall: float
    expected_false_fire: float
    confusable: tuple[Confusable, ...]
    example: str  # the first fact as the model reads it


@dataclass(frozen=True)
class Confusable:
    """Two facts whose questions look most alike to the gate; it mistakes one for the other above the threshold."""

    one: str
    other: str
    score: float


def ingest(
    path: str | Path,
    project_dir: Path,
    config: Config,
    *,
    question_key: str | None = None,
    answer_key: str | None = None,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> IngestResult:
    """The project holds the facts, their router and an empty or carried-over bank.

    Nothing is written before all is checked.

    Raises DataError (every problem of the file at once), ModelError, ProjectError.
    """
    facts = read_facts(path, question_key=question_key, answer_key=answer_key)
    project = Project(project_dir)
    backbone = backbone or load_backbone(config.model, device=config.device, dtype=config.dtype, on_event=on_event)
    wordings = Wordings(facts, backbone.prompts.question)
    experts = _experts(facts, wordings, backbone)
    on_event(Note(f"routing {len(wordings)} wordings of {len(facts)} facts"))
    router, report = build_router(backbone, wordings, false_fire=config.false_fire, seed=config.seed, on_event=on_event)
    bank = Bank.assigned([fact.id for fact in facts], experts, backbone.hidden, config.rows)
    turns = backbone.prompts.format
    with torch.device("meta"):  # all of it is replaced
        memory = Memory(MemoryConfig(bank.sizes, router.sizes, turns, backbone.states.taps))
    memory.router, memory.bank = router, bank
    memory.projections = _projections(backbone, bank, config.seed)
    kept = _carry_over(project, facts, memory, backbone)
    result = _result(facts, backbone, memory, report, kept)
    with project.writing():
        _save(project, facts, memory, backbone, config, result)
    return result


def _experts(facts: Sequence[Fact], wordings: Wordings, backbone: Backbone) -> list[int]:
    """How many experts each fact takes; raises DataError for those that the model cannot say or has no room for."""
    room = getattr(backbone.model.config, "max_position_embeddings", None) or 1 << 20
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
        raise DataError(problems, hint="shorten or reword these answers, then run memtune ingest again")
    return experts


def _projections(backbone: Backbone, bank: Bank, seed: int) -> Projections:
    lines = background_prompts()[:: max(1, len(background_prompts()) // MEAN_PROMPTS)]
    rows = [backbone.prompts.question(line) + backbone.prompts.format.closing for line in lines]
    finals = [
        final[place, : len(rows[i])].float()
        for batch, _, final in backbone.states.whole(rows)
        for place, i in enumerate(batch)
    ]
    mean = torch.cat(finals).mean(0)
    sizes = bank.sizes
    return Projections.for_backbone(backbone.readout.weight, mean, d_key=sizes.d_key, d_value=sizes.d_value, seed=seed)


def _carry_over(project: Project, facts: Sequence[Fact], memory: Memory, backbone: Backbone) -> int:
    """Copies the fitted rows of facts that did not change, byte for byte, and counts them."""
    old = project.state
    if not old or old["model"]["fingerprint"] != backbone.fingerprint:
        return 0
    before = load_memory(project)
    if not before.projections.same_as(memory.projections) or before.bank.rows != memory.bank.rows:
        return 0
    kept = 0
    for number, place in _unchanged(facts, load_facts(project)):
        if bool(before.bank.accepted[place]):
            memory.bank.copy_fact(number, before.bank, place)
            kept += 1
    return kept


def _unchanged(facts: Sequence[Fact], before: Sequence[Fact]) -> Iterator[tuple[int, int]]:
    """The numbers that a fact has now and had before, for every fact that is the same."""
    marks, order = _marks(before).sort()
    mine = _marks(facts)
    found = torch.searchsorted(marks, mine).clamp_max(len(marks) - 1)
    for number in torch.nonzero(marks[found] == mine).squeeze(1).tolist():
        place = int(order[found[number]])
        if facts[number].digest == before[place].digest:
            yield number, place


def _marks(facts: Sequence[Fact]) -> Tensor:
    """The first 60 bits of each fact's digest, int64 ``(facts,)``."""
    return torch.tensor(array("q", (int(fact.digest[:15], 16) for fact in facts)))


def _result(
    facts: Sequence[Fact],
    backbone: Backbone,
    memory: Memory,
    report: RouterReport,
    kept: int,
) -> IngestResult:
    first = backbone.prompts.fact(facts[0])
    shown = backbone.prompts.format.prompt(first.question) + first.answer
    return IngestResult(
        facts=len(facts),
        wordings=memory.router.sizes.wordings,
        answer_tokens=memory.bank.sizes.experts,
        experts=memory.bank.sizes.experts,
        kept=kept,
        bytes=sum(t.numel() * t.element_size() for t in memory.state_dict().values()),
        model=backbone.checkpoint.name,
        model_reason=backbone.reason,
        threshold=report.threshold,
        expected_recall=report.expected_recall,
        expected_false_fire=report.expected_false_fire,
        confusable=tuple(Confusable(facts[a].question, facts[b].question, score) for a, b, score in report.confusable),
        example=str(backbone.prompts.tokenizer.decode(list(shown))),
    )


def _save(
    project: Project, facts: PackedFacts, memory: Memory, backbone: Backbone, config: Config, result: IngestResult
) -> None:
    files = save_memory(project, memory)
    files |= {"facts": project.keep("facts", "jsonl", lambda path: path.write_bytes(facts.data))}
    model = {"name": config.model, "location": backbone.checkpoint.location, "fingerprint": backbone.fingerprint}
    model |= {"device": config.device, "dtype": config.dtype}
    record = asdict(result)
    project.commit(files, model=model, seed=config.seed, memory=memory.config.to_dict(), ingest=record, tune=None)
