"""A small algebra that most attacks are points of: signal × test × queries, with a variance and a centre.

A test compares the target's value s of a signal, on one query, with the same signal of the other models,
which were trained with the example (IN: μ_in, σ_in) or without it (OUT: μ_out, σ_out). An attack takes the
first query, or the mean over the queries of each query's score. Every test is oriented so that higher means
member, given a signal that is, and is computed in float64."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from lirastore.attacks.attack import Attack, MinimumCounts
from lirastore.attacks.block import Block, Centre, Queries
from lirastore.attacks.ranks import leave_one_out_cdf
from lirastore.attacks.summary import Summary
from lirastore.errors import AttackError, MissingData, name_some
from lirastore.moments import Loo, PooledSums, PooledVariance

__all__ = [
    "SIGMA_FLOOR",
    "TESTS",
    "Point",
    "Test",
    "Variance",
    "compose",
    "mean_over_queries",
    "pooled_variance",
]

Float64 = npt.NDArray[np.float64]
Variance = Literal["example", "global"]

# Added to every standard deviation, as in the reference code: with σ = 0, z² reaches at most 1e137 for
# float32 signals, so that a float64 density stays finite, and log Φ(z) likewise.
SIGMA_FLOOR = 1e-30
# Of a pooled variance: with one, it is the square of a single difference.
_LEAST_DEGREES = 2


@dataclass(frozen=True)
class Point:
    """One attack of the algebra, by its coordinates. Picklable; equal points are one computation."""

    signal: str
    test: str
    queries: Queries = "all"
    variance: Variance = "example"
    centre: Centre = "mean"

    def __call__(self, block: Block) -> Float64:
        """(M, e) float64: every model as target; computed once per block, under however many names."""
        return block.once(self, lambda: mean_over_queries(TESTS[self.test].score(self, block)))

    def target(self, block: Block) -> npt.NDArray[np.floating[Any]]:
        """(M, e, A): s, the target's own values."""
        return block.signal(self.signal, queries=self.queries)

    def loo(self, block: Block) -> Loo:
        """The IN and OUT moments of the other models."""
        return block.loo(self.signal, centre=self.centre, queries=self.queries)

    def sigma(self, block: Block, side: Literal["in", "out"]) -> Float64:
        """(M, e, A), or (M, 1, A) with variance `global`: a side's standard deviation, floored, fresh."""
        if self.variance == "example":
            loo = self.loo(block)
            variance = loo.var_in if side == "in" else loo.var_out
        else:
            whole = _pooled_side(block, self.signal, side)
            variance = whole[:, None, :1] if self.queries == "first" else whole[:, None, :]
        sigma: Float64 = np.sqrt(variance)
        sigma += SIGMA_FLOOR
        return sigma


@dataclass(frozen=True)
class Test:
    """A test of the algebra.

    Attributes:
        name: as it is written in parameters and on the command line.
        score: (point, block) -> (M, e, A) float64, higher means member.
        needs: the sides whose models it reads, of ("in", "out").
        gaussian: it uses a variance.
        doc: formula and origin.
    """

    name: str
    score: Callable[[Point, Block], Float64]
    needs: tuple[Literal["in", "out"], ...]
    gaussian: bool
    doc: str

    @property
    def centred(self) -> bool:
        """It uses a centre: any test of the other models but the one of ranks."""
        return bool(self.needs) and self.name != "out-rank"

    def minimum(self, variance: Variance) -> MinimumCounts:
        """The fewest models per side, after the target is left out: a variance per example takes two, a
        pooled one as many degrees of freedom over all examples.
        """
        least = 2 if self.gaussian and variance == "example" else 1
        return MinimumCounts(
            n_in=least * ("in" in self.needs),
            n_out=least * ("out" in self.needs),
            degrees=_LEAST_DEGREES if variance == "global" else 0,
        )


