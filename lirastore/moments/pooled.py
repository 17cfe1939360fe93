"""The variance pooled over all examples, per side, augmentation and target: sums that merge.

With SS_j the sum of squared deviations of example j's models on one side about their mean, the target left
out, and k_j their number: σ² = Σ_j SS_j / Σ_j k_j. Each target has sums of its own, made of leave-one-out
moments, so that nothing large is ever subtracted from something larger.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from lirastore.moments.loo import Loo
from lirastore.moments.masked import Bool, Float64

__all__ = ["PooledSums", "PooledVariance"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PooledVariance:
    """Within-example variances pooled over examples, the target left out of each.

    Attributes:
        var_in, var_out: (M, A) float64, ddof 0 within each example; NaN where a side has no models at all.
        degrees_in, degrees_out: (M,) int64, Σ_j max(k_j − 1, 0): degrees of freedom behind them.
    """

    var_in: Float64
    var_out: Float64
    degrees_in: Int64
    degrees_out: Int64


@dataclass(frozen=True)
class PooledSums:
    """What a tile adds to `PooledVariance`: chunk with `of`, combine with `+`, finalise with `variance`.

    Attributes:
        squares_in, squares_out: (M, A) float64, Σ_j SS_j.
        values_in, values_out: (M,) int64, Σ_j k_j.
        degrees_in, degrees_out: (M,) int64, Σ_j max(k_j − 1, 0).
    """

    squares_in: Float64
    squares_out: Float64
    values_in: Int64
    values_out: Int64
    degrees_in: Int64
    degrees_out: Int64

    @classmethod
    def of(cls, loo: Loo, use: Bool | None = None) -> PooledSums:
        """The sums over a tile's examples, or over those that `use` (e,) marks."""
        n_in, n_out = (n if use is None else n * use for n in (loo.n_in, loo.n_out))
        return cls(
            squares_in=_sum_of_squares(n_in, loo.var_in),
            squares_out=_sum_of_squares(n_out, loo.var_out),
            values_in=n_in.sum(axis=1),
            values_out=n_out.sum(axis=1),
            degrees_in=np.maximum(n_in - 1, 0).sum(axis=1),
            degrees_out=np.maximum(n_out - 1, 0).sum(axis=1),
        )

    def __add__(self, other: PooledSums) -> PooledSums:
        return PooledSums(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    def variance(self) -> PooledVariance:
        """The pooled variances of the examples summed so far."""
        with np.errstate(invalid="ignore"):
            var_in = self.squares_in / self.values_in[:, None]
            var_out = self.squares_out / self.values_out[:, None]
        return PooledVariance(var_in, var_out, self.degrees_in, self.degrees_out)


def _sum_of_squares(n: Int64, variance: Float64) -> Float64:
    """(M, A): Σ_j k_j·σ_j², where examples without models, whose variance is NaN, add nothing."""
    squares = variance * n[:, :, None]
    squares[n == 0] = 0
    total: Float64 = squares.sum(axis=1)
    return total
