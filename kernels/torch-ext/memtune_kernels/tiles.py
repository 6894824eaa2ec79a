"""What several kernels do with a tile."""

from .engine import tl, triton

__all__ = ["dot"]


@triton.jit
def dot(a, b, total, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    """``total + a @ b`` in float32. UPCAST: in the interpreter, where a bfloat16 product is not one."""
    if UPCAST:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)
