"""The main job on a backbone in fewer bits: its bytes, the peak memory of each verb, and what the memory then answers.

    python benchmarks/quantised.py --facts zsre_dev.jsonl --near-miss zsre_near_miss.jsonl \\
        --out benchmarks/results/quantised.json

Each checkpoint is quantised by the library's own integration in transformers and saved; memtune is given the directory
and nothing else. Every step is a process of its own, so that its peak memory is its own; LoRA's is that of two epochs
on the float32 backbone. The facts' ``paraphrases`` are taken out before anything else sees the file. No time is
reported: what is measured is memory and recall.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import NEW_TOKENS, in_a_process, peak_bytes, print_nothing, questions_of, write_bare, write_results

from memtune.asking import Asker
from memtune.backbone import load_backbone
from memtune.bench import Bench
from memtune.checkpoints import quiet_transformers, resolve
from memtune.config import Config
from memtune.events import ignore
from memtune.export import export
from memtune.facts import read_facts
from memtune.ingest import ingest
from memtune.measures import Case
from memtune.prior import prior_for
from memtune.project import Project
from memtune.store import load_memory
from memtune.tune import tune

EPOCHS = 2  # of LoRA: its peak comes with the first, the optimiser's states included

Row = dict[str, Any]


def torchao_int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def bitsandbytes_nf4() -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


ARMS: dict[str, Callable[[], Any] | None] = {
    "float32": None,
    "int8, torchao": torchao_int8,
    "4 bits (NF4), bitsandbytes": bitsandbytes_nf4,
}


def saved(model: str, arm: str, out: Path) -> Row:
    """The checkpoint as the arm has it: the directory to load, and the bytes of its weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    location, quantise = resolve(model, ignore).location, ARMS[arm]
    if quantise is not None:
        with quiet_transformers():
            loaded = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32, quantization_config=quantise())
            loaded.save_pretrained(out)
            AutoTokenizer.from_pretrained(location).save_pretrained(out)
        location = str(out)
    return {
        "location": location,
        "backbone_bytes": sum(file.stat().st_size for file in Path(location).glob("*.safetensors")),
    }


def prepared(model: str) -> Row:
    """What the router needs of a backbone is made once, whatever the facts."""
    prior_for(load_backbone(model), ignore)
    return {}


def ingested(model: str, folder: Path) -> Row:
    backbone = load_backbone(model)
    loaded = peak_bytes()
    ingest(folder / "facts.jsonl", folder / "project", Config(model=model, verify="none"), backbone=backbone)
    return {"loaded_peak_bytes": loaded, "ingest_peak_bytes": peak_bytes()}


def tuned(model: str, folder: Path) -> Row:
    result = tune(folder / "project", Config(model=model, verify="none"), backbone=load_backbone(model))
    return {"tune_peak_bytes": peak_bytes(), "learned": result.learned, "loss_max": result.loss_max}


def asked(model: str, folder: Path, facts_file: str, limit: int, near_misses: list[str]) -> Row:
    facts = read_facts(facts_file)[:limit]
    memory = load_memory(Project(folder / "project"))
    bench = Bench(Asker(load_backbone(model), memory), facts, NEW_TOKENS)
    cases = {
        "exact": [Case.alone(fact.question, i, fact.answer) for i, fact in enumerate(facts)],
        "paraphrase": [Case.alone(text, i, fact.answer) for i, fact in enumerate(facts) for text in fact.paraphrases],
    }
    row: Row = {}
    for kind, own in cases.items():
        row[kind] = {"asked": len(own), "exact": sum(o.good for o in bench.recall(own, print_nothing))}
    routes = bench.routes([Case.alone(text) for text in near_misses])
    return row | {"near_miss": {"asked": len(routes), "silent": sum(not memory.fires(route) for route in routes)}}


def exported(model: str, folder: Path) -> Row:
    result = export(folder / "project", folder / "bundle", backbone=load_backbone(model))
    return {"bundle": {"asked": result.asked, "exact": result.exact, "bytes": result.bytes}}


def lora(model: str, facts_file: str, limit: int) -> Row:
    from rivals.lora import teach

    from memtune.evidence.training import Goal

    teach(load_backbone(model), read_facts(facts_file)[:limit], Goal(epochs=EPOCHS))
    return {"epochs": EPOCHS, "peak_bytes": peak_bytes()}


def measure(arm: str, args: argparse.Namespace, call: Callable[..., Row]) -> Row:
    """One arm, from the checkpoint to the bundle. ``call`` runs a step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_bare(read_facts(args.facts)[: args.limit], folder / "facts.jsonl")
        row = call(saved, args.model, arm, folder / "checkpoint")
        model = row.pop("location")
        call(prepared, model)
        row |= call(ingested, model, folder) | call(tuned, model, folder)
        near_misses = questions_of(args.near_miss)[: args.questions]
        row |= call(asked, model, folder, args.facts, args.limit, near_misses)
        return row | call(exported, model, folder)


def run(args: argparse.Namespace, call: Callable[..., Row] = in_a_process) -> Iterator[Row]:
    """The results again after each arm: what is done stays done if a later one is stopped."""
    results: Row = {"facts": min(args.limit, len(read_facts(args.facts))), "arms": {}}
    for arm in args.arms:
        results["arms"][arm] = measure(arm, args, call)
        yield results
    yield results | {"lora": call(lora, args.model, args.facts, args.limit)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--facts", required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--near-miss")
    parser.add_argument("--questions", type=int, default=100, help="near-miss questions, at most")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    args = parser.parse_args()
    for results in run(args):
        write_results(args, results)


if __name__ == "__main__":
    main()
