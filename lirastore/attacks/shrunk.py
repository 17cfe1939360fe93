"""Variance `shrunk`: each example's variance drawn towards the typical one, as far as the data say.

With a few models per side an example's own variance is mostly noise; one variance for all examples ignores
that they differ. Here the variances σ_j² of one side's models have a prior, a scaled inverse χ² with ν
degrees of freedom and scale τ²; with a flat prior of the mean that is a normal–inverse-gamma model. After k
values of an example with sum of squared deviations SS the next one follows Student's t about their mean
(Gelman et al., Bayesian Data Analysis, 3rd edition, section 3.3), with

    ν + k − 1 degrees of freedom,   scale² = (1 + 1/k)·σ_j²,   σ_j² = (ν·τ² + SS)/(ν + k − 1)

The prior is fitted to all examples, as Smyth 2004 ("Linear Models and Empirical Bayes Methods", limma) does
for genes, per side, query and target, the target left out. It is fitted by moments: they are sums, which one
pass gives for every target without itself, where a likelihood of held-out values takes a pass for every ν
that is tried. His moments, of log variances, gave attacks on φ the same strength, but broke on constant
columns and on the loss. So τ is the mean standard deviation over examples. ν is such that the
prior's share (E σ)²/E σ² = (ν − 2)/2·(Γ((ν − 1)/2)/Γ(ν/2))² is that of τ² in the pooled variance.

Examples that vary much among their IN models do so among their OUT models. So the test that reads both sides
multiplies τ² of one side with σ_j²/τ² of the other. As k grows an example's own variance takes over; as the
variances turn out alike, ν grows and the pooled one does.

It is for few models, where the counts of a balanced design would betray membership. So it takes equal counts
always, whether or not the run does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, poch, stdtr

from lirastore.attacks.block import Block
from lirastore.attacks.gaussians import SIGMA_FLOOR, Side, check_degrees, pooled_variance
from lirastore.attacks.summary import Summary
from lirastore.moments import DeviationSums, PooledVariance

if TYPE_CHECKING:
    from lirastore.attacks.algebra import Point

__all__ = ["Prior", "shrinkage_prior", "student_in_out", "student_log_cdf", "student_out"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

# ν is looked for between these: a prior needs more than two degrees of freedom for its variances to have a
# mean, and with a million examples have one variance.
_LEAST_STRENGTH, _MOST_STRENGTH = 2 + 1e-6, 1e6
_HALVINGS = 60


# --- the prior ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prior:
    """The prior of one side's variances.

    Attributes:
        strength: (M, A) float64, ν.
        scale: (M, A) float64, τ².
        degrees: (M,) int64, degrees of freedom of what it is fitted to.
    """

    strength: Float64
    scale: Float64
    degrees: Int64

    @classmethod
    def of(cls, deviation: Float64, variance: Float64, degrees: Int64) -> Prior:
        """Of the mean standard deviation and the pooled, unbiased variance, (M, A) each."""
        square = np.square(deviation)
        share = np.divide(square, variance, out=np.ones_like(square), where=variance > 0)
        return cls(_strength(share), square, degrees)


def _strength(share: Float64) -> Float64:
    """ν of which (E σ)²/E σ² is `share`, by bisection on log(ν − 2), within the bounds."""
    low = np.full(share.shape, np.log(_LEAST_STRENGTH - 2))
    high = np.full(share.shape, np.log(_MOST_STRENGTH))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        less = _share(2 + np.exp(middle)) < share
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    strength: Float64 = 2 + np.exp(high)
    return strength


def _share(strength: Float64) -> Float64:
    """(E σ)²/E σ² of the prior: rises from 0 at ν = 2 to 1."""
    share: Float64 = (strength - 2) / 2 / np.square(poch((strength - 1) / 2, 0.5))
    return share


def shrinkage_prior(signal: str) -> Summary:
    """{side: Prior} of a signal over all examples that may be attacked: for variance `shrunk`."""
    moments = pooled_variance(signal, even=True), mean_deviation(signal)
    return Summary(
        key=f"shrinkage-prior/{signal}",
        signals=(),
        chunk=partial(_known, *moments),
        combine=_first,
        finalise=_priors,
        requires=moments,
    )


def mean_deviation(signal: str) -> Summary:
    """DeviationSums of a signal over all examples that may be attacked, with equal counts."""
    return Summary(
        key=f"mean-deviation/{signal}",
        signals=(signal,),
        chunk=partial(_deviation_sums, signal),
        combine=DeviationSums.__add__,
        finalise=_summed,
    )


_Moments = tuple[PooledVariance, DeviationSums]


def _deviation_sums(signal: str, block: Block) -> DeviationSums:
    return DeviationSums.of(block.even().loo(signal), block.attack_mask)


def _summed(sums: DeviationSums) -> DeviationSums:
    return sums


def _known(pooled: Summary, deviation: Summary, block: Block) -> _Moments:
    """The same of every block: the passes before have seen them all."""
    return block.summary(pooled), block.summary(deviation)


def _first(moments: _Moments, _: _Moments) -> _Moments:
    return moments


def _priors(moments: _Moments) -> dict[Side, Prior]:
    pooled, deviation = moments
    return {
        "in": Prior.of(deviation.mean_in, pooled.unbiased_in, pooled.degrees_in),
        "out": Prior.of(deviation.mean_out, pooled.unbiased_out, pooled.degrees_out),
    }


# --- the tests ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Posterior:
    """What one side of an example says of the next value: Student's t.

    location, variance (scale² without the factor 1 + 1/k), degrees: (M, e, A); count (M, e, 1).
    """

    location: Float64
    variance: Float64
    degrees: Float64
    count: Float64

    def deviation(self) -> Float64:
        """The scale of the t, floored."""
        with np.errstate(divide="ignore"):
            scale: Float64 = np.sqrt(self.variance * (1 + 1 / self.count))
        scale += SIGMA_FLOOR
        return scale

    def log_density(self, values: npt.NDArray[np.floating]) -> Float64:
        """Of the targets' values, less a constant."""
        deviation, degrees = self.deviation(), self.degrees
        z = np.subtract(values, self.location, dtype=np.float64) / deviation
        tail = np.log1p(z * z / degrees)
        tail *= (degrees + 1) / 2
        density: Float64 = -betaln(degrees / 2, 0.5) - 0.5 * np.log(degrees)
        density -= np.log(deviation)
        density -= tail
        return density

    def log_cdf(self, values: npt.NDArray[np.floating]) -> Float64:
        """Of the targets' values."""
        z = np.subtract(values, self.location, dtype=np.float64) / self.deviation()
        return student_log_cdf(z, self.degrees)


