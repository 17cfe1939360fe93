"""How well the attacks recognise the members of each class, with one threshold for the whole data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.report.content import ClassRow, Integers, Rate, Seen
from lirastore.report.numbers import only, rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["by_class", "resampled"]

REPLICATES = 1000
_LEVELS = (2.5, 97.5)


def by_class(connection: DuckDBPyConnection, seen: Seen, labels: Integers) -> list[ClassRow]:
    """The classes by number; `seen` and `labels` are of all examples of the store."""
    with only(connection, seen.attack):
        found = rows(connection, "from metrics_by_class order by label")
    return [_class_row(row, seen, labels == row["label"]) for row in found]


def _class_row(row: dict[str, Any], seen: Seen, chosen: npt.NDArray[np.bool_]) -> ClassRow:
    low, high = resampled(seen.detected[chosen], seen.held[chosen])
    return ClassRow(
        label=row["label"],
        members=row["members"],
        non_members=row["nonmembers"],
        auc=row["auc"],
        rate=Rate(row["tpr_at_0_1pct"], low, high),
        fpr=row["fpr_at_0_1pct"],
    )


def resampled(detected: Integers, held: Integers) -> tuple[float | None, float | None]:
    """95% percentile bootstrap of Σ detected / Σ held over the examples, (n,) each; seeded.

    Examples with the same pair of counts are drawn together, which is the same as drawing them one by one.
    (None, None) without a member.
    """
    if not held.sum():
        return None, None
    pairs, counts = np.unique(np.stack([detected, held], axis=1)[held > 0], axis=0, return_counts=True)
    total = int(counts.sum())
    draws = np.random.default_rng(0).multinomial(total, counts / total, size=REPLICATES)
    low, high = np.percentile((draws @ pairs[:, 0]) / (draws @ pairs[:, 1]), _LEVELS)
    return float(low), float(high)
