"""The small arrays of a store: labels, membership, coordinates, pictures. Not sharded, written at creation.

A plain array is cut along its first axis into pieces, one object each: raw little-endian values, padded to
the full piece, then their crc32c.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.store.layout import CRC_BYTES
from lirastore.store.reader import Unreadable, fill, opened
from lirastore.store.shards import crc32c

__all__ = ["PlainSpec", "piece_rows", "read_plain", "text_damage", "text_piece"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PlainSpec:
    """The layout of one plain array; `chunk_shape` is that of a piece, whole but for the first axis."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_shape: tuple[int, ...]

    @property
    def pieces(self) -> int:
        """How many objects there are."""
        return -(-self.shape[0] // self.chunk_shape[0])

    def key(self, piece: int) -> str:
        """The key of one piece below the store."""
        return "/".join([self.name, "c", str(piece), *["0"] * (len(self.shape) - 1)])


def read_plain(root: Path, spec: PlainSpec, rows: npt.NDArray[np.int64]) -> Array:
    """Some rows (indices along the first axis) of a plain array of the store at `root`: (len(rows), …).

    Raises Unreadable with the key of a piece that is absent, of a wrong size, or fails its crc32c.
    """
    out = np.empty((len(rows), *spec.shape[1:]), dtype=spec.dtype)
    length = spec.chunk_shape[0]
    numbers = rows // length
    for piece in np.unique(numbers).tolist():
        here = np.flatnonzero(numbers == piece) if spec.pieces > 1 else slice(None)
        out[here] = _read_piece(root, spec, piece)[rows[here] - piece * length]
    return out


def piece_rows(spec: PlainSpec, piece: int) -> npt.NDArray[np.int64]:
    """Which rows one piece holds, without those beyond the array's edge."""
    length = spec.chunk_shape[0]
    return np.arange(piece * length, min((piece + 1) * length, spec.shape[0]))


def _read_piece(root: Path, spec: PlainSpec, piece: int) -> Array:
    key = spec.key(piece)
    raw = np.empty(math.prod(spec.chunk_shape) * spec.dtype.itemsize, dtype=np.uint8)
    crc = bytearray(CRC_BYTES)
    with opened(f"{root}/{key}", key) as fd:
        found = os.fstat(fd).st_size
        if found != raw.nbytes + CRC_BYTES or not fill(fd, [raw.data, memoryview(crc)], 0):
            raise Unreadable(key, f"it has {found} bytes, expected {raw.nbytes + CRC_BYTES}")
    if crc32c(raw) != int.from_bytes(crc, "little"):
        raise Unreadable(key, "it fails its crc32c")
    return raw.view(spec.dtype).reshape(spec.chunk_shape)


def text_piece(values: Sequence[str]) -> bytes:
    """The one object of a string array: codec `vlen-utf8` (count, then length and UTF-8), then crc32c."""
    encoded = [value.encode() for value in values]
    parts = [len(encoded).to_bytes(4, "little")]
    for value in encoded:
        parts += [len(value).to_bytes(4, "little"), value]
    data = b"".join(parts)
    return data + crc32c(data).to_bytes(4, "little")


def text_damage(root: Path, name: str, values: Sequence[str]) -> list[Unreadable]:
    """What is wrong with the object of the string array `name`, which must hold `values`."""
    key = f"{name}/c/0"
    try:
        with opened(f"{root}/{key}", key) as fd:
            found = os.pread(fd, os.fstat(fd).st_size, 0)
    except Unreadable as error:
        return [error]
    return [] if found == text_piece(values) else [Unreadable(key, "it is not what the root document says")]
