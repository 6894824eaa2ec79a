"""Teaches and asks one method in a process of its own, so that its peak memory is its own.

    python benchmarks/one_rival.py METHOD JOB.json OUT.json     (side_by_side.py writes the job and starts this)

The job holds the facts and, for every question that has nothing to do with them, the ids that the untouched backbone
says. Loading the model is not in any time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from common import NEW_TOKENS, peak_bytes, timed, timed_twice
from rivals import METHODS
from rivals.base import Reply, Rival

from memtune.backbone import load_backbone
from memtune.evidence.training import Goal
from memtune.facts import Fact

MARGIN = 8  # new tokens beyond the longest stored answer: an answer that does not stop by then is not exact


def recall(rival: Rival, facts: Sequence[Fact], questions: Sequence[Sequence[str]], longest: int) -> dict[str, Any]:
    """How many greedy answers, generated to their natural stop, are exact. ``questions[i]`` ask for ``facts[i]``."""
    pairs = [(question, fact) for fact, own in zip(facts, questions, strict=True) for question in own]
    replies, figures = _asked(rival, [question for question, _ in pairs], longest)
    missed = [
        {"question": question, "answer": fact.answer, "said": reply.answer.text, "used": reply.used}
        for (question, fact), reply in zip(pairs, replies, strict=True)
        if reply.answer.text != fact.answer or not reply.answer.stopped
    ]
    right = sum(fact.id in reply.used for (_, fact), reply in zip(pairs, replies, strict=True))
    held = sum(
        fact.answer.casefold() in reply.answer.text.casefold() for (_, fact), reply in zip(pairs, replies, strict=True)
    )
    exact = {"exact": len(pairs) - len(missed), "answer_contained": held, "right_fact_used": right}
    return figures | exact | {"missed": missed}


def unchanged(rival: Rival, questions: Sequence[str], before: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How many whole greedy outputs are the untouched backbone's, token for token."""
    replies, figures = _asked(rival, questions, NEW_TOKENS)
    changed = [
        {"question": question, "said": reply.answer.text, "used": reply.used}
        for question, reply, ids in zip(questions, replies, before, strict=True)
        if list(reply.answer.ids) != list(ids)
    ]
    return figures | {"unchanged": len(questions) - len(changed), "changed": changed}


def _asked(rival: Rival, questions: Sequence[str], longest: int) -> tuple[list[Reply], dict[str, Any]]:
    replies, seconds = timed(lambda: rival.ask(questions, longest))
    count = max(1, len(questions))
    return replies, {
        "asked": len(questions),
        "seconds_per_question": seconds / count,
        "extra_tokens": fmean(reply.extra_tokens for reply in replies) if replies else 0.0,
        "with_fact": sum(bool(reply.used) for reply in replies),
        "used": [list(reply.used) for reply in replies],
    }


def run(name: str, job: dict[str, Any]) -> dict[str, Any]:
    method = METHODS[name]
    facts = [Fact(f["id"], f["question"], f["answer"]) for f in job["facts"]]
    backbone = load_backbone(job["model"])
    peak = {"loaded": peak_bytes()}
    longest = max(backbone.prompts.fact(fact).experts for fact in facts) + MARGIN
    prepare = method.prepare
    _, preparing = timed(lambda: prepare(backbone)) if prepare else (None, 0.0)
    rival, teaching, cpu = timed_twice(lambda: method.teach(backbone, facts, Goal(job["target"], job["epochs"])))
    peak["taught"] = peak_bytes()
    figures: dict[str, Any] = {
        "says": method.says,
        "seconds_per_fact": teaching / len(facts),
        "seconds": {"once_per_model": preparing, "teach": teaching, "teach_cpu": cpu},
        "bytes_per_fact": rival.bytes / len(facts),
        "bytes": rival.bytes,
        "details": rival.details,
        "exact": recall(rival, facts, [[fact.question] for fact in facts], longest),
        "paraphrase": recall(rival, facts, [f["paraphrases"] for f in job["facts"]], longest),
    }
    for kind in ("near_miss", "unrelated"):
        figures[kind] = unchanged(rival, job[kind]["questions"], job[kind]["before"])
    everything = [figures[kind] for kind in ("exact", "paraphrase", "near_miss", "unrelated")]
    asked = max(1, sum(one["asked"] for one in everything))
    figures["extra_tokens_per_question"] = sum(one["asked"] * one["extra_tokens"] for one in everything) / asked
    return figures | {"peak_bytes": peak | {"asked": peak_bytes()}}


def main() -> None:
    name, job, out = sys.argv[1:]
    figures = run(name, json.loads(Path(job).read_text(encoding="utf-8")))
    Path(out).write_text(json.dumps(figures, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
