"""The interval of a signal that tells members from non-members best, found exactly, on other folds' models.

For every pair of model and example that may be attacked there is one value: float32, lower means member
(Mentr, or a loss). All of them are sorted once; one walk per fold over the values of the other folds' models
then finds the interval that maximises the balanced accuracy of "member iff lower ≤ value ≤ upper". With n
members and m non-members that is the run of sorted values with the largest sum, where a member weighs m and
a non-member −n: integers, so that ties are ties.

Memory, M models and E examples: 12 bytes per pair, and 32 MB for the walks (`pairs_bytes`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block
from lirastore.attacks.crossfit import fold_of
from lirastore.attacks.folds import FOLDS
from lirastore.attacks.summary import Sizes

__all__ = ["Intervals", "Pairs", "best_intervals", "pairs", "pairs_bytes"]

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

# Rows of a walk that are looked at together.
_STEP = 1 << 18
_WALK_BYTES = 32 << 20
_NONE = 1 << 62  # above every sum


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of a run of examples: values (M, e) float32, lower means member; member (M, e) bool; label
    (e,); fold (M,) int64, of the models."""

    values: npt.NDArray[np.float32]
    member: Bool
    label: npt.NDArray[np.integer[Any]]
    fold: Int64


@dataclass(frozen=True, eq=False)
class Intervals:
    """The best interval of each fold's targets, per label or for all labels together.

    labels (L,) int64, ascending, or None; lower, upper (F, L) float64: values of the other folds' models, or
    NaN where these have no member or no non-member.
    """

    labels: Int64 | None
    lower: Float64
    upper: Float64

    def of(self, block: Block) -> tuple[Float64, Float64]:
        """(M, e) lower and upper ends for the block's targets; NaN where there is no interval."""
        fold = fold_of(block)[:, None]
        if self.labels is None:
            place = np.zeros(len(block.label), np.intp)
        else:  # a label that no example to be attacked has stands last
            place = np.searchsorted(self.labels, block.label)
            place[~np.isin(block.label, self.labels)] = len(self.labels)
        ends = np.pad([self.lower, self.upper], ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
        return ends[0, fold, place], ends[1, fold, place]


def pairs(block: Block, signal: str) -> tuple[Pairs, ...]:
    """The block's pairs that may be attacked; `signal` (first query) is turned round, so that lower means
    member."""
    use = slice(None) if block.attack_mask is None else block.attack_mask
    values = np.negative(block.signal(signal, queries="first")[:, use, 0], dtype=np.float32)
    return (Pairs(values, block.member[:, use], block.label[use], fold_of(block)),)


def pairs_bytes(sizes: Sizes) -> int:
    """The memory that `Pairs` of all examples and the walks over them take."""
    return 12 * sizes.models * sizes.examples + 24 * sizes.examples + _WALK_BYTES


def best_intervals(pairs: tuple[Pairs, ...], *, per_label: bool, open_below: bool) -> Intervals:
    """The intervals with the greatest balanced accuracy on the models of the other folds.

    Of several, the one with the smallest upper end, then the smallest lower end. Both are values that these
    models gave.

    Args:
        pairs: of successive runs of examples.
        per_label: an interval for each label.
        open_below: only intervals without a lower end, −∞: thresholds.
    """
    label = np.concatenate([part.label for part in pairs]).astype(np.int64)
    labels = np.unique(label) if per_label else None
    found = np.full((2, FOLDS, 1 if labels is None else len(labels)), np.nan)
    for place, rows in enumerate(_sorted_rows(pairs, label if per_label else np.zeros_like(label))):
        counts = _counts(rows)
        for fold in range(FOLDS):
            found[:, fold, place] = _Walk(rows, fold, counts, open_below=open_below).best()
    return Intervals(labels, found[0], found[1])


# --- sorted rows ---------------------------------------------------------------------------------


def _sorted_rows(pairs: tuple[Pairs, ...], group: Int64) -> Iterator[UInt64]:
    """The rows of each group of examples in turn, ascending: 32 bits of value, fold, 1 bit of membership."""
    order = np.argsort(group, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = np.empty((len(order), len(pairs[0].fold)), np.uint64)
    start = 0
    for part in pairs:
        stop = start + len(part.label)
        rows[place[start:stop]] = _packed(part).T
        start = stop
    if not start:
        return
    for together in np.split(rows, np.flatnonzero(np.diff(group[order])) + 1):
        together = together.reshape(-1)
        together.sort()
        yield together


def _packed(part: Pairs) -> UInt64:
    values = part.values + np.float32(0)  # −0 is 0
    bits = values.view(np.uint32)
    ordered = np.where(values < 0, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    tag = (part.fold[:, None] << 1 | part.member).astype(np.uint64)
    return np.asarray(ordered << np.uint64(32) | tag)


def _value(code: int) -> float:
    """The value of the upper 32 bits of a row."""
    bits = code ^ (1 << 31) if code >> 31 else code ^ 0xFFFF_FFFF
    return float(np.uint32(bits).view(np.float32))


def _counts(rows: UInt64) -> Int64:
    """(F, 2): non-members and members of each fold."""
    found = np.zeros(2 * FOLDS, np.int64)
    for start in range(0, len(rows), _STEP):
        part = rows[start : start + _STEP] & np.uint64(2 * FOLDS - 1)
        found += np.bincount(part.astype(np.intp), minlength=2 * FOLDS)
    return found.reshape(FOLDS, 2)


# --- the walk ------------------------------------------------------------------------------------


class _Walk:
    """One walk over sorted rows for the targets of one fold, whose own rows are passed over."""

    def __init__(self, rows: UInt64, fold: int, counts: Int64, *, open_below: bool) -> None:
        self._rows, self._fold = rows, fold
        self._non_members, self._members = (counts.sum(axis=0) - counts[fold]).tolist()
        self._open_below = open_below
        self._sum = 0  # of the weights so far
        self._last = -1  # the value before, as its code; −1 before the first
        # The smallest sum before any value at which an interval may begin, and the first such value.
        self._least, self._begin = (0, -1) if open_below else (_NONE, -1)
        self._gain, self._ends = -1, (-1, -1)

    def best(self) -> tuple[float, float]:
        """Lower and upper end; NaN without members or without non-members."""
        if not self._members or not self._non_members:
            return np.nan, np.nan
        for start in range(0, len(self._rows), _STEP):
            rows = self._rows[start : start + _STEP]
            rows = rows[(rows >> np.uint64(1)) & np.uint64(FOLDS - 1) != self._fold]
            if len(rows):
                self._take(rows)
        self._look(np.array([self._sum]), np.array([-1]), np.array([self._last]))
        lower, upper = self._ends
        return -np.inf if self._open_below else _value(lower), _value(upper)

    def _take(self, rows: UInt64) -> None:
        codes = (rows >> np.uint64(32)).astype(np.int64)
        weight = np.where(rows & np.uint64(1), self._non_members, -self._members)
        sums = np.cumsum(weight)
        sums += self._sum
        before = np.concatenate([[self._last], codes[:-1]])
        new = np.flatnonzero(codes != before)
        if len(new):
            self._look(sums[new] - weight[new], codes[new], before[new])
        self._sum, self._last = int(sums[-1]), int(codes[-1])

    def _look(self, sums: Int64, codes: Int64, before: Int64) -> None:
        """Where values change: the sum so far, the value that begins there and the one that ends there."""
        least = np.full_like(sums, self._least)
        if not self._open_below:
            np.minimum.accumulate(np.concatenate([[self._least], sums[:-1]]), out=least)
        gains = np.where(before < 0, -1, sums - least)
        end = int(gains.argmax())
        if gains[end] > self._gain:
            begin = self._begin
            if least[end] < self._least:
                begin = int(codes[np.argmax(sums == least[end])])
            self._gain, self._ends = int(gains[end]), (begin, int(before[end]))
        lowest = int(sums.argmin())
        if not self._open_below and sums[lowest] < self._least:
            self._least, self._begin = int(sums[lowest]), int(codes[lowest])
