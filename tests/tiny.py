"""A tiny checkpoint, made on the spot: random Llama weights behind a byte-level BPE trained on a few lines."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

CHAT = """\
{% if messages[0]['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

CHAT_WITHOUT_SYSTEM = CHAT[CHAT.index("{% for") :]

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PAD, START, STOP = range(3)

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
    """Without a template it is a base model's: the text begins with a special token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=list(SPECIAL), show_progress=False
    )
    bpe.train_from_iterator(CORPUS, trainer)
    if template is None:
        bpe.post_processor = processors.TemplateProcessing("<|im_start|> $A", special_tokens=[("<|im_start|>", START)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=SPECIAL[START], eos_token=SPECIAL[STOP], pad_token=SPECIAL[PAD]
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(directory)
    return tokenizer


def save_checkpoint(directory: Path, template: str | None = CHAT, *, hidden: int = 192, seed: int = 0) -> str:
    """Saves model and tokenizer; returns the directory as ``--model`` takes it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from memtune.backbone import quiet_transformers

    tokenizer = save_tokenizer(directory, template)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
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
        model.save_pretrained(directory)
    return str(directory)


def lighten(setattr):
    """A tenth of the lessons and of the background is enough for a tiny model's router. ``setattr``: monkeypatch's."""
    from memtune import gate_training, ingest, lessons, prior

    whole, background = lessons.lessons(), lessons.background_prompts()[::10]

    @cache
    def fewer():
        kept = len(whole.texts) // 10
        same, different = (tuple(p for p in pairs if max(p) < kept) for pairs in (whole.same, whole.different))
        return lessons.Lessons(whole.texts[:kept], whole.family[:kept], whole.named[:kept], same, different)

    setattr(prior, "lessons", fewer)
    setattr(prior, "PAIRS", 500)
    setattr(prior, "STEPS", 20)
    setattr(gate_training, "STEPS", 200)
    for module in (gate_training, ingest, prior):
        setattr(module, "background_prompts", lambda: background)
