"""Influence (Feldman & Zhang 2020): how much more often models get one example right if another is in their
training set.

Feldman and Zhang, "What Neural Networks Memorize and Why", NeurIPS 2020, estimate on shadow models

    influence(i → j) = P[j correct | i in the training set] − P[j correct | i not in it]

With a = models that hold i and get j right, c = models that get j right, it is (a·M − c·n_i)/(n_i·(M − n_i)),
n_i models of M holding i: a quotient of integers, so that equal influences are equal numbers. The whole N × N
is never there: for a few examples j at a time, the i pass by in growing runs, and only those that beat the
tenth best so far are looked at. `a` is a population count of bits, one bit a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block
from lirastore.attacks.definition import Attack
from lirastore.attacks.summary import Sizes, Summary

__all__ = ["INFLUENCE", "TOP", "influence_block"]

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Float64 = npt.NDArray[np.float64]

TOP = 10

# Bits looked at together, 1 MB as 64-bit words: they stay in one core's cache.
_CELLS = 128 * 1024
# The first run of examples; every next one is as long as all before it. Of a run, an example j has about as
# many candidates as it keeps, were influences all different.
_FIRST_RUN = 32


def influence_block(member: Bool, correct: npt.NDArray[Any]) -> Float64:
    """The influence of some examples on the correctness of others.

    Args:
        member: (M, n) bool, which models hold the n examples that influence.
        correct: (M, m), which models get the m others right: 1 or 0, or bool.

    Returns:
        (n, m) float64 in [−1, 1], positive where models that hold the one get the other right more often;
        NaN in rows of examples that are in no model or in all of them.
    """
    n_in = np.count_nonzero(member, axis=0)[:, None]
    right = np.asarray(correct, np.float64)
    both = member.T.astype(np.float64) @ right
    models = len(member)
    with np.errstate(invalid="ignore"):
        result: Float64 = (both * models - right.sum(axis=0) * n_in) / (n_in * (models - n_in))
    return result


# --- who is in which model ----------------------------------------------------------------------


class _Members(NamedTuple):
    """The whole membership: (W, E) uint64, one bit a model, and (E,) in how many models an example is."""

    words: UInt64
    n_in: Int64


def _pack(block: Block) -> npt.NDArray[np.uint8]:
    """(⌈M/8⌉, e): eight models a byte."""
    return np.packbits(block.member, axis=0)


def _beside(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.concatenate([a, b], axis=1)


def _members(packed: npt.NDArray[np.uint8]) -> _Members:
    words = _words(packed)
    return _Members(words, np.bitwise_count(words).sum(axis=0, dtype=np.int64))


def _words(packed: npt.NDArray[np.uint8]) -> UInt64:
    """(⌈M/8⌉, n) bytes as (⌈M/64⌉, n) words, filled up with zeros."""
    rows, examples = packed.shape
    count = -(-rows // 8)
    whole = np.zeros((count * 8, examples), np.uint8)
    whole[:rows] = packed
    grouped = np.ascontiguousarray(whole.reshape(count, 8, examples).transpose(0, 2, 1))
    return grouped.view(np.uint64)[:, :, 0]


def _member_bytes(sizes: Sizes) -> int:
    """Bits of all states, twice while two are joined, then as bytes and words; and the counts."""
    return sizes.examples * (5 * 8 * -(-sizes.models // 64) + 8)


_MEMBERS = Summary(
    key="influence/members",
    signals=(),
    chunk=_pack,
    combine=_beside,
    finalise=_members,
    state_bytes=_member_bytes,
)


# --- the strongest influences on a few examples -------------------------------------------------


@dataclass
class _Best:
    """The strongest influences so far on m examples: (m, TOP) values and ids, best first, then lower ids.

    Empty places hold 0, which nothing that is kept equals, and id −1.
    """

    values: Float64
    ids: Int64

    def add(self, example: Int64, other: Int64, value: Float64) -> None:
        """Takes candidates in, (n,) each, in ascending order of `example`, all above those already here."""
        order = np.argsort(other, kind="stable")
        other = other[order]
        counts = np.bincount(other, minlength=len(self.values))
        place = np.arange(len(other)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.flatnonzero(counts)
        width = TOP + int(counts.max(initial=0))
        values, ids = np.zeros((len(rows), width)), np.full((len(rows), width), -1)
        values[:, :TOP], ids[:, :TOP] = self.values[rows], self.ids[rows]
        at = np.searchsorted(rows, other), TOP + place
        values[at], ids[at] = value[order], example[order]
        best = np.argsort(-values, axis=1, kind="stable")[:, :TOP]  # ties stay in the order of ids
        self.values[rows] = np.take_along_axis(values, best, axis=1)
        self.ids[rows] = np.take_along_axis(ids, best, axis=1)


def strongest(block: Block) -> dict[str, npt.NDArray[Any]]:
    """For every example `other` of the block the ten examples with the strongest positive influence on it.

    Returns:
        Columns example (the one trained on), other (the one whose correctness changes), both int64, and
        influence, float64 in (0, 1]; for each `other` strongest first, of equal ones the lower id. Fewer than
        ten where fewer are positive. No example is paired with itself, and none that is in no model or in
        all of them influences.
    """
    members: _Members = block.summary(_MEMBERS)
    correct = block.signal("correct", queries="first")[:, :, 0] > 0
    count = len(block.examples)
    best = _Best(np.zeros((count, TOP)), np.full((count, TOP), -1))
    search = _Search(members, correct, block.start)
    start, stop = 0, _FIRST_RUN
    while start < len(members.n_in):
        best.add(*search.run(start, min(stop, len(members.n_in)), best.values[:, -1]))
        start, stop = stop, 2 * stop
    kept = best.ids >= 0
    return {
        "example": best.ids[kept],
        "other": np.repeat(block.examples, kept.sum(axis=1)),
        "influence": best.values[kept],
    }


class _Search:
    """Looks for influences on m examples, the first of which has the id `first`.

    correct: (M, m) bool.
    """

    def __init__(self, members: _Members, correct: Bool, first: int) -> None:
        self._words, self._n_in = members
        self._models, self._others = correct.shape
        self._first = first
        self._correct = _words(np.packbits(correct, axis=0))
        self._right = np.count_nonzero(correct, axis=0)
        self._step = max(1, _CELLS // self._others)
        # Of counts up to M, and one more than can be reached.
        self._counts = np.min_scalar_type(self._models + 1)

    def run(self, start: int, stop: int, beaten: Float64) -> tuple[Int64, Int64, Float64]:
        """(example, place of the other, influence) of all in [start, stop) that exceed what is to be beaten.

        beaten: (m,), at least 0. In ascending order of `example`.
        """
        sizes, group = np.unique(self._n_in[start:stop], return_inverse=True)
        bounds = self._bounds(sizes, beaten)
        found = [
            self._candidates(low, min(low + self._step, stop), bounds, group[low - start :])
            for low in range(start, stop, self._step)
        ]
        example, other, both = (np.concatenate(part) for part in zip(*found, strict=True))
        n_in = self._n_in[example]
        numerator = both * self._models - self._right[other] * n_in
        return example, other, numerator / (n_in * (self._models - n_in))

    def _bounds(self, sizes: Int64, beaten: Float64) -> npt.NDArray[Any]:
        """(g, m): a, for examples in that many models, has to be greater than this.

        a·M > beaten·n·(M − n) + c·n. Where the right side, in exact arithmetic, is a whole multiple of M, the
        guard keeps it from being rounded down; other quotients are further from integers than it.
        """
        n_in = sizes[:, None]
        bound = (beaten * (n_in * (self._models - n_in)) + self._right * n_in) / self._models
        unattainable = (sizes == 0) | (sizes == self._models)
        bound[unattainable] = self._models + 1
        bound = np.floor(np.minimum(bound + 1e-9, self._models + 1))
        counts: npt.NDArray[Any] = bound.astype(self._counts)
        return counts

    def _candidates(
        self, start: int, stop: int, bounds: npt.NDArray[Any], group: Int64
    ) -> tuple[Int64, Int64, Int64]:
        """(example, place of the other, a) of a run that fits the cache."""
        both = np.zeros((stop - start, self._others), self._counts)
        for own, right in zip(self._words[:, start:stop], self._correct, strict=True):
            both += np.bitwise_count(own[:, None] & right)
        own_places = np.arange(max(start, self._first), min(stop, self._first + self._others))
        both[own_places - start, own_places - self._first] = 0  # never above a bound
        at = np.flatnonzero(both > bounds.take(group[: stop - start], axis=0))
        row, other = np.divmod(at, self._others)
        return row + start, other, both.ravel()[at].astype(np.int64)


INFLUENCE = Attack(
    name="influence",
    function=strongest,
    signals=("correct",),
    summaries=(_MEMBERS,),
    kind="pairs",
    parameters={"preset": "paper", "signal": "correct", "queries": "first", "top": TOP},
    described=True,
    doc='Feldman & Zhang, "What Neural Networks Memorize and Why", NeurIPS 2020: influence of `example` on '
    "`other`, P[other correct | example trained on] − P[other correct | not], over all committed models, "
    "first query: for each `other` the ten strongest positive ones. Needs the logits.",
)
