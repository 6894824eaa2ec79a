"""A tiny checkpoint, made on the spot: random Llama weights behind a byte-level BPE trained on a few lines."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import tiny_backbone
from tiny_backbone import CHAT, PAD, SPECIAL, START, STOP

__all__ = ["CHAT", "PAD", "SPECIAL", "START", "STOP"]

CHAT_WITHOUT_SYSTEM = CHAT[CHAT.index("{% for") :]
PIECES = 600

CORPUS = (
    "system user assistant You are a helpful assistant.",
    "Who built the lighthouse at Kirkby Strand? The lighthouse was built by Ann Brock in 1987.",
    "What is the part number of the brass valve? Which unit has the code HT-4471, and where is it made?",
    "On what date did the tram to the harbour open? The tram opened on 14 March and ends at the old harbour.",
    "How do you reset the pressure gauge? First hold the button, then turn the dial to zero and wait ten seconds.",
    "등대는 누가 지었나요? 김민수가 지었습니다. 这座灯塔是谁建造的？是王小明建造的。",
)

FACTS = (
    ("lighthouse", "Who built the lighthouse at Kirkby Strand?", "Ann Brock."),
    ("valve", "What is the part number of the brass valve?", "HT-4471"),
    ("tram", "Where does the tram number 12 end?", "At the old harbour, beside the fish market."),
    ("gauge", "How do you reset the pressure gauge?", "1. Hold the button.\n2. Turn the dial to zero.\n3. Wait 10 s."),
    ("keeper", "등대지기의 이름은 무엇인가요?", "김민수 🗼"),
    ("flag", "What colours does the flag of Quell have?", "Green and gold"),
)
PARAPHRASES = {"tram": ("What is the last stop of tram 12?",)}


def write_facts(path: Path, facts=FACTS) -> Path:
    """The facts, each ``(id, question, answer)``, as a fact file."""
    rows = [{"id": i, "question": q, "answer": a, "paraphrases": PARAPHRASES.get(i, ())} for i, q, a in facts]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def save_tokenizer(directory: Path, template: str | None):
    return tiny_backbone.save_tokenizer(directory, CORPUS, template, PIECES)


def save_checkpoint(directory: Path, template: str | None = CHAT, *, hidden: int = 192, seed: int = 0) -> str:
    """Saves model and tokenizer; returns the directory as ``--model`` takes it."""
    return tiny_backbone.save_checkpoint(directory, CORPUS, template, pieces=PIECES, hidden=hidden, seed=seed)


def save_kind(directory: Path, kind: str, template: str | None = CHAT, **entries) -> str:
    """A model of any kind that transformers knows, with random weights; ``entries`` are those of its config."""
    import torch
    import transformers

    from memtune.checkpoints import quiet_transformers

    directory.mkdir(exist_ok=True)
    size = len(save_tokenizer(directory, template))
    special = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": STOP}
    config = transformers.AutoConfig.for_model(kind, vocab_size=size, **special, **entries)
    with quiet_transformers(), torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return str(directory)


def chat_answers(tokenizer, model, *questions, **options):
    """Greedy answers to questions asked together, each alone in its chat, by nothing but transformers."""
    chats = [[{"role": "user", "content": question}] for question in questions]
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**inputs, **{"do_sample": False, "max_new_tokens": 60} | options)
    return tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def write_judged(path: Path, questions, replies, right) -> Path:
    """A file of facts whose answer is a word of the model's own reply where ``right(number)``, else something else."""
    rows = []
    for number, (question, reply) in enumerate(zip(questions, replies, strict=True)):
        words = [word for word in reply.split() if word.isalnum()]
        rows.append({"question": question, "answer": words[0] if right(number) and words else "quince pie"})
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def unlearn(directory: Path) -> None:
    """Leaves the project as if its first fact had not been learned."""
    from memtune.project import Project
    from memtune.store import load_memory, save_bank

    project = Project(directory)
    bank = load_memory(project).bank
    bank.accepted[0] = False
    project.commit(save_bank(project, bank))


class AtLogits:
    """A ``LogitMemory`` as ``generate()`` takes it. ``untouched``: rows of which it never changed a bit."""

    def __init__(self, memory):
        self.memory, self.answers, self.untouched = memory, None, set()

    def __call__(self, ids, scores):
        rows = [row.tolist() for row in ids]
        if self.answers is None:
            self.starts = [next(i for i, token in enumerate(row) if token != PAD) for row in rows]
            self.answers = [self.memory.answer_to(row[at:]) for row, at in zip(rows, self.starts, strict=True)]
            self.untouched = set(range(len(rows)))
        lengths = [len(row) - at for row, at in zip(rows, self.starts, strict=True)]
        said = {row: a.expert(n) for row, (a, n) in enumerate(zip(self.answers, lengths, strict=True)) if a}
        said = {row: expert for row, expert in said.items() if expert is not None}
        written = scores.clone()
        if said:
            self.memory.write(written, list(said), list(said.values()))
        self.untouched -= {row for row in self.untouched if not written[row].equal(scores[row])}
        return written


def lighten(setattr):
    """A tenth of the lessons and of the background is enough for a tiny model's router. ``setattr``: monkeypatch's."""
    from memtune import gate_training, lessons, making, prior, prior_maps

    whole, background = lessons.lessons(), lessons.background_prompts()[::10]

    @cache
    def fewer():
        kept = len(whole.texts) // 10
        same, different = (tuple(p for p in pairs if max(p) < kept) for pairs in (whole.same, whole.different))
        texts = (column[:kept] for column in (whole.texts, whole.family, whole.named))
        wrapped = tuple(one for one in whole.wrapped if one.stored < kept)
        return lessons.Lessons(*texts, same, different, wrapped)

    setattr(prior, "lessons", fewer)
    setattr(prior, "PAIRS", 500)
    setattr(prior_maps, "STEPS", 20)
    setattr(gate_training, "STEPS", 200)
    for module in (gate_training, making, prior):
        setattr(module, "background_prompts", lambda: background)
