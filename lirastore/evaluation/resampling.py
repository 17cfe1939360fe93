"""How often each example is drawn in each replicate of the bootstrap."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

__all__ = ["Resamples", "weights"]

Array = np.ndarray[Any, Any]

_FEWEST = 64


def weights(examples: int, replicate: int, seed: int) -> Array:
    """(examples,) uint8: how often each example is drawn in one replicate.

    Replicate 0 is the data as they are, once each. In the others, as many examples as there are are drawn
    with replacement (Efron 1979), by the generator Philox with the key (seed, replicate): none depends on how
    many replicates there are, or on which are computed together. No count comes near 256: the probability is
    below 1e-500.
    """
    if replicate == 0:
        return np.ones(examples, np.uint8)
    generator = np.random.Generator(np.random.Philox(key=[seed, replicate]))
    drawn = generator.integers(0, examples, examples, dtype=np.uint32)
    return np.bincount(drawn, minlength=examples).astype(np.uint8)


class Resamples:
    """The weights of all replicates, some at a time where all together are too large.

    `budget` is in bytes: at most that much is held, or 64 replicates if those take more. What was made last
    is kept, so that the attacks of a store, which mostly score the same examples, share it.
    """

    def __init__(self, replicates: int, seed: int, *, budget: int, threads: int) -> None:
        self.replicates = replicates
        self.seed = seed
        self._budget = budget
        self._threads = threads
        self._made: tuple[int, int, Array] | None = None

    def chunks(self, examples: int) -> Iterator[Array]:
        """(examples, R) uint8 for replicates 0, 1, … in order, R of them at a time."""
        most = max(_FEWEST, self._budget // max(1, examples))
        for first in range(0, self.replicates + 1, most):
            yield self._chunk(examples, first, min(first + most, self.replicates + 1))

    def _chunk(self, examples: int, first: int, stop: int) -> Array:
        if self._made is None or self._made[:2] != (examples, first) or len(self._made[2][0]) != stop - first:
            self._made = None  # its memory goes before the next takes its own
            self._made = (examples, first, self._draw(examples, first, stop))
        return self._made[2]

    def _draw(self, examples: int, first: int, stop: int) -> Array:
        drawn = np.empty((examples, stop - first), np.uint8)

        def fill(start: int) -> None:  # by the cache line: single columns would be written byte by byte
            end = min(start + 64, stop)
            rows = [weights(examples, replicate, self.seed) for replicate in range(start, end)]
            drawn[:, start - first : end - first] = np.stack(rows, axis=1)

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(fill, range(first, stop, 64)))
        return drawn
