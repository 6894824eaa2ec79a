"""F1@K (Wei et al. 2024, arXiv 2403.18802): how much of a long answer is true, and whether it says enough."""

from __future__ import annotations

__all__ = ["f1_at", "precision", "recall_at", "share"]


def precision(supported: int, unsupported: int) -> float | None:
    """Share of the statements that are supported; None where there are none."""
    said = supported + unsupported
    return supported / said if said else None


def recall_at(supported: int, k: int) -> float:
    """Supported statements of the ``k`` that are wanted; more than ``k`` earn nothing."""
    return min(supported / k, 1.0)


def f1_at(supported: int, unsupported: int, k: int) -> float:
    """The harmonic mean of precision and recall at ``k``; 0 where nothing is supported.

    >>> round(f1_at(50, 10, 64), 4)
    0.8065
    """
    if not supported:
        return 0.0
    right, enough = supported / (supported + unsupported), recall_at(supported, k)
    return 2 * right * enough / (right + enough)


def share(value: float | None) -> str:
    """One of these figures as pages and views say it.

    >>> share(2 / 3), share(None)
    ('0.667', 'none')
    """
    return "none" if value is None else f"{value:.3f}"
