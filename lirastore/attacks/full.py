"""Multivariate normals over the queries: the test `gaussian-in-out-full`.

    log N(s; μ_in, Σ_in) − log N(s; μ_out, Σ_out),    s the target's values on all queries of one example

Carlini et al. 2022 fit such normals where they describe several queries (Algorithm 1, line 14); their code
takes the queries for independent. A sample of K models gives a covariance S of rank K − 1 at most, so it is
shrunk towards a multiple of the identity: Σ = (1 − ρ)·S + ρ·(tr S/A)·1, with ρ by the oracle-approximating
rule of Chen, Wiesel, Eldar and Hero 2010, for normal data, in the form of scikit-learn's `OAS`:

    ρ = min(1, (tr S² + tr² S) / ((K + 1)·(tr S² − tr² S/A)))

On designs with equally many models per example the counts leak strongly unless the run takes equal counts
(`--equal-counts`), for the target's own side has a model fewer than the other. Of 8 balanced models that have
learnt nothing the AUC is 0.42, and 0.50 with equal counts.

S is ddof 0. With one query ρ has no effect, and the test is `gaussian-in-out` with a variance per example.

Every model is the target in turn and is left out exactly. Leaving out x changes the side's moments by
multiples of d = x − μ and d·dᵀ, so that one eigendecomposition per example and side serves all targets: the
downdated Σ is diagonal in its basis but for one rank. Since ρ ≥ 1/(K + 1), Σ is well conditioned, and nothing
is lost by that; where x makes up nearly all of S, S without it is computed anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block

if TYPE_CHECKING:
    from lirastore.attacks.algebra import Point

__all__ = ["gaussian_in_out_full", "log_densities"]

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Values = npt.NDArray[np.floating[Any]]

# Added to the standard deviation along every axis: finite densities where nothing varies, as in the algebra.
_FLOOR = 1e-30
# Below this share of its trace with the target, a downdate has cost tr S² four digits or more.
_DOMINATED = 1e-2
# So many values at a time, in arrays of 512 KB: a few of them live in one core's cache.
_CHUNK = 64 * 1024


def gaussian_in_out_full(point: Point, block: Block) -> Float64:
    """(M, e, 1) float64, higher means member: one score for all queries together."""
    values, others = point.target(block), block.others()
    density = _beside(values, block.member, others.cross, others.base, others.spare)
    density -= _beside(values, ~block.member, others.cross, others.base, others.spare)
    return density[:, :, None]


def _beside(values: Values, side: Bool, cross: Bool | None, base: Bool | None, spare: Bool | None) -> Float64:
    """(M, e): of every target's values, the log density of one side of the models beside it.

    The masks are those of `moments.counts.Others`.
    """
    own, whole = log_densities(values, side if base is None else side & base)
    if cross is not None:
        _, whole = log_densities(values, side & cross, leave_one_out=False)
    result = np.where(side, own, whole)
    if base is not None and spare is not None:
        _, without_any = log_densities(values, side & spare, leave_one_out=False)
        np.copyto(result, without_any, where=side & ~base)
    return result


def log_densities(values: Values, marked: Bool, *, leave_one_out: bool = True) -> tuple[Float64, Float64]:
    """Log densities, less the constant −A/2·log 2π, of the normals fitted to the marked models.

    Args:
        values: (M, e, A), finite.
        marked: (M, e) bool.

    Returns:
        (M, e) of each marked model by the others that are marked, meaningless elsewhere (not computed unless
        `leave_one_out`); (M, e) of each model by all that are marked. NaN where nothing is marked.
    """
    own, whole = np.full(marked.shape, np.nan), np.empty(marked.shape)
    for part in _parts(values):
        x = np.ascontiguousarray(values[:, part].transpose(1, 0, 2), dtype=np.float64)
        mask = np.ascontiguousarray(marked[:, part].T)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            fit = _Fit.of(x, mask)
            whole[:, part] = fit.whole().T
            if leave_one_out:
                own[:, part] = fit.without_each(x, mask).T
    return own, whole


def _parts(values: Values) -> Iterator[slice]:
    """Runs of examples that fit the cache."""
    models, examples, queries = values.shape
    step = max(1, _CHUNK // (models * queries))
    for start in range(0, examples, step):
        yield slice(start, min(start + step, examples))


@dataclass(frozen=True)
class _Fit:
    """Means and covariances of the marked models of n examples.

    count (n, 1); axes (n, M, A): deviations of every model from the mean, in the eigenbasis of S; spread
    (n, A): eigenvalues of S.
    """

    count: Float64
    axes: Float64
    spread: Float64

    @classmethod
    def of(cls, x: Float64, mask: Bool) -> _Fit:
        """x (n, M, A), mask (n, M)."""
        weight = mask.astype(np.float64)
        count = weight.sum(axis=1, keepdims=True)
        pivot = np.take_along_axis(x, mask.argmax(axis=1)[:, None, None], axis=1)
        deviation = x - pivot  # about a value of its own, so that offsets cost no digits
        deviation -= (weight[:, None, :] @ deviation) / count[:, :, None]
        weighted = deviation * weight[:, :, None]
        covariance = weighted.transpose(0, 2, 1) @ deviation
        covariance /= count[:, :, None]
        if x.shape[2] == 1:
            return cls(count, deviation, covariance[:, :, 0])
        spread, basis = _eigen(covariance)
        return cls(count, deviation @ basis, spread)

    def whole(self) -> Float64:
        """(n, M): log density of every model, marked or not, by the marked ones."""
        deviation = _deviation(self.count, self.spread)
        weights = 1 / np.square(deviation)
        squares: Float64 = (np.square(self.axes) @ weights[:, :, None])[:, :, 0]
        squares *= -0.5
        squares -= np.log(deviation).sum(axis=1, keepdims=True)
        return squares

    def without_each(self, x: Float64, mask: Bool) -> Float64:
        """(n, M): log density of each marked model by the other ones."""
        squares = np.square(self.axes)
        trace = self.spread.sum(axis=1, keepdims=True)
        left = self.count - 1
        grown, cut = self.count / left, self.count / left**2  # S' = grown·S − cut·d·dᵀ
        lengths = squares.sum(axis=2)
        new_trace = np.maximum(grown * trace - cut * lengths, 0)
        density = self._downdated(squares, new_trace, left, grown, cut)
        doubtful = mask & ((new_trace < _DOMINATED * trace) | (left <= 2))
        _recompute(density, doubtful, x, mask)
        return density

    def _downdated(
        self, squares: Float64, trace: Float64, left: Float64, grown: Float64, cut: Float64
    ) -> Float64:
        """By the matrix determinant lemma and Sherman and Morrison, in the eigenbasis of S."""
        queries = squares.shape[2]
        inner = (squares @ self.spread[:, :, None])[:, :, 0]  # dᵀSd
        lengths = _total(squares)
        fourth = grown**2 * np.square(self.spread).sum(axis=1, keepdims=True)
        fourth = fourth - 2 * grown * cut * inner + np.square(cut * lengths)  # tr S'²
        shrinkage = _oas(trace, fourth, left, queries)
        scale = (1 - shrinkage)[:, :, None] * (grown[:, :, None] * self.spread[:, None, :])
        scale += (shrinkage * trace / queries)[:, :, None]
        deviation = np.sqrt(scale) + _FLOOR
        reach = np.einsum("nma,nma->nm", squares, 1 / np.square(deviation))
        rest = 1 - (1 - shrinkage) * cut * reach
        density: Float64 = np.square(grown) * reach / rest
        density += 2 * _total(np.log(deviation)) + np.log(rest)
        density *= -0.5
        return density


def _recompute(density: Float64, doubtful: Bool, x: Float64, mask: Bool) -> None:
    """Overwrites the doubtful entries by their definition."""
    examples, targets = np.nonzero(doubtful)
    step = max(1, _CHUNK // (x.shape[1] * x.shape[2]))
    for start in range(0, len(examples), step):
        example, target = examples[start : start + step], targets[start : start + step]
        others = mask[example]
        rows = np.arange(len(example))
        others[rows, target] = False
        density[example, target] = _Fit.of(x[example], others).whole()[rows, target]


def _eigen(covariance: Float64) -> tuple[Float64, Float64]:
    """Eigenvalues, none below 0, and eigenvectors; of scaled matrices, so that squares stay in range.

    Examples without models, whose covariance is NaN, have NaN.
    """
    size = np.abs(covariance).max(axis=(1, 2), keepdims=True)
    scaled = covariance / np.where(size > 0, size, 1)
    empty = np.isnan(size)
    values, vectors = np.linalg.eigh(np.where(empty, 0, scaled))
    spread = np.maximum(values, 0) * size[:, :, 0]
    return spread, vectors


def _deviation(count: Float64, spread: Float64) -> Float64:
    """(n, A): standard deviations of the shrunk covariance along its axes, floored."""
    queries = spread.shape[1]
    trace = spread.sum(axis=1, keepdims=True)
    shrinkage = _oas(trace, np.square(spread).sum(axis=1, keepdims=True), count, queries)
    deviation: Float64 = np.sqrt((1 - shrinkage) * spread + shrinkage * trace / queries)
    deviation += _FLOOR
    return deviation


def _total(values: Float64) -> Float64:
    """(n, M): the sum over the queries; numpy's own sum over a short last axis is several times slower."""
    total: Float64 = np.einsum("nma->nm", values)
    return total


def _oas(trace: Float64, fourth: Float64, count: Float64, queries: int) -> Float64:
    """ρ of tr S, tr S² and K; 1 where S is a multiple of the identity."""
    uneven = fourth - np.square(trace) / queries
    shrinkage = (fourth + np.square(trace)) / ((count + 1) * uneven)
    return np.where(uneven > 0, np.minimum(shrinkage, 1), 1.0)
