"""What an attached memory adds to answering: to each decoded token, and to reading a question.

    python benchmarks/overhead.py --facts 300 --out benchmarks/results/overhead.json

Synthetic facts are taught, then asked in other words. Each token is decoded twice, with the memory at work and with it
switched off, one right after the other on caches of their own, so that both see the same machine. Once the question
stands alone, and once behind ``--context`` tokens of earlier conversation.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import timed, write_bare, write_results
from transformers import DynamicCache

from memtune.asking import said_by
from memtune.backbone import Backbone, load_backbone
from memtune.config import Config
from memtune.evidence import synthetic
from memtune.facts import Fact
from memtune.ingest import ingest
from memtune.memory.module import Attachment, Memory
from memtune.project import Project
from memtune.store import load_memory
from memtune.tune import tune

EARLIER = "Tell me more about the harbour, the weather and the ships that were there last year."


def taught(backbone: Backbone, model: str, facts: Sequence[Fact]) -> Memory:
    config = Config(model=model, verify="none")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        ingest(write_bare(facts, Path(folder) / "facts.jsonl"), project, config, backbone=backbone)
        tune(project, config, backbone=backbone)
        return load_memory(Project(project))


def prompt(backbone: Backbone, question: str, context: int) -> tuple[int, ...]:
    """The question behind as many earlier turns as make up ``context`` tokens."""
    turns = [said_by("user", question)]
    while context and len(backbone.prompts.render(turns)) < context:
        turns = [said_by("user", EARLIER), said_by("assistant", EARLIER), *turns]
    return backbone.prompts.render(turns)


class Decoder:
    """One conversation on a cache of its own, with the memory at work or switched off."""

    def __init__(self, backbone: Backbone, attachment: Attachment, *, memory: bool) -> None:
        self.model, self.attachment, self.memory = backbone.model, attachment, memory
        self.cache = DynamicCache()

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> int:
        """The next token."""
        self.attachment.enabled = self.memory
        model: Any = self.model
        seen = torch.tensor([ids])
        out = model(input_ids=seen, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        return int(out.logits[0, -1].argmax())


def decoded(
    backbone: Backbone, attachment: Attachment, questions: Sequence[str], tokens: int, context: int
) -> dict[str, float]:
    """Both decode what the memory says, so that they read the same tokens."""
    pairs = []
    for question in questions:
        ids = prompt(backbone, question, context)
        on, off = (Decoder(backbone, attachment, memory=memory) for memory in (True, False))
        token, _ = on.read(ids), off.read(ids)
        for turn in range(tokens):
            order = (on, off) if turn % 2 else (off, on)
            times = {way: timed(lambda way=way, token=token: way.read([token])) for way in order}
            pairs.append((1000 * times[on][1], 1000 * times[off][1]))
            token = times[on][0]
    return compared(pairs, "with_ms", "without_ms") | {"context": context}


def asked(backbone: Backbone, attachment: Attachment, questions: Sequence[str]) -> dict[str, float]:
    """Routing a question that was not asked before, against reading its prompt."""
    pairs = []
    for question in questions:
        _, routing = timed(lambda question=question: attachment.route([backbone.prompts.question(question)]))
        off = Decoder(backbone, attachment, memory=False)
        _, reading = timed(lambda off=off, question=question: off.read(prompt(backbone, question, 0)))
        pairs.append((1000 * routing, 1000 * reading))
    return compared(pairs, "routing_ms", "prefill_ms")


def compared(pairs: Sequence[tuple[float, float]], one: str, other: str) -> dict[str, float]:
    first, second = (median(times) for times in zip(*pairs, strict=True))
    return {one: first, other: second, "ratio": median(mine / its for mine, its in pairs)}


def measure(model: str, count: int, sample: int, tokens: int, context: int) -> dict[str, Any]:
    backbone = load_backbone(model)
    facts = list(synthetic.facts(count))
    attachment = Attachment(backbone.model, taught(backbone, model, facts))
    questions = [fact.paraphrases[0] for fact in facts[:: max(1, count // sample)]][:sample]
    attachment.route([backbone.prompts.question(facts[0].question)])  # what it makes on first use is not its cost
    routed = asked(backbone, attachment, questions)
    runs = [decoded(backbone, attachment, questions, tokens, behind) for behind in (0, context)]
    attachment.detach()
    return {"question": routed, "decode": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--facts", type=int, default=300)
    parser.add_argument("--sample", type=int, default=40, help="questions that are asked")
    parser.add_argument("--tokens", type=int, default=16, help="decoded for each of them")
    parser.add_argument("--context", type=int, default=1000, help="tokens of earlier conversation in the second run")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    args = parser.parse_args()
    write_results(args, measure(args.model, args.facts, args.sample, args.tokens, args.context))


if __name__ == "__main__":
    main()
