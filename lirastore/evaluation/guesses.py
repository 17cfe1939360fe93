"""What an audit guesses from a run's scores, found in one pass over their blocks, in whatever order.

`Extremes`: the examples of each target that score highest and lowest. `Separation`: the one example, and the
threshold, by which some models tell best who was trained on it; and the scores that the others have there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lirastore.evaluation.bounding import Separations
from lirastore.evaluation.stream import Block

__all__ = ["Choice", "Extremes", "Separation"]

Array = np.ndarray[Any, Any]


class _Rows(NamedTuple):
    """Some scores: `target` is a model or its index, the others as in `Block`."""

    target: Array
    score: Array
    example: Array
    member: Array

    def take(self, chosen: Array) -> _Rows:
        return _Rows(*(values[chosen] for values in self))


def _models(block: Block) -> Array:
    assert block.model is not None, "the pass asks for the models"
    return block.model


class Extremes:
    """Of each target the `highest` and the `lowest` scores, ties in favour of the smaller example id.

    Memory: 21 bytes for each of these, three times.
    """

    def __init__(self, models: Array, highest: int, lowest: int) -> None:
        self._models = models
        self._highest, self._lowest = highest, lowest
        self._floor, self._ceiling = np.full(len(models), -np.inf), np.full(len(models), np.inf)
        self._kept: list[_Rows] = []
        self._held = 0
        self.scored = np.zeros(len(models), np.int64)

    def work(self, block: Block) -> tuple[_Rows, Array]:
        """What of a block may be among the extremes, and how many scores of each target it has."""
        target = np.searchsorted(self._models, _models(block))
        rows = _Rows(target.astype(np.int32), block.score, block.example, block.member)
        may = (block.score >= self._floor[target]) | (block.score <= self._ceiling[target])
        return rows.take(may), np.bincount(target, minlength=len(self._models))

    def merge(self, found: tuple[_Rows, Array]) -> None:
        """Takes what `work` found."""
        rows, scored = found
        self.scored += scored
        self._kept.append(rows)
        self._held += len(rows.score)
        if self._held > 2 * len(self._models) * (self._highest + self._lowest):
            self._compact()

    def ranked(self) -> Iterator[tuple[Array, Array]]:
        """For each target the membership of its highest scores, the highest first; of its lowest likewise."""
        for rows in self._by_target():
            order = np.lexsort((rows.example, -rows.score))
            yield rows.member[order[: self._highest]], rows.member[order[::-1][: self._lowest]]

    def _by_target(self) -> Iterator[_Rows]:
        together = _Rows(*(np.concatenate(values) for values in zip(*self._kept, strict=True)))
        order = np.argsort(together.target, kind="stable")
        ends = np.cumsum(np.bincount(together.target, minlength=len(self._models)))
        for start, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
            yield together.take(order[start:end])

    def _compact(self) -> None:
        """Leaves of each target its extremes so far, and lets no score in that cannot be one."""
        kept = []
        for number, rows in enumerate(self._by_target()):
            if len(rows.score) > self._highest + self._lowest:
                high = _largest(rows.score, rows.example, self._highest)
                low = _largest(-rows.score, -rows.example, self._lowest)
                self._floor[number] = rows.score[high].min()
                self._ceiling[number] = rows.score[low].max()
                rows = rows.take(high | low)
            kept.append(rows)
        self._kept = kept
        self._held = sum(len(rows.score) for rows in kept)


def _largest(values: Array, tie: Array, count: int) -> Array:
    """(n,) bool: the `count` largest values; among those equal to the last, those with the smallest `tie`."""
    if len(values) <= count:
        return np.ones(len(values), np.bool_)
    last = np.partition(values, len(values) - count)[len(values) - count]
    chosen: Array = values > last
    equal = np.flatnonzero(values == last)
    missing = count - int(np.count_nonzero(chosen))
    chosen[equal[np.argsort(tie[equal], kind="stable")[:missing]] if missing < len(equal) else equal] = True
    return chosen


@dataclass(frozen=True, eq=False)
class Choice:
    """An example and a threshold: who scores above it is called a member.

    key: by which choices are compared, larger is better. score, member: of the models that did not choose.
    """

    key: tuple[float, float, int]
    threshold: float
    score: Array
    member: Array

    @property
    def example(self) -> int:
        """Its id."""
        return -self.key[2]


class Separation:
    """The example and threshold of the best ε on the `choosing` (M,) models; of those scored in all models.

    That ε counts up to what the other models, by their numbers of members and others, could give at most. Of
    equal ones it is the one whose members score higher by more standard deviations, then the smaller id.
    Memory: 60 bytes per score of a block.
    """

    def __init__(self, models: int, choosing: Array, separations: Separations) -> None:
        self._models = models
        self._choosing = choosing
        self._separations = separations
        self._edges: list[_Rows] = []
        self.best: Choice | None = None

    def work(self, block: Block) -> tuple[Choice | None, _Rows]:
        """The best of the examples that are whole in a block, and the rows of those that may not be."""
        starts = np.flatnonzero(np.diff(block.example, prepend=block.example[0] - 1))
        whole = np.flatnonzero(np.diff(starts) == self._models)
        whole = whole[whole > 0]
        edges = np.ones(len(block), np.bool_)
        edges[starts[1] if len(starts) > 1 else len(block) : starts[-1]] = False
        rows = starts[whole][:, None] + np.arange(self._models)
        found = self._choose(block.example[starts[whole]], block.score[rows], block.member[rows])
        return found, _Rows(_models(block), block.score, block.example, block.member).take(edges)

    def merge(self, found: tuple[Choice | None, _Rows]) -> None:
        """Takes what `work` found."""
        choice, edges = found
        self._edges.append(edges)
        self._consider(choice)

    def finish(self) -> None:
        """Puts together the examples that several blocks share."""
        if not self._edges:
            return
        rows = _Rows(*(np.concatenate(values) for values in zip(*self._edges, strict=True)))
        rows = rows.take(np.lexsort((rows.target, rows.example)))
        starts = np.flatnonzero(np.diff(rows.example, prepend=rows.example[0] - 1))
        whole = starts[np.diff(np.append(starts, len(rows.example))) == self._models]
        places = whole[:, None] + np.arange(self._models)
        self._consider(self._choose(rows.example[whole], rows.score[places], rows.member[places]))

    def _consider(self, choice: Choice | None) -> None:
        if choice is not None and (self.best is None or choice.key > self.best.key):
            self.best = choice

    def _choose(self, example: Array, score: Array, member: Array) -> Choice | None:
        """The best of examples (e,) with score and member (e, M)."""
        sides = member[:, self._choosing], member[:, ~self._choosing]
        usable = np.logical_and.reduce([side.any(axis=1) & ~side.all(axis=1) for side in sides])
        if not usable.any():
            return None
        example, score, member = example[usable], score[usable], member[usable]
        chosen, held = score[:, self._choosing], member[:, self._choosing]
        bound, threshold = _thresholds(chosen, held, self._separations)
        bound = np.minimum(bound, self._possible(member[:, ~self._choosing]))
        distance = _distance(chosen, held)
        best = np.lexsort((-example, distance, bound))[-1]
        return Choice(
            key=(float(bound[best]), float(distance[best]), -int(example[best])),
            threshold=float(threshold[best]),
            score=score[best, ~self._choosing],
            member=member[best, ~self._choosing],
        )

    def _possible(self, member: Array) -> Array:
        """(e,) the ε of models (e, n) without any error: with few on one side it is small."""
        members = np.count_nonzero(member, axis=1)
        others = member.shape[1] - members
        return self._separations.bound(members, members, np.zeros_like(others), others)


def _thresholds(score: Array, member: Array, separations: Separations) -> tuple[Array, Array]:
    """(e,) the best ε of each example over the thresholds between two of its scores, and that threshold."""
    order = np.argsort(-score, axis=1, kind="stable")
    falling, held = np.take_along_axis(score, order, 1), np.take_along_axis(member, order, 1)
    tp, fp = np.cumsum(held, axis=1)[:, :-1], np.cumsum(~held, axis=1)[:, :-1]
    members = np.broadcast_to(held.sum(axis=1, keepdims=True), tp.shape)
    bound = separations.bound(tp, members, fp, score.shape[1] - members)
    bound[falling[:, :-1] == falling[:, 1:]] = -1.0
    place = bound.argmax(axis=1)[:, None]
    above, below = (np.take_along_axis(falling, place + step, 1)[:, 0] for step in (0, 1))
    return np.take_along_axis(bound, place, 1)[:, 0], above / 2 + below / 2


def _distance(score: Array, member: Array) -> Array:
    """(e,) by how many standard deviations the members' mean exceeds the others'; −∞ where that overflows."""
    with np.errstate(all="ignore"):
        inside, outside = (np.where(side, score, np.nan) for side in (member, ~member))
        spread = np.sqrt(np.nanvar(inside, axis=1) + np.nanvar(outside, axis=1))
        found = (np.nanmean(inside, axis=1) - np.nanmean(outside, axis=1)) / spread
    return np.where(np.isfinite(found), found, -np.inf)
