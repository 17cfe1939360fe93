"""A small algebra that most attacks are points of: signal × test × queries, with a variance and a centre.

A test compares the target's value s of a signal, on one query, with the same signal of the other models,
which were trained with the example (IN: μ_in, σ_in) or without it (OUT: μ_out, σ_out). An attack takes the
first query, or the mean over the queries of each query's score. Every test is oriented so that higher means
member, given a signal that is, and is computed in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block, Centre, Queries
from lirastore.attacks.definition import Attack, MinimumCounts
from lirastore.attacks.full import gaussian_in_out_full
from lirastore.attacks.gaussians import (
    LEAST_DEGREES,
    SIGMA_FLOOR,
    Side,
    gaussian_in_out,
    gaussian_out,
    pooled_sigma,
    pooled_variance,
)
from lirastore.attacks.ranks import leave_one_out_cdf
from lirastore.attacks.shrunk import shrinkage_prior, student_in_out, student_out
from lirastore.attacks.summary import Summary
from lirastore.errors import AttackError
from lirastore.moments import Loo

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
Variance = Literal["example", "global", "shrunk"]


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
        """The IN and OUT moments of the other models; equally many of both with variance `shrunk`."""
        seen = block.even() if self.variance == "shrunk" else block
        return seen.loo(self.signal, centre=self.centre, queries=self.queries)

    def sigma(self, block: Block, side: Side) -> Float64:
        """(M, e, A), or (M, 1, A) with variance `global`: a side's standard deviation, floored, fresh."""
        if self.variance == "example":
            loo = self.loo(block)
            sigma: Float64 = np.sqrt(loo.var_in if side == "in" else loo.var_out)
        else:
            whole = pooled_sigma(block, self.signal, side)
            sigma = whole[:, None, :1] if self.queries == "first" else whole[:, None, :]
        sigma += SIGMA_FLOOR
        return sigma


@dataclass(frozen=True)
class Test:
    """A test of the algebra.

    Attributes:
        name: as it is written in parameters and on the command line.
        score: (point, block) -> (M, e, A) float64, higher means member; (M, e, 1) if it takes all queries
            together.
        needs: the sides whose models it reads, of ("in", "out").
        doc: formula and origin.
        variances: the kinds of variance that it can use; none if it uses no variance that can be chosen.
        centred: it uses a centre that can be chosen.
        least: the fewest models per side that it needs, after the target is left out; with a variance
            `example` two.
        stamped: more that describes it, for the parameters.
    """

    name: str
    score: Callable[[Point, Block], Float64]
    needs: tuple[Side, ...]
    doc: str
    variances: tuple[Variance, ...] = ()
    centred: bool = True
    least: int = 1
    stamped: tuple[tuple[str, str], ...] = ()

    def minimum(self, variance: Variance) -> MinimumCounts:
        """The fewest models per side, after the target is left out: a variance per example takes two, a
        pooled one as many degrees of freedom over all examples.
        """
        own = "example" in self.variances and variance == "example"
        least = 2 if own else self.least
        return MinimumCounts(
            n_in=least * ("in" in self.needs),
            n_out=least * ("out" in self.needs),
            degrees=0 if variance == "example" else LEAST_DEGREES,
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
    return student_out(point, block) if point.variance == "shrunk" else gaussian_out(point, block)


def _gaussian_in_out(point: Point, block: Block) -> Float64:
    return student_in_out(point, block) if point.variance == "shrunk" else gaussian_in_out(point, block)


_VARIANCES: tuple[Variance, ...] = get_args(Variance)

TESTS: dict[str, Test] = {
    test.name: test
    for test in (
        Test(
            "global",
            _global,
            (),
            "s: one threshold for all examples (Yeom et al. 2018).",
            centred=False,
        ),
        Test("out-mean", _out_mean, ("out",), "s − μ_out: difficulty calibration (Watson et al. 2022)."),
        Test(
            "in-out-mean",
            _in_out_mean,
            ("in", "out"),
            "s − (μ_in + μ_out)/2: a threshold per example (Sablayrolles et al. 2019, MALT).",
        ),
        Test(
            "out-rank",
            _out_rank,
            ("out",),
            "F̂_out(s), linear through (s_(i), (i − ½)/K), tied values merged at mid-rank, 0 and 1 outside "
            "the range of the K values (Ye et al. 2022, Attack-R). Its resolution is 1/K.",
            centred=False,
        ),
        Test(
            "gaussian-out",
            _gaussian_out,
            ("out",),
            "log Φ((s − μ_out)/σ_out): LiRA offline, one-sided (Carlini et al. 2022, section V.C).",
            variances=_VARIANCES,
        ),
        Test(
            "gaussian-in-out",
            _gaussian_in_out,
            ("in", "out"),
            "log N(s; μ_in, σ_in) − log N(s; μ_out, σ_out): LiRA online (Carlini et al. 2022, Algorithm 1).",
            variances=_VARIANCES,
        ),
        Test(
            "gaussian-in-out-full",
            gaussian_in_out_full,
            ("in", "out"),
            "log N(s; μ_in, Σ_in) − log N(s; μ_out, Σ_out) over all queries together (Carlini et al. 2022, "
            "Algorithm 1), Σ shrunk towards a multiple of the identity (OAS: Chen et al. 2010).",
            centred=False,
            least=2,
            stamped=(("covariance", "oas"),),
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
        test: `global`, `out-mean`, `in-out-mean`, `out-rank`, `gaussian-out`, `gaussian-in-out` or
            `gaussian-in-out-full`.
        queries: the `first` augmentation, or `all`: the mean over augmentations of their scores.
        variance: of the Gaussian tests: each `example`'s own (ddof 0); `global`: within-example squared
            deviations pooled over all examples that may be attacked, for IN and OUT each by itself, per
            augmentation; or `shrunk`: an example's own drawn towards the typical one, with Student's t in
            place of the normal.
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
    if variance != "example" and variance not in chosen.variances:
        raise AttackError(
            f"test {test!r} uses no variance that can be chosen, got {variance!r}; leave it out"
        )
    if centre != "mean" and not chosen.centred:
        raise AttackError(f"test {test!r} uses no centre that can be chosen, got {centre!r}; leave it out")
    point = Point(signal, test, queries, variance, centre)
    return Attack(
        name=name,
        function=point,
        signals=(signal,),
        summaries=_summaries(signal, variance),
        minimum=chosen.minimum(variance),
        parameters=_parameters(point, chosen),
        described=True,
        limitable=True,
        equal_counts=variance == "shrunk",
        separate=not chosen.needs,
        doc=f"{doc or chosen.doc} Higher means member.",
    )


def _summaries(signal: str, variance: Variance) -> tuple[Summary, ...]:
    if variance == "global":
        return (pooled_variance(signal),)
    return (shrinkage_prior(signal),) if variance == "shrunk" else ()


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
    if test.variances:
        parameters["variance"] = point.variance
    if test.centred:
        parameters["centre"] = point.centre
    return {**parameters, **dict(test.stamped)}
