"""How the examples of a store are cut into tiles, and runs of tiles into blocks."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

__all__ = ["Grid", "cut", "make_grid"]


@dataclass(frozen=True)
class Grid:
    """Where tiles begin: every `tile` examples, starting anew at every multiple of each period.

    The periods are the lengths of inner chunks, so that a block can end where a chunk does.
    """

    examples: int
    tile: int
    periods: tuple[int, ...] = ()

    @cached_property
    def bounds(self) -> npt.NDArray[np.int64]:
        """(tiles + 1,) int64: where each tile begins, then the number of examples."""
        ends = [np.array([0, self.examples])]
        marks = np.unique(np.concatenate(ends + [np.arange(0, self.examples, each) for each in self.periods]))
        tiles = -(-np.diff(marks) // self.tile)
        place = np.arange(tiles.sum()) - np.repeat(np.cumsum(tiles) - tiles, tiles)
        starts = np.repeat(marks[:-1], tiles) + place * self.tile
        return np.append(starts, self.examples).astype(np.int64)

    @property
    def tiles_in_all(self) -> int:
        """How many tiles there are."""
        return len(self.bounds) - 1

    @cached_property
    def largest(self) -> int:
        """Examples in the largest tile."""
        return int(np.diff(self.bounds).max())

    def tiles(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The tiles of a block; `start` and `stop` are tile bounds."""
        first, last = np.searchsorted(self.bounds, (start, stop))
        return itertools.pairwise(self.bounds[first : last + 1].tolist())

    def index(self, start: int) -> int:
        """How many tiles there are before the one that starts at `start`."""
        return int(np.searchsorted(self.bounds, start))

    def round(self, example: float) -> int:
        """The tile bound at or next below `example`, never below the first tile's end."""
        place = int(np.searchsorted(self.bounds, example, side="right")) - 1
        return int(self.bounds[max(1, place)])

    def is_bound(self, example: int) -> bool:
        """Whether a tile begins, or the last one ends, there."""
        return bool(self.bounds[min(self.index(example), len(self.bounds) - 1)] == example)


def make_grid(examples: int, tile: int, chunks: Collection[int]) -> Grid:
    """Tiles of about `tile` examples for arrays with inner chunks of these lengths.

    Tiles start anew with each chunk that is longer than a tile; of the others, the longest divides them.
    """
    longer = sorted({chunk for chunk in chunks if chunk > tile})
    shorter = [chunk for chunk in chunks if chunk <= tile]
    if shorter:
        tile = tile // max(shorter) * max(shorter)
    elif longer:
        tile = -(-longer[0] // -(-longer[0] // tile))
    return Grid(examples, tile, tuple(longer))


def cut(grid: Grid, count: int, chunk: int = 1) -> tuple[tuple[int, int], ...]:
    """About `count` even blocks of whole tiles, (start, stop) each.

    They are cut at multiples of `chunk` where that moves a cut by no more than an eighth of a block.
    """
    size = grid.examples / count
    bounds = {0, grid.examples}
    for index in range(1, count):
        even = size * index
        aligned = round(even / chunk) * chunk
        near = 0 < aligned < grid.examples and abs(aligned - even) <= size / 8
        bounds.add(aligned if near and grid.is_bound(aligned) else grid.round(even))
    return tuple(itertools.pairwise(sorted(bounds)))
