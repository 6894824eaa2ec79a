"""A pytest plugin for ``test_interpreter.py``: whoever takes a plain torch path in that process fails."""

from __future__ import annotations

import importlib

from memtune_kernels import engine

assert engine.INTERPRETED, "TRITON_INTERPRET=1 was set too late or not at all"


def _refuse(*_arguments):
    raise AssertionError("the plain torch path ran where the kernel is tested")


for kernel in ("expert_attention", "fit_step", "gate_maxsim", "route_topk"):
    module = importlib.import_module(f"memtune_kernels.{kernel}")
    assert callable(module._plain)
    module._plain = _refuse
