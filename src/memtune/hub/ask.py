"""Loads what was exported as its user would and answers questions: ``python -P ask.py BUNDLE < questions.json``, or
``python ask.py ADAPTER BASE DTYPE``.

Reads a JSON list of [question, most tokens of its answer], writes the greedy answers. For a bundle it uses torch and
transformers alone.
"""

import json
import sys
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

BATCH = 16


def main() -> None:
    logging.disable_progress_bar()
    directory, *base = sys.argv[1:]
    model = with_adapter(directory, *base) if base else bundle(directory)
    tokenizer = AutoTokenizer.from_pretrained(base[0] if base else directory, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    asked = json.load(sys.stdin)
    answers: list[str] = [""] * len(asked)
    order = sorted(range(len(asked)), key=lambda i: int(asked[i][1]))  # a batch takes as long as its longest answer
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        texts = answer(model, tokenizer, [asked[i][0] for i in batch], asked[batch[-1]][1])
        for i, text in zip(batch, texts, strict=True):
            answers[i] = text
    json.dump({"answers": answers, "memtune_imported": "memtune" in sys.modules}, sys.stdout)


def bundle(directory: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True, use_safetensors=True).eval()


def with_adapter(directory: str, base: str, dtype: str) -> Any:
    from peft import PeftModel

    import memtune.peft  # noqa: F401  # makes the method known to peft

    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True).eval()
    return PeftModel.from_pretrained(model, directory)


@torch.inference_mode()
def answer(model: Any, tokenizer: Any, questions: list[str], longest: int) -> list[str]:
    texts = questions
    if tokenizer.chat_template:
        chats = [[{"role": "user", "content": question}] for question in questions]
        texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not tokenizer.chat_template)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    out = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=longest, pad_token_id=tokenizer.pad_token_id
    )
    return [text.strip() for text in tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)]


if __name__ == "__main__":
    main()
