"""Whether the memory says the same at the logits, where the position chooses the expert, as behind the hidden state.

    python benchmarks/at_logits.py --project .memtune --bundle my-model --questions examples/paraphrases.jsonl \
        --out benchmarks/results/at_logits.json

Every question is read together with its answer. Where each token of the answer is the most likely one behind those
before it, greedy generation says the answer, and stops; where one is not, it does not.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from common import write_results
from torch import Tensor

from memtune.backbone import Backbone, load_backbone
from memtune.fact import Fact
from memtune.facts import read_asked
from memtune.logits import LogitMemory
from memtune.memory.module import Attachment, Memory
from memtune.project import Project
from memtune.store import load_facts, load_memory


@torch.inference_mode()
def chances(backbone: Backbone, attachment: Attachment, at_logits: LogitMemory, fact: Fact) -> tuple[Tensor, Tensor]:
    """Probability of each answer token, and whether it is the most likely one: both (2, tokens), with the memory behind
    the hidden state and at the logits.
    """
    encoded = backbone.prompts.fact(fact)
    prompt = backbone.prompts.format.prompt(encoded.question)
    ids = torch.tensor([prompt + encoded.answer[:-1]], device=backbone.device)
    answer = torch.tensor(encoded.answer, device=backbone.device)
    behind = backbone.model(input_ids=ids, logits_to_keep=len(answer)).logits[0].float()
    attachment.enabled = False
    written = backbone.model(input_ids=ids, logits_to_keep=len(answer)).logits[0].float()
    attachment.enabled = True
    if stored := at_logits.answer_to(prompt):
        rows = range(min(stored.experts, len(answer)))
        at_logits.write(written, list(rows), [stored.first + row for row in rows])
    both = torch.stack([behind, written])
    said = both.softmax(-1).gather(2, answer.expand(2, -1)[..., None]).squeeze(2)
    return said, both.argmax(-1) == answer


def measure(backbone: Backbone, memory: Memory, at_logits: LogitMemory, facts: list[Fact]) -> dict[str, Any]:
    """Counts over ``facts``, each a question with its answer, and the least sure token of those that both say."""
    attachment = Attachment(backbone.model, memory)
    asked = [chances(backbone, attachment, at_logits, fact) for fact in facts]
    attachment.detach()
    exact = [likely.all(1).tolist() for _, likely in asked]
    worst = [said.min(1).values.tolist() for said, _ in asked]
    both = [chance for chance, said in zip(worst, exact, strict=True) if all(said)]
    return {
        "asked": len(facts),
        "exact_behind_the_state": sum(behind for behind, _ in exact),
        "exact_at_the_logits": sum(at for _, at in exact),
        "exact_in_one_alone": sum(behind != at for behind, at in exact),
        "least_sure_token_behind_the_state": min(behind for behind, _ in both),
        "least_sure_token_at_the_logits": min(at for _, at in both),
        "tokens": sum(said.shape[1] for said, _ in asked),
    }


def other_wordings(path: str) -> list[Fact]:
    return [Fact(one.id, one.question, one.answer) for one in read_asked(path, command="benchmarks/at_logits.py")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path(".memtune"))
    parser.add_argument("--bundle", required=True, help="what memtune export wrote of the project")
    parser.add_argument("--questions", required=True, help="other wordings of its facts, with the answers")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    project = Project(args.project)
    backbone = load_backbone(project.need("model", "memtune ingest FACTS")["name"], device="cpu", dtype="float32")
    memory, at_logits = load_memory(project), LogitMemory.load(args.bundle)
    results = {
        "facts": measure(backbone, memory, at_logits, list(load_facts(project))),
        "wordings": measure(backbone, memory, at_logits, other_wordings(args.questions)),
    }
    write_results(args, results)


if __name__ == "__main__":
    main()