def mean_over_queries(scores: npt.NDArray[Any]) -> Float64:
    """(M, e, A) -> (M, e) float64: the mean of per-query scores.

    Sums one query after the other: numpy's own reduction of a short last axis is several times slower.
    """
    total = scores[:, :, 0].astype(np.float64)
    for query in range(1, scores.shape[2]):
        total += scores[:, :, query]
    total /= scores.shape[2]
    return total


def _global(point: Point, block: Block) -> Float64:
    return np.asarray(point.target(block), dtype=np.float64)


def _out_mean(point: Point, block: Block) -> Float64:
    scores: Float64 = np.subtract(point.target(block), point.loo(block).mean_out, dtype=np.float64)
    return scores


def _in_out_mean(point: Point, block: Block) -> Float64:
    loo = point.loo(block)
    scores = loo.mean_in + loo.mean_out
    scores *= 0.5
    np.subtract(point.target(block), scores, out=scores)
    return scores


def _out_rank(point: Point, block: Block) -> Float64:
    values, others, out = point.target(block), block.others(), ~block.member
    if others.cross is None or others.base is None:
        return leave_one_out_cdf(values, out)
    beside_non_member = leave_one_out_cdf(values, others.base & out)
    if others.spare is not None:
        spare = leave_one_out_cdf(values, others.spare & out)
        np.copyto(beside_non_member, spare, where=~others.base[:, :, None])
    beside_member = leave_one_out_cdf(values, others.cross & out)
    return np.where(out[:, :, None], beside_non_member, beside_member)


def _gaussian_out(point: Point, block: Block) -> Float64:
    z = _z(point, block, "out", point.sigma(block, "out"))
    scores: Float64 = log_ndtr(z, out=z)
    return scores


def _gaussian_in_out(point: Point, block: Block) -> Float64:
    scores = _log_density(point, block, "in")
    scores -= _log_density(point, block, "out")
    return scores


def _log_density(point: Point, block: Block, side: Literal["in", "out"]) -> Float64:
    """log N(s; μ, σ) + ½ log 2π, which cancels in the difference of two."""
    sigma = point.sigma(block, side)
    density = _z(point, block, side, sigma)
    density *= density
    density *= -0.5
    density -= np.log(sigma, out=sigma)
    return density


def _z(point: Point, block: Block, side: Literal["in", "out"], sigma: Float64) -> Float64:
    """(s − μ) / σ, fresh."""
    loo = point.loo(block)
    z: Float64 = np.subtract(
        point.target(block), loo.mean_in if side == "in" else loo.mean_out, dtype=np.float64
    )
    z /= sigma
    return z


# --- variance `global` --------------------------------------------------------------------------


def pooled_variance(signal: str) -> Summary:
    """PooledVariance of a signal over all examples that may be attacked: for variance `global`."""
    return Summary(
        key=f"pooled-variance/{signal}",
        signals=(signal,),
        chunk=partial(_pooled_sums, signal),
        combine=operator.add,
        finalise=PooledSums.variance,
    )


def _pooled_sums(signal: str, block: Block) -> PooledSums:
    return PooledSums.of(block.loo(signal), block.attack_mask)


def _pooled_side(block: Block, signal: str, side: Literal["in", "out"]) -> Float64:
    """(M, A): the pooled variance of one side, for every target.

    Raises:
        MissingData: fewer than two degrees of freedom: no example has models enough to vary.
    """
    pooled: PooledVariance = block.summary(pooled_variance(signal))
    variance, degrees = (
        (pooled.var_in, pooled.degrees_in) if side == "in" else (pooled.var_out, pooled.degrees_out)
    )
    if degrees.min() < _LEAST_DEGREES:
        raise MissingData(
            f"with target {name_some(block.models[degrees < _LEAST_DEGREES].tolist())} left out, the "
            f"{side.upper()} variance of {signal!r} pooled over all examples has {degrees.min()} degrees of "
            f"freedom; it needs {_LEAST_DEGREES}: commit more models"
        )
    return variance


