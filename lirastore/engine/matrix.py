"""The matrix of a `PerTarget` pass: written by blocks, finished target by target, read by blocks.

It lies in a file without a name beside the results, so that nothing is left of it however the process ends.
A target's row is contiguous: 8 bytes per example, in native order.
"""

from __future__ import annotations

import errno
import os
import tempfile
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import numpy.typing as npt

from lirastore.store.reader import fill

__all__ = ["MatrixFile", "MatrixPart"]

Float64 = npt.NDArray[np.float64]

_ITEM = np.dtype(np.float64).itemsize


class MatrixFile:
    """(M, E) float64 on disk. Threads may write and read different parts of it at a time."""

    def __init__(self, folder: Path, models: int, examples: int) -> None:
        """Made in `folder`, which must exist."""
        self.shape = (models, examples)
        self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115 - closed by `__exit__`
            dir=folder, prefix=".matrix-", buffering=0
        )

    def __enter__(self) -> MatrixFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, start: int, values: Float64) -> None:
        """Puts (M, n) where the examples from `start` on are."""
        for target, row in enumerate(values):
            self.put(target, row, start)

    def read(self, start: int, stop: int) -> Float64:
        """(M, stop − start)."""
        values = np.empty((self.shape[0], stop - start))
        for target, row in enumerate(values):
            self._fill(row, target, start)
        return values

    def put(self, target: int, values: Float64, start: int = 0) -> None:
        """Puts (n,) into a target's row, where the examples from `start` on are."""
        rest = np.ascontiguousarray(values).data.cast("B")
        offset = self._offset(target, start)
        while rest:
            written = os.pwrite(self._file.fileno(), rest, offset)
            rest, offset = rest[written:], offset + written

    def row(self, target: int) -> Float64:
        """(E,): all values of a target."""
        values = np.empty(self.shape[1])
        self._fill(values, target, 0)
        return values

    def part(self, start: int, stop: int) -> MatrixPart:
        """The examples [start, stop) for one block; nothing is read yet."""
        return MatrixPart(self, start, stop)

    def _fill(self, out: Float64, target: int, start: int) -> None:
        if not fill(self._file.fileno(), [out.data.cast("B")], self._offset(target, start)):
            raise OSError(errno.EIO, "a temporary file of this run is shorter than what was written to it")

    def _offset(self, target: int, start: int) -> int:
        return (target * self.shape[1] + start) * _ITEM


class MatrixPart:
    """A block's part of a matrix, read when it is first asked for; used by one thread."""

    def __init__(self, matrix: MatrixFile, start: int, stop: int) -> None:
        self._matrix, self._start, self._stop = matrix, start, stop

    @cached_property
    def _values(self) -> Float64:
        return self._matrix.read(self._start, self._stop)

    def read(self, start: int, stop: int) -> Float64:
        """(M, stop − start), of examples within the block."""
        return self._values[:, start - self._start : stop - self._start]
