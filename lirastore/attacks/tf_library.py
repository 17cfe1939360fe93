"""The preset `tf-library`: LiRA and per-example offsets in the numerics of tensorflow/privacy's library,
privacy_tests/membership_inference_attack/advanced_mia.py.

`compute_score_lira` and `compute_score_offset` differ from the paper's formulas in these ways, all kept here:

* the signal goes through a softmax with +1e-45 (`calculate_statistic`, option "logit"), the same as that of
  mi_lira_2021: `carlini_score`, which saturates at ±103.6;
* the centre is the median, its default; the attacks named `…_mean` take the mean;
* offline (option "out") is −log N(φ; centre, σ_out), two-sided: an unusually low score counts as membership
  too;
* "fixed" variance (`fix_variance`) is one number a side, over all queries: the standard deviation of all
  values' deviations from their example's centre. About medians these do not average 0, and their average is
  taken off;
* `sablayrolles` and `watson` are the offset's options "both" and "out": φ less the half-way point of the IN
  and OUT centres, or less the OUT centre; the mean over all queries. They are of φ, not of the loss.

Variances are per side, ddof 0, about the mean even where the centre is the median; σ has 1e-30 added. Nothing
depends on the order of files or models. Its LiRA scores are negated: there members score low.

Left out are the options "in", which no attack here is named after, and what the library puts in place of
missing models: an example without any IN (or OUT) model gets the average centre of all examples, and one with
a single model, its variance not fixed, a σ of 1e-30. Such examples fall short of the minimum counts here; no
other example's score depends on them.

Agreement: 1e-11 of max(1, |score|) given the same float64 signal; the float32 signal moves scores by up to
2e-5. Where all values of a side are equal, as where they saturate, σ is 0 here and there the rounding of a
mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from lirastore.attacks.algebra import SIGMA_FLOOR, Point, compose, mean_over_queries
from lirastore.attacks.block import Block, Centre
from lirastore.attacks.definition import Attack, MinimumCounts
from lirastore.attacks.spread import Side, overall_deviation
from lirastore.attacks.summary import Summary

__all__ = ["attacks"]

Float64 = npt.NDArray[np.float64]

PRESET = "tf-library"
SIGNAL = "carlini_score"
_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


def attacks() -> dict[str, Attack]:
    """name -> Attack: what advanced_mia.py scores, with its default centre, and with the mean as `…_mean`."""
    centres: tuple[tuple[Centre, str], ...] = (("median", ""), ("mean", "_mean"))
    made = [attack for centre, suffix in centres for attack in _with_centre(centre, suffix)]
    return {attack.name: attack for attack in made}


def _with_centre(centre: Centre, suffix: str) -> list[Attack]:
    return [
        *(
            _lira(f"lira_{way}{'_fixed' * fixed}{suffix}", way, fixed, centre)
            for fixed in (False, True)
            for way in ("online", "offline")
        ),
        _offset(f"sablayrolles{suffix}", "in-out-mean", "both", centre),
        _offset(f"watson{suffix}", "out-mean", "out", centre),
    ]


def _offset(name: str, test: str, option: str, centre: Centre) -> Attack:
    doc = f"{name} as tensorflow/privacy's compute_score_offset has it, option {option!r}, {centre}."
    made = compose(name, signal=SIGNAL, test=test, centre=centre, doc=doc)
    return replace(made, parameters={**made.parameters, "preset": PRESET})


def _lira(name: str, way: str, fixed: bool, centre: Centre) -> Attack:
    test = "gaussian-in-out" if way == "online" else "gaussian-out"
    function = _Lira(SIGNAL, test, centre=centre, variance="global" if fixed else "example")
    return Attack(
        name=name,
        function=function,
        signals=(SIGNAL,),
        summaries=function.summaries,
        minimum=function.minimum,
        parameters={
            "preset": PRESET,
            "signal": SIGNAL,
            "test": test if way == "online" else "gaussian-out-two-sided",
            "queries": "all",
            "variance": "pooled-over-queries" if fixed else "example",
            "centre": centre,
        },
        described=True,
        limitable=True,
        doc=f"{name} as tensorflow/privacy's compute_score_lira has it, {centre}, negated, so that higher "
        f"means member. Needs {function.minimum}.",
    )


@dataclass(frozen=True)
class _Lira(Point):
    """One of the variants of compute_score_lira, for all targets."""

    @property
    def sides(self) -> tuple[Side, ...]:
        return ("in", "out") if self.test == "gaussian-in-out" else ("out",)

    @property
    def minimum(self) -> MinimumCounts:
        """Two models a side for a variance per example; one for the fixed one, and two degrees of freedom."""
        fixed = self.variance == "global"
        least = 1 if fixed else 2
        return MinimumCounts(n_in=least * ("in" in self.sides), n_out=least, degrees=2 if fixed else 0)

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The fixed deviations."""
        return tuple(self._deviation(side) for side in self.sides) if self.variance == "global" else ()

    def _deviation(self, side: Side) -> Summary:
        return overall_deviation(self.signal, side, about=self.centre)

    def sigma(self, block: Block, side: Literal["in", "out"]) -> Float64:
        """(M, e, A), or (M, 1, 1) of the fixed variance: floored, fresh."""
        if self.variance == "example":
            return super().sigma(block, side)
        fixed: Float64 = block.summary(self._deviation(side))[:, None, None] + SIGMA_FLOOR
        return fixed

    def __call__(self, block: Block) -> Float64:
        """(M, e) float64, higher means member: the library's score, negated."""
        if self.test == "gaussian-in-out":
            return super().__call__(block)
        return block.once(self, lambda: self._unlikely(block))

    def _unlikely(self, block: Block) -> Float64:
        """−log N(s; centre, σ_out), mean over the queries."""
        sigma = self.sigma(block, "out")
        z: Float64 = np.subtract(self.target(block), self.loo(block).mean_out, dtype=np.float64)
        z /= sigma
        z *= z
        z *= 0.5
        z += np.log(sigma) + _HALF_LOG_2PI
        return mean_over_queries(z)
