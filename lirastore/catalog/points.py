"""The false positive rates that have columns of their own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["HEADLINE", "OPERATING_POINTS"]

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

HEADLINE = "tpr_at_0_1pct"
"""The column by which attacks are compared, and at whose rate `exposure` counts an example as detected."""
