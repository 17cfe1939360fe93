"""The preset `leakpro`: LiRA in the numerics of aidotse/LeakPro at commit c47752fa,
leakpro/attacks/mia_attacks/lira.py.

It differs from the paper's formulas in these ways, all kept here:

* the signal goes through a softmax with +1e-45 (`rescale_logits`) in float32, where that is 2^-149:
  `leakpro_score`, which saturates at ±103.3;
* one query, the first;
* σ is what the option `var_calculation` says; ddof 0, IN and OUT each by itself, 1e-30 added.

The three values of that option:

* `carlini`, its default: `lira_online`, `lira_offline`. With 64 or more shadow models (IN and OUT together,
  not the target) each example's own σ; with fewer the standard deviation of all of the side's values, the
  spread between examples included;
* `individual_carlini`: `lira_online_individual`, `lira_offline_individual`. The example's own where it has 32
  or more models on that side, else that of all values;
* `fixed`: `lira_online_fixed`, `lira_offline_fixed`. Each example's own, always: the code asks for the fixed
  deviation of the example's values alone, so that its "fixed" is the paper's variance per example.

Online is log N(φ; μ_in, σ_in) − log N(φ; μ_out, σ_out), offline log Φ((φ − μ_out)/σ_out), one-sided, as the
paper has it. LeakPro attacks one target; here every model is the target in turn, and all others are its
shadow models; under equal counts, those that are left of them. There the shadow models come in the order of a
directory listing, on which nothing depends but the rounding of sums.

On a balanced design of 64 models `…_individual` tells members from non-members by the counts alone: beside a
member there are 31 IN models, beside a non-member 32. With equal counts it does not.

Agreement: 1e-11 of max(1, |score|) given the same signal in float64. LeakPro itself takes means and
deviations in float32, which moves its scores by up to 5e-5. Where all values of a side are equal, as where
they saturate, an example's own σ is 0 here and there the rounding of a mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lirastore.attacks.algebra import SIGMA_FLOOR, Point
from lirastore.attacks.block import Block
from lirastore.attacks.definition import Attack, MinimumCounts
from lirastore.attacks.spread import Side, overall_deviation
from lirastore.attacks.summary import Summary

__all__ = ["attacks"]

Float64 = npt.NDArray[np.float64]
Rule = Literal["carlini", "individual_carlini", "fixed"]

PRESET = "leakpro"
SIGNAL = "leakpro_score"
# Shadow models from which on an example's own deviation is used: in all, and on one side.
_ENOUGH, _ENOUGH_A_SIDE = 64, 32
_RULES: tuple[tuple[Rule, str], ...] = (
    ("carlini", ""),
    ("individual_carlini", "_individual"),
    ("fixed", "_fixed"),
)


def attacks() -> dict[str, Attack]:
    """name -> Attack: LeakPro's LiRA, online and offline, with each of its three rules for the variance."""
    made = [
        _lira(f"lira_{way}{suffix}", test, rule)
        for rule, suffix in _RULES
        for way, test in (("online", "gaussian-in-out"), ("offline", "gaussian-out"))
    ]
    return {attack.name: attack for attack in made}


def _lira(name: str, test: str, rule: Rule) -> Attack:
    function = _Lira(SIGNAL, test, queries="first", rule=rule)
    return Attack(
        name=name,
        function=function,
        signals=(SIGNAL,),
        summaries=function.summaries,
        minimum=function.minimum,
        parameters={
            "preset": PRESET,
            "signal": SIGNAL,
            "test": test,
            "queries": "first",
            "variance": "example" if rule == "fixed" else rule,
            "var_calculation": rule,
            "centre": "mean",
        },
        described=True,
        limitable=True,
        doc=f"{name} as LeakPro's AttackLiRA has it with var_calculation {rule!r}. Needs {function.minimum}. "
        "Higher means member.",
    )


@dataclass(frozen=True)
class _Lira(Point):
    """AttackLiRA with one rule for the variance."""

    rule: Rule = "carlini"

    @property
    def sides(self) -> tuple[Side, ...]:
        """Whose models it reads."""
        return ("in", "out") if self.test == "gaussian-in-out" else ("out",)

    @property
    def minimum(self) -> MinimumCounts:
        """One model a side where few fall back on all; two for a variance of an example's own."""
        least = 2 if self.rule == "fixed" else 1
        return MinimumCounts(n_in=least * ("in" in self.sides), n_out=least)

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The total deviations."""
        return () if self.rule == "fixed" else tuple(self._deviation(side) for side in self.sides)

    def _deviation(self, side: Side) -> Summary:
        return overall_deviation(self.signal, side, queries=self.queries)

    def sigma(self, block: Block, side: Literal["in", "out"]) -> Float64:
        """(M, e, 1): floored, fresh."""
        own = super().sigma(block, side)
        if self.rule == "fixed":
            return own
        total: Float64 = block.summary(self._deviation(side))[:, None, None] + SIGMA_FLOOR
        return np.where(self._enough(block, side)[:, :, None], own, total)

    def _enough(self, block: Block, side: Side) -> npt.NDArray[np.bool_]:
        """(M, e): where the example's own deviation is used."""
        n_in, n_out = self.loo(block).n_in, self.loo(block).n_out
        if self.rule == "carlini":
            return np.asarray(n_in + n_out >= _ENOUGH)
        return np.asarray((n_in if side == "in" else n_out) >= _ENOUGH_A_SIDE)
