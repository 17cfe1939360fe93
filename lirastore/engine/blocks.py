"""What one task does with a block of examples of all models: read it, make signals of it, score its tiles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks import Attack, Block
from lirastore.engine.checks import Extremes
from lirastore.engine.matrix import MatrixFile
from lirastore.engine.parts import Part, PartWriter
from lirastore.engine.planning import group_rows
from lirastore.engine.rows import rows
from lirastore.errors import DamagedStore, name_some
from lirastore.results import part_path, results_folder

if TYPE_CHECKING:
    from lirastore.engine.grid import Grid
    from lirastore.engine.reading import Reading
    from lirastore.moments import EqualCounts
    from lirastore.store import LogitStore

__all__ = [
    "Cancelled",
    "Job",
    "Scoring",
    "Watch",
    "per_class",
    "read_signals",
    "score_block",
    "seen_by_a_block",
]

Array = npt.NDArray[Any]


class Cancelled(Exception):
    """Raised inside tasks when the run has been interrupted; never leaves the engine."""


@dataclass
class Watch:
    """What tasks tell the run, and ask it: bytes just read, a block or a target done, and whether to stop."""

    advance: Callable[[int], object] = lambda size: None
    finish_block: Callable[[], object] = lambda: None
    finish_target: Callable[[], object] = lambda: None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raises Cancelled if the run has been interrupted; called between reads and between tiles."""
        if self.cancelled.is_set():
            raise Cancelled


@dataclass(frozen=True, eq=False)
class Job:
    """What all tasks of a run share: the committed models when it began, and how attacks see them.

    models (M,) int64; member (M, E) bool; labels (E,) int64; attackable (E,) bool or None.
    """

    store: LogitStore
    models: npt.NDArray[np.int64]
    member: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]
    attackable: npt.NDArray[np.bool_] | None
    grid: Grid
    equal_counts: EqualCounts
    even_counts: EqualCounts
    seed: int
    preset: str

    def block(self, signals: Mapping[str, Array], origin: int, start: int, stop: int, **values: Any) -> Block:
        """The tile [start, stop) of signals that begin at example `origin`."""
        mask = self.attackable
        return Block(
            models=self.models,
            start=start,
            stop=stop,
            member=self.member[:, start:stop],
            label=self.labels[start:stop],
            augmentations=self.store.info.augmentations,
            signals={name: array[:, start - origin : stop - origin] for name, array in signals.items()},
            attack_mask=None if mask is None else mask[start:stop],
            equal_counts=self.equal_counts,
            even_counts=self.even_counts,
            seed=self.seed,
            preset=self.preset,
            **values,
        )


@dataclass(frozen=True, eq=False)
class Scoring:
    """One attack of a run: which examples it scores, (E,) bool, and where its parts go."""

    attack: Attack
    scored: npt.NDArray[np.bool_]
    run: str
    lira: Path

    def part(self, first: int) -> str:
        """Path of the part that starts at example `first`, relative to `results/`."""
        return part_path(self.attack.kind, self.attack.name, self.run, first)

    def part_file(self, first: int) -> Path:
        """Where that part is."""
        return results_folder(self.lira) / self.part(first)


# --- reading -------------------------------------------------------------------------------------


def read_signals(
    job: Job, readings: Sequence[Reading], watch: Watch, start: int, stop: int
) -> tuple[dict[str, Array], dict[str, Extremes]]:
    """The signals of all models over [start, stop), name -> (M, e, A) or (M, e, C), and their extremes.

    Each array is read once, one inner chunk at a time, and turned into all its signals while in cache.

    Raises:
        DamagedStore: a chunk is absent, fails its checksum, or holds NaN or infinity; names the model.
    """
    signals: dict[str, Array] = {}
    extremes: dict[str, Extremes] = {}
    for reading in readings:
        for signal in reading.signals:
            shape = (len(job.models), stop - start, reading.values(signal))
            signals[signal.name] = np.empty(shape, signal.dtype)
        for row, low, high, raw in _slices(job, reading, watch, start, stop):
            for signal in reading.signals:
                values = signals[signal.name][row, low - start : high - start]
                signal.compute[reading.array.name](raw, job.labels[low:high], out=values)
                _check_finite(values, f"signal {signal.name} of {reading.array.name}", job.models[row], low)
                ends = Extremes.of(values)
                extremes[signal.name] = extremes[signal.name].merge(ends) if signal.name in extremes else ends
    return signals, extremes


