"""The false positive rates that have columns of their own."""

from __future__ import annotations

from lirastore.evaluation import OPERATING_POINTS

__all__ = ["HEADLINE", "OPERATING_POINTS"]

HEADLINE = "tpr_at_0_1pct"
"""The column by which attacks are compared, and at whose rate `exposure` counts an example as detected."""
