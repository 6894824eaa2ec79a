"""Does the router know a question it has never seen? Ten held-out sets of wordings, each alone and all in one memory.

    python benchmarks/wordings.py --out benchmarks/results/wordings.json --failures build/wordings_failures.json

Routing level only: the router alone decides here, nothing is tuned and nothing is generated; what a model then says
is measured by ``memtune eval`` and ``main_job.py``. A memory is built over the facts' own questions. Each paraphrase
should fire the fact it belongs to; a near miss, whose answer is not stored, and an unrelated prompt should fire
nothing. A bank that is not tuned accepts no fact, so what counts is what the router fired.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import machine

from memtune.backbone import Backbone, load_backbone
from memtune.config import Config
from memtune.facts import Fact
from memtune.measures import wilson
from memtune.memory.bank import Bank
from memtune.memory.module import Attachment, Memory, MemoryConfig
from memtune.memory.router import Route
from memtune.routing import RouterReport, build_router
from memtune.wordings import Wordings

SETS = Path(__file__).parent / "wordings"
UNRELATED = "unrelated"
TOGETHER = "all in one memory"
KINDS = ("paraphrase", "near_miss", "unrelated")


@dataclass(frozen=True)
class Row:
    """One fact of a set with the questions that ask for it and those that only look like it."""

    id: str
    question: str
    answer: str
    paraphrases: tuple[str, ...]
    near_miss: tuple[str, ...]


@dataclass(frozen=True)
class Ask:
    """A question to route. ``wanted``: the number of the fact that should fire, or None if nothing should."""

    kind: str
    text: str
    row: Row | None
    wanted: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What was asked and whether the router did right; ``fired`` is the stored question that fired, if one did."""

    ask: Ask
    right: bool
    fired: str | None
    route: Route

    def to_dict(self) -> dict[str, Any]:
        stored = self.ask.row.question if self.ask.row else None
        scores = {"score": round(self.route.score, 2), "threshold": round(self.route.threshold, 2)}
        return {"kind": self.ask.kind, "asked": self.ask.text, "stored": stored, "fired": self.fired} | scores


def read_sets(folder: Path = SETS) -> tuple[dict[str, list[Row]], list[str]]:
    """The rows of every category, by the name of its file, and the unrelated prompts."""
    lines = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in sorted(folder.glob("*.jsonl"))}
    unrelated = [json.loads(line)["question"] for line in lines.pop(UNRELATED)]
    return {name: [_row(json.loads(line)) for line in rows] for name, rows in lines.items()}, unrelated


def _row(entry: dict[str, Any]) -> Row:
    lists = {name: tuple(entry[name]) for name in ("paraphrases", "near_miss")}
    return Row(entry["id"], entry["question"], entry["answer"], **lists)


def memory_of(backbone: Backbone, rows: Sequence[Row], false_fire: float, seed: int) -> tuple[Memory, RouterReport]:
    """The memory that ingest would build over the rows' own questions; their paraphrases stay out of it."""
    prompts = backbone.prompts
    wordings = Wordings([Fact(row.id, row.question, row.answer) for row in rows], prompts.question)
    router, report = build_router(backbone, wordings, false_fire=false_fire, seed=seed)
    experts = [len(prompts.answer(row.answer)) for row in rows]
    bank = Bank.assigned([row.id for row in rows], experts, backbone.hidden)
    memory = Memory(MemoryConfig(bank.sizes, router.sizes, prompts.format, backbone.states.taps))
    memory.router, memory.bank = router, bank
    return memory.to(backbone.device), report


def asks_of(rows: Sequence[Row], unrelated: Sequence[str]) -> list[Ask]:
    asks = [Ask("paraphrase", text, row, number) for number, row in enumerate(rows) for text in row.paraphrases]
    asks += [Ask("near_miss", text, row) for row in rows for text in row.near_miss]
    return asks + [Ask("unrelated", text, None) for text in unrelated]


def outcomes(backbone: Backbone, memory: Memory, rows: Sequence[Row], asks: Sequence[Ask]) -> list[Outcome]:
    """Every ask through the path that generation takes, each question alone."""
    attachment = Attachment(backbone.model, memory)
    try:
        routes = attachment.route([backbone.prompts.question(ask.text) for ask in asks])
    finally:
        attachment.detach()
    return [_judged(ask, route, rows) for ask, route in zip(asks, routes, strict=True)]


