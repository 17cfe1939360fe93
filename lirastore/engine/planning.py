"""The plan of a pass over a store: which arrays are read, how the examples are cut, what memory it takes.

Examples are cut twice. *Tiles* are what attacks see: small enough for the processor's cache. Where they begin
and end depends on the store and its committed models alone, never on memory, threads, or which attacks share
the run, and so does every sum over them: results are the same to the bit. *Blocks*, runs of whole tiles, are
what tasks read: as large as the budget allows, and cut where inner chunks are, because part of one can only
be read by reading all of it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lirastore.attacks import Attack, PerTarget, Summary
from lirastore.attacks.block import stands_aside
from lirastore.engine.facts import facts_of, population_points
from lirastore.engine.grid import Grid, cut, make_grid
from lirastore.engine.reading import (
    Reading,
    Source,
    bytes_read,
    first_passes,
    readings,
    signal_arrays,
    signals_of,
)
from lirastore.errors import InputError, MemoryBudgetError, name_some
from lirastore.memory import default_budget, human

if TYPE_CHECKING:
    from lirastore.attacks import FirstPass, Sizes
    from lirastore.store import LogitStore

__all__ = ["Options", "Plan", "group_rows", "make_plan", "plan"]

# The interpreter with numpy, dask, pyarrow and scipy.special takes 90 MiB.
BASE_BYTES = 112 << 20
# One float64 array over (M, tile, A) without what stands aside. Measured on lira_online with 2 MiB of
# cache per core, ns per value: 42 at 64 KiB, 29 at 256, 27 at 512, 30 at 1024, 56 at 8192, where a dozen such
# arrays leave every cache.
TILE_BYTES = 512 << 10
# What a tile's signals are computed from: more would leave threads idle where classes are many, and take much
# memory where attacks look at all classes. It does not make tiles smaller than a quarter of TILE_BYTES.
TILE_SOURCE_BYTES = 32 << 20
# The same array with those that stand aside: noise, tokens.
TILE_WHOLE_BYTES = 16 * TILE_BYTES
# Float64 arrays of a signal's size alive at once, in the hungriest attack: of its queries, of those that
# stand aside, of the classes of a signal per class. A user's function may do with queries that stand aside
# whatever others do with all of them: for it they count like the rest.
TILE_COPIES = 24
ASIDE_COPIES = 4
CLASS_COPIES = 3
# Rows per Parquet part: a file of about 8 MB. Fewer, larger blocks read no faster.
PART_ROWS = 1 << 20
# A row group: what DuckDB hands to a thread, and what it decodes to find one example.
GROUP_ROWS = 122_880
# Fewer where many attacks fill one each: so many rows in all of them together, and so many in each at least.
BUFFERED_ROWS = 16 * GROUP_ROWS
LEAST_GROUP_ROWS = 20_480
# Bytes of a row: the score, which each attack has its own of; model, example and member, which attacks that
# score the same examples share; all of it once more, as columns, with its encoded pages.
SCORE_BYTES = 8
ID_BYTES = 17
COLUMN_BYTES = 40
# A block with fewer rows and fewer bytes than this is not worth a task of its own.
MIN_BLOCK_ROWS = 1 << 15
MIN_BLOCK_BYTES = 16 << 20
# What a summary's state of one tile holds at most, beside 2 float64 values per model and query.
STATE_VALUES = 4
# Arrays over all examples, 8 bytes each, that finishing a target of a `PerTarget` takes.
FINISH_COPIES = 12
# Per thread: the kernels' own buffers, and memory that the allocator keeps between uses.
KERNEL_BYTES = 16 << 20
# A value of a matrix on disk.
_MATRIX_BYTES = 8


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
    source: Source | None = None
    progress: bool = True


@dataclass(frozen=True)
class Plan:
    """What a run is going to do. `str()` is the statement for people.

    passes: what each pass reads, the scoring itself last; a first pass may need no array. blocks: (start,
    stop) of every block of examples, one Dask task each and per pass. projected: the most
    resident memory, in bytes, that the process will take. bytes_to_read: of the store's arrays over all
    passes, re-reading included; bytes_reread: how much of it is inner chunks read again because a block ends
    inside them. scratch: bytes of the temporary files that `PerTarget` passes keep beside the results.
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
    scratch: int = 0

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
        scratch = f", {human(self.scratch)} of temporary files" if self.scratch else ""
        largest = max(stop - start for start, stop in self.blocks)
        return (
            f"{name_some(self.attacks)}: {self.models} models × {self.grid.examples} examples from {arrays}; "
            f"{_count(len(self.blocks), 'block')} of up to {largest} examples in tiles of {self.tile}, "
            f"{_count(len(self.passes), 'pass', 'es')}, {_count(self.threads, 'thread')}; "
            f"reads {human(self.bytes_to_read)}{again}{scratch}; "
            f"memory {human(self.projected)} of {human(self.budget)}"
        )


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{plural if number != 1 else ''}"


