"""Generalised MIA (Long et al. 2020): only examples with few neighbours are attacked."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block
from lirastore.attacks.crossfit import beside, fold_of, fold_sums
from lirastore.attacks.definition import Attack, MinimumCounts
from lirastore.attacks.folds import FOLDS
from lirastore.attacks.summary import Sizes, Summary

__all__ = ["ALPHA", "BETA", "LONG", "few_neighbours", "generalised_mia"]

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

ALPHA = 0.1  # cosine distance
BETA = 5  # neighbours
_LOWEST = -1.0

# Cosines that are worked out at a time: 1 MB, and their marks.
_COSINES = 1 << 18
# Products of so many multiplications OpenBLAS computes on one thread, and hardly slower than large ones; its
# threads wait busily for each other, and folds are done in parallel anyway.
_SINGLE = 1 << 18
_AT_ONCE = 2
_SCRATCH_BYTES = 16 << 20


def _directions(block: Block) -> tuple[Float32, ...]:
    """(F, e, C): for each fold, the mean OUT logits over the other folds; of length 1 or, without any, 0."""
    out = ~block.member
    # The length of a vector does not matter: the sum is as good as the mean.
    sums = beside(fold_sums(block.signal("first_logits"), out, fold_of(block)))
    sums /= np.maximum(np.abs(sums).max(axis=2, keepdims=True), np.finfo(np.float64).tiny)
    length = np.sqrt(np.square(sums).sum(axis=2, keepdims=True))
    return ((sums / np.maximum(length, 1e-300)).astype(np.float32),)


def _selected(parts: Sequence[Float32]) -> Bool:
    """(F, E) bool: the examples that are attacked in the targets of each fold."""

    def of(fold: int) -> Bool:
        return few_neighbours(np.concatenate([part[fold] for part in parts]))

    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        return np.stack(list(pool.map(of, range(FOLDS))))


def _state_bytes(sizes: Sizes) -> int:
    directions = 4 * FOLDS * sizes.examples * sizes.classes
    return directions + _AT_ONCE * directions // FOLDS + 64 * sizes.examples + _SCRATCH_BYTES


SELECTED = Summary(
    key="long/selected",
    signals=("first_logits",),
    chunk=_directions,
    combine=operator.add,
    finalise=_selected,
    state_bytes=_state_bytes,
)


def few_neighbours(directions: Float32, alpha: float = ALPHA, beta: int = BETA) -> Bool:
    """(E,) bool: whether fewer than `beta` other vectors lie within cosine distance `alpha` of each.

    Cosines are computed in float32, some hundred thousand at a time, never E × E of them; a vector with
    neighbours enough is not looked at any further.

    Args:
        directions: (E, C) of length 1; one of length 0 has no direction: it is not selected and is nobody's
            neighbour.
    """
    side = max(8, math.isqrt(_SINGLE // directions.shape[1]))
    least = np.float32(1 - alpha)
    found = np.zeros(len(directions), np.int64)  # itself included
    left = np.flatnonzero(directions.any(axis=1))
    few = np.zeros(len(directions), np.bool_)
    for others in _stacks(directions, side):
        for start in range(0, len(left), side):
            rows = left[start : start + side]
            near = np.flatnonzero(np.matmul(directions[rows], others) >= least)
            found[rows] += np.bincount(near // others.shape[2] % len(rows), minlength=len(rows))
        left = left[found[left] <= beta]
    few[left] = True
    return few


def _stacks(directions: Float32, side: int) -> Iterator[Float32]:
    """(n, C, side) each: the vectors as columns of some matrices, zeros at the end of the last."""
    classes = directions.shape[1]
    step = max(1, _COSINES // side**2) * side
    for start in range(0, len(directions), step):
        part = directions[start : start + step]
        part = np.concatenate([part, np.zeros((-len(part) % side, classes), np.float32)])
        yield np.ascontiguousarray(part.reshape(-1, side, classes).transpose(0, 2, 1))


def generalised_mia(block: Block) -> Float64:
    """(M, e) float64: −log F̂_out(ℓ) of the selected examples, −1 for the others; first query.

    Long, Wang, Bu, Bindschaedler, Wang, Tang, Gunter & Chen, "A Pragmatic Approach to Membership Inferences
    on Machine Learning Models", EuroS&P 2020: the generalised attack picks examples that are far from all
    others, and asks of these how unusually small the loss is. F̂_out(ℓ) is the share of the other OUT models
    with a loss of at most ℓ, floored at 1/(2M), M the number of models: the same for all targets and
    examples. Higher means member; scores of selected examples are from 0 to log 2M. Needs logits, and one OUT
    model beside the target.

    Cross-fitted over 4 folds of models: for the targets of a fold, an example's feature is the L2-normalised
    mean of the logits of its OUT models in the other folds, and it is selected if fewer than β = 5 other
    examples lie within cosine distance α = 0.1. One without OUT models there is not. `equal_counts` is heeded
    in F̂. Memory: 24 bytes per example and class.
    """
    chosen = block.summary(SELECTED)[:, block.start : block.stop][fold_of(block)]
    phi = block.signal("scaled_logit", queries="first")[:, :, 0]
    share = _share_at_least(phi, block) if chosen.any() else np.ones(phi.shape)
    return np.where(chosen, -np.log(np.maximum(share, 0.5 / len(phi))), _LOWEST)


def _share_at_least(phi: npt.NDArray[Any], block: Block) -> Float64:
    """(M, e): the share of the OUT models beside each target with a φ of at least its own: ℓ falls with φ."""
    others, out = block.others(), ~block.member
    if others.cross is None or others.base is None:
        count = _at_least(phi, out) - out
    else:
        beside_other = _at_least(phi, others.base & out) - 1
        if others.spare is not None:
            np.copyto(beside_other, _at_least(phi, others.spare & out), where=~others.base)
        count = np.where(out, beside_other, _at_least(phi, others.cross & out))
    return np.asarray(count / np.maximum(others.n_out, 1))


def _at_least(phi: npt.NDArray[Any], reference: Bool) -> Int64:
    """(M, e): how many of the reference models have a φ of at least each model's."""
    count = np.zeros(phi.shape, np.int64)
    for model, marked in enumerate(reference):
        count += (phi[model] >= phi) & marked
    return count


LONG = Attack(
    name="long",
    function=generalised_mia,
    signals=("scaled_logit",),
    summaries=(SELECTED,),
    minimum=MinimumCounts(n_out=1),
    parameters={
        "preset": "paper",
        "signal": "loss",
        "queries": "first",
        "alpha": ALPHA,
        "beta": BETA,
        "folds": FOLDS,
    },
    described=True,
    doc=generalised_mia.__doc__ or "",
)
