"""The false positive rates that are reported, and which data resolve them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

__all__ = ["OPERATING_POINTS", "allowed", "resolved"]

OPERATING_POINTS: Mapping[str, float] = MappingProxyType(
    {
        "tpr_at_10pct": 0.1,
        "tpr_at_1pct": 0.01,
        "tpr_at_0_1pct": 0.001,
        "tpr_at_0_01pct": 0.0001,
        "tpr_at_0_001pct": 0.00001,
        "tpr_at_0fp": 0.0,
    }
)
"""Column of views `metrics` and `metrics_by_model` -> its false positive rate; 0: no false positive at all.

The SQL files say the same (`_points`, `_metrics`), and a test holds them together.
"""


def allowed(fpr: float, nonmembers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The largest whole number k with k / nonmembers <= fpr, as the quotient rounds; (R,) float64 each.

    FPR × n may round to either side of it; the quotient of integers that equals a decimal fraction does not.
    """
    n = np.maximum(nonmembers, 1)
    below: np.ndarray[Any, Any] = np.maximum(np.floor(fpr * n) - 1, 0)
    for _ in range(2):
        below = np.where((below + 1) / n <= fpr, below + 1, below)
    return below


def resolved(fpr: float, nonmembers: int) -> bool:
    """Whether at least one false positive is expected at that rate; at none at all there is always."""
    return fpr == 0 or (nonmembers > 0 and 1 / nonmembers <= fpr)
