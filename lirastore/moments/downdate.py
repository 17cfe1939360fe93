"""Moments of every column without each of its values in turn, in O(1) per value.

    mean' = mean − d/(n − 1),  SS' = SS − d²·n/(n − 1),  with d = x − mean.

The deviations d are taken about a pivot, a value of the column itself, and then centred, so that offsets cost
no digits and constant columns are exact. The downdate is good where the value does not dominate its column;
elsewhere, and where at most two values are left, the entry is computed anew in two passes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lirastore.moments.masked import (
    Bool,
    Float64,
    Values,
    bits,
    count,
    first_marked,
    masked_moments,
    pick_side,
    weighted_sum,
)

__all__ = ["CHUNK", "Downdated", "downdated_moments"]

# So many values at a time: float64 arrays of 512 KB, of which a few live in one core's cache.
CHUNK = 64 * 1024
# Below this share of its column's sum of squares, what a downdate leaves has lost four digits or more.
_DOMINATED = 1e-4
_FEW_LEFT = 2


class Downdated(NamedTuple):
    """Moments of (M, K) values on two sides, 0: IN and 1: OUT; ddof 0, NaN where nothing is left."""

    mean: Float64  # (M, K): of each value's own side, the value left out
    variance: Float64  # (M, K)
    side_mean: Float64  # (2, K): of the whole side
    side_variance: Float64  # (2, K)


def downdated_moments(x: Values, member: Bool, base: Bool | None = None) -> Downdated:
    """Moments of each value's own side without the value itself, and of the whole sides.

    Args:
        x: (M, K) finite values.
        member: (M, K) bool: IN where true, OUT elsewhere.
        base: (M, K) bool, only these values take part, the entries of the others are meaningless; None: all.
    """
    sides = (member, ~member) if base is None else (member & base, base & ~member)
    chosen, weights = bits(member), [side.astype(np.float64) for side in sides]
    n = np.stack([count(side) for side in sides])
    pivot = np.stack([first_marked(x, side) for side in sides])
    with np.errstate(divide="ignore", invalid="ignore"):
        left = 1 / (n - 1)  # infinite where nothing is: such entries are among the few, and recomputed
        d = np.subtract(x, pick_side(chosen, pivot), dtype=np.float64)
        shift = _sums(weights, d) / n
        d -= pick_side(chosen, shift)
        squares = d * d
        totals = _sums(weights, squares)
        mean = pick_side(chosen, pivot + shift)
        d *= pick_side(chosen, left)
        mean -= d
        variance = pick_side(chosen, totals * left, out=d)
        least = variance * _DOMINATED
        squares *= pick_side(chosen, n * left**2)
        variance -= squares
        result = Downdated(mean, variance, pivot + shift, totals / n)
        _recompute(_doubtful(variance < least, member, base, n), x, member, base, result)
    return result


def _sums(weights: list[Float64], x: Float64) -> Float64:
    return np.stack([weighted_sum(weight, x) for weight in weights])


def _doubtful(dominated: Bool, member: Bool, base: Bool | None, n: Float64) -> Bool:
    """(M, K): entries that the downdate may have got wrong; overwrites `dominated`."""
    few_in, few_out = n - 1 <= _FEW_LEFT
    if few_in.any() or few_out.any():
        dominated |= member & few_in
        dominated |= ~member & few_out
    if base is not None:
        dominated &= base
    return dominated


def _recompute(doubtful: Bool, x: Values, member: Bool, base: Bool | None, result: Downdated) -> None:
    """Overwrites the doubtful entries by their definition."""
    rows, columns = np.nonzero(doubtful)
    step = max(1, CHUNK // len(x))
    for start in range(0, len(rows), step):
        row, column = rows[start : start + step], columns[start : start + step]
        others = member[:, column] == member[row, column]
        if base is not None:
            others &= base[:, column]
        others[row, np.arange(len(row))] = False
        mean, variance = masked_moments(x[:, column], others)
        result.mean[row, column] = mean
        result.variance[row, column] = variance
