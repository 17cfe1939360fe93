"""The Gaussian tests of the algebra, with a variance per example or one pooled over all examples."""

from __future__ import annotations

import operator
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from lirastore.attacks.block import Block
from lirastore.attacks.summary import Summary
from lirastore.errors import MissingData, name_some
from lirastore.moments import PooledSums, PooledVariance

if TYPE_CHECKING:
    from lirastore.attacks.algebra import Point

__all__ = [
    "LEAST_DEGREES",
    "SIGMA_FLOOR",
    "Side",
    "check_degrees",
    "gaussian_in_out",
    "gaussian_out",
    "pooled_sigma",
    "pooled_variance",
]

Float64 = npt.NDArray[np.float64]
Side = Literal["in", "out"]

# Added to every standard deviation, as in the reference code: with σ = 0, z² reaches at most 1e137 for
# float32 signals, so that a float64 density stays finite, and log Φ(z) likewise.
SIGMA_FLOOR = 1e-30
# Of a pooled variance: with one, it is the square of a single difference.
LEAST_DEGREES = 2


def gaussian_out(point: Point, block: Block) -> Float64:
    """(M, e, A): log Φ((s − μ_out)/σ_out)."""
    z = _z(point, block, "out", point.sigma(block, "out"))
    scores: Float64 = log_ndtr(z, out=z)
    return scores


def gaussian_in_out(point: Point, block: Block) -> Float64:
    """(M, e, A): log N(s; μ_in, σ_in) − log N(s; μ_out, σ_out)."""
    scores = _log_density(point, block, "in")
    scores -= _log_density(point, block, "out")
    return scores


def _log_density(point: Point, block: Block, side: Side) -> Float64:
    """log N(s; μ, σ) + ½ log 2π, which cancels in the difference of two."""
    sigma = point.sigma(block, side)
    density = _z(point, block, side, sigma)
    density *= density
    density *= -0.5
    density -= np.log(sigma, out=sigma)
    return density


def _z(point: Point, block: Block, side: Side, sigma: Float64) -> Float64:
    """(s − μ) / σ, fresh."""
    loo = point.loo(block)
    z: Float64 = np.subtract(
        point.target(block), loo.mean_in if side == "in" else loo.mean_out, dtype=np.float64
    )
    z /= sigma
    return z


# --- variance `global` --------------------------------------------------------------------------


def pooled_variance(signal: str, *, even: bool = False) -> Summary:
    """PooledVariance of a signal over all examples that may be attacked: for variance `global`.

    even: with equal counts, whether or not the run takes them.
    """
    return Summary(
        key=f"pooled-variance/{signal}" + "/even" * even,
        signals=(signal,),
        chunk=partial(_pooled_sums, signal, even),
        combine=operator.add,
        finalise=PooledSums.variance,
    )


def _pooled_sums(signal: str, even: bool, block: Block) -> PooledSums:
    return PooledSums.of((block.even() if even else block).loo(signal), block.attack_mask)


def pooled_sigma(block: Block, signal: str, side: Side) -> Float64:
    """(M, A): the pooled standard deviation of one side, for every target, not floored.

    Raises:
        MissingData: fewer than two degrees of freedom: no example has models enough to vary.
    """
    pooled: PooledVariance = block.summary(pooled_variance(signal))
    inside = side == "in"
    check_degrees(block, signal, side, pooled.degrees_in if inside else pooled.degrees_out)
    sigma: Float64 = np.sqrt(pooled.var_in if inside else pooled.var_out)
    return sigma


def check_degrees(block: Block, signal: str, side: Side, degrees: npt.NDArray[np.int64]) -> None:
    """Raises MissingData unless the variance pooled over one side has two degrees of freedom or more."""
    if degrees.min() < LEAST_DEGREES:
        raise MissingData(
            f"with target {name_some(block.models[degrees < LEAST_DEGREES].tolist())} left out, the "
            f"{side.upper()} variance of {signal!r} pooled over all examples has {degrees.min()} degrees of "
            f"freedom; it needs {LEAST_DEGREES}: commit more models"
        )
