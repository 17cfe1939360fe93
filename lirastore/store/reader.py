"""Reads the shards of per-model arrays as they are stored.

Every inner chunk is read by `preadv`, straight into the caller's array where it is wanted whole and else into
a buffer kept per thread, and its crc32c is checked while it is in cache. Nothing is ever filled in: what is
absent, short or altered is `Unreadable`.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lirastore.store.layout import CRC_BYTES, INDEX_ENTRY_BYTES, ArraySpec
from lirastore.store.shards import ABSENT, crc32c

__all__ = ["ShardReader", "Unreadable", "fill", "opened"]

Array = np.ndarray[Any, Any]


class Unreadable(Exception):
    """An object that cannot be read as what it must be: its key, and what is wrong with it."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class ShardReader:
    """Reads examples out of one model's shards. Stateless but for one buffer per thread; thread-safe."""

    def __init__(self) -> None:
        self._local = threading.local()

    def read(self, directory: str, spec: ArraySpec, start: int, stop: int, out: Array) -> None:
        """Fills `out` (stop-start, …) with examples [start, stop) from the objects under `directory`.

        Touches only the inner chunks that overlap the range. Raises Unreadable with the object's key.
        """
        if start == stop:
            return
        direct = out.flags.c_contiguous and out.dtype == spec.dtype and spec.whole_examples
        for row in range(start // spec.shard, -(-stop // spec.shard)):
            for column in range(spec.shard_grid[1]):
                key = spec.key(row, column)
                with opened(f"{directory}/{key}", key) as fd:
                    _Shard(self._scratch(spec.chunk_bytes), fd, spec, row, column, key).read(
                        start, stop, out, direct
                    )

    def _scratch(self, size: int) -> Array:
        buffer: Array | None = getattr(self._local, "buffer", None)
        if buffer is None or buffer.nbytes < size:
            buffer = self._local.buffer = np.empty(size, dtype=np.uint8)
        return buffer[:size]


class _Shard:
    """One open shard object."""

    def __init__(self, scratch: Array, fd: int, spec: ArraySpec, row: int, column: int, key: str) -> None:
        self._fd = fd
        self._spec = spec
        self._key = key
        self._first = row * spec.shard
        self._column = column
        self._scratch = scratch
        self._chunk = scratch.view(spec.dtype).reshape(spec.chunk_shape[1:])
        self._crc = bytearray(CRC_BYTES)
        self._index = self._read_index()

    def read(self, start: int, stop: int, out: Array, direct: bool) -> None:
        """Copies the overlap of this shard with examples [start, stop) to its place in `out`."""
        spec = self._spec
        stop_here = min(stop, self._first + spec.shard)
        first_row = (max(start, self._first) - self._first) // spec.chunk
        for row in range(first_row, -(-(stop_here - self._first) // spec.chunk)):
            low = self._first + row * spec.chunk
            high = low + spec.chunk
            if direct and low >= start and high <= stop_here:
                self._fetch(row, out[low - start : high - start].reshape(-1).view(np.uint8))
            else:
                self._copy_row(row, max(low, start), min(high, stop_here), out, start)

    def _copy_row(self, row: int, low: int, high: int, out: Array, start: int) -> None:
        """Copies examples [low, high), which lie in one row of inner chunks, through the buffer."""
        spec = self._spec
        offset = low - self._first - row * spec.chunk
        wanted = slice(offset, offset + high - low)
        target = out[low - start : high - start]
        if spec.whole_examples:
            self._fetch(row, self._scratch)
            target[...] = self._chunk[wanted]
            return
        width = spec.augmentations_per_chunk
        for column in range(spec.chunk_columns):
            left = self._column * spec.augmentations_per_shard + column * width
            part = target[:, left : left + width]
            if part.shape[1]:
                self._fetch(row * spec.chunk_columns + column, self._scratch)
                part[...] = self._chunk[wanted, : part.shape[1]]

    def _read_index(self) -> list[list[int]]:
        length = self._spec.chunks_per_shard * INDEX_ENTRY_BYTES
        at = os.fstat(self._fd).st_size - length - CRC_BYTES
        raw = os.pread(self._fd, length + CRC_BYTES, at) if at >= 0 else b""
        if len(raw) != length + CRC_BYTES or crc32c(raw[:length]) != int.from_bytes(raw[length:], "little"):
            raise Unreadable(self._key, "its shard index is missing or fails its crc32c")
        index: list[list[int]] = np.frombuffer(raw, dtype="<u8", count=length // 8).reshape(-1, 2).tolist()
        return index

    def _fetch(self, position: int, into: Array) -> None:
        """Reads inner chunk `position` into the bytes `into` and checks it."""
        offset, nbytes = self._index[position]
        if (offset, nbytes) == (ABSENT, ABSENT):
            raise Unreadable(self._key, f"inner chunk {position} is absent")
        if nbytes != into.nbytes + CRC_BYTES:
            raise Unreadable(
                self._key, f"inner chunk {position} has {nbytes} bytes, expected {into.nbytes + CRC_BYTES}"
            )
        if not fill(self._fd, [into.data, memoryview(self._crc)], offset):
            raise Unreadable(self._key, f"it ends within inner chunk {position}")
        if crc32c(into) != int.from_bytes(self._crc, "little"):
            raise Unreadable(self._key, f"inner chunk {position} fails its crc32c")


def fill(fd: int, buffers: list[memoryview], offset: int) -> bool:
    """Fills the buffers from `offset` on; False if the file ends before."""
    while buffers:
        n = os.preadv(fd, buffers, offset)
        if n == 0:
            return False
        offset += n
        while buffers and n >= buffers[0].nbytes:
            n -= buffers.pop(0).nbytes
        if n:
            buffers[0] = buffers[0][n:]
    return True


@contextmanager
def opened(path: str, key: str) -> Iterator[int]:
    """A read-only descriptor; what is absent, or fails to be read by the disk, is Unreadable."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unreadable(key, "the object is absent") from error
    try:
        yield fd
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EISDIR):
            raise
        raise Unreadable(key, f"the object cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
