"""An (examples, models) array on disk, read model by model without ever being held.

Such an array has one model's values scattered over the whole file. Reading it once for each model would cost
as many passes as there are models. So the first model that is asked for has the file read through once and
written, transposed, to a temporary file without a name, from which every model is then one run of bytes: the
file is read once, written once and read once, however many models there are.

Memory: two slices of 4 MiB, and at least two rows. Disk: as much as the file, while the import runs.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import SourceError
from lirastore.importers.npyfile import Npy

__all__ = ["Columns"]

_SAMPLES: Final = 17
_SAMPLED_ROWS: Final = 64


class Columns:
    """One column for each model. An array in Fortran order is read where it is."""

    def __init__(self, array: Npy, resources: ExitStack, scratch: Path | None) -> None:
        """array: (E, M). resources: what closes the temporary file. scratch: where it may be, once a column
        is read; default: the system's temporary directory."""
        self.array = array
        self.examples, self.models = array.shape
        self._in_place = array.fortran or self.models == 1
        self._resources = resources
        self._scratch = scratch
        self._transposed: IO[bytes] | None = None

    def read(self, model: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """One model's values a slice at a time: (index of the first, (n,)), each in memory of its own."""
        step = self.array.step(())
        with ExitStack() as stack:
            source = stack.enter_context(self.array.reading()) if self._in_place else None
            transposed = self._transpose() if source is None else None
            for start in range(0, self.examples, step):
                stop = min(start + step, self.examples)
                first = model * self.examples + start
                if source is not None:
                    yield start, self.array.read(source, first, first + stop - start, ())
                elif transposed is not None:
                    yield start, self._read(transposed, first, stop - start)

    def fingerprints(self) -> list[str]:
        """A digest of each column's values in 17 runs of up to 64 rows, spread over the whole array."""
        digests = [
            hashlib.sha256(f"{self.examples} {self.array.dtype.str}".encode()) for _ in range(self.models)
        ]
        rows = min(_SAMPLED_ROWS, self.examples)
        with self.array.reading() as file:
            for sample in range(_SAMPLES):
                start = (self.examples - rows) * sample // (_SAMPLES - 1)
                for model, values in enumerate(self._sample(file, start, start + rows)):
                    digests[model].update(values.tobytes())
        return [f"rows:{digest.hexdigest()[:32]}" for digest in digests]

    def _sample(self, file: IO[bytes], start: int, stop: int) -> Iterator[NDArray[Any]]:
        """Rows [start, stop) of every column in turn."""
        if not self._in_place:
            yield from np.ascontiguousarray(self.array.read(file, start, stop, (self.models,)).T)
            return
        for model in range(self.models):
            first = model * self.examples
            yield self.array.read(file, first + start, first + stop, ())

    def _transpose(self) -> IO[bytes]:
        """The temporary file, made when it is first needed: (M, E), in native byte order."""
        if self._transposed is None:
            unnamed = tempfile.TemporaryFile(dir=self._scratch, buffering=0, prefix="lirastore-")  # noqa: SIM115
            file = self._resources.enter_context(unnamed)
            itemsize = self.array.dtype.itemsize
            for start, rows in self.array.rows((self.models,)):
                for model, values in enumerate(np.ascontiguousarray(rows.T)):
                    _write(file, values, (model * self.examples + start) * itemsize)
            self._transposed = file
        return self._transposed

    def _read(self, file: IO[bytes], first: int, count: int) -> NDArray[Any]:
        values = np.empty(count, dtype=self.array.dtype.newbyteorder("="))
        rest, offset = values.view(np.uint8).data, first * values.itemsize
        while rest:
            n = os.preadv(file.fileno(), [rest], offset)
            if not n:
                raise SourceError(f"{self.array.where}: its transposed copy was cut short; ingest again")
            rest, offset = rest[n:], offset + n
        return values


def _write(file: IO[bytes], values: NDArray[Any], offset: int) -> None:
    rest = values.view(np.uint8).data
    while rest:
        n = os.pwrite(file.fileno(), rest, offset)
        rest, offset = rest[n:], offset + n
