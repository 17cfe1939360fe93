"""Third pass of the bootstrap: every replicate's counts of members and non-members."""

from __future__ import annotations

from typing import Any

import numpy as np

from lirastore.evaluation.products import add_product, padded, tiles, untiled
from lirastore.evaluation.stream import Block, Pass
from lirastore.evaluation.survey import BINS, count_edges
from lirastore.evaluation.windows import blocks_of

__all__ = ["Weighing"]

Array = np.ndarray[Any, Any]

_EXAMPLES = 512


class Weighing:
    """Sums over examples of their weights times what they have above the bounds, and in each bin.

    weights: (n, R) uint8. example: the place of each of the store's examples among the n. edges: as `Survey`
    has them. bounds: (rates, R), as `Windows` has them. Results, float64 but whole numbers and exact: `tp`
    (rates, R), members above the bounds, `outside` and `inside` (BINS, R), non-members and members by bin.
    Memory: 8 KB per replicate, and per thread 20 KB per replicate and 8 MB.
    """

    def __init__(self, weights: Array, example: Array, edges: Array, bounds: Array) -> None:
        self._weights = weights
        self._example = example
        self._edges = edges
        self._order = np.argsort(-bounds, axis=1)
        descending = np.take_along_axis(bounds, self._order, axis=1)
        most = 2 ** int(np.ceil(np.log2(bounds.shape[1] + 1))) - 1
        self._bounds = np.pad(
            descending[:, ::-1], ((0, 0), (0, most - bounds.shape[1])), constant_values=np.inf
        )
        self._rates, self._replicates = bounds.shape
        self._highest, self._lowest = descending[:, 0], descending[:, -1]
        self._columns = 2 * BINS + self._rates
        self._total = np.zeros((self._columns, self._replicates))
        self._between = np.zeros(bounds.shape)

    @property
    def tp(self) -> Array:
        return self._total[2 * BINS :] + self._between

    @property
    def outside(self) -> Array:
        return self._total[:BINS]

    @property
    def inside(self) -> Array:
        return self._total[BINS : 2 * BINS]

    def step(self) -> Pass:
        """The pass."""
        return Pass(self._work, self._merge)

    def _merge(self, found: tuple[Array, Array]) -> None:
        total, between = found
        self._total += untiled(total, *self._total.shape)
        self._between += between

    def _work(self, block: Block) -> tuple[Array, Array]:
        """What one block adds, which has too few rows for float32 sums to round: in tiles, and (rates, R)."""
        example = self._example[block.example]
        column = count_edges(self._edges, block.score) + BINS * block.member
        total, between = tiles(*self._total.shape), np.zeros(self._between.shape)
        starts = np.flatnonzero(np.diff(example, prepend=-1))
        ends = np.append(starts[1:], len(example))
        for some in blocks_of(len(starts), _EXAMPLES):
            rows = slice(starts[some.start], ends[some.stop - 1])
            weights = padded(self._weights[example[starts[some]]])
            whose = np.repeat(np.arange(some.stop - some.start), (ends - starts)[some])
            inside = block.member[rows]
            members, score = whose[inside], block.score[rows][inside]
            add_product(total, padded(self._counts(whose, column[rows], members, score)), weights)
            self._add_between(members, score, weights, between)
        return total, between

    def _counts(self, whose: Array, column: Array, members: Array, score: Array) -> Array:
        """(e, columns): of each example, non-members and members by bin, and members above all bounds."""
        examples = whose[-1] + 1
        binned = np.bincount(whose * (2 * BINS) + column, minlength=examples * 2 * BINS)
        above = [np.bincount(members[score > bound], minlength=examples) for bound in self._highest]
        return np.hstack([binned.reshape(examples, 2 * BINS), np.stack(above, axis=1)])

    def _add_between(self, members: Array, score: Array, weights: Array, between: Array) -> None:
        """Adds the members who are above some bounds of a rate and not above others."""
        for rate in range(self._rates):
            some = (score > self._lowest[rate]) & (score <= self._highest[rate])
            if some.any():
                counted = self._by_bound(rate, members[some], score[some], weights)
                between[rate, self._order[rate]] += counted

    def _by_bound(self, rate: int, members: Array, score: Array, weights: Array) -> Array:
        """(R,) weights of such members, by descending bound: each counts from the first bound below it on."""
        width = self._replicates + 1
        examples, whose = np.unique(members, return_inverse=True)
        first = self._replicates - count_edges(self._bounds[rate], score, strict=True)
        steps = np.bincount(whose * width + first, minlength=len(examples) * width)
        above = np.cumsum(steps.reshape(len(examples), width)[:, :-1], axis=1, dtype=np.float32)
        drawn = weights[examples][:, self._order[rate]]
        counted: Array = np.einsum("er,er->r", above, drawn)
        return counted
