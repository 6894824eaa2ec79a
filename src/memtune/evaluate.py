"""The verb eval: what a tuned project does on wordings, near misses, contexts and everything else, by real generation.

Every figure is a count of whole greedy outputs. An answer is *exact* if the output is the answer and stops there; an
output is *unchanged* if its token ids are the backbone's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from memtune.asking import Asker, said_by
from memtune.backbone import Backbone
from memtune.baseline import Baseline, BaselineResult, Rag
from memtune.bench import Bench, Told
from memtune.conditions import CONDITIONS, Condition, Surroundings
from memtune.config import Config
from memtune.events import Note, OnEvent, Progress, ignore
from memtune.fact import Fact
from memtune.measures import Case, Measure, Outcome, drawn
from memtune.memory.module import Memory
from memtune.outputs import check_out, versions
from memtune.project import Project
from memtune.report import (
    EvalResult,
    Floors,
    InputFile,
    Scope,
    floors_of,
    promises_of,
    write_report,
)
from memtune.store import backbone_of, load_facts, load_memory
from memtune.suites import QuestionFiles, Suite, own_suites, suites_of_files

__all__ = ["Baseline", "EvalResult", "Floors", "QuestionFiles", "Scope", "evaluate"]

CHECKED = {"sample": 64, "none": 0, "all": 1 << 40}  # null-route outputs of a measure that are generated nevertheless
ROBUST_SHARE = 3  # a condition asks a third of the sample: there are many of them
ORDER = (
    "exact",
    "paraphrase",
    "own-wordings",
    "reworded",
    "near-miss",
    "near-miss-synthetic",
    "unrelated",
    "unrelated-shipped",
)
TALK = 3  # facts in one conversation


def evaluate(
    project_dir: Path,
    config: Config,
    *,
    files: QuestionFiles | None = None,
    floors: Floors | None = None,
    scope: Scope | None = None,
    baseline: Baseline | None = None,
    out: Path | None = None,
    on_event: OnEvent = ignore,
    backbone: Backbone | None = None,
) -> EvalResult:
    """Measures the project and writes ``eval.json`` and ``eval.html`` to ``out``, the project directory by default.

    ``baseline``: what answers the same questions as well. Nothing is written before everything was measured. Raises
    DataError (every problem of the files), ProjectError, ModelError, ConfigError.
    """
    files, scope = files or QuestionFiles(), scope or Scope()
    project = Project(project_dir)
    model = project.need("model", "memtune ingest FACTS")
    until_loss = project.need("tune", "memtune tune").figure("until_loss")
    ingested = project.need("ingest", "memtune ingest FACTS")
    promised = [ingested.figure(name) for name in ("expected_recall", "expected_false_fire")]
    out = out or project_dir
    check_out(out, "eval.json and eval.html")
    backbone = backbone_of(project, backbone, on_event)
    memory, facts = load_memory(project), load_facts(project)
    given = suites_of_files(files, facts, backbone.prompts)
    run = _Run(backbone, memory, facts, config, scope, on_event)  # hangs the memory on the backbone
    try:
        measures = tuple(run.measures(given))
        beside = run.beside(measures, baseline or Baseline())
    finally:
        run.bench.asker.attachment.detach()
    result = EvalResult(
        project=str(project_dir),
        model=model["name"],
        fingerprint=backbone.fingerprint,
        versions=versions(),
        seed=config.seed,
        verify=config.verify,
        sample=scope.sample,
        longest=scope.longest,
        files=tuple(
            InputFile(role, str(path), path.stat().st_size if path.is_file() else 0)
            for role, path in files.named.items()
        ),
        facts=len(facts),
        learned=int(memory.bank.accepted.sum()),
        until_loss=until_loss,
        threshold=float(memory.router.get_buffer("threshold")),
        measures=measures,
        promises=promises_of(measures, *promised),
        floors=floors_of(measures, floors or Floors()),
        losses=tuple(float(loss) for loss in memory.bank.loss),
        notes=tuple(run.notes),
        seconds=run.seconds,
        page=str(out / "eval.html"),
        json=str(out / "eval.json"),
        baseline=beside,
    )
    write_report(result, out)
    return result


def _as_told(talk: Sequence[Case]) -> Case:
    """The last turn of a conversation in which every answer before it was the expected one."""
    before = [turn for case in talk[:-1] for turn in (*case.turns, said_by("assistant", case.expected))]
    return talk[-1].among([*before, *talk[-1].turns])


class _Run:
    """One measurement of one project."""

    def __init__(
        self,
        backbone: Backbone,
        memory: Memory,
        facts: Sequence[Fact],
        config: Config,
        scope: Scope,
        on_event: OnEvent,
    ) -> None:
        self.prompts, self.facts = backbone.prompts, facts
        self.config, self.scope, self.on_event = config, scope, on_event
        self.around = Surroundings.of(backbone.prompts, facts, memory.router.reader)
        self.room = backbone.room
        self.bench = Bench(Asker(backbone, memory), facts, scope.longest)
        self.asked: dict[str, list[Case]] = {}
        self.notes: list[str] = []
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def measures(self, given: Sequence[Suite]) -> Iterator[Measure]:
        """Every measure that there are questions for: the suites, then the conditions."""
        suites = {suite.key: suite for suite in [*own_suites(self.facts, self.around.names, self.config.seed), *given]}
        pools: dict[str, tuple[list[Case], list[Outcome]]] = {}
        for suite in (suites[key] for key in ORDER if key in suites):
            cases = self._fitting(suite.name, drawn(self._unseen(suite), self.scope.sample, self._seed(suite.key)))
            if cases:
                outcomes = self._outcomes(suite, cases)
                pools[suite.key] = cases, outcomes
                self.asked[suite.key] = cases
                yield Measure.of(suite.key, suite.name, suite.group, suite.source, outcomes)
        for key in ("exact", "paraphrase"):
            if key in pools:
                yield from self._robustness(suites[key], *pools[key])

    def beside(self, measures: Sequence[Measure], baseline: Baseline) -> BaselineResult | None:
        """The same questions, answered by the baseline; the robustness conditions are memtune's alone."""
        if baseline.name is None:
            return None
        rag = Rag(self.bench.asker, self.facts, baseline, self.scope.longest, self.room)
        return rag.beside([m for m in measures if m.key in self.asked], self.asked, self._told)

    def _unseen(self, suite: Suite) -> list[Case]:
        """Without given paraphrases that are stored already: those measure nothing that is not in another measure."""
        if suite.key != "paraphrase":
            return list(suite.cases)
        kept = [case for case in suite.cases if self.bench.distance(case)]
        if len(kept) < len(suite.cases):
            self._note(
                f"paraphrase: {len(suite.cases) - len(kept):,} left out, they are stored wordings of their facts"
            )
        return kept

    def _outcomes(self, suite: Suite, cases: Sequence[Case]) -> list[Outcome]:
        told = self._told(suite.name, len(cases))
        if suite.group == "recall":
            return self.bench.recall(cases, told)
        return self.bench.unchanged(cases, CHECKED[self.config.verify], told)

    def _robustness(self, suite: Suite, cases: list[Case], outcomes: list[Outcome]) -> Iterator[Measure]:
        """The same questions in every condition; the first measure is the questions as they are."""
        count = -(-self.scope.sample // ROBUST_SHARE)
        picked = drawn(range(len(cases)), count, self._seed(f"{suite.key}-robust"))
        chosen = [cases[i] for i in picked]
        yield self._condition(suite, "as-asked", "as asked", [outcomes[i] for i in picked])
        for condition in CONDITIONS:
            placed = self._placed(condition, suite, chosen)
            if placed:
                name = f"{suite.name}, {condition.name}"
                yield self._condition(
                    suite, condition.key, condition.name, self.bench.recall(placed, self._told(name, len(placed)))
                )
        talks = [chosen[start : start + TALK] for start in range(0, len(chosen) - 1, TALK)]
        name = f"{TALK} facts in one conversation"
        if talks := [talk for talk in talks if self._fitting(f"{suite.name}, {name}", [_as_told(talk)])]:
            told = self._told(f"{suite.name}, {name}", sum(map(len, talks)))
            yield self._condition(suite, "conversation", name, self.bench.conversations(talks, told))

    @staticmethod
    def _condition(suite: Suite, key: str, name: str, outcomes: Sequence[Outcome]) -> Measure:
        return Measure.of(f"{suite.key}/{key}", f"{suite.name}, {name}", "robustness", suite.source, outcomes)

    def _placed(self, condition: Condition, suite: Suite, cases: Sequence[Case]) -> list[Case]:
        name = f"{suite.name}, {condition.name}"
        if condition.chat_only and not self.prompts.has_template:
            self._note(f"{name}: left out, the model has no chat template")
            return []
        made = [condition.build(case, number, self.around) for number, case in enumerate(cases)]
        return self._fitting(name, [case for case in made if case is not None])

    def _fitting(self, name: str, cases: Sequence[Case]) -> list[Case]:
        """The cases that the template renders and the model has room for; the others are noted, not asked."""
        kept = []
        for case in cases:
            try:
                length = len(self.prompts.render(list(case.turns)))
            except Exception as error:  # a template is code of the checkpoint: some refuse a system turn
                self._note(f"{name}: left out, the chat template refuses it: {error}")
                return []
            if length + self.bench.most <= self.room:
                kept.append(case)
        if len(kept) < len(cases):
            self._note(f"{name}: {len(cases) - len(kept)} left out, the model has room for {self.room} tokens")
        return kept

    def _seed(self, key: str) -> str:
        return f"{self.config.seed}:{key}"

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.on_event(Note(text))

    def _told(self, stage: str, total: int) -> Told:
        done = 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            self.on_event(Progress(stage, done, total))

        return told
