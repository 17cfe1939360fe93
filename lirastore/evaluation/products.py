"""Matrix products on the calling thread.

BLAS would run large products on threads of its own, as many as the machine has cores: beside ours these are
too many, and they spin while they wait for each other, so that with other work on the machine a product takes
five times as long. Tiles of 64 × 64 × 64 are too small for that, OpenBLAS takes one thread for up to 2^18
multiplications, and reach four fifths of a core's speed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["add_product", "padded", "tiles", "untiled"]

Array = np.ndarray[Any, Any]

_TILE = 64


def padded(values: Array) -> Array:
    """(k, n) as float32, with zeros up to whole tiles."""
    full = np.zeros((_up(len(values)), _up(values.shape[1])), np.float32)
    full[: len(values), : values.shape[1]] = values
    return full


def tiles(rows: int, columns: int) -> Array:
    """Zeros in the form that `add_product` adds to: (row of tiles, column of tiles, row, column) float32."""
    return np.zeros((_up(rows) // _TILE, _up(columns) // _TILE, _TILE, _TILE), np.float32)


def add_product(total: Array, left: Array, right: Array) -> None:
    """Adds leftᵀ · right, of padded (k, m) and (k, n). Exact for whole numbers whose sums stay below 2^24."""
    rows, columns = _stacked(left).swapaxes(-1, -2), _stacked(right)
    step = np.empty_like(total[0])
    for place, sums in enumerate(total):  # one row of tiles at a time, which stays in the cache
        for inner in range(len(rows)):
            sums += np.matmul(rows[inner, place], columns[inner], out=step)


def _stacked(values: Array) -> Array:
    """(k, n) -> (k / 64, n / 64, 64, 64), contiguous: rows far apart are slow to read again and again."""
    rows, columns = values.shape
    tiled = values.reshape(rows // _TILE, _TILE, columns // _TILE, _TILE).swapaxes(1, 2)
    return np.ascontiguousarray(tiled)


def untiled(total: Array, rows: int, columns: int) -> Array:
    """What was added up, (rows, columns) float64."""
    high, wide = total.shape[:2]
    whole = total.swapaxes(1, 2).reshape(high * _TILE, wide * _TILE)
    return whole[:rows, :columns].astype(np.float64)


def _up(size: int) -> int:
    return -(-size // _TILE) * _TILE
