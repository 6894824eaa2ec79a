"""The main job on a fact file, measured: recall, paraphrases, near misses, unrelated prompts, time, and the bundle.

    python benchmarks/main_job.py --facts zsre_dev.jsonl --limit 300 \
        --near-miss zsre_near_miss.jsonl --unrelated unrelated_dev.jsonl --out benchmarks/results/main_job.json

The facts' own ``paraphrases`` are taken out before anything else sees the file; they are what recall is measured on.
"Unchanged" compares whole greedy outputs token for token with the memory on and off. The time of tune is compared
within this run with one plain transformers forward pass with loss over the same conversations.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common import NEW_TOKENS, peak_bytes, questions_of, timed, write_bare, write_results

from memtune.asking import Asker
from memtune.backbone import Backbone, load_backbone
from memtune.config import Config
from memtune.export import export
from memtune.facts import Fact, read_facts
from memtune.ingest import ingest
from memtune.project import Project
from memtune.store import load_memory
from memtune.tune import tune


def plain_forward(backbone: Backbone, facts: Sequence[Fact], batch: int = 16) -> float:
    """Seconds of one forward pass with loss, no memtune in it: padded batches sorted by length, as a trainer would."""
    prompts = backbone.prompts
    encoded = [prompts.fact(fact) for fact in facts]
    rows = sorted((prompts.format.prompt(item.question) + item.answer, item.experts) for item in encoded)
    rows.sort(key=lambda row: len(row[0]))
    started = time.monotonic()
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            width = max(len(ids) for ids, _ in part)
            ids = torch.zeros(len(part), width, dtype=torch.long)
            labels = torch.full_like(ids, -100)
            mask = torch.zeros_like(ids)
            for i, (tokens, answer) in enumerate(part):
                ids[i, : len(tokens)] = torch.tensor(tokens)
                mask[i, : len(tokens)] = 1
                labels[i, len(tokens) - answer : len(tokens)] = torch.tensor(tokens[-answer:])
            backbone.model(input_ids=ids, attention_mask=mask, labels=labels)
    return time.monotonic() - started


def unchanged(asker: Asker, questions: Sequence[str]) -> dict[str, Any]:
    """How many whole greedy outputs are the backbone's, token for token."""
    on = asker.ask(questions, longest=NEW_TOKENS)
    off = asker.ask(questions, memory=False, longest=NEW_TOKENS)
    changed = [q for q, one, two in zip(questions, on, off, strict=True) if one.ids != two.ids]
    return {"asked": len(questions), "unchanged": len(questions) - len(changed), "changed": changed}


def recall(asker: Asker, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """How many greedy answers, generated to their natural stop, are exact."""
    answers = asker.ask([question for question, _ in pairs])
    missed = [
        {"question": question, "answer": answer, "said": said.text}
        for (question, answer), said in zip(pairs, answers, strict=True)
        if said.text != answer or not said.stopped
    ]
    return {"asked": len(pairs), "exact": len(pairs) - len(missed), "missed": missed}


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    facts = read_facts(args.facts)[: args.limit]
    bare = write_bare(facts, folder / "facts.jsonl")
    config, project = Config(model=args.model, verify=args.verify, dtype=args.dtype), folder / "project"
    ingested, ingest_seconds = timed(lambda: ingest(bare, project, config))
    backbone = load_backbone(args.model, dtype=args.dtype)
    plain_forward(backbone, facts[:32])  # warm-up
    # Before and after: machines drift, and the ratio is what counts.
    first = plain_forward(backbone, facts)
    tuned = tune(project, config, backbone=backbone)
    second = plain_forward(backbone, facts)
    forward = min(first, second)
    asker = Asker(backbone, load_memory(Project(project)))
    results: dict[str, Any] = {
        "facts": len(facts),
        "answer_tokens": ingested.answer_tokens,
        "threshold": ingested.threshold,
        "expected_recall": ingested.expected_recall,
        "expected_false_fire": ingested.expected_false_fire,
        "learned": tuned.learned,
        "loss_max": tuned.loss_max,
        "worst_token": tuned.worst_token,
        "exact": recall(asker, [(f.question, f.answer) for f in facts]),
        "paraphrase": recall(asker, [(p, f.answer) for f in facts for p in f.paraphrases]),
        "near_miss": unchanged(asker, questions_of(args.near_miss)),
        "unrelated": unchanged(asker, questions_of(args.unrelated)),
        "seconds": {"ingest": ingest_seconds, "tune": tuned.seconds, "plain_forward": [first, second]},
        "tune_over_plain_forward": tuned.seconds / forward,
        "peak_bytes": peak_bytes(),
    }
    asker.attachment.detach()
    bundle, seconds = timed(lambda: export(project, folder / "bundle", backbone=backbone))
    results["bundle"] = {"asked": bundle.asked, "exact": bundle.exact, "bytes": bundle.bytes, "seconds": seconds}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--facts", required=True)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--near-miss")
    parser.add_argument("--unrelated")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default=Config.dtype, help="of the backbone's weights and states")
    parser.add_argument("--verify", default="sample")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    parser.add_argument("--failures", type=Path, help="the figures with every single failure, as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(args, Path(folder))
    write_results(args, results)


if __name__ == "__main__":
    main()
