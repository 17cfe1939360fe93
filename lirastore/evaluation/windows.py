"""Second pass of the bootstrap: non-members near each rate's threshold, and every replicate's threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lirastore.evaluation.points import allowed
from lirastore.evaluation.products import add_product, padded, tiles, untiled
from lirastore.evaluation.stream import Block, Pass
from lirastore.evaluation.survey import Survey

__all__ = ["Windows", "blocks_of"]

Array = np.ndarray[Any, Any]

_EXAMPLES = 1024
_SEGMENT = 256


@dataclass(frozen=True, eq=False)
class _Near:
    """Non-members in one window, the highest score first: (n,) example, score, how often that pair occurs."""

    example: Array
    score: Array
    count: Array


class Windows:
    """The non-members whose scores lie in the window of each FPR, one by one, and counts of all others.

    example: (E,) int64, the place of each of the store's examples among the n that were scored. `totals` is
    (n, 2 + rates) int64: members, non-members, and non-members above each window. Memory: 64 n bytes, and 16
    bytes per non-member in a window, of which there are about 10·√(most × fpr × non-members); those of an
    example that tie count once.
    """

    def __init__(self, survey: Survey, rates: Sequence[float], deviations: float) -> None:
        self.rates = rates
        self.example = np.cumsum(survey.present) - 1
        self.totals = np.zeros((int(survey.present.sum()), 2 + len(rates)), dtype=np.int64)
        windows = [survey.window(rate, deviations) for rate in rates]
        self._lo, self._hi = (np.array(ends) for ends in zip(*windows, strict=True))
        self._parts: list[list[_Near]] = [[] for _ in rates]
        self._near: list[_Near] = []

    def step(self) -> Pass:
        """The pass."""
        return Pass(self._work, self._merge)

    def _work(self, block: Block) -> tuple[int, Array, list[_Near]]:
        """The first example of the block, the totals of it and of those that follow, and who is near."""
        example = self.example[block.example]
        first, count = int(example.min()), int(np.ptp(example)) + 1
        example = (example - first).astype(np.int32)
        outside = np.flatnonzero(~block.member & (block.score >= self._lo.min()))
        score, whose = block.score[outside], example[outside]
        totals = [
            np.bincount(example[block.member], minlength=count),
            np.bincount(example[~block.member], minlength=count),
            *(np.bincount(whose[score > hi], minlength=count) for hi in self._hi),
        ]
        inside = [(score >= lo) & (score <= hi) for lo, hi in zip(self._lo, self._hi, strict=True)]
        near = [_merged(whose[chosen] + first, score[chosen]) for chosen in inside]
        return first, np.stack(totals, axis=1), near

    def _merge(self, found: tuple[int, Array, list[_Near]]) -> None:
        first, totals, near = found
        self.totals[first : first + len(totals)] += totals
        for parts, part in zip(self._parts, near, strict=True):
            parts.append(part)

    def finish(self) -> None:
        """Orders what was found; before `thresholds`."""
        self._near = [_descending(parts) for parts in self._parts]
        self._parts = []

    # --- thresholds -------------------------------------------------------------------------------

    def thresholds(self, weights: Array) -> tuple[Array, Array, Array] | None:
        """What all replicates of (n, R) `weights` say of non-members; None: a window was too narrow.

        Returns (R,) members, (R,) non-members, and (rates, R) bounds: whoever scores more is called a member
        at that rate. A bound is the highest score of a non-member with which the FPR would exceed the rate,
        and −inf where none would: a tie with it is one step, and is left out as a whole.
        """
        members, nonmembers, *above = self._weighed_totals(weights)
        bounds = np.empty((len(self.rates), weights.shape[1]))
        for n, (rate, near) in enumerate(zip(self.rates, self._near, strict=True)):
            left = allowed(rate, nonmembers) - above[n]
            found = None if (left < 0).any() else _crossing(near, weights, left)
            if found is None or (self._lo[n] > -np.inf and (found == -np.inf).any()):
                return None
            bounds[n] = found
        return members, nonmembers, bounds

    def _weighed_totals(self, weights: Array) -> Array:
        """(2 + rates, R)"""
        shape = self.totals.shape[1], weights.shape[1]
        weighed = np.zeros(shape)
        for rows in blocks_of(len(weights), _EXAMPLES):
            product = tiles(*shape)
            add_product(product, padded(self.totals[rows]), padded(weights[rows]))
            weighed += untiled(product, *shape)
        return weighed


def _merged(example: Array, score: Array) -> _Near:
    """Pairs (example, score), each once."""
    order = np.lexsort((score, example))
    example, score = example[order], score[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (example[1:] != example[:-1]) | (score[1:] != score[:-1])
    first = np.flatnonzero(new)
    count = np.diff(first, append=len(example))
    return _Near(example[first], score[first], count.astype(np.float32))


def _descending(parts: Sequence[_Near]) -> _Near:
    example, score, count = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("example", "score", "count")
    )
    order = np.argsort(-score)
    return _Near(example[order], score[order], count[order])


def _crossing(near: _Near, weights: Array, left: Array) -> Array:
    """(R,) the first score with which the weighted count, from the highest down, exceeds (R,) `left`.

    −inf where none does. Sums over segments find the segment of each replicate, which is then looked through.
    All sums are of whole numbers, so exact.
    """
    size = max(_SEGMENT, -(-len(near.score) // 512))
    segments = list(blocks_of(len(near.score), size))
    sums = np.empty((len(segments), weights.shape[1]))
    for segment, rows in enumerate(segments):
        drawn = weights[near.example[rows]].astype(np.float32)
        sums[segment] = np.einsum("n,nr->r", near.count[rows], drawn)
    total = np.cumsum(sums, axis=0)
    within = (total <= left).sum(axis=0)
    found = np.full(weights.shape[1], -np.inf)
    for segment in np.unique(within[within < len(segments)]):
        replicates = np.flatnonzero(within == segment)
        rows = segments[segment]
        drawn = weights[near.example[rows][:, None], replicates] * near.count[rows][:, None]
        before = total[segment, replicates] - sums[segment, replicates]
        passed = np.cumsum(drawn, axis=0, dtype=np.float64) + before > left[replicates]
        found[replicates] = near.score[rows][passed.argmax(axis=0)]
    return found


def blocks_of(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `count` rows."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