def per_class(readings: Sequence[Reading]) -> frozenset[str]:
    """Names of the signals that have a value per class."""
    read = (signal for reading in readings for signal in reading.signals)
    return frozenset(signal.name for signal in read if signal.per == "class")


def _slices(
    job: Job, reading: Reading, watch: Watch, start: int, stop: int
) -> Iterator[tuple[int, int, int, Array]]:
    """Yields (row, first example, end, values as stored) of every model and inner chunk, in one buffer."""
    array = reading.array
    buffer = np.empty((min(array.chunk, stop - start), *array.example_shape), array.dtype)
    for row, model in enumerate(job.models.tolist()):
        for low, high in _chunk_spans(array.chunk, start, stop):
            watch.check()
            raw = job.store.read(array.name, model, low, high, out=buffer[: high - low])
            _check_finite(raw, array.name, model, low)
            yield row, low, high, raw
            covered = min(low - low % array.chunk + array.chunk, array.examples) - (low - low % array.chunk)
            watch.advance(covered * array.example_bytes)


def _chunk_spans(chunk: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """[start, stop) cut at the multiples of `chunk`."""
    while start < stop:
        end = min(stop, start - start % chunk + chunk)
        yield start, end
        start = end


def _check_finite(values: Array, what: str, model: int, first: int) -> None:
    """Raises DamagedStore naming model and examples if a value is NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        # A finite sum has finite terms, and costs one fast pass. A sum that overflowed needs a closer look.
        if np.isfinite(values.sum(dtype=np.float32)):
            return
    bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if bad.any():
        raise DamagedStore(
            f"{what} of model {model} is NaN or infinite at examples "
            f"{name_some((np.flatnonzero(bad) + first).tolist())}; the writer accepts only finite values, so "
            f"the store was altered since: discard model {model} and write it again"
        )


# --- scoring -------------------------------------------------------------------------------------


def seen_by_a_block(known: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """The values of first passes as one task takes them: of a matrix the block's part, read at most once."""
    return {
        key: value.part(start, stop) if isinstance(value, MatrixFile) else value
        for key, value in known.items()
    }


def score_block(
    job: Job,
    readings: Sequence[Reading],
    known: Mapping[str, Any],
    watch: Watch,
    scorings: Sequence[Scoring],
    span: tuple[int, int],
) -> dict[str, Part]:
    """Scores a block with several attacks and publishes one part each; returns the parts by attack.

    `known` are the values of the first passes, by key.
    """
    start, stop = span
    signals, extremes = read_signals(job, readings, watch, start, stop)
    summaries = seen_by_a_block(known, start, stop)
    most = group_rows(len(scorings))
    with ExitStack() as stack:
        writers = [stack.enter_context(PartWriter(scoring.part_file(start), most)) for scoring in scorings]
        for low, high in job.grid.tiles(start, stop):
            block = job.block(signals, start, low, high, summaries=summaries, per_class=per_class(readings))
            for scoring, writer in zip(scorings, writers, strict=True):
                watch.check()
                writer.append(rows(scoring.attack, scoring.scored[low:high], block))
        parts = {
            scoring.attack.name: writer.publish(_of_attack(scoring.attack, extremes))
            for scoring, writer in zip(scorings, writers, strict=True)
        }
    watch.finish_block()
    return parts


def _of_attack(attack: Attack, extremes: Mapping[str, Extremes]) -> dict[str, Extremes]:
    return {name: extremes[name] for name in attack.signals}
