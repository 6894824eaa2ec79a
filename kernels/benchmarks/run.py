"""How near the kernels come to what the device can do; the result goes to ``results/``, named by the device.

    PYTHONPATH=kernels/torch-ext python kernels/benchmarks/run.py [--only route_topk]

On a GPU each case runs twice, with the Triton kernel and on the plain torch path; on a CPU there is the second alone.
Rates count what has to be moved and computed at least, not what an implementation does.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from cases import Case, cases
from ceilings import copy_rate, matmul_rate, seconds
from memtune_kernels import engine, tuning

RESULTS = Path(__file__).parent / "results"
DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.float16, torch.bfloat16)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="one kernel, by its name; the result is printed and not kept")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ceilings = {"copy": copy_rate(device)}
    ceilings |= {_name(dtype): matmul_rate(device, dtype) for dtype in DTYPES[device.type]}
    print("  ".join(f"{name} {rate / 1e9:,.0f} G/s" for name, rate in ceilings.items()))
    measured = []
    for case in cases(device):
        if args.only in (None, case.kernel):
            measured += [_measured(case, name, device, ceilings) for name in _engines(device)]
    if args.only is None:
        _keep({**_machine(device), "ceilings": ceilings, "measured": measured})


def _engines(device: torch.device) -> list[str]:
    return ["triton", "torch"] if engine.uses_triton(torch.empty(0, device=device)) else ["torch"]


def _measured(case: Case, name: str, device: torch.device, ceilings: dict[str, float]) -> dict[str, Any]:
    there = engine.HAS_TRITON
    engine.HAS_TRITON = name == "triton"  # without it a GPU takes the plain path as well
    try:
        took = seconds(case.call, device)
    finally:
        engine.HAS_TRITON = there
    bytes_rate, flops_rate = case.bytes / took, case.flops / took
    row = {
        "kernel": case.kernel,
        "case": case.what,
        "dtype": _name(case.dtype),
        "engine": name,
        "seconds": took,
        "bytes_per_second": bytes_rate,
        "flops_per_second": flops_rate,
        "of_copy": bytes_rate / ceilings["copy"],
        "of_matmul": flops_rate / ceilings[_name(case.dtype)],
    }
    print(
        f"{case.kernel:17} {case.what:55} {row['dtype']:9} {name:7} {took * 1e3:9.3f} ms  {bytes_rate / 1e9:8.1f} GB/s"
        f" ({row['of_copy']:5.1%})  {flops_rate / 1e12:8.3f} TFLOP/s ({row['of_matmul']:5.1%})"
    )
    return row


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _machine(device: torch.device) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    name = tuning.device_name(device) if device.type == "cuda" else f"cpu_{platform.machine()}"
    versions = {"torch": torch.__version__, "triton": getattr(engine.triton, "__version__", None)}
    return {"device": name, "threads": torch.get_num_threads(), "commit": commit.stdout.strip(), **versions}


def _keep(result: dict[str, Any]) -> None:
    file = RESULTS / f"{result['device']}.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(f"kept in {file}")


if __name__ == "__main__":
    main()
