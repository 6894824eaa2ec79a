"""A bundle behind ``transformers serve``, asked by many clients at once: facts, near misses, unrelated questions.

    python benchmarks/server_load.py --bundle my-model --facts examples/facts.jsonl \
        --near-miss examples/near_miss.jsonl --unrelated examples/unrelated.jsonl \
        --out benchmarks/results/server_load.json

The server packs its requests into batches (continuous batching). Each client asks one question after another, drawn
from the three kinds with equal chance. Wrong is an answer that is not the fact's own, or that is a stored fact's where
none should be. What the bundle says to a question that is no fact, asked alone, is generated beforehand, in a process
without a server. The server answers on this machine alone, and is gone when the minutes are over.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from common import in_a_process, questions_of, timed, write_results
from serving import Server, serving

from memtune.facts import read_facts

LONGEST = 160  # tokens of a stored answer
SHORT = 16  # tokens of an output that is compared with what is said alone
PATIENCE = 600.0  # seconds that a client waits for an answer
SAMPLE_EVERY = 10.0  # seconds between two looks at the server's memory
LIST_CAP = 20
KINDS = ("fact", "near miss", "unrelated")


@dataclass(frozen=True)
class Question:
    """``expected``: the stored answer, or the first SHORT tokens that are said when it is asked alone."""

    kind: str
    text: str
    expected: str


@dataclass
class Tally:
    """What came of the questions of one kind. ``seconds``: of each answer."""

    seconds: list[float] = field(default_factory=list)
    as_expected: int = 0
    wrong_fact: list[dict[str, str]] = field(default_factory=list)
    other: list[dict[str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        times = sorted(self.seconds) or [0.0]
        return {
            "answered": len(self.seconds),
            "as_expected": self.as_expected,
            "wrong_fact": len(self.wrong_fact),
            "otherwise": len(self.other),
            "failed": len(self.failed),
            "seconds_median": statistics.median(times),
            "seconds_99": times[int(0.99 * (len(times) - 1))],
            "examples": {"wrong_fact": self.wrong_fact[:LIST_CAP], "otherwise": self.other[:LIST_CAP]},
            "errors": sorted(set(self.failed))[:LIST_CAP],
        }


def said_alone(bundle: str, questions: Sequence[str]) -> dict[str, Any]:
    """By nothing but transformers, one question after the other."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(bundle)
    model = transformers.AutoModelForCausalLM.from_pretrained(bundle, trust_remote_code=True)
    said = {}
    for question in questions:
        chat = [{"role": "user", "content": question}]
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**inputs, do_sample=False, max_new_tokens=SHORT)
        said[question] = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    return said


def questions(args: argparse.Namespace) -> list[Question]:
    asked = {"near miss": questions_of(args.near_miss), "unrelated": questions_of(args.unrelated)}
    alone = in_a_process(said_alone, args.bundle, [text for texts in asked.values() for text in texts])
    facts = [Question("fact", fact.question, fact.answer) for fact in read_facts(args.facts)]
    return facts + [Question(kind, text, alone[text]) for kind, texts in asked.items() for text in texts]


class Load:
    """Clients that ask until a time is over. ``memory``: (seconds since the start, bytes that the server holds)."""

    def __init__(self, server: Server, bundle: str, asked: Sequence[Question], seconds: float) -> None:
        self.server, self.bundle, self.seconds = server, bundle, seconds
        self.by_kind = {kind: [one for one in asked if one.kind == kind] for kind in KINDS}
        self.stored = {one.expected for one in asked if one.kind == "fact"}
        self.tallies = {kind: Tally() for kind in KINDS}
        self.memory: list[tuple[float, int]] = []

    async def run(self, clients: int) -> None:
        self.until = time.monotonic() + self.seconds
        client = openai.AsyncOpenAI(
            base_url=f"{self.server.address}/v1", api_key="none", timeout=PATIENCE, max_retries=0
        )
        await asyncio.gather(self.watch(), *(self.ask(client, random.Random(number)) for number in range(clients)))
        await client.close()

    async def ask(self, client: openai.AsyncOpenAI, draw: random.Random) -> None:
        while time.monotonic() < self.until:
            one = draw.choice(self.by_kind[draw.choice(KINDS)])
            started = time.monotonic()
            try:
                found = await client.chat.completions.create(
                    model=self.bundle,
                    messages=[{"role": "user", "content": one.text}],
                    max_tokens=LONGEST if one.kind == "fact" else SHORT,
                    temperature=0,
                )
            except openai.OpenAIError as error:
                self.tallies[one.kind].failed.append(str(error))
            else:
                self.judge(one, (found.choices[0].message.content or "").strip(), time.monotonic() - started)

    def judge(self, one: Question, said: str, seconds: float) -> None:
        tally = self.tallies[one.kind]
        tally.seconds.append(seconds)
        if said == one.expected:
            tally.as_expected += 1
            return
        missed = {"question": one.text, "expected": one.expected, "said": said}
        (tally.wrong_fact if one.kind == "fact" or said in self.stored else tally.other).append(missed)

    async def watch(self) -> None:
        started = time.monotonic()
        while time.monotonic() < self.until:
            self.memory.append((time.monotonic() - started, resident(self.server.pid)))
            await asyncio.sleep(SAMPLE_EVERY)


def resident(pid: int) -> int:
    """Bytes that a process holds now."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def growth(memory: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """Bytes at each third of the run, and what a line through the last two thirds gains a minute."""
    third = len(memory) // 3
    late = memory[third:]
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope if len(late) > 1 else 0.0
    at = {f"bytes_at_{share}_of_3": memory[min(share * third, len(memory) - 1)][1] for share in range(4)}
    return at | {"bytes_most": max(held for _, held in memory), "bytes_a_minute": slope * 60}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "facts", "near-miss", "unrelated"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--blocks", type=int, default=128, help="of the server's cache, 256 tokens each")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="that the server reads in one pass, at most")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> int:
    args = arguments()
    asked = questions(args)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", args.bundle, "--trust-remote-code"]
        command += ["--continuous-batching", "--cb-num-blocks", str(args.blocks)]
        command += ["--cb-max-batch-tokens", str(args.batch_tokens)]
        with serving(lambda port: [*command, "--port", str(port)], Path(folder) / "log") as server:
            load = Load(server, args.bundle, asked, args.minutes * 60)
            _, seconds = timed(lambda: asyncio.run(load.run(args.clients)))  # the last answers come after the time
    kinds = {kind: tally.figures() for kind, tally in load.tallies.items()}
    answered = sum(one["answered"] for one in kinds.values())
    total = {"answered": answered, "seconds": seconds, "answers_a_second": answered / seconds}
    write_results(args, {"total": total, "kinds": kinds, "server": growth(load.memory)})
    return int(any(tally.wrong_fact or tally.failed for tally in load.tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
