"""The standard deviation of all of one side's values at once: other codes' "fixed" or "global" variance.

Where the project's own variance `global` pools deviations within examples, per augmentation, other codes take
one number for all of a side's values: over every augmentation, and mostly with the spread between
examples."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block, Centre, Queries
from lirastore.attacks.summary import Summary

__all__ = ["Side", "Spread", "overall_deviation"]

Side = Literal["in", "out"]
Int = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Number of values, their mean and their sum of squared deviations from it, (M,) float64: one per target.

    Merges with `+` (Chan, Golub & LeVeque 1979).
    """

    values: Float64
    mean: Float64
    squares: Float64

    @classmethod
    def of(cls, counts: Int, means: Float64, variances: Float64) -> Spread:
        """Of all values of a run of examples, known by their moments.

        Args:
            counts: (M, e), how many models give values, of each query one.
            means, variances: (M, e, A), ddof 0, of these; anything where there are none.
        """
        weight = np.broadcast_to(counts[:, :, None], means.shape).astype(np.float64)
        means, variances = (np.where(weight > 0, part, 0) for part in (means, variances))
        values = weight.sum(axis=(1, 2))
        mean = _share((weight * means).sum(axis=(1, 2)), values)
        variances += np.square(means - mean[:, None, None])
        return cls(values, mean, (weight * variances).sum(axis=(1, 2)))

    def __add__(self, other: Spread) -> Spread:
        values, gap = self.values + other.values, other.mean - self.mean
        share = _share(other.values, values)
        between = gap * gap * self.values * share
        return Spread(values, self.mean + share * gap, self.squares + other.squares + between)

    def deviation(self, ddof: int = 0) -> Float64:
        """(M,): the standard deviation; 0 where no more than `ddof` values are."""
        deviation: Float64 = np.sqrt(_share(self.squares, np.maximum(self.values - ddof, 0)))
        return deviation


def _share(part: Float64, whole: Float64) -> Float64:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def overall_deviation(
    signal: str, side: Side, *, queries: Queries = "all", about: Centre | None = None, ddof: int = 0
) -> Summary:
    """(M,) float64: per target, the standard deviation of one side's values, the target's left out.

    Over all examples that may be attacked, all models of the side and the queries.

    Args:
        about: None: the values themselves, the spread between examples included. `mean` or `median`: their
            deviations from that centre of their example and query.
        ddof: taken off the number of values in the denominator.
    """
    return Summary(
        key=f"overall-deviation/{signal}/{side}/{queries}/{about or 'values'}/{ddof}",
        signals=(signal,),
        chunk=partial(_spread, signal, side, queries, about),
        combine=operator.add,
        finalise=partial(Spread.deviation, ddof=ddof),
    )


def _spread(signal: str, side: Side, queries: Queries, about: Centre | None, block: Block) -> Spread:
    loo = block.loo(signal, queries=queries)
    if side == "in":
        counts, means, variances = loo.n_in, loo.mean_in, loo.var_in
    else:
        counts, means, variances = loo.n_out, loo.mean_out, loo.var_out
    if about is not None:
        centred = block.loo(signal, queries=queries, centre=about)
        means = means - (centred.mean_in if side == "in" else centred.mean_out)
    if block.attack_mask is not None:
        counts = counts * block.attack_mask
    return Spread.of(counts, means, variances)
