"""The shard codec: what Zarr v3 calls `sharding_indexed` over `bytes` and `crc32c`, streamed.

A shard object is its inner chunks, raw little-endian, each followed by its crc32c (4 bytes, little-endian),
then the index: (offset, nbytes) as two little-endian uint64 per inner chunk in C order, then the crc32c of
the index. An absent inner chunk has 2**64 - 1 for both.

The library has its own codec because this is where all the bytes go: a writer must not hold a shard in
memory, and a reader must reach the speed of the page cache without an allocation per chunk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from lirastore.errors import InputError
from lirastore.store.layout import ArraySpec

__all__ = ["ArrayWriter", "ShardWriter", "StoredObject", "crc32c"]

ABSENT = 2**64 - 1
_U64 = np.dtype("<u8")


class StoredObject(NamedTuple):
    """One object as stored: its size in bytes and the sha256 of its bytes (hexadecimal)."""

    size: int
    sha256: str


def crc32c(data: bytes | np.ndarray[Any, Any]) -> int:
    """CRC-32C (Castagnoli) of contiguous bytes."""
    return int(google_crc32c.value(data))


class ShardWriter:
    """Streams the inner chunks of one shard to a new file, in the C order of the shard's chunk grid.

    Holds nothing but the index: memory does not depend on the shard. The file must not exist; `finish`
    writes the index and flushes the file to disk. Leaving a `with` block without `finish` closes the file and
    leaves the fragment to whoever owns the directory.
    """

    def __init__(self, path: Path, chunks: int) -> None:
        self._index = np.full((chunks, 2), ABSENT, dtype=_U64)
        self._hash = hashlib.sha256()
        self._next = 0
        self._size = 0
        self._file = path.open("xb", buffering=0)

    def append(self, chunk: np.ndarray[Any, Any]) -> None:
        """Writes one inner chunk: a C-contiguous little-endian array, padded to the full chunk shape."""
        data = chunk.reshape(-1).view(np.uint8).data
        self._index[self._take()] = self._size, data.nbytes + 4
        self._put(data)
        self._put(crc32c(chunk).to_bytes(4, "little"))

    def skip(self) -> None:
        """Leaves one inner chunk absent: allowed only wholly beyond the array's edge."""
        self._take()

    def finish(self) -> StoredObject:
        """Marks the remaining inner chunks absent, writes the index, fsyncs and closes the file."""
        index = self._index.tobytes()
        self._put(index + crc32c(index).to_bytes(4, "little"))
        os.fsync(self._file.fileno())
        self._file.close()
        return StoredObject(self._size, self._hash.hexdigest())

    def close(self) -> None:
        """Closes the file as it is."""
        self._file.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> int:
        position = self._next
        if position == len(self._index):
            raise InputError(f"the shard has {position} inner chunks and all were written")
        self._next += 1
        return position

    def _put(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._size += len(data)
        while data:
            data = data[self._file.write(data) :]


class ArrayWriter:
    """Streams one model's part of one array, example after example, into its shard objects.

    `append` takes blocks of consecutive examples of any length; memory is one row of inner chunks. Objects
    land under `directory` by their keys (`ArraySpec.key`), each flushed to disk when it is full; directories
    are not fsynced here. `finish` returns every object and raises if examples are missing.
    """

    def __init__(self, directory: Path, spec: ArraySpec) -> None:
        self._directory = directory
        self._spec = spec
        self._row = np.empty((spec.chunk, *spec.example_shape), dtype=spec.dtype)
        self._filled = 0
        self._written = 0
        self._shard: ShardWriter | None = None
        self._objects: dict[str, StoredObject] = {}

    @property
    def written(self) -> int:
        """Examples taken so far."""
        return self._written + self._filled

    def append(self, block: np.ndarray[Any, Any]) -> None:
        """Takes the next examples: (n, A, C), (n, A) or (n,), of the array's dtype."""
        if block.shape[1:] != self._spec.example_shape or self.written + len(block) > self._spec.examples:
            raise InputError(
                f"{self._spec.name}: a block of shape {block.shape} after {self.written} examples; expected "
                f"at most {self._spec.examples - self.written} examples of shape {self._spec.example_shape}"
            )
        while len(block):
            n = min(len(block), self._spec.chunk - self._filled)
            self._row[self._filled : self._filled + n] = block[:n]
            self._filled += n
            block = block[n:]
            if self._filled == self._spec.chunk:
                self._flush_row()

    def finish(self) -> dict[str, StoredObject]:
        """Completes the last shard; returns {key: object} in key order."""
        if self.written != self._spec.examples:
            raise InputError(
                f"{self._spec.name}: {self.written} of {self._spec.examples} examples were appended"
            )
        if self._filled:
            self._row[self._filled :] = np.nan
            self._flush_row()
        return self._objects

    def close(self) -> None:
        """Closes an unfinished shard; what was written stays for the owner of the directory to remove."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def _flush_row(self) -> None:
        spec = self._spec
        row = self._written // spec.shard
        for column in range(spec.shard_grid[1]):
            shard = self._shard or self._open(row, column)
            for chunk in self._chunks(column):
                if chunk is None:
                    shard.skip()
                else:
                    shard.append(chunk)
            self._shard = shard
            # Several columns mean one example per shard; otherwise the shard stays open until it is full.
            if self._written + self._row.shape[0] >= min((row + 1) * spec.shard, spec.examples):
                self._objects[spec.key(row, column)] = shard.finish()
                self._shard = None
        self._written += self._filled
        self._filled = 0

    def _open(self, row: int, column: int) -> ShardWriter:
        path = self._directory / self._spec.key(row, column)
        # Never the parents of `directory`: an attempt that was removed meanwhile must not come back.
        folders = [path.parent, *path.parent.parents]
        for folder in reversed(folders[: folders.index(self._directory) + 1]):
            folder.mkdir(exist_ok=True)
        return ShardWriter(path, self._spec.chunks_per_shard)

    def _chunks(self, column: int) -> Iterator[np.ndarray[Any, Any] | None]:
        """The row's inner chunks in one column of shards, padded with NaN; None wholly beyond the edge."""
        spec = self._spec
        if spec.whole_examples:
            yield self._row
            return
        first = column * spec.augmentations_per_shard
        for start in range(first, first + spec.augmentations_per_shard, spec.augmentations_per_chunk):
            part = self._row[:, start : start + spec.augmentations_per_chunk]
            if not part.shape[1]:
                yield None
                continue
            chunk = np.full((spec.chunk, *spec.chunk_shape[2:]), np.nan, dtype=spec.dtype)
            chunk[:, : part.shape[1]] = part
            yield chunk
