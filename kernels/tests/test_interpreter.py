"""The Triton kernels on a CPU: the tests of each function once more, in Triton's interpreter.

The interpreter is chosen when Triton is imported, so each run is a process of its own. It computes with NumPy: what it
proves is the arithmetic and the bounds of every load and store, not speed, and nothing about races.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from memtune_kernels import engine

HERE = Path(__file__).parent
KERNELS = ("expert_attention", "fit_step", "gate_maxsim", "route_topk")

pytestmark = pytest.mark.skipif(not engine.HAS_TRITON or engine.INTERPRETED, reason="needs Triton, not interpreted yet")


def test_every_function_is_run():
    assert {f"test_{kernel}.py" for kernel in KERNELS} <= {file.name for file in HERE.iterdir()}


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_kernel_agrees_with_its_reference(kernel):
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    # The plain path must not stand in for the kernel: the plugin takes it away.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "without_plain_paths"]
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), *sys.path])
    done = subprocess.run(
        [*command, str(HERE / f"test_{kernel}.py")],
        env=environment,
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
