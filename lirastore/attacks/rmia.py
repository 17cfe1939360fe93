"""RMIA: how far the target's confidence in an example rises above that of other models, relative to how far
it does so for points that the target was not trained on.

Zarifzadeh, Liu and Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024:

    score(x) = share of population points z with ρ(x)/ρ(z) > γ,    ρ(u) = p_target(u) / p̄(u)

with p the confidence in the label. Its authors' code (ml_privacy_meter, research/2024_rmia/main.py) takes p̄
online as the mean over equally many IN and OUT models, and so does this one: the mean over all models beside
the target. With `equal_counts` they are equally many; without it the mean still gives nothing away, for it is
made of all models but the target whether that is a member or not. Offline p̄ = ½((1 + a)·p̄_out + (1 − a)),
of x and of z alike: points of a stored population have no IN models, and yet the authors' code corrects their
mean by (1 + a)/2 and (1 − a)/2, too.
A target's non-members as population are one fewer beside a non-member than beside a member: shares of n − 1
and of n. In pure noise that puts non-members first where shares would tie: the AUC of a single target is 0.42
with 500 examples, 0.48 with 2,000; pooled over targets of a Bernoulli design 0.50 from 500 on. A stored
population has no such effect.
The code's other ingredients, softmax with margin and temperature, trimmed means and a vote of the queries,
are not in the paper's definition and not here. All is computed from log p, so that p = 0 and p = 1 are
ordinary values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block
from lirastore.attacks.definition import Attack, MinimumCounts
from lirastore.attacks.population import (
    NON_MEMBERS,
    STORED,
    Beside,
    check_non_members,
    share_below,
    share_of_non_members_below,
    stored_population,
)
from lirastore.attacks.summary import Facts, PerTarget, Summary, TargetRow
from lirastore.datasets import dataset_key
from lirastore.moments import Others, beside_log_sums
from lirastore.moments.counts import model_order

__all__ = ["GAMMA", "RMIA", "RMIA_OFFLINE"]

Float64 = npt.NDArray[np.float64]

GAMMA = 2.0
_LOG_GAMMA = np.log(GAMMA)

# The authors' attack_configs/<data set>/rmia_offline_*.yaml.
_DEFAULT_A = 0.3
_A = {"cifar10": 0.3, "cifar100": 0.6, "purchase100": 0.2}

# Points worked on at a time: temporaries of 256 models stay in one core's cache.
_POINTS = 512


@dataclass(frozen=True)
class _Ratio:
    """log ρ; `a` is that of the offline attack, None online."""

    a: float | None

    @property
    def key(self) -> str:
        """Identifies first passes that hold it."""
        return f"rmia/{'online' if self.a is None else f'offline-{self.a}'}"

    def __call__(self, block: Block) -> Float64:
        """(M, e): of every example by every target; NaN where no model is left for p̄."""
        values = block.signal("loss", queries="first")[:, :, 0].astype(np.float64)
        sums = block.once("rmia/log-sums", lambda: beside_log_sums(values, block.member, block.others()))
        return self._ratio(values, sums, block.others())

    def of_population(self, values: Float64, beside: Beside) -> Float64:
        """(M, Z): of the points with log p `values`, by every target: p̄ is the mean over the other models,
        which are all OUT. With K shadow models it is over K of them, offline over K/2, as p̄ of an example.
        """
        ratios = np.empty(values.shape)
        for start in range(0, values.shape[1], _POINTS):
            part = slice(start, min(start + _POINTS, values.shape[1]))
            others = self._beside_points(beside, np.arange(part.start, part.stop))
            nobody = np.zeros(values[:, part].shape, np.bool_)
            sums = beside_log_sums(values[:, part], nobody, others)
            ratios[:, part] = self._ratio(values[:, part], sums, others)
        return ratios

    def _ratio(self, values: Float64, sums: tuple[Float64, Float64], others: Others) -> Float64:
        """log ρ; `sums` are those of p over the IN and over the OUT models beside each target."""
        log_in, log_out = sums
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.a is None:
                log_mean = np.logaddexp(log_in, log_out) - np.log(others.n_in + others.n_out)
            else:
                log_out_mean = log_out - np.log(others.n_out)
                log_mean = np.logaddexp(log_out_mean + np.log((1 + self.a) / 2), np.log((1 - self.a) / 2))
            ratio: Float64 = values - log_mean
        return ratio

    def _beside_points(self, beside: Beside, points: npt.NDArray[np.int64]) -> Others:
        """Which models stand beside each target for points that are OUT for all: all others, or the first
        few in an order settled by the seed."""
        shape = len(beside.models), len(points)
        most = None if beside.shadows is None else beside.shadows // (1 if self.a is None else 2)
        none = np.zeros(shape, np.int64)
        if most is None or most >= shape[0] - 1:
            return Others(n_in=none, n_out=np.full(shape, shape[0] - 1))
        # −1, −2, …: ids of their own, beside those of the examples.
        place = model_order(beside.models, -1 - points, beside.seed).argsort(axis=0).argsort(axis=0)
        return Others(n_in=none, n_out=np.full(shape, most), base=place <= most, spare=place < most)


@dataclass(frozen=True)
class _Rmia:
    """The share of a population that an example stands out from by more than γ."""

    ratio: _Ratio
    population: Summary | PerTarget

    def __call__(self, block: Block) -> Float64:
        """(M, e) float64 in [0, 1], higher means member."""
        known = block.summary(self.population)
        if isinstance(self.population, PerTarget):
            shares: Float64 = known
            return shares
        return share_below(known, self.ratio(block) - _LOG_GAMMA)


def _share_of_non_members(row: TargetRow) -> Float64:
    return share_of_non_members_below(row, row.values - _LOG_GAMMA)


def _among(ratio: _Ratio, facts: Facts | None) -> Summary | PerTarget:
    if facts is None or facts.population is None:
        return PerTarget(f"{ratio.key}/non-members", ("loss",), ratio, _share_of_non_members)
    return stored_population(f"{ratio.key}/stored", facts.population, ratio.of_population)


def _with(attack: Attack, ratio: _Ratio, facts: Facts | None) -> Attack:
    """The attack with its parameters for a store."""
    if facts is not None:
        check_non_members(facts)
    population = _among(ratio, facts)
    stamped: dict[str, Any] = {"population": NON_MEMBERS if isinstance(population, PerTarget) else STORED}
    if ratio.a is not None:
        stamped["a"] = ratio.a
    return replace(
        attack,
        function=_Rmia(ratio, population),
        summaries=(population,),
        parameters={**attack.parameters, **stamped},
    )


def _online(attack: Attack, facts: Facts) -> Attack:
    return _with(attack, _Ratio(None), facts)


def _offline(attack: Attack, facts: Facts) -> Attack:
    """`a` is the one that the authors found for the data set."""
    return _with(attack, _Ratio(_A.get(dataset_key(facts.name) or "", _DEFAULT_A)), facts)


def _rmia(name: str, minimum: MinimumCounts, ratio: _Ratio, doc: str) -> Attack:
    attack = Attack(
        name=name,
        function=_Rmia(ratio, _among(ratio, None)),
        signals=("loss",),
        minimum=minimum,
        parameters={"preset": "paper", "signal": "loss", "queries": "first", "gamma": GAMMA},
        described=True,
        limitable=True,
        for_store=_online if ratio.a is None else _offline,
        doc=f"{doc} z runs over the store's own population of points outside every training set, or else "
        "over the target's non-members without x itself, of which there must be two. γ = 2, first query, "
        "from log p. Higher means member.",
    )
    return _with(attack, ratio, None)


_PAPER = 'Zarifzadeh et al., "Low-Cost High-Power Membership Inference Attacks", ICML 2024'

RMIA = _rmia(
    "rmia",
    MinimumCounts(n_in=1, n_out=1),
    _Ratio(None),
    f"{_PAPER}, online: share of z with ρ(x)/ρ(z) > γ, ρ(u) = p(u)/p̄(u), p the target's confidence in the "
    "label and p̄ the mean one of all other models, IN and OUT. Needs one IN and one OUT model.",
)
RMIA_OFFLINE = _rmia(
    "rmia_offline",
    MinimumCounts(n_out=1),
    _Ratio(_DEFAULT_A),
    f"{_PAPER}, offline: as `rmia` with p̄ = ½((1 + a)·p̄_out + (1 − a)), p̄_out the mean over the OUT models; "
    "a = 0.3 for CIFAR-10, 0.6 for CIFAR-100, 0.2 for Purchase-100, else 0.3. Needs one OUT model.",
)
