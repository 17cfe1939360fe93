"""The preset `carlini-code`: LiRA in the numerics of its authors' code, tensorflow/privacy
research/mi_lira_2021.

It differs from the paper's formulas in these ways, all kept here:

* the signal goes through a softmax with +1e-45 (`carlini_score`), which saturates at ±103.6;
* the centre is the median;
* offline is −log N(φ; μ_out, σ_out), two-sided: an unusually low score counts as membership too;
* "fixed" variance is the standard deviation of the whole (example, model, query) array, the spread between
  examples included; online it is that of the IN array and serves OUT too, offline that of the OUT array;
* with the target left out, the IN models of every example, in model order, are cut to the smallest number of
  IN models that any example has; OUT likewise.

The code scores one target; here every model is the target in turn, with the cuts and the fixed variance of
its own."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lirastore.attacks.algebra import SIGMA_FLOOR, compose, mean_over_queries
from lirastore.attacks.block import Block, Centre
from lirastore.attacks.definition import Attack, MinimumCounts
from lirastore.attacks.spread import Side, Spread
from lirastore.attacks.summary import Summary
from lirastore.moments import Loo

__all__ = ["attacks"]

Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

PRESET = "carlini-code"
SIGNAL = "carlini_score"
_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


def attacks() -> dict[str, Attack]:
    """name -> Attack: what the reference code plots, under the names that the paper's numerics have here."""
    made = [
        _lira("lira_online", _Lira(offline=False, fixed=False)),
        _lira("lira_offline", _Lira(offline=True, fixed=False)),
        _lira("lira_online_fixed", _Lira(offline=False, fixed=True)),
        _lira("lira_offline_fixed", _Lira(offline=True, fixed=True)),
        _global("ablation_global_phi_all"),
    ]
    return {attack.name: attack for attack in made}


def _lira(name: str, function: _Lira) -> Attack:
    return Attack(
        name=name,
        function=function,
        signals=(SIGNAL,),
        summaries=function.summaries,
        minimum=function.minimum,
        parameters={
            "preset": PRESET,
            "signal": SIGNAL,
            "test": "gaussian-out-two-sided" if function.offline else "gaussian-in-out",
            "queries": "all",
            "variance": f"total-{function.spread}" if function.fixed else "example",
            "centre": "median",
            "counts": "smallest",
        },
        described=True,
        doc=f"{name} as tensorflow/privacy research/mi_lira_2021 plot.py has it, negated, so that higher "
        f"means member. Needs {function.minimum}.",
    )


def _global(name: str) -> Attack:
    doc = "The mean score over the queries, as mi_lira_2021 plot.py's generate_global, negated."
    made = compose(name, signal=SIGNAL, test="global", doc=doc)
    return replace(made, parameters={**made.parameters, "preset": PRESET})


@dataclass(frozen=True)
class _Lira:
    """One of the four variants of generate_ours and generate_ours_offline, for all targets."""

    offline: bool
    fixed: bool

    @property
    def minimum(self) -> MinimumCounts:
        """Two models per side for a variance per example, one for the fixed one."""
        least = 1 if self.fixed else 2
        return MinimumCounts(n_in=0 if self.offline else least, n_out=least)

    @property
    def spread(self) -> Side:
        """The side whose total deviation is the fixed one."""
        return "out" if self.offline else "in"

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The first passes: the smallest counts, then the total deviation of the rows that they leave."""
        cuts = smallest_counts(self.minimum)
        return (cuts, total_deviation(self.spread, self.minimum)) if self.fixed else (cuts,)

    def __call__(self, block: Block) -> Float64:
        """(M, e) float64, higher means member: the code's score, negated."""
        density = self._log_density(block, "out")
        if self.offline:
            return -mean_over_queries(density)
        return mean_over_queries(self._log_density(block, "in") - density)

    def _log_density(self, block: Block, side: Side) -> Float64:
        """log N(s; median, σ) of the targets' values, (M, e, A)."""
        medians, variances = _cut_moments(block, side, self.minimum, "median")
        if self.fixed:
            sigma = block.summary(total_deviation(self.spread, self.minimum))[:, None, None] + SIGMA_FLOOR
        else:
            sigma = np.sqrt(variances) + SIGMA_FLOOR
        density: Float64 = np.subtract(block.signal(SIGNAL), medians, dtype=np.float64)
        density /= sigma
        density *= density
        density *= -0.5
        density -= np.log(sigma) + _HALF_LOG_2PI
        return density


