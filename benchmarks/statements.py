"""How often ``memtune score``'s rules are right, and how long a statement takes: ``results/statements.json``.

    python benchmarks/statements.py examples

``evidence/statements.jsonl`` names facts and says each once right and once wrong; ``evidence/library.jsonl`` is a store
of its own, with such statements that were written when the rules were done. ``paraphrases.jsonl`` asks for them
in wordings that are stored nowhere, each answered with the fact's answer and with that of the fact after it;
``near_miss.jsonl`` asks for something else, and is answered with what the best of the facts says.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import command, machine

from memtune.evidence.truth.verify import Kind, Verdict, Verifier
from memtune.facts import read_facts

RESULTS = Path(__file__).parent / "results" / "statements.json"
ROUNDS = 20  # over all statements, to time them
WANTED = {"true": Kind.SUPPORTED, "false": Kind.CONTRADICTED}


def measure(examples: Path) -> dict[str, Any]:
    """Verdicts over whole statements and over answers to questions, and the time that one takes."""
    verifier = Verifier(read_facts(examples / "facts.jsonl"))
    rows = _rows(examples / "evidence" / "statements.jsonl")
    library = examples / "evidence" / "library.jsonl"
    return {
        "facts": len(verifier.facts),
        "statements": _statements(verifier, rows),
        "held_out": _statements(Verifier(read_facts(library)), _rows(library)),
        "answers": _answers(verifier, examples),
        "milliseconds_per_statement": 1000 * _seconds(verifier, [row[key] for row in rows for key in WANTED]),
    }


def _statements(verifier: Verifier, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Counts, and every verdict that is not as it should be."""
    found = {key: [(row["id"], row[key], verifier.verdict(row[key])) for row in rows] for key in WANTED}
    near = [row["id"] in {verifier.facts[i].id for i in verifier.rows(row[key])} for row in rows for key in WANTED]
    counts = {key: _counts([verdict for *_, verdict in found[key]]) for key in WANTED}
    right = sum(counts[key][kind.value] for key, kind in WANTED.items())
    two_way = counts["true"]["supported"] + len(rows) - counts["false"]["supported"]
    return {
        "asked": 2 * len(rows),
        "verdicts": counts,
        "three_way_accuracy": right / (2 * len(rows)),
        "supported_or_not_accuracy": two_way / (2 * len(rows)),
        "own_fact_among_three_rows": sum(near) / len(near),
        "not_as_wanted": list(_failures(found)),
    }


def _answers(verifier: Verifier, examples: Path) -> dict[str, Any]:
    """Of answers behind questions that are stored nowhere."""
    facts = list(verifier.facts)
    numbers = {fact.id: number for number, fact in enumerate(facts)}
    asked = [(row["question"], numbers[row["id"]]) for row in _rows(examples / "paraphrases.jsonl")]
    near = [row["question"] for row in _rows(examples / "near_miss.jsonl")]
    taken = [(text, verifier.rows(text)) for text in near]
    said = {
        "right": [(text, facts[i].answer) for text, i in asked],
        "of_another_fact": [(text, facts[(i + 1) % len(facts)].answer) for text, i in asked],
        "near_miss": [(text, facts[best[0]].answer) for text, best in taken if best],
    }
    return {key: _counts([verifier.verdict(a, question=q) for q, a in pairs]) for key, pairs in said.items()}


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _counts(verdicts: list[Verdict]) -> dict[str, int]:
    return {kind.value: sum(verdict.kind is kind for verdict in verdicts) for kind in Kind}


def _seconds(verifier: Verifier, texts: list[str]) -> float:
    """Processor seconds of a statement, its words known from the rounds before, as in a longer run."""
    started = time.process_time()
    for _ in range(ROUNDS):
        for text in texts:
            verifier.verdict(text)
    return (time.process_time() - started) / ROUNDS / len(texts)


def _failures(found: dict[str, list[tuple[str, str, Verdict]]]) -> Iterator[dict[str, Any]]:
    for key, kind in WANTED.items():
        for name, text, verdict in found[key]:
            if verdict.kind is not kind or verdict.fact_id != name:
                yield {"fact": name, "statement": text, "is": key, "verdict": verdict.kind.value, "by": verdict.fact_id}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", type=Path)
    args = parser.parse_args()
    figures = {"command": command(args), "on": machine(), **measure(args.examples)}
    RESULTS.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1, ensure_ascii=False))
