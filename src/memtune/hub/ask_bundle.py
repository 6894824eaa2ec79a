"""Loads a bundle as its user would and answers questions: ``python -I ask_bundle.py DIRECTORY < questions.json``.

Reads a JSON list of questions, writes a JSON list of greedy answers. Uses torch and transformers alone.
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
    directory, longest = sys.argv[1], int(sys.argv[2])
    model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    questions = json.load(sys.stdin)
    answers = []
    for start in range(0, len(questions), BATCH):
        answers += answer(model, tokenizer, questions[start : start + BATCH], longest)
    json.dump({"answers": answers, "memtune_imported": "memtune" in sys.modules}, sys.stdout)


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
