"""Variance and standard deviation over all examples, per side, augmentation and target: sums that merge.

With SS_j the sum of squared deviations of example j's models on one side about their mean, the target left
out, and k_j their number: σ² = Σ_j SS_j / Σ_j k_j. Each target has sums of its own, made of leave-one-out
moments, so that nothing large is ever subtracted from something larger.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.special import poch

from lirastore.moments.loo import Loo
from lirastore.moments.masked import Bool, Float64

__all__ = ["DeviationSums", "PooledSums", "PooledVariance"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PooledVariance:
    """Within-example variances pooled over examples, the target left out of each.

    Attributes:
        var_in, var_out: (M, A) float64, ddof 0 within each example; NaN where a side has no models at all.
        degrees_in, degrees_out: (M,) int64, Σ_j max(k_j − 1, 0): degrees of freedom behind them.
        unbiased_in, unbiased_out: (M, A) float64, the same sums of squares over the degrees of freedom.
    """

    var_in: Float64
    var_out: Float64
    degrees_in: Int64
    degrees_out: Int64
    unbiased_in: Float64
    unbiased_out: Float64


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
            return PooledVariance(
                var_in=self.squares_in / self.values_in[:, None],
                var_out=self.squares_out / self.values_out[:, None],
                degrees_in=self.degrees_in,
                degrees_out=self.degrees_out,
                unbiased_in=self.squares_in / self.degrees_in[:, None],
                unbiased_out=self.squares_out / self.degrees_out[:, None],
            )


def _sum_of_squares(n: Int64, variance: Float64) -> Float64:
    """(M, A): Σ_j k_j·σ_j², where examples without models, whose variance is NaN, add nothing."""
    squares = variance * n[:, :, None]
    squares[n == 0] = 0
    total: Float64 = squares.sum(axis=1)
    return total


@dataclass(frozen=True)
class DeviationSums:
    """What a tile adds to the mean standard deviation over examples: chunk with `of`, combine with `+`.

    An example's standard deviation is estimated without bias for normal values, √SS_j/c(k_j − 1) with
    c(d) = √2·Γ((d + 1)/2)/Γ(d/2), the mean of the root of a χ²_d. Examples with fewer than two models on a
    side add nothing there.

    Attributes:
        sum_in, sum_out: (M, A) float64, of the examples' standard deviations.
        count_in, count_out: (M,) int64, how many examples these are of.
    """

    sum_in: Float64
    sum_out: Float64
    count_in: Int64
    count_out: Int64

    @classmethod
    def of(cls, loo: Loo, use: Bool | None = None) -> DeviationSums:
        """The sums over a tile's examples, or over those that `use` (e,) marks."""
        n_in, n_out = (n if use is None else n * use for n in (loo.n_in, loo.n_out))
        return cls(
            sum_in=_sum_of_deviations(n_in, loo.var_in),
            sum_out=_sum_of_deviations(n_out, loo.var_out),
            count_in=np.count_nonzero(n_in > 1, axis=1),
            count_out=np.count_nonzero(n_out > 1, axis=1),
        )

    def __add__(self, other: DeviationSums) -> DeviationSums:
        return DeviationSums(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    @property
    def mean_in(self) -> Float64:
        """(M, A): of the IN models; NaN without an example."""
        return _mean(self.sum_in, self.count_in)

    @property
    def mean_out(self) -> Float64:
        """(M, A): of the OUT models; NaN without an example."""
        return _mean(self.sum_out, self.count_out)


def _sum_of_deviations(n: Int64, variance: Float64) -> Float64:
    """(M, A): Σ_j √(k_j·σ_j²)/c(k_j − 1) over the examples with at least two models."""
    counts = np.arange(n.max(initial=1) + 1, dtype=np.float64)
    factor = np.zeros_like(counts)
    factor[2:] = np.sqrt(counts[2:] / 2) / poch((counts[2:] - 1) / 2, 0.5)
    deviations = np.sqrt(variance)
    deviations *= factor[n][:, :, None]
    deviations[n == 0] = 0
    total: Float64 = deviations.sum(axis=1)
    return total


def _mean(total: Float64, count: Int64) -> Float64:
    with np.errstate(invalid="ignore"):
        mean: Float64 = total / count[:, None]
    return mean
