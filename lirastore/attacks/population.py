"""Where a value stands among those of the population: points that the target was not trained on.

The population is the store's own, if it has one: its points are OUT for every model and are never scored.
Otherwise it is made of the target's non-members, without the example itself; what is told apart then is this
example from those, by the same model. Either way a target's values are sorted once, and examples are placed
among them by binary search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block
from lirastore.attacks.definition import Attack
from lirastore.attacks.summary import Facts, PerTarget, Sizes, Summary, TargetRow
from lirastore.errors import MissingData

__all__ = [
    "NON_MEMBERS",
    "STORED",
    "YE_POPULATION",
    "Beside",
    "check_non_members",
    "log_confidence",
    "share_below",
    "share_of_non_members_below",
    "stored_population",
]

Float = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]

STORED = "stored"
NON_MEMBERS = "target-nonmembers"
# Of a target: with one, that one has nothing to be compared with.
_LEAST_NON_MEMBERS = 2


def share_below(population: Float64, values: Float64) -> Float64:
    """(M, e) in [0, 1]: of each target's population (M, Z), sorted, the share below its values (M, e)."""
    counts = np.empty(values.shape)
    for target, row in enumerate(population):
        counts[target] = np.searchsorted(row, values[target], side="left")
    counts /= population.shape[1]
    return counts


def check_non_members(facts: Facts) -> None:
    """Raises MissingData if the non-members of some target are too few to be a population."""
    if facts.population is None and facts.fewest_non_members < _LEAST_NON_MEMBERS:
        raise MissingData(
            f"a target has {facts.fewest_non_members} non-members to be the population that its examples are "
            f"compared with; expected at least {_LEAST_NON_MEMBERS} of every target: store population points "
            "(lirastore.create(population=)), or more examples"
        )


def share_of_non_members_below(row: TargetRow, values: Float64) -> Float64:
    """(E,) in [0, 1]: for every example the share of the target's non-members, itself left out, whose
    `row.values` are below its `values`.

    Non-members that no attack should score, or that have too few models to have a value, do not take part.

    Args:
        values: (E,), of no example greater than its own `row.values`: none is counted below itself.

    Raises:
        MissingData: the target has fewer than two non-members.
    """
    taken = ~row.member & np.isfinite(row.values)
    if row.attack_mask is not None:
        taken &= row.attack_mask
    ordered = np.sort(row.values[taken])
    if ordered.size < _LEAST_NON_MEMBERS:
        raise MissingData(
            f"target {row.target} has {ordered.size} non-members to be the population that its examples are "
            f"compared with; expected at least {_LEAST_NON_MEMBERS}: store population points "
            "(lirastore.create(population=)), or more examples"
        )
    counts = np.searchsorted(ordered, values, side="left")
    return counts / (ordered.size - taken)


# --- the stored population ----------------------------------------------------------------------


class Beside(NamedTuple):
    """What a run says of the models beside each target: their ids, how many (None: all), and the seed."""

    models: npt.NDArray[np.int64]
    shadows: int | None
    seed: int


def stored_population(
    key: str, read: Callable[[], Float], value: Callable[[Float64, Beside], Float64]
) -> Summary:
    """(M, Z) float64: a value of every population point by every target, each target's sorted.

    Args:
        key: identifies it.
        read: gives (M, Z) φ of the points.
        value: (log p of the points, (M, Z); what the models beside the targets are) -> (M, Z).
    """
    return Summary(
        key=key,
        signals=(),
        chunk=_beside,
        combine=_first,
        finalise=partial(_sorted_values, read, value),
        state_bytes=partial(_population_bytes, read),
    )


def log_confidence(phi: Float) -> Float64:
    """log p_y = −ℓ = −log(1 + e^{−φ}), float64."""
    wide = phi.astype(np.float64)
    result: Float64 = np.minimum(wide, 0) - np.log1p(np.exp(-np.abs(wide)))
    return result


def _beside(block: Block) -> Beside:
    return Beside(block.models, block.shadows, block.seed)


def _first(state: Beside, _: Beside) -> Beside:
    return state


def _sorted_values(
    read: Callable[[], Float], value: Callable[[Float64, Beside], Float64], beside: Beside
) -> Float64:
    values = value(log_confidence(read()), beside)
    values.sort(axis=1)
    return values


def _population_bytes(read: Callable[[], Float], _: Sizes) -> int:
    """φ, its logarithm, the sorted value, and eight temporary arrays."""
    return read().size * 8 * 11


# --- Attack-P -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _AttackP:
    """Attack-P among a population: the store's own, or the target's non-members."""

    population: Summary | PerTarget

    def __call__(self, block: Block) -> Float64:
        """(M, e) float64, higher means member: minus the share of population losses below the example's."""
        known = block.summary(self.population)
        share = known if isinstance(self.population, PerTarget) else share_below(known, _losses(block))
        return -share


def _losses(block: Block) -> Float64:
    """(M, e): ℓ of the first query."""
    return -block.signal("loss", queries="first")[:, :, 0].astype(np.float64)


def _negated(log_confidences: Float64, _: Beside) -> Float64:
    return -log_confidences


def _share_of_losses(row: TargetRow) -> Float64:
    return share_of_non_members_below(row, row.values)


_AMONG_NON_MEMBERS = PerTarget(
    key="population/loss/non-members", signals=("loss",), chunk=_losses, finish=_share_of_losses
)


def _for_store(attack: Attack, facts: Facts) -> Attack:
    """Takes the store's population, if there is one."""
    check_non_members(facts)
    if facts.population is None:
        return attack
    population = stored_population("population/loss/stored", facts.population, _negated)
    return replace(
        attack,
        function=_AttackP(population),
        summaries=(population,),
        parameters={**attack.parameters, "population": STORED},
    )


YE_POPULATION = Attack(
    name="ye_population",
    function=_AttackP(_AMONG_NON_MEMBERS),
    signals=("loss",),
    summaries=(_AMONG_NON_MEMBERS,),
    parameters={"preset": "paper", "signal": "loss", "queries": "first", "population": NON_MEMBERS},
    described=True,
    limitable=True,
    separate=True,
    for_store=_for_store,
    doc='Ye et al., "Enhanced Membership Inference Attacks against Machine Learning Models", CCS 2022, '
    "Attack-P: −(share of population losses below ℓ), of the target's own population losses, first query. "
    "Needs no other model. The population is the store's own array of points outside every training set, or "
    "else the target's non-members without the example itself, of which there must be two. Within one target "
    "it ranks as `loss` does, save for ties; it differs where targets are pooled, for it puts their losses "
    "on one scale. Higher means member.",
)
