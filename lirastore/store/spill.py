"""Where batches go that do not come in the order of the examples, until all have come."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.errors import DamagedStore, InputError
from lirastore.store.examples import Examples
from lirastore.store.faults import reach
from lirastore.store.layout import ArraySpec
from lirastore.store.shards import ArrayWriter, StoredObject

__all__ = ["ModelSink"]

ASSEMBLE_BYTES = 2 * 1024 * 1024


class ModelSink:
    """Takes all arrays of one model, example by example, and leaves their objects under `directory`.

    Batches in the order of the examples are streamed. The first one out of order ends that: it and all later
    ones go to raw temporary files in `scratch`, one per array, each example at its own offset; `finish` reads
    them back in order. Either way memory is a few inner chunks. The temporary files have no names and vanish
    with the process. Every example must be written once: the caller sees to that.
    """

    def __init__(self, directory: Path, arrays: Mapping[str, ArraySpec], scratch: Path) -> None:
        self._arrays = arrays
        self._scratch = scratch
        self._total = next(iter(arrays.values())).examples
        self._streams = {name: ArrayWriter(directory / name, spec) for name, spec in arrays.items()}
        self._spills: dict[str, SpillFile] = {}
        self._next = 0
        self._taken = 0

    def write(self, examples: Examples, blocks: Mapping[str, npt.NDArray[Any]]) -> None:
        """Takes a block of every array, (n, …) each, of the arrays' dtypes."""
        self._taken += len(examples)
        if not self._spills and isinstance(examples, range) and examples.start == self._next:
            self._append(examples.stop, blocks)
            return
        if not self._spills:
            self._spills = {name: SpillFile(self._scratch, spec) for name, spec in self._arrays.items()}
            reach("spill.opened")
        for name, block in blocks.items():
            self._spills[name].write(examples, block)

    def finish(self) -> dict[str, dict[str, StoredObject]]:
        """Completes every array; returns {array: {key: object}}."""
        if self._taken != self._total:  # a hole in a temporary file would read as zeros
            raise InputError(f"{self._taken} examples were written, expected {self._total}")
        if self._spills:
            self._assemble()
            reach("spill.assembled")
        return {name: stream.finish() for name, stream in self._streams.items()}

    def close(self) -> None:
        """Closes all files, as they are."""
        for stream in self._streams.values():
            stream.close()
        for spill in self._spills.values():
            spill.close()

    def _append(self, stop: int, blocks: Mapping[str, npt.NDArray[Any]]) -> None:
        for name, block in blocks.items():
            self._streams[name].append(block)
        self._next = stop

    def _assemble(self) -> None:
        widest = max(spec.example_bytes for spec in self._arrays.values())
        step = max(1, ASSEMBLE_BYTES // widest)
        for start in range(self._next, self._total, step):
            stop = min(start + step, self._total)
            self._append(stop, {name: spill.read(start, stop) for name, spill in self._spills.items()})


class SpillFile:
    """One model's part of one array as a raw file: example i at i times its size."""

    def __init__(self, scratch: Path, spec: ArraySpec) -> None:
        self._scratch = scratch
        self._spec = spec
        # Lives until `close`. It has no name on disk, so that nothing is left behind however this ends.
        self._file = tempfile.TemporaryFile(dir=scratch, buffering=0, prefix="lirastore-")  # noqa: SIM115

    def write(self, examples: Examples, block: npt.NDArray[Any]) -> None:
        """Puts every example in its place, in as few calls as consecutive ids allow."""
        if isinstance(examples, range):
            self._put(examples.start, block)
            return
        order = np.argsort(examples)
        ids, block = examples[order], block[order]
        starts = [0, *(np.flatnonzero(np.diff(ids) != 1) + 1).tolist(), len(ids)]
        for start, stop in itertools.pairwise(starts):
            self._put(int(ids[start]), block[start:stop])

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Examples [start, stop)."""
        block = np.empty((stop - start, *self._spec.example_shape), dtype=self._spec.dtype)
        rest = _bytes(block)
        offset = start * self._spec.example_bytes
        while rest:
            n = os.preadv(self._file.fileno(), [rest], offset)
            if n == 0:
                raise DamagedStore(
                    f"the temporary file in {self._scratch} was cut short: write the model again"
                )
            offset, rest = offset + n, rest[n:]
        return block

    def close(self) -> None:
        """Closes the file, which deletes it."""
        self._file.close()

    def _put(self, first: int, block: npt.NDArray[Any]) -> None:
        rest = _bytes(block)
        offset = first * self._spec.example_bytes
        try:
            while rest:
                n = os.pwrite(self._file.fileno(), rest, offset)
                offset, rest = offset + n, rest[n:]
        except OSError as error:  # say where: it has no name
            raise OSError(error.errno, error.strerror, str(self._scratch)) from error


def _bytes(block: npt.NDArray[Any]) -> memoryview:
    return block.reshape(-1).view(np.uint8).data
