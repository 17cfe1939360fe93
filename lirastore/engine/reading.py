"""Which stored arrays a pass reads, which signals are computed from them, and what that costs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lirastore.errors import MissingData, name_some

if TYPE_CHECKING:
    from lirastore.attacks import Attack, FirstPass
    from lirastore.signals import Signal
    from lirastore.store import ArraySpec, LogitStore

__all__ = ["Reading", "Source", "bytes_read", "first_passes", "readings", "signal_arrays", "signals_of"]

Source = Literal["logits", "scaled_logit"]


@dataclass(frozen=True)
class Reading:
    """One stored array, and the signals that are computed from it while its bytes are in cache."""

    array: ArraySpec
    signals: tuple[Signal, ...]

    @property
    def augmentations(self) -> int:
        """A, or 1 for an array over (model, example)."""
        return self.array.shape[2] if len(self.array.shape) > 2 else 1

    def values(self, signal: Signal) -> int:
        """How many values a signal has per model and example: A, or the number of classes."""
        return self.array.shape[3] if signal.per == "class" else self.augmentations

    @property
    def bytes(self) -> int:
        """Bytes of the signals per model and example."""
        return sum(self.values(signal) * np.dtype(signal.dtype).itemsize for signal in self.signals)


def signal_arrays(store: LogitStore) -> dict[str, ArraySpec]:
    """The per-model arrays over the examples, by name: not those over population points."""
    return {name: spec for name, spec in store.arrays.items() if spec.dims[1] == "example"}


def readings(store: LogitStore, names: Collection[str], source: Source | None = None) -> tuple[Reading, ...]:
    """Groups signals by the stored array that each is computed from; each array is read once.

    `source` is preferred wherever a signal can be computed from it. Raises MissingData if the store has none
    of a signal's sources, or lacks `source` altogether.
    """
    from lirastore import signals

    arrays = signal_arrays(store)
    if source is not None and source not in arrays:
        raise MissingData(f"the store has no array {source!r}, but {name_some(sorted(arrays))}")
    grouped: dict[str, list[Signal]] = {}
    for name in sorted(names):
        signal = signals.signal(name, arrays)
        array = source if source in signal.sources else signal.source(arrays)
        grouped.setdefault(array, []).append(signal)
    return tuple(Reading(arrays[array], tuple(grouped[array])) for array in sorted(grouped))


def first_passes(attacks: Iterable[Attack]) -> list[list[FirstPass]]:
    """What the attacks need to know of the whole store beforehand, pass by pass; each key once."""
    from lirastore.attacks import stages

    return stages(first for attack in attacks for first in attack.summaries)


def signals_of(parts: Iterable[Attack | FirstPass]) -> set[str]:
    """Names of the signals that attacks, or the first passes of one stage, read."""
    return {name for part in parts for name in part.signals}


def bytes_read(array: ArraySpec, blocks: Sequence[tuple[int, int]]) -> int:
    """What reading these runs of examples of one model costs: whole inner chunks, padding left out."""
    chunk, examples = array.chunk, array.examples
    covered = sum(min(-(-stop // chunk) * chunk, examples) - start // chunk * chunk for start, stop in blocks)
    return covered * array.example_bytes
