"""Merlin and Morgan (Jayaraman et al. 2021): does the loss grow wherever one goes from the example?"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block, is_noise
from lirastore.attacks.definition import Attack
from lirastore.attacks.folds import FOLDS
from lirastore.attacks.intervals import Intervals, best_intervals, pairs, pairs_bytes
from lirastore.attacks.summary import Facts, Summary
from lirastore.errors import MissingData

__all__ = ["MERLIN", "MORGAN", "merlin", "morgan"]

Float64 = npt.NDArray[np.float64]

_STORED = "merlin"
# ℓ = log(1 + e^{−φ}) falls as φ grows: φ orders losses as they are, and where ℓ rounds to 0 still does.
_PHI = "scaled_logit"

INTERVALS = Summary(
    key="morgan/intervals",
    signals=(_PHI,),
    chunk=partial(pairs, signal=_PHI),
    combine=operator.add,
    finalise=partial(best_intervals, per_label=False, open_below=False),
    state_bytes=pairs_bytes,
)


def merlin(block: Block) -> Float64:
    """(M, e) float64 in [0, 1]: the share of noisy queries x + N(0, σ²) with a larger loss than the example.

    Jayaraman, Wang, Knipmeyer, Gu & Evans, "Revisiting Membership Inference Under Realistic Assumptions",
    PoPETs 2021, Merlin, with T = 100 queries and σ = 0.01 there. Higher means member: training ends where the
    loss of its examples is near a minimum, so that noise makes it grow. Needs the share as an auxiliary array
    `merlin` over (model, example), or the queries themselves as augmentations `noise(σ)#k`, compared with the
    first query. Nothing is fitted and no other model is needed.
    """
    if _STORED in block.signals:
        return block.signal(_STORED, queries="first")[:, :, 0].astype(np.float64)
    noisy = block.signal(_PHI, queries="noise")
    larger = np.count_nonzero(noisy < block.signal(_PHI, queries="first"), axis=2)
    return np.asarray(larger / noisy.shape[2])


def morgan(block: Block) -> Float64:
    """(M, e) float64: Merlin's share where φ_l ≤ ℓ ≤ φ_u, else −1; ℓ is the loss of the first query.

    Jayaraman, Wang, Knipmeyer, Gu & Evans, "Revisiting Membership Inference Under Realistic Assumptions",
    PoPETs 2021, Morgan. They combine three thresholds and report one operating point: ℓ ≥ φ_l, ℓ ≤ φ_u, each
    tuned by hand for an FPR, and Merlin's share ≥ φ_m, which here is the score, so that any threshold may be
    set on it. Higher means member. Needs what `merlin` needs.

    Cross-fitted over 4 folds of models: (φ_l, φ_u) maximise the balanced accuracy of "member iff
    φ_l ≤ ℓ ≤ φ_u" over all examples (that may be attacked) and all models of the other folds, exactly; of
    several intervals, the one with the smallest φ_u, then the smallest φ_l. If there are no members or no
    non-members, every loss is let through. Memory: 12 bytes per model and example.
    """
    intervals: Intervals = block.summary(INTERVALS)
    lower, upper = intervals.of(block)
    loss = -block.signal(_PHI, queries="first")[:, :, 0]  # its order is that of ℓ
    return np.where((loss < lower) | (loss > upper), -1.0, merlin(block))


def _as_stored(attack: Attack, facts: Facts) -> Attack:
    """The attack with the share that the store has, or with that of its noise queries."""
    signals: tuple[str, ...] = (_PHI,) if attack.name == "morgan" else ()
    if _STORED in facts.arrays:
        parameters: dict[str, Any] = {"source": "stored"}
        signals = (*signals, _STORED)
    else:
        noise = [name for name in facts.augmentations if is_noise(name)]
        if not noise or is_noise(facts.augmentations[0]):
            raise MissingData(_missing(attack.name, facts))
        kinds = sorted({name.partition("#")[0] for name in noise})
        parameters = {"source": "queries", "noise": kinds, "noise_queries": len(noise)}
        signals = (_PHI,)
    return replace(attack, signals=signals, parameters={**attack.parameters, **parameters})


def _missing(name: str, facts: Facts) -> str:
    has = f"its queries are {', '.join(facts.augmentations[:8])}" + " …" * (len(facts.augmentations) > 8)
    return (
        f"the attack {name!r} needs to know how often noise makes a model's loss of an example grow, and "
        f"the store has no auxiliary array {_STORED!r} and no queries of noise after one without ({has}). "
        "Let the training job ask each model for 100 copies x + N(0, 0.01²) of every example and store the "
        "share of them with a larger loss than x: create(…, signals=[('merlin', ('model', 'example'))]), "
        "write(…, merlin=share); or store the copies themselves as augmentations 'noise(0.01)#0' to "
        "'noise(0.01)#99'"
    )


def _attack(name: str, function: Callable[[Block], Float64], **more: Any) -> Attack:
    return Attack(
        name=name,
        function=function,
        described=True,
        for_store=_as_stored,
        doc=function.__doc__ or "",
        **more,
    )


MERLIN = _attack(
    "merlin",
    merlin,
    signals=(_STORED,),
    parameters={"preset": "paper", "queries": "noise"},
    separate=True,
)
MORGAN = _attack(
    "morgan",
    morgan,
    signals=(_PHI, _STORED),
    summaries=(INTERVALS,),
    parameters={"preset": "paper", "queries": "noise", "folds": FOLDS},
)
