"""The preset `misleading-evals`: LiRA in the numerics of ethz-spylab/misleading-privacy-evals,
src/attack_util.py (Aerni, Zhang & Tramèr, "Evaluations of Machine Learning Privacy Defenses are Misleading",
CCS 2024).

Its `lira_attack_loo` leaves each model out in turn and scores it with the others, as is done here. It differs
from the paper's formulas in these ways, all kept here:

* standard deviations have ddof 1, the default of torch.std;
* global variance (`--global-variance` of experiments/dpsgd.py) is one number a side: the standard deviation,
  ddof 1, of all values over examples, models and queries, the spread between examples included. The examples
  are the canaries, which alone are attacked: a store marks them in its array `attackable`;
* there is no offline attack.

The signal is φ by logsumexp, `scaled_logit`. Every experiment scores the hinge beside it: the names
`…_hinge`. `lira_online` is LiRA with its augmentations, `ablation_inout_gauss` without (first query), and
`ablation_global_phi` the global threshold. σ has 1e-30 added. Nothing depends on the order of models.

Not covered: experiments/approx_worst_case.py, with ddof 0 and separate targets; the label-only attack on
HAMP; the scores of features and of ensembles' probabilities in the experiments on SSL and SELENA.

Agreement: 1e-11 of max(1, |score|) given the same float64 signal; the float32 signal moves scores by up to
2e-5. Where all values of a side are equal, σ is 0 here and there the rounding of a mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from lirastore.attacks.algebra import SIGMA_FLOOR, Point, compose
from lirastore.attacks.block import Block, Queries
from lirastore.attacks.definition import Attack, MinimumCounts
from lirastore.attacks.spread import Side, overall_deviation
from lirastore.attacks.summary import Summary

__all__ = ["attacks"]

Float64 = npt.NDArray[np.float64]

PRESET = "misleading-evals"
LOGIT, HINGE = "scaled_logit", "hinge"
_DDOF = 1


def attacks() -> dict[str, Attack]:
    """name -> Attack: what the experiments score with the logits of shadow models."""
    made = []
    for signal, short, suffix in ((LOGIT, "phi", ""), (HINGE, "hinge", "_hinge")):
        made += [
            _lira(f"lira_online{suffix}", signal),
            _lira(f"lira_online_fixed{suffix}", signal, variance="global"),
            _lira(f"ablation_inout_gauss{suffix}", signal, queries="first"),
            _threshold(f"ablation_global_{short}", signal),
        ]
    return {attack.name: attack for attack in made}


def _threshold(name: str, signal: str) -> Attack:
    doc = "The score of the first query against one threshold, as in misleading-privacy-evals."
    made = compose(name, signal=signal, test="global", queries="first", doc=doc)
    return replace(made, parameters={**made.parameters, "preset": PRESET})


def _lira(
    name: str,
    signal: str,
    *,
    queries: Queries = "all",
    variance: Literal["example", "global"] = "example",
) -> Attack:
    function = _Lira(signal, "gaussian-in-out", queries=queries, variance=variance)
    return Attack(
        name=name,
        function=function,
        signals=(signal,),
        summaries=function.summaries,
        minimum=function.minimum,
        parameters={
            "preset": PRESET,
            "signal": signal,
            "test": function.test,
            "queries": queries,
            "variance": "total" if variance == "global" else "example",
            "centre": "mean",
            "ddof": _DDOF,
        },
        described=True,
        limitable=True,
        doc=f"{name} as misleading-privacy-evals' lira_attack_loo has it, of {signal!r}. Needs "
        f"{function.minimum}. Higher means member.",
    )


@dataclass(frozen=True)
class _Lira(Point):
    """lira_attack_loo, of one signal."""

    @property
    def minimum(self) -> MinimumCounts:
        """Two models a side for a variance per example, one for the global one."""
        least = 1 if self.variance == "global" else 2
        return MinimumCounts(n_in=least, n_out=least)

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The global deviations."""
        return (self._deviation("in"), self._deviation("out")) if self.variance == "global" else ()

    def _deviation(self, side: Side) -> Summary:
        return overall_deviation(self.signal, side, queries=self.queries, ddof=_DDOF)

    def sigma(self, block: Block, side: Literal["in", "out"]) -> Float64:
        """(M, e, A), or (M, 1, 1) of the global variance: floored, fresh."""
        if self.variance == "global":
            sigma: Float64 = block.summary(self._deviation(side))[:, None, None] + SIGMA_FLOOR
            return sigma
        loo = self.loo(block)
        counts, variance = (loo.n_in, loo.var_in) if side == "in" else (loo.n_out, loo.var_out)
        # Where a single model is left, which is too few, the variance is 0 in any case.
        sigma = np.sqrt(variance * (counts / np.maximum(counts - _DDOF, 1))[:, :, None])
        sigma += SIGMA_FLOOR
        return sigma
