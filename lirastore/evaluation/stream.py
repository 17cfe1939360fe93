"""Reads the scores of a run block by block, several readers sharing each pass."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lirastore.errors import ResultError

if TYPE_CHECKING:
    from lirastore.results import Result

__all__ = ["BLOCK_ROWS", "Block", "Pass", "Stream", "progress_bar"]

Array = np.ndarray[Any, Any]

BLOCK_ROWS = 131_072
"""The most rows of a block: a little more than the engine's row groups have."""

_FEWEST_ROWS = 16_384


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of one row group, sorted by (example, model); an example may go on in the next block.

    example, model (n,) int64, score (n,) float64 (higher: member), member (n,) bool. `start` rows of the run
    come before; `model` is None in passes that do not ask for it.
    """

    start: int
    example: Array
    score: Array
    member: Array
    model: Array | None = None

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Pass:
    """What is to be done with every block of a run.

    `work` may be called by several threads at once; `merge` is called with what it returned, by one thread at
    a time, in no particular order: what it makes of them must not depend on the order, as sums of integers do
    not.
    """

    work: Callable[[Block], Any]
    merge: Callable[[Any], None]
    model: bool = False


@dataclass(frozen=True)
class _Task:
    """Rows [first, stop) of a row group; `before` rows of the run come before the row group."""

    file: Path
    group: int
    before: int
    first: int
    stop: int


class Stream:
    """The scores of one run: passes over its Parquet files, a row group at a time, on `threads` threads.

    Memory: one row group per thread, and what the passes hold. `advance` is told the rows of each block that
    is done. Raises ResultError, naming the file, for what cannot be read, when made as well as in a scan.
    """

    def __init__(self, result: Result, lira: Path, *, threads: int, advance: Callable[[int], object]) -> None:
        self._remedy = (
            f"run its attack again with `lirastore attack STORE {' '.join(result.arguments)} --force`"
        )
        self._threads = threads
        self._advance = advance
        self._tasks = list(self._plan(result.files(lira)))

    def scan(self, passes: Sequence[Pass]) -> None:
        """One pass over all rows for all `passes`."""
        lock = threading.Lock()
        stop = threading.Event()
        model = any(step.model for step in passes)

        def run(task: _Task) -> None:
            for block in self._read(task, model):
                if stop.is_set():
                    return
                found = [step.work(block) for step in passes]
                with lock:
                    for step, value in zip(passes, found, strict=True):
                        step.merge(value)
                    self._advance(len(block))

        with ThreadPoolExecutor(self._threads, thread_name_prefix="lirastore-evaluate") as pool:
            try:
                for future in [pool.submit(run, task) for task in self._tasks]:
                    future.result()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _plan(self, files: Sequence[Path]) -> Iterator[_Task]:
        """One task per row group; several where there are too few of them for the threads."""
        import pyarrow.parquet as pq

        groups, before = [], 0
        for file in files:
            with self._readable(file):
                footer = pq.read_metadata(file)
            for group in range(footer.num_row_groups):
                rows = footer.row_group(group).num_rows
                groups.append(_Task(file, group, before, 0, rows))
                before += rows
        pieces = -(-self._threads // max(1, len(groups)))
        for task in groups:
            size = max(_FEWEST_ROWS, -(-task.stop // pieces))
            for first in range(0, task.stop, size):
                yield replace(task, first=first, stop=min(first + size, task.stop))

    def _read(self, task: _Task, model: bool) -> Iterator[Block]:
        """The blocks of a task: one, unless another writer's row groups are larger than the engine's."""
        import pyarrow.parquet as pq

        names = ["example", "score", "member", *(["model"] if model else [])]
        with self._readable(task.file), pq.ParquetFile(task.file) as parquet:
            table = parquet.read_row_group(task.group, columns=names, use_threads=False)
        columns = {name: table[name].combine_chunks().to_numpy(zero_copy_only=False) for name in names}
        for start in range(task.first, task.stop, BLOCK_ROWS):
            rows = slice(start, min(start + BLOCK_ROWS, task.stop))
            yield Block(task.before + start, **{name: values[rows] for name, values in columns.items()})

    @contextlib.contextmanager
    def _readable(self, file: Path) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as error:
            why = " ".join(str(error).split())
            raise ResultError(f"{file} cannot be read ({why}); {self._remedy}") from error


def progress_bar(rows: int, *, visible: bool) -> Any:
    """A bar on stderr that counts scores, off when that is no terminal."""
    from tqdm import tqdm

    return tqdm(
        desc="intervals",
        total=rows,
        unit=" scores",
        unit_scale=True,
        file=sys.stderr,
        disable=None if visible else True,
    )
