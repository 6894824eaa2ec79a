"""What a guard takes back, and what that costs beside the plain answer.

    memtune ingest examples/facts.jsonl && memtune tune
    python benchmarks/guard.py --questions examples/evidence/guard.txt --guard store --memory off \
        --out benchmarks/results/guard_store.json

Model calls and tokens are the same on every machine; seconds are not, and processor seconds hold on a busy one.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from common import questions_of, timed_twice, write_results

from memtune.backbone import Backbone, load_backbone
from memtune.evidence.rewinding.guard import GUARDS, GuardResult, Setting, guard
from memtune.evidence.rewinding.tree import Limits


def guarded(question: str, args: argparse.Namespace, backbone: Backbone, setting: Setting) -> dict[str, Any]:
    def answer() -> GuardResult:
        [found] = guard([question], args.project, args.guard, setting=setting, backbone=backbone)
        return found

    found, _, processor = timed_twice(answer)
    figures = asdict(replace(found, rewinds=found.rewinds[: args.shown]))
    return figures | {"rewound": len(found.rewinds), "met": found.met, "processor_seconds": processor}


def setting_of(args: argparse.Namespace) -> Setting:
    limits = replace(Limits(), tries=args.tries, new_tries=args.new_tries)
    return Setting(memory=args.memory == "on", longest=args.longest, limits=limits)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    backbone, setting = load_backbone(args.model), setting_of(args)
    answers = [guarded(question, args, backbone, setting) for question in questions_of(args.questions)]
    return {
        "answers": answers,
        "objected": sum(one["plain_judged"]["value"] < 0 for one in answers),
        "objected_after": sum(not one["met"] for one in answers),
        "rewound": sum(one["rewound"] for one in answers),
        "calls": sum(one["cost"]["calls"] for one in answers),
        "plain_calls": sum(one["plain_cost"]["calls"] for one in answers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--questions", required=True)
    parser.add_argument("--project", type=Path, default=Path(".memtune"))
    parser.add_argument("--guard", choices=GUARDS, default=GUARDS[0])
    parser.add_argument("--memory", choices=("on", "off"), default="off", help="off: the backbone answers by itself")
    parser.add_argument("--longest", type=int, default=24, help="tokens of a plain answer")
    parser.add_argument("--tries", type=int, default=Limits().tries, help="for one token set at most")
    parser.add_argument("--new-tries", type=int, default=Limits().new_tries, help="for each later one in any case")
    parser.add_argument("--shown", type=int, default=8, help="rewinds of an answer that are kept in the results")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    args = parser.parse_args()
    write_results(args, measure(args))


if __name__ == "__main__":
    main()
