"""Whether a small model can be the judge of ``memtune score``: ``results/judge.json``.

    python benchmarks/judge.py examples --model smollm2

The statements of ``evidence/statements.jsonl``, each with the three facts that a search finds for it: how much likelier
the model finds "Supported" than "Not supported". AUROC 0.5 is chance.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from common import command, machine

from memtune.asking import said_by
from memtune.backbone import Backbone, load_backbone
from memtune.evidence.likelihood import token_log_probabilities
from memtune.evidence.verify import Verifier
from memtune.facts import read_facts

RESULTS = Path(__file__).parent / "results" / "judge.json"
PROMPT = """\
Facts:
{facts}

Statement: {statement}

Do the facts support the statement? Answer "Supported" or "Not supported"."""
REPLIES = ("Supported", "Not supported")


def measure(examples: Path, backbone: Backbone) -> dict[str, Any]:
    """Of right and wrong statements: how they are ranked, and how many the likelier reply gets right."""
    verifier = Verifier(read_facts(examples / "facts.jsonl"))
    rows = [json.loads(line) for line in (examples / "evidence" / "statements.jsonl").read_text("utf-8").splitlines()]
    texts = [row[key] for key in ("true", "false") for row in rows]
    started = time.process_time()
    margins = margins_of(backbone, [prompt_of(verifier, text) for text in texts])
    right, wrong = margins[: len(rows)], margins[len(rows) :]
    return {
        "asked": len(texts),
        "auroc": auroc(right, wrong),
        "accuracy": (sum(margin > 0 for margin in right) + sum(margin <= 0 for margin in wrong)) / len(texts),
        "said_supported": sum(margin > 0 for margin in margins),
        "processor_seconds_per_statement": (time.process_time() - started) / len(texts),
    }


def prompt_of(verifier: Verifier, statement: str) -> str:
    facts = [verifier.facts[number] for number in verifier.rows(statement)]
    return PROMPT.format(facts="\n".join(f"- {f.question} {f.answer}" for f in facts), statement=statement)


def margins_of(backbone: Backbone, prompts: list[str]) -> list[float]:
    """Nats by which the whole reply "Supported" is likelier than "Not supported"."""
    rendered = [backbone.prompts.render([said_by("user", text)]) for text in prompts]
    sums = []
    for reply in REPLIES:
        ids = backbone.prompts.answer(reply)
        sums.append([float(p.sum()) for p in token_log_probabilities(backbone, rendered, [ids] * len(rendered))])
    return [yes - no for yes, no in zip(*sums, strict=True)]


def auroc(right: list[float], wrong: list[float]) -> float:
    """Share of the pairs in which the right statement stands higher; a tie is half a pair."""
    won = sum((one > other) + 0.5 * (one == other) for one in right for other in wrong)
    return won / (len(right) * len(wrong))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", type=Path)
    parser.add_argument("--model", default="smollm2")
    args = parser.parse_args()
    figures = {"command": command(args), "on": machine(), **measure(args.examples, load_backbone(args.model))}
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))
