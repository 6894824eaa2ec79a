"""How long LoRA takes for what tune does: every fact at the target, on the same machine, in the same run.

    python benchmarks/lora_race.py --facts zsre_dev.jsonl --limit 300 --out benchmarks/results/lora_race.json

LoRA trains until every fact's mean answer-token loss is at the target, or for so many epochs, at each learning rate in
turn; the results are written after each of them, and ``--onto`` goes on with what an earlier run has written. A rate is
given up when it has taken longer than one that finished, or ``--most`` times as long as tune. What it reached is then
measured by tune's own rule: the mean at the target and every answer token more likely than not. Recall is asked on the
facts' ``paraphrases``, which nobody trains on. Tune runs before the first rate and after every one, and its median
counts: it is over so soon that anything else on the machine would weigh in it. Every time is taken twice, in seconds
and in processor seconds of all threads; the second kind limits a rate, and is what to compare where the machine is not
idle. No time holds loading the model, or generation: LoRA is asked for none before it is done, so tune, which asks for
16 answers unless it is told otherwise, is told to ask none. memtune's ingest is given apart, because it is done before
tune.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import timed_twice, write_results
from one_rival import MARGIN, recall
from rivals import lora, ours
from rivals.base import Rival

from memtune.backbone import Backbone, load_backbone
from memtune.config import Config
from memtune.evidence.training import Goal, batches_of, token_losses
from memtune.facts import Fact, read_facts
from memtune.teaching import accepts

RATES = (2e-4, 5e-4, 1e-3)
VERIFY = "none"


@torch.inference_mode()
def accepted(backbone: Backbone, facts: Sequence[Fact], target: float) -> int:
    """How many facts tune would accept of the model as it stands: their mean loss, and every single token's."""
    decoder, count = backbone.model.get_decoder(), 0
    for batch in batches_of(backbone, facts):
        final = decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
        tokens = token_losses(final, backbone.head, batch)
        count += sum(accepts(tokens[batch.rows == row], target) for row in range(len(batch.facts)))
    return count


def asked(rival: Rival, backbone: Backbone, facts: Sequence[Fact]) -> dict[str, Any]:
    longest = max(backbone.prompts.fact(fact).experts for fact in facts) + MARGIN
    return {
        "exact": recall(rival, facts, [[fact.question] for fact in facts], longest),
        "paraphrase": recall(rival, facts, [fact.paraphrases for fact in facts], longest),
    }


def with_tune(args: argparse.Namespace, facts: Sequence[Fact]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What tune reached and how well its facts are known; what one run of it took."""
    backbone = load_backbone(args.model, dtype=args.dtype)
    ours.prepare(backbone)
    taught = ours.teach(backbone, facts, Goal(args.target), VERIFY)
    figures = {"accepted": taught.details["at_target"], "details": taught.details} | asked(taught, backbone, facts)
    return figures, spent_on(taught)


def tune_again(args: argparse.Namespace, facts: Sequence[Fact]) -> dict[str, Any]:
    return spent_on(ours.teach(load_backbone(args.model, dtype=args.dtype), facts, Goal(args.target), VERIFY))


def spent_on(taught: ours.Memtune) -> dict[str, Any]:
    names = {"seconds": "tune_seconds", "processor_seconds": "tune_processor_seconds", "ingest": "ingest_seconds"}
    return {name: taught.details[key] for name, key in names.items()}


def with_lora(args: argparse.Namespace, facts: Sequence[Fact], rate: float, most: float) -> dict[str, Any]:
    backbone = load_backbone(args.model, dtype=args.dtype)  # a fresh one: LoRA changes the weights that it is given
    goal = Goal(args.target, args.epochs, most)
    rival, seconds, processor = timed_twice(lambda: lora.teach(backbone, facts, goal, rate))
    figures = {"seconds": seconds, "processor_seconds": processor, "details": rival.details}
    return figures | {"accepted": accepted(backbone, facts, args.target)} | asked(rival, backbone, facts)


def verdict(facts: int, runs: Sequence[dict[str, Any]], rates: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The best rate is the one that accepts most facts, of equal ones the fastest. Where it does not accept them all,
    its time is a lower bound of what LoRA takes. ``runs``: what each run of tune took.
    """
    best = min(rates, key=lambda rate: (-rates[rate]["accepted"], rates[rate]["processor_seconds"]))
    seconds = median(run["seconds"] for run in runs)
    return {
        "best_rate": best,
        "lora_finished": rates[best]["accepted"] == facts,
        "lora_over_tune": rates[best]["seconds"] / seconds,
        "lora_over_tune_processor": rates[best]["processor_seconds"] / median(run["processor_seconds"] for run in runs),
        "lora_over_ingest_and_tune": rates[best]["seconds"] / (median(run["ingest"] for run in runs) + seconds),
    }


def race(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The results again after each rate: what is done stays done if a later one is stopped."""
    facts = read_facts(args.facts)[: args.limit]
    done = json.loads(args.onto.read_text(encoding="utf-8")) if args.onto else {"tune": {"runs": []}, "lora": {}}
    figures, spent = with_tune(args, facts)
    runs = [*done["tune"]["runs"], spent]
    results: dict[str, Any] = {"facts": len(facts), "tune": figures | {"runs": runs}, "lora": done["lora"]}
    yield results
    most = args.most * spent["processor_seconds"]
    for rate in args.rates:
        rates = results["lora"] | {f"{rate:g}": with_lora(args, facts, rate, most)}
        runs = [*results["tune"]["runs"], tune_again(args, facts)]
        results = results | {"tune": figures | {"runs": runs}, "lora": rates} | verdict(len(facts), runs, rates)
        if results["lora_finished"]:
            most = rates[results["best_rate"]]["processor_seconds"]
        yield results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--facts", required=True)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default=Config.dtype, help="of the backbone's weights and states, for both")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="learning rates of LoRA")
    parser.add_argument("--target", type=float, default=Goal.target, help="loss of every fact at which training stops")
    parser.add_argument("--epochs", type=int, default=100, help="at most, at each rate")
    parser.add_argument(
        "--most", type=float, default=math.inf, help="times the first tune's processor seconds, after which a rate ends"
    )
    parser.add_argument("--onto", type=Path, help="figures of an earlier run on the same facts, which are kept")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    args = parser.parse_args()
    for results in race(args):
        write_results(args, results)


if __name__ == "__main__":
    main()
