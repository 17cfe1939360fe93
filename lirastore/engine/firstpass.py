"""One first pass over the store: the merged states of its summaries, the matrices of its `PerTarget`s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks import Block, FirstPass, PerTarget, Summary, TargetRow
from lirastore.engine.blocks import per_class, read_signals, seen_by_a_block
from lirastore.engine.folding import Fold
from lirastore.errors import AttackError

if TYPE_CHECKING:
    from lirastore.engine.blocks import Job, Watch
    from lirastore.engine.matrix import MatrixFile
    from lirastore.engine.reading import Reading

__all__ = ["Stage"]

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stage:
    """The first passes of one stage, which share one pass over the store.

    Attributes:
        summaries, per_target: what is to be known after it.
        readings: what they read.
        known: values of the stages before, by key.
        matrices: of each of `per_target`, by key; written here.
    """

    job: Job
    summaries: tuple[Summary, ...]
    per_target: tuple[PerTarget, ...]
    readings: tuple[Reading, ...]
    known: Mapping[str, Any]
    matrices: Mapping[str, MatrixFile]
    watch: Watch
    fold: Fold[list[Any]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fold", Fold(self._combine))

    def take(self, span: tuple[int, int]) -> None:
        """Adds what a block says: states to the fold, values to the matrices. Called by any thread."""
        start, stop = span
        signals, _ = read_signals(self.job, self.readings, self.watch, start, stop)
        known = seen_by_a_block(self.known, start, stop)
        states = Fold(self._combine)
        values = {first.key: np.empty((len(self.job.models), stop - start)) for first in self.per_target}
        for low, high in self.job.grid.tiles(start, stop):
            self.watch.check()
            block = self.job.block(
                signals, start, low, high, summaries=known, per_class=per_class(self.readings)
            )
            states.add(self.job.grid.index(low), [summary.chunk(block) for summary in self.summaries])
            for first in self.per_target:
                values[first.key][:, low - start : high - start] = _chunk(first, block)
        self.fold.absorb(states)
        for key, part in values.items():
            self.matrices[key].write(start, part)
        self.watch.finish_block()

    def finish_target(self, row: int) -> None:
        """Finishes every matrix's row of one target, once all blocks are taken. Called by any thread."""
        for first in self.per_target:
            self.watch.check()
            matrix = self.matrices[first.key]
            matrix.put(row, self._finished(first, row, matrix.row(row)))
        self.watch.finish_target()

    def values(self) -> dict[str, Any]:
        """What is known now, by key."""
        states = self.fold.result() if self.summaries else []
        finalised = zip(self.summaries, states, strict=True)
        return {summary.key: summary.finalise(state) for summary, state in finalised} | dict(self.matrices)

    def _combine(self, earlier: list[Any], later: list[Any]) -> list[Any]:
        triples = zip(self.summaries, earlier, later, strict=True)
        return [summary.combine(before, after) for summary, before, after in triples]

    def _finished(self, first: PerTarget, row: int, values: Float64) -> Float64:
        member, mask = self.job.member[row], self.job.attackable
        found = np.asarray(first.finish(TargetRow(row, values, member, mask, self.known)))
        if found.shape != values.shape or found.dtype != np.float64:
            raise _malformed(first, "finish", found, values.shape)
        return found


def _chunk(first: PerTarget, block: Block) -> Float64:
    found = np.asarray(first.chunk(block))
    if found.shape != block.member.shape or found.dtype != np.float64:
        raise _malformed(first, "chunk", found, block.member.shape)
    return found


def _malformed(first: FirstPass, function: str, found: npt.NDArray[Any], shape: Sequence[int]) -> AttackError:
    return AttackError(
        f"`{function}` of the first pass {first.key!r} returned {found.dtype} of shape {found.shape}; "
        f"expected float64 of shape {tuple(shape)}"
    )