# --- the plan ------------------------------------------------------------------------------------


def plan(
    store: LogitStore, attacks: Sequence[Attack], options: Options, *, models: int | None = None
) -> Plan:
    """Cuts the store into blocks under the memory budget; `models`: of how many (default: the committed).

    Raises MissingData if the store cannot give an attack what it needs, MemoryBudgetError if even one tile
    per thread does not fit, InputError for a budget or thread count below 1.
    """
    facts = facts_of(store, store.committed(), store.labels(), options.seed)
    sizes = facts.sizes if models is None else replace(facts.sizes, models=models)
    return make_plan(store, [attack.on(facts) for attack in attacks], options, sizes)


def make_plan(store: LogitStore, attacks: Sequence[Attack], options: Options, sizes: Sizes) -> Plan:
    """The same for attacks as the store can give them, and a run of these sizes."""
    return _Planner(store, attacks, options, sizes).plan()


def group_rows(attacks: int) -> int:
    """Rows per row group of each of so many attacks."""
    return min(GROUP_ROWS, max(LEAST_GROUP_ROWS, BUFFERED_ROWS // attacks))


class _Planner:
    def __init__(self, store: LogitStore, attacks: Sequence[Attack], options: Options, sizes: Sizes) -> None:
        for name, value in (("memory", options.memory), ("threads", options.threads)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; expected at least 1, or None for the default")
        self.attacks = attacks
        self.names = tuple(attack.name for attack in attacks)
        self.first = first_passes(attacks)
        summaries = [first for first in itertools.chain(*self.first) if isinstance(first, Summary)]
        stated = [first.state_bytes(sizes) for first in summaries if first.state_bytes is not None]
        self.stated, self.unstated = sum(stated), len(summaries) - len(stated)
        stages: list[Sequence[Attack | FirstPass]] = [*self.first, attacks]
        self.passes = tuple(readings(store, signals_of(parts), options.source) for parts in stages)
        self.matrices = [_matrices(parts) for parts in stages]
        self.sizes = sizes
        self.aside = _aside(store)
        self.population = population_points(store)
        self.budget = options.memory if options.memory is not None else default_budget()
        self.asked_threads = options.threads
        self.grid = self._grid(store)

    def _grid(self, store: LogitStore) -> Grid:
        """Of the store and the number of models, whatever is read."""
        arrays, models = signal_arrays(store).values(), self.sizes.models
        queries, whole = self.sizes.queries - self.aside, self.sizes.queries
        most = TILE_BYTES // (models * queries * 8)
        source = models * max(array.example_bytes for array in arrays)
        bound = min(TILE_SOURCE_BYTES // source, TILE_WHOLE_BYTES // (models * whole * 8))
        tile = max(1, min(most, max(bound, most // 4)))
        return make_grid(self.sizes.examples, tile, [array.chunk for array in arrays])

    def plan(self) -> Plan:
        for threads in self._thread_counts():
            blocks = self._fitting_blocks(threads)
            if blocks is not None:
                return self._state(threads, blocks)
        fewest = self.asked_threads or 1
        least = self._projected(fewest, self.grid.largest)
        raise MemoryBudgetError(
            f"a budget of {human(self.budget)} is too small for {name_some(self.names)} over "
            f"{self.sizes.models} models with {_count(fewest, 'thread')}; the smallest that works is "
            f"--memory {least} ({human(least)})" + ("; fewer --threads take less" if fewest > 1 else "")
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
        chunk = max(self._every, key=lambda read: read.array.example_bytes).array.chunk if self._every else 1
        while True:
            blocks = cut(self.grid, count, chunk)
            if self._projected(threads, max(stop - start for start, stop in blocks)) <= self.budget:
                return blocks
            count = max(count + 1, count * 9 // 8)

    def _preferred_count(self, threads: int) -> int:
        """As many blocks as Parquet parts, in a multiple of the threads, so that they end together."""
        rows = self.sizes.examples * self.sizes.models
        rounds = max(1, round(rows / (PART_ROWS * threads)))
        worth = max(rows // MIN_BLOCK_ROWS, self._bytes([(0, self.sizes.examples)]) // MIN_BLOCK_BYTES)
        return max(1, min(threads * rounds, worth))

    def _projected(self, threads: int, block: int) -> int:
        """Peak memory with blocks of that many examples: what every thread holds, and what all share."""
        held = zip(self.passes, self.matrices, strict=True)
        passes = [self._thread_bytes(needed, matrices, block) for needed, matrices in held]
        finish = FINISH_COPIES * 8 * self.sizes.examples if any(self.matrices) else 0
        per_thread = max(*passes, finish) + self._parquet_bytes(block)
        shared = self.sizes.models * (self.sizes.examples + 8 * self.population) + 16 * self.sizes.examples
        return BASE_BYTES + shared + self._state_bytes(threads) + threads * per_thread

    def _state_bytes(self, threads: int) -> int:
        """What the folds of the first passes hold: a run of tiles per thread, and those done between them."""
        depth = self.grid.tiles_in_all.bit_length()
        state = self.sizes.models * (2 * self.sizes.queries + STATE_VALUES) * 8
        return self.stated + self.unstated * state * 2 * depth * (2 * threads + 1)

    def _thread_bytes(self, needed: Sequence[Reading], matrices: int, block: int) -> int:
        """What a thread holds of one pass: signals and matrices of a block, arrays of a tile, raw chunks."""
        if not needed and not matrices:
            return 0
        models = self.sizes.models
        values = sum(reading.bytes for reading in needed) + matrices * _MATRIX_BYTES
        arrays = sum(map(self._tile_arrays, needed)) + matrices + len(self.names) + 2
        raw = max((reading.array.chunk * reading.array.example_bytes for reading in needed), default=0)
        # the slice handed to the kernel, and the inner chunk it is cut from
        return models * block * values + models * self.grid.largest * arrays * 8 + 2 * raw + KERNEL_BYTES

    def _tile_arrays(self, reading: Reading) -> int:
        """Float64 values per model and example that attacks on these signals hold, all at once."""
        limited = any(attack.kind == "power" for attack in self.attacks)
        known = all(attack.described for attack in self.attacks)
        total = 0
        for signal in reading.signals:
            values = reading.values(signal)
            aside = self.aside if values == self.sizes.queries else 0
            if signal.per == "class":
                total += CLASS_COPIES * values
            else:
                total += TILE_COPIES * (values - aside) * (1 + limited)
                total += (ASIDE_COPIES if known else TILE_COPIES) * aside
        return total

    def _parquet_bytes(self, block: int) -> int:
        """What the row groups that a thread fills take, and the one that it is writing."""
        count = len(self.attacks)
        rows = min(max(group_rows(count), self.grid.largest * self.sizes.models), block * self.sizes.models)
        shared = {attack.minimum for attack in self.attacks if attack.kind != "pairs"}
        own = len(shared) + sum(attack.kind == "pairs" for attack in self.attacks)
        return rows * (count * SCORE_BYTES + own * ID_BYTES + COLUMN_BYTES)

    @property
    def _every(self) -> list[Reading]:
        return [reading for needed in self.passes for reading in needed]

    def _bytes(self, blocks: Sequence[tuple[int, int]]) -> int:
        return sum(bytes_read(reading.array, blocks) for reading in self._every) * self.sizes.models

    def _state(self, threads: int, blocks: tuple[tuple[int, int], ...]) -> Plan:
        to_read, once = self._bytes(blocks), self._bytes([(0, self.sizes.examples)])
        kept = sum(isinstance(first, PerTarget) for first in itertools.chain(*self.first))
        return Plan(
            attacks=self.names,
            passes=self.passes,
            models=self.sizes.models,
            grid=self.grid,
            blocks=blocks,
            threads=threads,
            budget=self.budget,
            projected=self._projected(threads, max(stop - start for start, stop in blocks)),
            bytes_to_read=to_read,
            bytes_reread=to_read - once,
            scratch=kept * self.sizes.models * self.sizes.examples * _MATRIX_BYTES,
        )


def _matrices(parts: Sequence[Attack | FirstPass]) -> int:
    """How many matrices of `PerTarget` passes the parts of one pass write and read."""
    written = sum(isinstance(part, PerTarget) for part in parts)
    asked = (part.summaries if isinstance(part, Attack) else part.requires for part in parts)
    return written + len({first.key for some in asked for first in some if isinstance(first, PerTarget)})


def _aside(store: LogitStore) -> int:
    """How many of the queries stand aside; 0 if they all do."""
    names = store.info.augmentations
    aside = sum(map(stands_aside, names))
    return aside if aside < len(names) else 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
