"""Leave-one-out moments of one tile of examples: every model in turn is the target.

A target changes only the statistics of the side that it stands on. So each example has one value of a
statistic per side for the targets of the other side (`cross`), and one per target for its own side (`own`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from lirastore.errors import InputError
from lirastore.moments.counts import Others, all_others
from lirastore.moments.downdate import CHUNK, downdated_moments
from lirastore.moments.masked import Bool, Float64, Values, bits, masked_moments, pick
from lirastore.moments.medians import Medians

__all__ = ["Loo"]


class _Statistic(NamedTuple):
    own: Float64  # (M, K): for each target, of the side that it stands on
    cross: Float64  # (2, K): of the IN models for OUT targets, and of the OUT models for IN targets

    def store(self, columns: slice, part: _Statistic) -> None:
        self.own[:, columns] = part.own
        self.cross[:, columns] = part.cross


class _Chunk(NamedTuple):
    """Some columns of a tile, with the masks of `counts.Others`."""

    columns: slice
    x: Values  # (M, k)
    member: Bool  # (M, k), as the following
    cross: Bool | None
    base: Bool | None
    spare: Bool | None


class Loo:
    """Leave-one-out IN and OUT moments of a signal: row t holds the moments of the models other than t.

    The arrays are computed at first use and kept; treat them as read-only. Beside `values`, they take two
    float64 arrays of (M, e, A), a third where the centre is the median, and one for each attribute asked for.

    Attributes:
        values, member, centre: as given.
        n_in, n_out: (M, e) int64, how many models of each side stand beside target t.
        others: which ones, as masks.
    """

    def __init__(
        self,
        values: Values,
        member: Bool,
        *,
        centre: Literal["mean", "median"] = "mean",
        others: Others | None = None,
    ) -> None:
        """Prepares the moments of one tile; nothing is computed yet.

        Args:
            values: (M, e, A) of a signal, finite.
            member: (M, e) bool, True where the example was in the model's training set.
            centre: what `mean_in` and `mean_out` are; the variances are about the mean in any case.
            others: which models stand beside each target; every other model unless given.

        Raises:
            InputError: shapes that do not belong together, an unknown centre.
        """
        _check(values, member, centre)
        self.values, self.member, self.centre = values, member, centre
        self.others = all_others(member) if others is None else others
        self.n_in, self.n_out = self.others.n_in, self.others.n_out

    @cached_property
    def mean_in(self) -> Float64:
        """(M, e, A) float64: mean or median of the IN models but the target; NaN where there are none."""
        return self._side(self._centres, 0)

    @cached_property
    def mean_out(self) -> Float64:
        """(M, e, A) float64: mean or median of the OUT models but the target; NaN where there are none."""
        return self._side(self._centres, 1)

    @cached_property
    def var_in(self) -> Float64:
        """(M, e, A) float64: variance, ddof 0, of the IN models but the target; 0 where all are equal."""
        return self._side(self._moments[1], 0)

    @cached_property
    def var_out(self) -> Float64:
        """(M, e, A) float64: variance, ddof 0, of the OUT models but the target; 0 where all are equal."""
        return self._side(self._moments[1], 1)

    @cached_property
    def _centres(self) -> _Statistic:
        if self.centre == "mean":
            return self._moments[0]
        medians = self._statistic()
        for chunk in self._chunks():
            medians.store(chunk.columns, _medians(chunk))
        return medians

    @cached_property
    def _moments(self) -> tuple[_Statistic, _Statistic]:
        means, variances = self._statistic(), self._statistic()
        for chunk in self._chunks():
            mean, variance = _means_and_variances(chunk)
            means.store(chunk.columns, mean)
            variances.store(chunk.columns, variance)
        return means, variances

    def _statistic(self) -> _Statistic:
        models, examples, augmentations = self.values.shape
        columns = examples * augmentations
        return _Statistic(np.empty((models, columns)), np.empty((2, columns)))

    def _chunks(self) -> Iterator[_Chunk]:
        """Cuts the tile into runs of whole examples that fit the cache."""
        models, examples, augmentations = self.values.shape
        step = max(1, CHUNK // (models * augmentations))
        for start in range(0, examples, step):
            part = slice(start, min(start + step, examples))
            columns = slice(part.start * augmentations, part.stop * augmentations)
            member = _spread(self.member, part, augmentations)
            subsets = (self.others.cross, self.others.base, self.others.spare)
            masks = [None if mask is None else _spread(mask, part, augmentations) for mask in subsets]
            yield _Chunk(columns, self.values[:, part].reshape(models, -1), member, *masks)

    def _side(self, statistic: _Statistic, side: int) -> Float64:
        """(M, e, A): own values for the targets on that side, the cross value for the others."""
        result = np.empty(statistic.own.shape)
        for chunk in self._chunks():
            on_side = bits(chunk.member if side == 0 else ~chunk.member)
            columns = chunk.columns
            pick(on_side, statistic.own[:, columns], statistic.cross[side, columns], out=result[:, columns])
        return result.reshape(self.values.shape)


def _means_and_variances(chunk: _Chunk) -> tuple[_Statistic, _Statistic]:
    found = downdated_moments(chunk.x, chunk.member, chunk.base)
    own, cross = [found.mean, found.variance], [found.side_mean, found.side_variance]
    if chunk.cross is not None:
        moments = [masked_moments(chunk.x, side) for side in _sides(chunk, chunk.cross)]
        cross = [np.stack(pair) for pair in zip(*moments, strict=True)]
    if chunk.spare is not None:
        moments = [masked_moments(chunk.x, side) for side in _sides(chunk, chunk.spare)]
        own = [_outside_base(chunk, kept, *pair) for kept, *pair in zip(own, *moments, strict=True)]
    return _Statistic(own[0], cross[0]), _Statistic(own[1], cross[1])


def _medians(chunk: _Chunk) -> _Statistic:
    base = [Medians(chunk.x, side) for side in _sides(chunk, chunk.base)]
    own = pick(bits(chunk.member), *(side.without(chunk.x) for side in base))
    if chunk.spare is not None:
        spare = (Medians(chunk.x, side).whole() for side in _sides(chunk, chunk.spare))
        own = _outside_base(chunk, own, *spare)
    cross = base if chunk.cross is None else [Medians(chunk.x, side) for side in _sides(chunk, chunk.cross)]
    return _Statistic(own, np.stack([side.whole() for side in cross]))


def _sides(chunk: _Chunk, mask: Bool | None) -> tuple[Bool, Bool]:
    """The marked IN models and the marked OUT models."""
    if mask is None:
        return chunk.member, ~chunk.member
    return chunk.member & mask, mask & ~chunk.member


def _outside_base(chunk: _Chunk, own: Float64, spare_in: Float64, spare_out: Float64) -> Float64:
    """Replaces what was downdated for targets outside the base: nothing of them is there to be taken out."""
    return pick(bits(np.asarray(chunk.base)), own, pick(bits(chunk.member), spare_in, spare_out))


def _spread(mask: Bool, part: slice, augmentations: int) -> Bool:
    """(M, e) to (M, k): an example's entry for each of its augmentations."""
    return mask[:, part] if augmentations == 1 else np.repeat(mask[:, part], augmentations, axis=1)


def _check(values: Values, member: Bool, centre: str) -> None:
    if values.ndim != 3 or member.shape != values.shape[:2] or member.dtype != np.bool_:
        raise InputError(
            f"values of shape {values.shape} with member {member.dtype} of shape {member.shape}; expected "
            "(M, e, A) values and a bool (M, e) member"
        )
    if centre not in ("mean", "median"):
        raise InputError(f"centre {centre!r}: expected 'mean' or 'median'")
