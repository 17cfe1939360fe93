"""Medians of the marked values, and without each of them in turn: one sort per column serves all targets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lirastore.moments.masked import Bool, Float64, Values, bits, pick

__all__ = ["Medians"]

Counts = npt.NDArray[np.intp]


class Medians:
    """The sorted marked values of each column."""

    def __init__(self, x: Values, mask: Bool) -> None:
        """x: (M, K) finite values; mask: (M, K) bool."""
        models, columns = x.shape
        # Two more columns of infinity, so that positions next to the middle exist in the shortest side.
        self._sorted = np.full((columns, models + 2), np.inf, x.dtype)
        np.copyto(self._sorted[:, :models], x.T, where=mask.T)
        self._sorted.sort(axis=1)
        self._n: Counts = np.count_nonzero(mask, axis=0)

    def whole(self) -> Float64:
        """(K,): of all marked values; NaN where nothing is marked."""
        middle = self._at((self._n - 1) // 2) / 2 + self._at(self._n // 2) / 2
        return np.where(self._n > 0, middle, np.nan)

    def without(self, x: Values) -> Float64:
        """(M, K): without one value equal to x, for each of the marked x; meaningless for others."""
        left = self._n - 1
        halves = [self._without_at(x, position) / 2 for position in ((left - 1) // 2, left // 2)]
        halves[0] += halves[1]
        halves[0][:, left <= 0] = np.nan
        return halves[0]

    def _without_at(self, x: Values, position: Counts) -> Float64:
        """(M, K): what stands at a position once x is taken out: all from x on move down by one."""
        here, following = self._at(position), self._at(position + 1)
        return pick(bits(x > here), here, following)

    def _at(self, position: Counts) -> Float64:
        rows = np.arange(len(self._sorted))
        return self._sorted[rows, np.maximum(position, 0)].astype(np.float64)
