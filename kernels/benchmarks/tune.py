"""Finds tile sizes on the GPU at hand and writes them to ``configs/<device>.json``, where the kernels look them up.

    PYTHONPATH=kernels/torch-ext python kernels/benchmarks/tune.py [--only fit_step]

For each kernel and dtype every combination of the sizes below is timed on the largest case of ``cases.py``. What does
not compile or does not fit the GPU is left out; what is slower than the default leaves no trace.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from typing import Any

import torch
from cases import Case, cases
from ceilings import seconds
from memtune_kernels import engine, tuning

Settings = dict[str, Any]
CHOICES: dict[str, dict[str, list[Any]]] = {
    "route_topk": {
        "block_questions": [16, 32, 64],
        "block_keys": [32, 64, 128],
        "block_depth": [32, 64, 128],
        "programs_per_processor": [2, 4],
        "num_warps": [4, 8],
        "num_stages": [2, 3, 4],
    },
    "gate_maxsim": {"block_depth": [64, 128], "num_warps": [1, 2, 4], "num_stages": [1, 2, 3]},
    "expert_attention": {
        "block_positions": [16, 32],
        "block_experts": [16, 32],
        "block_hidden": [64, 128, 256],
        "num_warps": [2, 4, 8],
        "num_stages": [1, 2, 3],
    },
    "fit_step": {
        "block_tokens": [64, 128],
        "block_vocabulary": [32, 64, 128, 256],
        "block_depth": [32, 64, 128],
        "num_warps": [4, 8],
        "num_stages": [2, 3, 4],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=CHOICES, help="one kernel, by its name")
    args = parser.parse_args()
    device = torch.device("cuda")
    if not engine.uses_triton(torch.empty(0, device=device)):
        parser.error("no GPU that Triton runs on")
    file = tuning.CONFIGS / f"{tuning.device_name(device)}.json"
    found: dict[str, Settings] = json.loads(file.read_text()) if file.exists() else {}
    largest = {(case.kernel, case.stored): case for case in cases(device) if args.only in (None, case.kernel)}
    for (kernel, stored), case in largest.items():
        dtype = str(stored).removeprefix("torch.")
        best = _best(case, device)
        print(f"{kernel} {dtype}: {best or 'the default'}")
        if best:
            found.setdefault(kernel, {})[dtype] = best
    file.write_text(json.dumps(found, indent=2) + "\n")
    print(f"kept in {file}")


def _best(case: Case, device: torch.device) -> Settings:
    """The fastest sizes, empty if that is the default."""
    best, least = {}, seconds(case.call, device)
    for sizes in _combinations(CHOICES[case.kernel]):
        try:
            with tuning.override(case.kernel, **sizes):
                took = seconds(case.call, device)
        except engine.triton.errors.TritonError:
            continue
        if took < least:
            best, least = sizes, took
            print(f"  {least * 1e3:.3f} ms  {sizes}")
    return best


def _combinations(choices: dict[str, list[Any]]) -> Iterator[Settings]:
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


if __name__ == "__main__":
    main()
