"""The verb probe: ask the model, see which fact fired and how sure each token is, beside the backbone's own answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memtune.asking import Asker
from memtune.backbone import Backbone
from memtune.events import OnEvent, ignore
from memtune.memory.router import Route
from memtune.project import Project
from memtune.store import backbone_of, load_memory

__all__ = ["ProbeResult", "TokenProbability", "probe", "probed"]

BATCH = 16


@dataclass(frozen=True)
class TokenProbability:
    """One answer token, the stop token included, and its probability."""

    token: str
    probability: float


@dataclass(frozen=True)
class ProbeResult:
    """One question asked. ``fact_id`` and ``experts`` (first, last) name what fired; None on the null route."""

    question: str
    answer: str
    base_answer: str
    fired: bool
    fact_id: str | None
    score: float
    threshold: float
    experts: tuple[int, int] | None
    token_probs: tuple[TokenProbability, ...]


def probe(
    questions: Sequence[str], project_dir: Path, *, on_event: OnEvent = ignore, backbone: Backbone | None = None
) -> Iterator[ProbeResult]:
    """Greedy answers, in the order of the questions, a batch at a time. Raises ProjectError, ModelError."""
    project = Project(project_dir)
    project.need("model", "memtune ingest FACTS")
    project.need("tune", "memtune tune")
    backbone = backbone_of(project, backbone, on_event)
    asker = Asker(backbone, load_memory(project))
    try:
        for start in range(0, len(questions), BATCH):
            yield from probed(asker, questions[start : start + BATCH])
    finally:
        asker.attachment.detach()


def probed(asker: Asker, questions: Sequence[str]) -> Iterator[ProbeResult]:
    """The same of a model with its memory on it, all in one batch."""
    routes = asker.attachment.route([asker.backbone.prompts.question(text) for text in questions])
    answers = asker.ask(questions)
    fired = [i for i, route in enumerate(routes) if asker.memory.fires(route)]
    # On the null route the memory writes nothing, so what was generated is the backbone's own answer.
    base = dict(zip(fired, asker.ask([questions[i] for i in fired], memory=False), strict=True))
    for i, (question, route, answer) in enumerate(zip(questions, routes, answers, strict=True)):
        pieces = zip(answer.ids, answer.probabilities, strict=True)
        yield ProbeResult(
            question=question,
            answer=answer.text,
            base_answer=base.get(i, answer).text,
            fired=i in base,
            fact_id=asker.memory.bank.id_of(route.fact) if i in base else None,
            score=route.score,
            threshold=route.threshold,
            experts=_experts(asker, route) if i in base else None,
            token_probs=tuple(TokenProbability(asker.backbone.prompts.piece(t), p) for t, p in pieces),
        )


def _experts(asker: Asker, route: Route) -> tuple[int, int]:
    run = asker.memory.bank.run(route.fact)
    return run.start, run.stop - 1