def _judged(ask: Ask, route: Route, rows: Sequence[Row]) -> Outcome:
    fact = route.fact if route.fired else None
    return Outcome(ask, fact == ask.wanted, None if fact is None else rows[fact].question, route)


def figures(found: Iterable[Outcome]) -> dict[str, Any]:
    """Counts and intervals of each kind. ``wrong_fact``: paraphrases that fired, but another fact."""
    found = list(found)
    wrong = sum(o.ask.kind == "paraphrase" and not o.right and o.fired is not None for o in found)
    kinds = {kind: [o.right for o in found if o.ask.kind == kind] for kind in KINDS}
    return {kind: share(sum(right), len(right)) for kind, right in kinds.items()} | {"wrong_fact": wrong}


def share(count: int, asked: int) -> dict[str, Any]:
    return {"asked": asked, "right": count, "interval": [round(end, 4) for end in wilson(count, asked)]}


def measure(backbone: Backbone, args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and failures by memory, and by category inside the memory that holds all of them."""
    sets, unrelated = read_sets()
    sets = {name: rows for name, rows in sets.items() if not args.only or name in args.only}
    memories = sets | ({TOGETHER: [row for rows in sets.values() for row in rows]} if len(sets) > 1 else {})
    results, failures = {}, {}
    for name, rows in memories.items():
        started = time.monotonic()
        memory, report = memory_of(backbone, rows, args.false_fire, args.seed)
        found = outcomes(backbone, memory, rows, asks_of(rows, unrelated))
        results[name] = {"facts": len(rows)} | figures(found) | promised(report)
        results[name] |= {"seconds": round(time.monotonic() - started, 1)}
        done = ", ".join(f"{kind} {cell(results[name][kind])}" for kind in KINDS)
        print(f"{name}: {done}, {results[name]['seconds']} s", file=sys.stderr, flush=True)
        failures[name] = [outcome.to_dict() for outcome in found if not outcome.right]
        if name == TOGETHER:
            results[name]["categories"] = by_category(found, sets)
    return results, failures


def by_category(found: Sequence[Outcome], sets: dict[str, list[Row]]) -> dict[str, Any]:
    names = {row.id: name for name, rows in sets.items() for row in rows}
    parts = {name: [o for o in found if o.ask.row and names[o.ask.row.id] == name] for name in sets}
    return {name: {"facts": len(sets[name])} | figures(part) for name, part in parts.items()}


def promised(report: RouterReport) -> dict[str, float]:
    """What ingest would have told the user to expect."""
    entries = asdict(report)
    return {name: round(entries[name], 4) for name in ("threshold", "expected_recall", "expected_false_fire")}


def table(results: dict[str, Any]) -> str:
    """Right answers of each kind in figures that fit a terminal, as a Markdown table."""
    head = ["memory, category", "facts", "recall: the right fact fired", "near miss: silent", "unrelated: silent"]
    lines = [head, ["---"] * len(head)]
    lines += [[name, str(entry["facts"]), *(cell(entry[kind]) for kind in KINDS)] for name, entry in results.items()]
    inside = results.get(TOGETHER, {}).get("categories", {})
    lines += [
        [f"… {name}", str(entry["facts"]), cell(entry["paraphrase"]), cell(entry["near_miss"]), ""]
        for name, entry in inside.items()
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(entry: dict[str, Any]) -> str:
    low, high = entry["interval"]
    part = entry["right"] / entry["asked"] if entry["asked"] else 0.0
    return f"{entry['right']} of {entry['asked']} ({part:.1%}; {low:.1%} to {high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--only", nargs="*", help="names of sets, such as german; without it all of them")
    parser.add_argument("--false-fire", type=float, default=Config.false_fire)
    parser.add_argument("--seed", type=int, default=Config.seed)
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    parser.add_argument("--failures", type=Path, help="every single failure, as JSON")
    args = parser.parse_args()
    results, failures = measure(load_backbone(args.model), args)
    print(table(results))
    command = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    text = json.dumps({"command": command, "on": machine()} | results, indent=1)
    for path, content in ((args.out, text), (args.failures, json.dumps(failures, indent=1, ensure_ascii=False))):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
