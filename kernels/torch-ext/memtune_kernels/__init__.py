"""Kernels for a memory of facts beside a language model's head: route, compare, write, fit.

Each function runs a Triton kernel on an NVIDIA GPU and plain torch anywhere else; both compute what ``reference`` says.
"""

from .expert_attention import expert_attention
from .fit_step import FitStep, fit_step
from .gate_maxsim import Best, Words, gate_maxsim
from .route_topk import route_topk

__all__ = ["Best", "FitStep", "Words", "expert_attention", "fit_step", "gate_maxsim", "route_topk"]
