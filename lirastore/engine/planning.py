"""The plan of a pass over a store: which arrays are read, how the examples are cut, what memory it takes.

Examples are cut twice. *Tiles* are what attacks see: small enough for the processor's cache. Where they begin
and end depends on the data alone, never on memory or threads, and so does every sum over them: results are
the same to the bit under any budget. *Blocks*, runs of whole tiles, are what tasks read: as large as the
budget allows, and cut where inner chunks are, because part of one can only be read by reading all of it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lirastore.errors import InputError, MemoryBudgetError, MissingData, name_some
from lirastore.memory import default_budget, human

if TYPE_CHECKING:
    from lirastore.attacks import Attack, Summary
    from lirastore.signals import Signal
    from lirastore.store import ArraySpec, LogitStore

__all__ = ["Grid", "Options", "Plan", "Reading", "plan", "readings"]

# The interpreter with numpy, dask, pyarrow and scipy.special takes 90 MiB.
BASE_BYTES = 112 << 20
# One float64 array over (M, tile, A). Measured on lira_online with 2 MiB of cache per core, ns per value: 42
# at 64 KiB, 29 at 256, 27 at 512, 30 at 1024, 56 at 8192, where a dozen such arrays leave every cache.
TILE_BYTES = 512 << 10
# What a tile's signals are computed from: more would leave threads idle where classes are many.
TILE_SOURCE_BYTES = 32 << 20
# Arrays of that size alive at once, in the hungriest attack, over all its signals.
TILE_COPIES = 24
# Rows per Parquet part: a file of about 8 MB. Fewer, larger blocks read no faster.
PART_ROWS = 1 << 20
# A row group: what DuckDB hands to a thread, and what it decodes to find one example.
GROUP_ROWS = 122_880
# The 25 bytes of a row, twice (as tiles, then as columns), and its encoded pages.
ROW_BYTES = 64
# A block with fewer rows and fewer bytes than this is not worth a task of its own.
MIN_BLOCK_ROWS = 1 << 15
MIN_BLOCK_BYTES = 16 << 20
# What a summary's state of one tile holds at most, beside 2 float64 values per model and query.
STATE_VALUES = 4
# Per thread: the kernels' own buffers, and memory that the allocator keeps between uses.
KERNEL_BYTES = 16 << 20


@dataclass(frozen=True)
class Options:
    """How to run attacks.

    memory: budget in bytes; None: a quarter of the machine's. threads: None: one per core, fewer if the
    budget demands it. equal_counts, seed: see `attacks.Block`. preset: stamped on results and given to
    attacks. force: compute again what is up to date. skip_unattackable: leave out examples with too few IN or
    OUT models instead of refusing. source: read this array wherever a signal can be had from it. progress: on
    stderr, if that is a terminal.
    """

    memory: int | None = None
    threads: int | None = None
    equal_counts: bool = False
    seed: int = 0
    preset: str = "paper"
    force: bool = False
    skip_unattackable: bool = False
    source: Literal["logits", "scaled_logit"] | None = None
    progress: bool = True


@dataclass(frozen=True)
class Reading:
    """One stored array, and the signals that are computed from it while its bytes are in cache."""

    array: ArraySpec
    signals: tuple[Signal, ...]

    @property
    def augmentations(self) -> int:
        """A, or 1 for an array over (model, example)."""
        return self.array.shape[2] if len(self.array.shape) > 2 else 1


@dataclass(frozen=True)
class Grid:
    """Where tiles begin: every `tile` examples, starting anew at every multiple of `period`."""

    examples: int
    period: int
    tile: int

    def tiles(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The tiles of a block; `start` and `stop` are tile bounds."""
        while start < stop:
            end = self.next(start)
            yield start, end
            start = end

    def next(self, start: int) -> int:
        """Where the tile that starts at `start` ends."""
        origin = start - start % self.period
        return min(start + self.tile, origin + self.period, self.examples)

    def index(self, start: int) -> int:
        """How many tiles there are before the one that starts at `start`."""
        periods, offset = divmod(start, self.period)
        return periods * -(-self.period // self.tile) + -(-offset // self.tile)

    def round(self, example: float) -> int:
        """The tile bound at or next below `example`, never below the first tile's end."""
        origin = int(example) - int(example) % self.period
        return min(
            self.examples, max(origin + (int(example) - origin) // self.tile * self.tile, self.next(0))
        )

    @property
    def largest(self) -> int:
        """Examples in the largest tile."""
        return min(self.tile, self.period, self.examples)


@dataclass(frozen=True)
class Plan:
    """What a run is going to do. `str()` is the statement for people.

    passes: what each pass reads, the scoring itself last; a first pass may need no array. blocks: (start,
    stop) of every block of examples, one Dask task each and per pass. projected: the most
    resident memory, in bytes, that the process will take. bytes_to_read: of the store's arrays over all
    passes, re-reading included; bytes_reread: how much of it is inner chunks read again because a block ends
    inside them.
    """

    attacks: tuple[str, ...]
    passes: tuple[tuple[Reading, ...], ...]
    models: int
    grid: Grid
    blocks: tuple[tuple[int, int], ...]
    threads: int
    budget: int
    projected: int
    bytes_to_read: int
    bytes_reread: int

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What the scoring pass reads."""
        return self.passes[-1]

    @property
    def tile(self) -> int:
        """Examples per tile."""
        return self.grid.largest

    def __str__(self) -> str:
        names = {reading.array.name for needed in self.passes for reading in needed}
        arrays = name_some(sorted(names)) or "no array"
        again = f", {human(self.bytes_reread)} of it again" if self.bytes_reread else ""
        largest = max(stop - start for start, stop in self.blocks)
        return (
            f"{name_some(self.attacks)}: {self.models} models × {self.grid.examples} examples from {arrays}; "
            f"{_count(len(self.blocks), 'block')} of up to {largest} examples in tiles of {self.tile}, "
            f"{_count(len(self.passes), 'pass', 'es')}, {_count(self.threads, 'thread')}; "
            f"reads {human(self.bytes_to_read)}{again}; "
            f"memory {human(self.projected)} of {human(self.budget)}"
        )


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{plural if number != 1 else ''}"


# --- which arrays --------------------------------------------------------------------------------


def readings(
    store: LogitStore, names: Collection[str], source: Literal["logits", "scaled_logit"] | None = None
) -> tuple[Reading, ...]:
    """Groups signals by the stored array that each is computed from; each array is read once.

    `source` is preferred wherever a signal can be computed from it. Raises MissingData if the store has none
    of a signal's sources, or lacks `source` altogether.
    """
    from lirastore import signals

    if source is not None and source not in store.arrays:
        raise MissingData(f"the store has no array {source!r}, but {name_some(sorted(store.arrays))}")
    grouped: dict[str, list[Signal]] = {}
    for name in sorted(names):
        signal = signals.signal(name, store.arrays)
        array = source if source in signal.sources else signal.source(store.arrays)
        grouped.setdefault(array, []).append(signal)
    return tuple(Reading(store.arrays[array], tuple(grouped[array])) for array in sorted(grouped))


def first_passes(attacks: Iterable[Attack]) -> list[list[Summary]]:
    """What the attacks need to know of the whole store beforehand, pass by pass; each summary once."""
    from lirastore.attacks import stages

    return stages(summary for attack in attacks for summary in attack.summaries)


def signals_of(parts: Iterable[Attack | Summary]) -> set[str]:
    """Names of the signals that attacks, or the summaries of one pass, read."""
    return {name for part in parts for name in part.signals}


# --- the plan ------------------------------------------------------------------------------------


def plan(
    store: LogitStore, attacks: Sequence[Attack], options: Options, *, models: int | None = None
) -> Plan:
    """Cuts the store into blocks under the memory budget; `models`: of how many (default: the committed).

    Raises MissingData if a signal cannot be had from the store, MemoryBudgetError if even one tile per thread
    does not fit, InputError for a budget or thread count below 1.
    """
    return _Planner(store, attacks, options, len(store.committed()) if models is None else models).plan()


class _Planner:
    def __init__(self, store: LogitStore, attacks: Sequence[Attack], options: Options, models: int) -> None:
        for name, value in (("memory", options.memory), ("threads", options.threads)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; expected at least 1, or None for the default")
        self.names = tuple(attack.name for attack in attacks)
        first = first_passes(attacks)
        passes: list[Sequence[Attack | Summary]] = [*first, attacks]
        self.passes = tuple(readings(store, signals_of(parts), options.source) for parts in passes)
        self.summaries = sum(map(len, first))
        self.queries = len(store.info.augmentations)
        self.models = models
        self.examples = store.info.examples
        self.budget = options.memory if options.memory is not None else default_budget()
        self.asked_threads = options.threads
        self.grid = self._grid()

    def _grid(self) -> Grid:
        width = self.models * max(_values(needed) for needed in self.passes) * 8
        every = [reading for needed in self.passes for reading in needed]
        source = self.models * max((reading.array.example_bytes for reading in every), default=0)
        tile = max(1, min(TILE_BYTES // max(1, width), TILE_SOURCE_BYTES // max(1, source)))
        chunk = max(every, key=lambda reading: reading.array.example_bytes).array.chunk if every else tile
        if chunk <= tile:
            tile = period = tile // chunk * chunk
        else:
            period = chunk
            tile = -(-chunk // -(-chunk // tile))
        return Grid(self.examples, period, tile)

    def plan(self) -> Plan:
        for threads in self._thread_counts():
            blocks = self._fitting_blocks(threads)
            if blocks is not None:
                return self._state(threads, blocks)
        fewest = self.asked_threads or 1
        least = self._projected(fewest, self.grid.largest)
        raise MemoryBudgetError(
            f"a budget of {human(self.budget)} is too small for {name_some(self.names)} over {self.models} "
            f"models with {_count(fewest, 'thread')}; the smallest that works is --memory {least} "
            f"({human(least)})" + ("; fewer --threads take less" if fewest > 1 else "")
        )

    def _thread_counts(self) -> Iterator[int]:
        if self.asked_threads is not None:
            yield self.asked_threads
        else:
            yield from range(_cores(), 0, -1)

    def _fitting_blocks(self, threads: int) -> tuple[tuple[int, int], ...] | None:
        if self._projected(threads, self.grid.largest) > self.budget:
            return None
        count = self._preferred_count(threads)
        while True:
            blocks = _cut(self.grid, count)
            if self._projected(threads, max(stop - start for start, stop in blocks)) <= self.budget:
                return blocks
            count = max(count + 1, count * 9 // 8)

    def _preferred_count(self, threads: int) -> int:
        """As many blocks as Parquet parts, in a multiple of the threads, so that they end together."""
        rows = self.examples * self.models
        rounds = max(1, round(rows / (PART_ROWS * threads)))
        worth = max(rows // MIN_BLOCK_ROWS, self._bytes([(0, self.examples)]) // MIN_BLOCK_BYTES)
        return max(1, min(threads * rounds, worth))

    def _projected(self, threads: int, block: int) -> int:
        """Peak memory with blocks of that many examples: what every thread holds, and what all share."""
        passes = [self._thread_bytes(needed, block) for needed in self.passes if needed]
        per_thread = (
            max(passes, default=0) + len(self.names) * min(GROUP_ROWS, block * self.models) * ROW_BYTES
        )
        shared = self.models * self.examples + 16 * self.examples
        return BASE_BYTES + shared + self._state_bytes(threads) + threads * per_thread

    def _state_bytes(self, threads: int) -> int:
        """What the folds of the first passes hold: a run of tiles per thread, and those done between them."""
        depth = self.grid.index(self.examples).bit_length()
        state = self.models * (2 * self.queries + STATE_VALUES) * 8
        return self.summaries * state * 2 * depth * (2 * threads + 1)

    def _thread_bytes(self, needed: Sequence[Reading], block: int) -> int:
        values = _values(needed)
        raw = max(reading.array.chunk * reading.array.example_bytes for reading in needed)
        tile = self.models * self.grid.largest * (values * TILE_COPIES + len(self.names) + 2) * 8
        # the slice handed to the kernel, and the inner chunk it is cut from
        return self.models * block * _value_bytes(needed) + tile + 2 * raw + KERNEL_BYTES

    def _bytes(self, blocks: Sequence[tuple[int, int]]) -> int:
        every = [reading for needed in self.passes for reading in needed]
        return sum(bytes_read(reading.array, blocks) for reading in every) * self.models

    def _state(self, threads: int, blocks: tuple[tuple[int, int], ...]) -> Plan:
        to_read, once = self._bytes(blocks), self._bytes([(0, self.examples)])
        return Plan(
            attacks=self.names,
            passes=self.passes,
            models=self.models,
            grid=self.grid,
            blocks=blocks,
            threads=threads,
            budget=self.budget,
            projected=self._projected(threads, max(stop - start for start, stop in blocks)),
            bytes_to_read=to_read,
            bytes_reread=to_read - once,
        )


def _values(readings: Sequence[Reading]) -> int:
    """Signal values per model and example."""
    return sum(reading.augmentations * len(reading.signals) for reading in readings)


def _value_bytes(readings: Sequence[Reading]) -> int:
    """Bytes of these values."""
    return sum(
        reading.augmentations * np.dtype(signal.dtype).itemsize
        for reading in readings
        for signal in reading.signals
    )


def bytes_read(array: ArraySpec, blocks: Sequence[tuple[int, int]]) -> int:
    """What reading these runs of examples of one model costs: whole inner chunks, padding left out."""
    chunk, examples = array.chunk, array.examples
    covered = sum(min(-(-stop // chunk) * chunk, examples) - start // chunk * chunk for start, stop in blocks)
    return covered * array.example_bytes


def _cut(grid: Grid, count: int) -> tuple[tuple[int, int], ...]:
    """About `count` even blocks, cut where inner chunks are if that moves a cut by an eighth of a block."""
    size = grid.examples / count
    bounds = {0, grid.examples}
    for index in range(1, count):
        even = size * index
        aligned = round(even / grid.period) * grid.period
        bounds.add(
            aligned if 0 < aligned < grid.examples and abs(aligned - even) <= size / 8 else grid.round(even)
        )
    ordered = sorted(bounds)
    return tuple(itertools.pairwise(ordered))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
