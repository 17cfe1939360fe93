"""What an attack may ask to know of the whole store before it scores the first block.

`Facts` are known at once: sizes, names, optional arrays. A `Summary` is a first pass over the blocks, merged
over one fixed tree of them, so that results are the same to the bit whatever the number of threads.
`PerTarget` is a first pass for what needs all values of one target at once, such as its rank among the
target's non-members: a matrix that is filled block by block, kept on disk, and finished target by target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from lirastore.attacks.block import Block

__all__ = ["Facts", "FirstPass", "Matrix", "PerTarget", "Sizes", "Summary", "TargetRow", "stages"]

Float = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sizes:
    """How large a run is: M models, E examples, A queries, C classes (0 without logits).

    largest_class: the most examples of one label.
    """

    models: int
    examples: int
    queries: int
    classes: int
    largest_class: int


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of a store and a run before anything is read.

    Attributes:
        name: of the data set, as the store was told.
        arrays: names of the per-model arrays that signals can be computed from.
        augmentations: names of the A queries.
        models: (M,) int64, ids of the committed models.
        sizes: of the run.
        seed: of the run's random choices.
        fewest_non_members: of the examples that may be attacked, how many at least a target was not trained
            on.
        population: reads (M, Z) float32, φ of the population points, which no model was trained on; None if
            the store has none.
        features: reads (stop − start, d) float32 of some examples; None if the store has none.
    """

    name: str
    arrays: frozenset[str]
    augmentations: tuple[str, ...]
    models: npt.NDArray[np.int64]
    sizes: Sizes
    seed: int = 0
    fewest_non_members: int = 0
    population: Callable[[], Float] | None = None
    features: Callable[[int, int], Float] | None = None


@dataclass(frozen=True)
class Summary:
    """A mergeable first pass over the store: chunk each block, combine neighbours, finalise once.

    Attributes:
        key: identifies the value; two summaries with one key are one and the same computation.
        signals: the signals that `chunk` reads; none if membership alone decides, and then no data is read
            for it.
        chunk: block -> state.
        combine: (state of a run of examples, state of the run right after it) -> state of both. Runs are
            merged as a binary tree over the blocks, the same one whatever memory and threads.
        finalise: state -> the value that `Block.summary` returns.
        requires: first passes that `chunk` reads in turn, from a pass before.
        state_bytes: the most memory that all states and the value take together, in bytes. Unless given, a
            state holds no more than (2·A + 4) float64 values per model: that is what the memory plan counts.
    """

    key: str
    signals: tuple[str, ...]
    chunk: Callable[[Block], Any]
    combine: Callable[[Any, Any], Any]
    finalise: Callable[[Any], Any]
    requires: tuple[FirstPass, ...] = ()
    state_bytes: Callable[[Sizes], int] | None = None

    @property
    def stage(self) -> int:
        """0 if it requires nothing, else one more than the latest stage that it requires."""
        return _stage(self.requires)


@dataclass(frozen=True, eq=False)
class TargetRow:
    """All that one target's blocks gave, (E,) each: what `PerTarget.finish` is given.

    values: float64 as `chunk` returned them. member: the target's. attack_mask: the store's `attackable`, or
    None. known: finalised values of the passes before, by key.
    """

    target: int
    values: Float64
    member: Bool
    attack_mask: Bool | None
    known: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class PerTarget:
    """A first pass whose value is a number per target and example, finished target by target.

    Attributes:
        key: identifies the value.
        signals: the signals that `chunk` reads.
        chunk: block -> (M, e) float64; may be NaN where an example has too few models.
        finish: all of a target's values -> (E,) float64. Targets are finished one by one, by any thread.
        requires: first passes that `chunk` or `finish` reads, from a pass before.

    The matrix lies in an unnamed file beside the results, 8 bytes per model and example. A thread that
    finishes a target holds a few float64 arrays over the examples.
    """

    key: str
    signals: tuple[str, ...]
    chunk: Callable[[Block], Float64]
    finish: Callable[[TargetRow], Float64]
    requires: tuple[FirstPass, ...] = ()

    @property
    def stage(self) -> int:
        """As that of a `Summary`."""
        return _stage(self.requires)


FirstPass = Summary | PerTarget


class Matrix(Protocol):
    """What a `PerTarget` pass leaves: (M, E) float64, of which blocks read their part."""

    def read(self, start: int, stop: int) -> Float64:
        """(M, stop − start)."""


def _stage(requires: Iterable[FirstPass]) -> int:
    return max((required.stage + 1 for required in requires), default=0)


def stages(passes: Iterable[FirstPass]) -> list[list[FirstPass]]:
    """The passes over the store that these and all that they require take: each key once, in stage order.

    A pass whose summaries have no signals needs membership and labels only.
    """
    found: dict[int, dict[str, FirstPass]] = {}
    waiting = list(passes)
    while waiting:
        first = waiting.pop(0)
        found.setdefault(first.stage, {}).setdefault(first.key, first)
        waiting += first.requires
    return [list(found[stage].values()) for stage in sorted(found)]
