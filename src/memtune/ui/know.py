"""What a model knows of facts, and what changed: for people, and line by line for other programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from memtune.ui.parts import fields, plain_table

if TYPE_CHECKING:
    from memtune.evidence.knowledge.know import Arm, CompareResult, KnowResult
    from memtune.evidence.knowledge.survey import Measured, Survey

__all__ = ["compare_view", "know_lines", "know_view", "moved_lines"]

SHORT = ("Highly", "Maybe", "Weakly", "Unknown")
ARMS = {"memory": "with the memory", "model": "this model", "lora": "LoRA"}


def know_lines(result: KnowResult) -> Iterable[str]:
    """One line a fact: category, P(T=0), P(T>0), the chance of a right one among 160, question and answer."""
    for fact, known in zip(result.survey.facts, result.measured.known, strict=True):
        chances = f"{known.greedy:.2f}  {known.sampled:.4f}  {known.any:.4f}"
        yield f"{known.category:11}  {chances}  {fact.id}  {fact.question} -> {fact.answer}"


def know_view(result: KnowResult) -> Iterable[RenderableType]:
    """How many facts of each group are in each category, and how they were asked."""
    from memtune.evidence.knowledge.slick import CATEGORIES  # not before there is a result: it takes torch with it

    survey, known = result.survey, result.measured.known
    table = _table("group", *CATEGORIES, "said alone")
    for group in dict.fromkeys(survey.groups):
        numbers = survey.group(group)
        found = [known[i].category for i in numbers]
        alone = f"{sum(known[i].alone for i in numbers):,} of {len(numbers):,}"
        table.add_row(*map(Text, (group, *(f"{found.count(name):,}" for name in CATEGORIES), alone)))
    yield table
    yield fields(model=_model(result.measured), asked=_asked(survey), time=f"{result.seconds:.0f} s")


def moved_lines(result: CompareResult) -> Iterable[str]:
    """One line for each fact whose category is another one now, the control's behind those of the model itself."""
    for arm in result.arms:
        for one in arm.transitions:
            yield from (f"{arm.name}  {one.group}  {moved}" for moved in one.moved)


def compare_view(result: CompareResult) -> Iterable[RenderableType]:
    """For each group the categories before, downwards, and after, across; a control stands beside."""
    yield _table_of_arms(result.arms)
    for arm in result.arms:
        alone = "; ".join(
            f"{one.group} {one.alone_before:,} before, {one.alone_after:,} now, of {one.facts:,}"
            for one in arm.transitions
        )
        outside = sum(one.facts for one in arm.transitions if one.group != "taught")
        damage = f"{len(arm.damage):,} of {outside:,} facts that were not taught are in another category"
        yield fields(**{ARMS[arm.name]: damage, "said alone": alone})
    yield fields(
        before=_model(result.before),
        after=_model(result.arms[0].measured),
        asked=_asked(result.survey),
        time=f"{result.seconds:.0f} s",
    )


def _table_of_arms(arms: tuple[Arm, ...]) -> Table:
    across = [name if place else f"{ARMS[arm.name]}: {name}" for arm in arms for place, name in enumerate(SHORT)]
    table = _table("group", "before", *across)
    for number, one in enumerate(arms[0].transitions):
        for category, label in enumerate(SHORT):
            counts = [count for arm in arms for count in arm.transitions[number].counts[category]]
            if any(counts):
                table.add_row(*map(Text, (one.group, label, *(f"{count:,}" if count else "-" for count in counts))))
    return table


def _table(*columns: str) -> Table:
    table = plain_table()
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table


def _model(measured: Measured) -> str:
    held = "without a memory" if measured.memory is None else f"with {measured.memory:,} learned facts"
    return f"{measured.model}, {held}"


def _asked(survey: Survey) -> str:
    method = survey.method
    how = "160 samples and a greedy answer" if method.sampled else "exactly, by the chance of the answer"
    return f"behind {method.sets} sets of {method.shots} exemplars ({len(survey.exemplars.sets):,} in all), {how}"