TESTS: dict[str, Test] = {
    test.name: test
    for test in (
        Test("global", _global, (), False, "s: one threshold for all examples (Yeom et al. 2018)."),
        Test(
            "out-mean", _out_mean, ("out",), False, "s − μ_out: difficulty calibration (Watson et al. 2022)."
        ),
        Test(
            "in-out-mean",
            _in_out_mean,
            ("in", "out"),
            False,
            "s − (μ_in + μ_out)/2: a threshold per example (Sablayrolles et al. 2019, MALT).",
        ),
        Test(
            "out-rank",
            _out_rank,
            ("out",),
            False,
            "F̂_out(s), linear through (s_(i), (i − ½)/K), tied values merged at mid-rank, 0 and 1 outside "
            "the range of the K values (Ye et al. 2022, Attack-R). Its resolution is 1/K.",
        ),
        Test(
            "gaussian-out",
            _gaussian_out,
            ("out",),
            True,
            "log Φ((s − μ_out)/σ_out): LiRA offline, one-sided (Carlini et al. 2022, section V.C).",
        ),
        Test(
            "gaussian-in-out",
            _gaussian_in_out,
            ("in", "out"),
            True,
            "log N(s; μ_in, σ_in) − log N(s; μ_out, σ_out): LiRA online (Carlini et al. 2022, Algorithm 1).",
        ),
    )
}


def compose(
    name: str,
    *,
    signal: str,
    test: str,
    queries: Queries = "all",
    variance: Variance = "example",
    centre: Centre = "mean",
    doc: str = "",
) -> Attack:
    """An attack from its coordinates in the algebra.

    Args:
        name: what it is called; [a-z][a-z0-9_]{0,63}.
        signal: `scaled_logit`, `loss` or another signal, all member-oriented: `loss` is −ℓ.
        test: `global`, `out-mean`, `in-out-mean`, `out-rank`, `gaussian-out` or `gaussian-in-out`.
        queries: the `first` augmentation, or `all`: the mean over augmentations of their scores.
        variance: of the Gaussian tests: each `example`'s own (ddof 0), or `global`: within-example squared
            deviations pooled over all examples that may be attacked, for IN and OUT each by itself, per
            augmentation.
        centre: `mean` or `median` of the other models.
        doc: what it is, for people; the test's own description unless given.

    Raises:
        AttackError: a coordinate that does not exist, or one that the test has no use for.
    """
    _check_choice("test", test, tuple(TESTS))
    _check_choice("queries", queries, get_args(Queries))
    _check_choice("variance", variance, get_args(Variance))
    _check_choice("centre", centre, get_args(Centre))
    chosen = TESTS[test]
    if variance != "example" and not chosen.gaussian:
        raise AttackError(f"test {test!r} uses no variance, got variance {variance!r}; leave it out")
    if centre != "mean" and not chosen.centred:
        raise AttackError(f"test {test!r} uses no centre, got centre {centre!r}; leave it out")
    point = Point(signal, test, queries, variance, centre)
    return Attack(
        name=name,
        function=point,
        signals=(signal,),
        summaries=(pooled_variance(signal),) if variance == "global" else (),
        minimum=chosen.minimum(variance),
        parameters=_parameters(point, chosen),
        described=True,
        limitable=True,
        doc=f"{doc or chosen.doc} Higher means member.",
    )


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise AttackError(f"{what} {value!r}: expected one of {', '.join(choices)}")


def _parameters(point: Point, test: Test) -> dict[str, str]:
    """The coordinates that matter to the computation."""
    parameters = {
        "preset": "paper",
        "signal": point.signal,
        "test": point.test,
        "queries": point.queries,
    }
    if test.gaussian:
        parameters["variance"] = point.variance
    if test.centred:
        parameters["centre"] = point.centre
    return parameters
