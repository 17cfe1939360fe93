"""Combines the states of a first pass as they come: the same to the bit, whoever finishes first."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Fold"]

State = TypeVar("State")


class Fold(Generic[State]):
    """Merges states over the binary tree of the tiles, of which node k of level l is [k·2^l, (k + 1)·2^l).

    The state of a node is that of its left half combined with that of its right half, and nothing else: it
    depends on the tiles alone, not on how they were shared out or in which order they arrived. A node is held
    until its sibling is there, so that a run of n tiles is held as at most 2·log₂ n states.
    """

    def __init__(self, combine: Callable[[State, State], State]) -> None:
        """`combine`: (state of earlier tiles, state of the tiles right after them) -> state of both."""
        self.combine = combine
        self._nodes: dict[tuple[int, int], State] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many states are held."""
        return len(self._nodes)

    def add(self, tile: int, state: State) -> None:
        """Adds the state of the tile of that index; each tile once."""
        with self._lock:
            self._put(0, tile, state)

    def absorb(self, other: Fold[State]) -> None:
        """Takes over what another fold holds, of tiles that this one has not seen; called by any thread."""
        with self._lock:
            for (level, index), state in other._nodes.items():
                self._put(level, index, state)

    def result(self) -> State:
        """The state of all tiles, once those from 0 to the last are there."""
        ordered = sorted(self._nodes, key=lambda node: node[1] << node[0])
        return functools.reduce(self.combine, (self._nodes[node] for node in ordered))

    def _put(self, level: int, index: int, state: State) -> None:
        while (level, index ^ 1) in self._nodes:
            sibling = self._nodes.pop((level, index ^ 1))
            pair = (sibling, state) if index & 1 else (state, sibling)
            state = self.combine(*pair)
            level, index = level + 1, index >> 1
        self._nodes[level, index] = state
