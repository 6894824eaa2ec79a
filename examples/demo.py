"""Teach the example facts to a model through the command line, and say in plain words what was proved.

    python examples/demo.py build/demo

Every number that it prints was read from the JSON of a memtune command; a claim that does not hold ends it with 1.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parent
REWORDING, NEAR_MISS, UNRELATED = "paraphrases.jsonl", "near_miss.jsonl", "unrelated.jsonl"

Claim = tuple[bool, str]


def memtune(project: Path, *arguments: str) -> dict[str, Any]:
    """The JSON object that the command wrote; what it said on the way is on the terminal."""
    command = ["memtune", *arguments, "--project", str(project), "--json"]
    print(f"\n$ {shlex.join(command)}", flush=True)
    done = subprocess.run([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def first(name: str) -> dict[str, str]:
    row: dict[str, str] = json.loads((EXAMPLES / name).read_text(encoding="utf-8").partition("\n")[0])
    return row


def claims(directory: Path) -> list[Claim]:
    """What was asked of memtune, in words, and whether it holds."""
    project, bundle = directory / "project", directory / "bundle"
    ingested = memtune(project, "ingest", str(EXAMPLES / "facts.jsonl"))
    tuned = memtune(project, "tune")
    if not tuned["learned"]:
        sys.exit("no fact was learned")
    rows = [first(name) for name in (REWORDING, NEAR_MISS, UNRELATED)]
    said, near, unrelated = (memtune(project, "probe", row["question"]) for row in rows)
    return [
        learned(ingested["model"], tuned),
        reworded(rows[0]["answer"], said),
        untouched("A question close to a fact, but not stored", near),
        untouched("A question about something else", unrelated),
        exported(memtune(project, "export", str(bundle))),
    ]


def learned(model: str, tuned: dict[str, Any]) -> Claim:
    return tuned["met"], (
        f"{tuned['learned']} of {tuned['facts']} facts were learned by {model} in {tuned['seconds']:.0f} s. The worst "
        f"loss is {tuned['loss_max']:.2g} nats per answer token; {tuned['until_loss']} was asked for. "
        f"generate() said {tuned['verified_exact']} of {tuned['verified']} answers exactly."
    )


def reworded(answer: str, said: dict[str, Any]) -> Claim:
    """A wording of a stored question that no one tuned."""
    return said["answer"] == answer, (
        f"A wording that it never saw, {said['question']!r}, is answered {said['answer']!r}, {gate(said)}. "
        f"Without memory: {said['base_answer'][:60]!r} ..."
    )


def untouched(what: str, said: dict[str, Any]) -> Claim:
    """On the null route the memory adds nothing: the answer is the backbone's own."""
    holds = not said["fired"] and said["answer"] == said["base_answer"]
    outcome = "fires no fact, so the model answers as before" if holds else f"fires the fact {said['fact_id']!r}"
    return holds, f"{what}, {said['question']!r}, {outcome}, {gate(said)}."


def exported(bundle: dict[str, Any]) -> Claim:
    return bundle["met"], (
        f"The bundle in {bundle['directory']}, {bundle['memory_bytes'] / 2**20:.1f} MiB of it memory, loads in a "
        f"process without memtune and answers {bundle['exact']} of {bundle['asked']} facts exactly."
    )


def gate(said: dict[str, Any]) -> str:
    return f"with a score of {said['score']:.2f} where {said['threshold']:.2f} fires"


def main() -> None:
    results = claims(Path(sys.argv[1]))
    print("\nWhat was proved:" if all(holds for holds, _ in results) else "\nNot everything holds:")
    for holds, claim in results:
        print(f"  {'yes' if holds else 'NO '}  {claim}")
    sys.exit(0 if all(holds for holds, _ in results) else 1)


if __name__ == "__main__":
    main()