def student_out(point: Point, block: Block) -> Float64:
    """(M, e, A): log F_t(s) of the OUT models beside the target."""
    prior = _prior(point, block, "out")
    return _posterior(point, block, "out", prior, _queries(point, prior.scale)).log_cdf(point.target(block))


def student_in_out(point: Point, block: Block) -> Float64:
    """(M, e, A): log t_in(s) − log t_out(s)."""
    sides: tuple[Side, Side] = "in", "out"
    priors = {side: _prior(point, block, side) for side in sides}
    scales = {side: _queries(point, priors[side].scale) for side in sides}
    relative = {
        side: _over(_posterior(point, block, side, priors[side], scales[side]).variance, scales[side])
        for side in sides
    }
    values = point.target(block)
    of_in = _posterior(point, block, "in", priors["in"], scales["in"] * relative["out"])
    scores = of_in.log_density(values)
    of_out = _posterior(point, block, "out", priors["out"], scales["out"] * relative["in"])
    scores -= of_out.log_density(values)
    return scores


def _prior(point: Point, block: Block, side: Side) -> Prior:
    prior: Prior = block.summary(shrinkage_prior(point.signal))[side]
    check_degrees(block, point.signal, side, prior.degrees)
    return prior


def _queries(point: Point, values: Float64) -> Float64:
    """(M, A) as (M, 1, A), or (M, 1, 1) of the first query."""
    return values[:, None, :1] if point.queries == "first" else values[:, None, :]


def _posterior(point: Point, block: Block, side: Side, prior: Prior, scale: Float64) -> _Posterior:
    """With a prior scale τ² for every target, or for every target and example."""
    loo = point.loo(block)
    location, variance, count = (
        (loo.mean_in, loo.var_in, loo.n_in) if side == "in" else (loo.mean_out, loo.var_out, loo.n_out)
    )
    models = count[:, :, None].astype(np.float64)
    strength = _queries(point, prior.strength)
    degrees = strength + models
    degrees -= 1
    squares = strength * scale + models * variance
    squares /= degrees
    return _Posterior(location, squares, degrees, models)


def _over(variance: Float64, scale: Float64) -> Float64:
    """σ²/τ²; 1 where no example of the side varies."""
    return np.divide(variance, scale, out=np.ones_like(variance), where=scale > 0)


# --- Student's t --------------------------------------------------------------------------------


def student_log_cdf(z: Float64, degrees: Float64) -> Float64:
    """log F(z) of Student's t, finite for finite z, exact where F(−|z|) ≥ 1e-300.

    Beyond that the lower tail is f(z)·(1 + z²/ν)/|z|, which holds as |z| grows for small and for large ν.
    """
    tail = stdtr(degrees, -np.abs(z))
    far = (z < 0) & (tail < 1e-300)
    with np.errstate(divide="ignore"):
        result: Float64 = np.where(z < 0, np.log(tail), np.log1p(-tail))
    if far.any():
        far_z, far_degrees = z[far], np.broadcast_to(degrees, z.shape)[far]
        log_square = np.log1p(far_z * far_z / far_degrees)
        density = -betaln(far_degrees / 2, 0.5) - 0.5 * np.log(far_degrees)
        result[far] = density - (far_degrees - 1) / 2 * log_square - np.log(-far_z)
    return result
