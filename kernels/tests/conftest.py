"""The tests of the kernels: each says what a function computes, on every engine there is.

On a CPU the public functions take the plain torch path, on a GPU the compiled kernels. ``test_interpreter.py`` runs the
same tests once more with the kernels in Triton's interpreter, in a process of its own: the choice is made on import.
"""

from __future__ import annotations

import pytest
import torch
from memtune_kernels import tuning

# Several tiles in every direction of a small problem, and few programs: the interpreter takes some 10 ms for each.
SMALL = {
    "route_topk": {"block_questions": 16, "block_keys": 32, "block_depth": 16, "programs_per_processor": 3},
    "gate_maxsim": {"block_depth": 16},
    "expert_attention": {"block_experts": 16, "block_hidden": 32},
    "fit_step": {"block_tokens": 16, "block_vocabulary": 32, "block_depth": 16, "block_seen": 16, "shares": 2},
}


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request):
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _small_problems(request):
    torch.manual_seed(0)
    kernel = request.module.__name__.rpartition("test_")[2]
    if kernel in SMALL:
        with tuning.override(kernel, **SMALL[kernel]):
            yield
    else:
        yield
