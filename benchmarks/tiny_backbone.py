"""A checkpoint made from nothing: random Llama weights behind a tokenizer that was trained on a text of one's own.

    python benchmarks/tiny_backbone.py FOLDER

It knows nothing and costs next to nothing, so that what is measured on it is the memory. The same arguments make the
same checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from memtune.checkpoints import quiet_transformers
from memtune.evidence import synthetic

__all__ = ["CHAT", "PAD", "SPECIAL", "START", "STOP", "save_checkpoint", "save_tiny", "save_tokenizer"]

CHAT = """\
{% if messages[0]['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PAD, START, STOP = range(3)
LAYERS, HEADS = 4, 4
PIECES, HIDDEN = 3000, 64  # of the checkpoint of the benchmarks
FACTS_READ = 2000  # synthetic facts that its tokenizer learns from


def save_checkpoint(
    folder: Path, text: Iterable[str], template: str | None, *, pieces: int, hidden: int, seed: int = 0
) -> str:
    """Saves model and tokenizer; returns the folder as ``--model`` takes it."""
    tokenizer = save_tokenizer(folder, text, template, pieces)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=128,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        max_position_embeddings=512,
        initializer_range=0.1,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=STOP,
    )
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        # As in a trained model, a state depends on what stands before it, and most on its own token.
        model.get_input_embeddings().weight.data.mul_(20)
        model.save_pretrained(folder)
    return str(folder)


def save_tiny(folder: Path) -> str:
    """The checkpoint that ``--model tiny`` names: 3,000 pieces of everyday and of synthetic questions, 64 wide."""
    return save_checkpoint(folder, _everything(), CHAT, pieces=PIECES, hidden=HIDDEN)


def _everything() -> Iterator[str]:
    yield "system user assistant You are a helpful assistant."
    yield from files("memtune").joinpath("background.txt").read_text(encoding="utf-8").splitlines()
    for fact in synthetic.facts(FACTS_READ):
        yield from (fact.question, fact.answer, *fact.paraphrases)


def save_tokenizer(folder: Path, text: Iterable[str], template: str | None, pieces: int) -> Any:
    """Without a template it is a base model's: the text begins with a special token of its own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, initial_alphabet=alphabet, special_tokens=list(SPECIAL), show_progress=False
    )
    bpe.train_from_iterator(text, trainer)
    if template is None:
        first = SPECIAL[START]
        bpe.post_processor = processors.TemplateProcessing(f"{first} $A", special_tokens=[(first, START)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=SPECIAL[START], eos_token=SPECIAL[STOP], pad_token=SPECIAL[PAD]
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    print(save_tiny(parser.parse_args().folder))


if __name__ == "__main__":
    main()
