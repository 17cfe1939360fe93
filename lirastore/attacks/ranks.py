"""Where a value stands among the other models' values: an interpolated empirical CDF, all targets at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["leave_one_out_cdf"]

Bool = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]
Float64 = npt.NDArray[np.float64]


def leave_one_out_cdf(values: npt.NDArray[np.floating[Any]], reference: Bool) -> Float64:
    """F̂(x_t) of every row t, where F̂ is made of the reference rows of its column but t itself.

    F̂ is linear through (x_(i), (i − ½)/K), i = 1…K; tied values are merged at their mid-rank; 0 below the
    smallest and 1 above the largest. One sort per column serves all targets.

    Args:
        values: (M, e, A), finite.
        reference: (M, e) bool.

    Returns:
        (M, e, A) float64 in [0, 1]; NaN where no other reference row is left.
    """
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0).astype(np.float64)
    counted = np.take_along_axis(np.broadcast_to(reference[:, :, None], values.shape), order, axis=0)
    cdf = np.empty(values.shape, dtype=np.float64)
    np.put_along_axis(cdf, order, _sorted_cdf(ordered, counted), axis=0)
    return cdf


def _sorted_cdf(x: Float64, counted: Bool) -> Float64:
    """The same for columns sorted along axis 0."""
    first, last = _tie_groups(x)
    below = np.zeros((x.shape[0] + 1, *x.shape[1:]), dtype=np.intp)  # reference rows before each position
    np.cumsum(counted, axis=0, out=below[1:])
    smaller = _take(below, first)
    in_group = _take(below, last + 1) - smaller
    ties = in_group - counted  # others at the same value
    total = below[-1] - counted  # K
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = _between(x, counted, first, last, smaller, in_group) / total
        cdf: Float64 = np.where(ties > 0, (smaller + 0.5 * ties) / total, inside)
    cdf[(ties == 0) & (smaller == 0)] = 0.0
    cdf[(ties == 0) & (smaller == total)] = 1.0
    cdf[total == 0] = np.nan
    return cdf


def _between(
    x: Float64, counted: Bool, first: Index, last: Index, smaller: Index, in_group: Index
) -> Float64:
    """K·F̂ by linear interpolation between the mid-ranks of the nearest reference values below and above."""
    rows = np.arange(x.shape[0])[:, None, None]
    previous = np.maximum.accumulate(np.where(counted, rows, -1), axis=0)
    following = np.minimum.accumulate(np.where(counted, rows, x.shape[0])[::-1], axis=0)[::-1]
    # Clipped positions belong to values outside the range, which the caller overwrites.
    left = np.clip(_take(previous, np.clip(first - 1, 0, None)), 0, None)
    right = np.clip(_take(following, np.clip(last + 1, None, len(x) - 1)), None, len(x) - 1)
    low, high = _take(x, left), _take(x, right)
    rank_low = smaller - 0.5 * _take(in_group, left)
    rank_high = smaller + 0.5 * _take(in_group, right)
    share: Float64 = (x - low) / (high - low)
    return rank_low + share * (rank_high - rank_low)


def _tie_groups(x: Float64) -> tuple[Index, Index]:
    """For each position of the sorted columns, the first and the last position that holds the same value."""
    rows = np.arange(x.shape[0])[:, None, None]
    new = np.ones(x.shape, dtype=bool)
    np.not_equal(x[1:], x[:-1], out=new[1:])
    first = np.maximum.accumulate(np.where(new, rows, 0), axis=0)
    ends = np.ones(x.shape, dtype=bool)
    ends[:-1] = new[1:]
    last = np.minimum.accumulate(np.where(ends, rows, len(x))[::-1], axis=0)[::-1]
    return first, last


def _take(array: npt.NDArray[Any], rows: Index) -> npt.NDArray[Any]:
    return np.take_along_axis(array, rows, axis=0)