# --- the rows that a target is compared with ----------------------------------------------------


class Cuts(NamedTuple):
    """Per target (M,): how many IN and OUT models every example is cut to."""

    n_in: Int
    n_out: Int


def smallest_counts(minimum: MinimumCounts) -> Summary:
    """Cuts: per target, the fewest IN and OUT models besides it over the examples that meet `minimum`."""
    return Summary(
        key=f"{PRESET}/smallest-counts/{minimum.n_in}-{minimum.n_out}",
        signals=(),
        chunk=partial(_count, minimum),
        combine=_smaller,
        finalise=_finished,
    )


def _count(minimum: MinimumCounts, block: Block) -> Cuts:
    member = block.member[:, minimum.met(block)]
    n_in = np.count_nonzero(member, axis=0)
    most = len(member) - 1  # what a pass without examples to score starts from
    left_in = (n_in - member).min(axis=1, initial=most)
    left_out = (len(member) - n_in - ~member).min(axis=1, initial=most)
    if block.equal_counts:
        left_in = left_out = np.minimum(left_in, left_out)
    return Cuts(left_in, left_out)


def _smaller(a: Cuts, b: Cuts) -> Cuts:
    return Cuts(np.minimum(a.n_in, b.n_in), np.minimum(a.n_out, b.n_out))


def _finished(cuts: Cuts) -> Cuts:
    return cuts


def _cut_moments(block: Block, side: Side, minimum: MinimumCounts, centre: Centre) -> tuple[Float64, Float64]:
    """(M, e, A) centre and variance (ddof 0) of the first c rows of a side, in model order, without the
    target.

    c is the target's cut. There are at most two different cuts, the smallest count of models and one less.
    """
    counts = block.summary(smallest_counts(minimum))
    cuts = counts.n_in if side == "in" else counts.n_out
    member = block.member if side == "in" else ~block.member
    return block.once(
        (PRESET, side, centre, cuts.tobytes()),
        lambda: _prefix_moments(block.signal(SIGNAL), member, cuts, centre),
    )


def _prefix_moments(
    values: npt.NDArray[np.floating[Any]], side: Bool, cuts: Int, centre: Centre
) -> tuple[Float64, Float64]:
    """For one side: what remains of its first c + 1 rows without the target, or without the last of them.

    Leaving the last one out gives the first c rows, for the targets that are not among them. A column of only
    c rows is filled up with a row of the other side, which the moments of this one pass over; no target of
    such a column is on this side, or its cut would be smaller."""
    centres, variances = np.empty(values.shape), np.empty(values.shape)
    order = np.argsort(~side, axis=0, kind="stable")
    place = np.cumsum(side, axis=0) - 1
    for cut in np.unique(cuts):
        rows = order[: cut + 1]
        loo = Loo(
            np.take_along_axis(values, rows[:, :, None], axis=0),
            np.take_along_axis(side, rows, axis=0),
            centre=centre,
        )
        targets = cuts == cut
        left_out = np.where(side & (place < cut), place, cut)[targets][:, :, None]
        centres[targets] = np.take_along_axis(loo.mean_in, left_out, axis=0)
        variances[targets] = np.take_along_axis(loo.var_in, left_out, axis=0)
    return centres, variances


# --- the total deviation ------------------------------------------------------------------------


def total_deviation(side: Side, minimum: MinimumCounts) -> Summary:
    """(M,) float64: per target, the standard deviation (ddof 0) of one side's whole array of cut rows."""
    return Summary(
        key=f"{PRESET}/total-deviation/{side}/{minimum.n_in}-{minimum.n_out}",
        signals=(SIGNAL,),
        chunk=partial(_spread, side, minimum),
        combine=operator.add,
        finalise=Spread.deviation,
        requires=(smallest_counts(minimum),),
    )


def _spread(side: Side, minimum: MinimumCounts, block: Block) -> Spread:
    """What one block adds: c values per target, example and query, known by their mean and variance."""
    scored = minimum.met(block)
    means, variances = (part[:, scored] for part in _cut_moments(block, side, minimum, "mean"))
    cuts = block.summary(smallest_counts(minimum))
    rows = cuts.n_in if side == "in" else cuts.n_out
    return Spread.of(np.broadcast_to(rows[:, None], means.shape[:2]), means, variances)
