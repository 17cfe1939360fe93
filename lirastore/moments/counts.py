"""Which models stand beside each target: all others, or equally many IN and OUT.

On a balanced design, leaving out a member leaves one IN model fewer, leaving out a non-member one OUT model
fewer; with ddof-0 variances that difference alone tells them apart. Equal counts cut both sides to one k,
which must not depend on the target's membership either. Which k does not is a matter of the design:

* Independent membership (Bernoulli): k = min(n_in, n_out) of the models beside the target, for these are
  drawn without regard to it.
* Every example in the same number of models (balanced, or the reference code's): there the models beside the
  target betray it, for n_in − 1 of them are IN if it is a member and n_in if it is not. With 3 IN of 7 that
  rule gives k = 2 or 3, which on pure noise finds 24 times as many members as chance at 0.1% FPR. So
  k = min(n_in, n_out) − 1, the target counted in; the same as above where n_in = n_out.

Who is dropped is settled by an order of the models that depends on nothing but the seed, the example and the
model: not on membership, nor on the tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["EqualCounts", "Others", "all_others", "degrees_of_freedom", "equal_others", "model_order"]

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

EqualCounts = bool | Literal["fixed"]
"""False: every other model. True: equal counts for independent membership. "fixed": equal counts for a design
that puts every example into the same number of models."""

# A key is 44 bits of hash, then the model's id: no two models of an example ever share one.
_MODEL_BITS = np.uint64(20)
_NO_KEY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True)
class Others:
    """For each example, the models that enter the statistics, by where the target stands.

    The masks mark IN models where `member` is true and OUT models where it is false; None marks every model.

    Attributes:
        n_in, n_out: (M, e) int64, how many of each side stand beside target t.
        cross: (M, e) or None: of the side that the target is not on.
        base: (M, e) or None: of the target's own side, the target included, to be left out.
        spare: (M, e) or None: of the target's own side, for targets that `base` does not hold.
    """

    n_in: Int64
    n_out: Int64
    cross: Bool | None = None
    base: Bool | None = None
    spare: Bool | None = None


def all_others(member: Bool) -> Others:
    """Every other model: (n_in − 1, n_out) beside a member, (n_in, n_out − 1) beside a non-member."""
    n_in = np.count_nonzero(member, axis=0)
    n_out = len(member) - n_in
    return Others(n_in=n_in - member, n_out=n_out - ~member)


def degrees_of_freedom(
    member: Bool, use: Bool | None = None, *, equal_counts: EqualCounts = False
) -> tuple[Int64, Int64]:
    """(M,) each: Σ_j max(k_j − 1, 0) over the examples, of the k_j IN and OUT models beside each target.

    Args:
        member: (M, e) bool.
        use: (e,) bool, the examples that count; all unless given.
        equal_counts: as of `equal_others`.
    """
    beside_member, beside_other = _beside(member, equal_counts=equal_counts)
    used = np.ones(member.shape[1], np.bool_) if use is None else use
    found = []
    for pair in zip(beside_member, beside_other, strict=True):
        of_member, of_other = (np.maximum(count - 1, 0) * used for count in pair)
        # A target's own place changes a count by one at most; two counts of bits are faster than a sum.
        more, less = of_member > of_other, of_member < of_other
        gained = [np.count_nonzero(row & more) - np.count_nonzero(row & less) for row in member]
        found.append(of_other.sum() + np.array(gained, np.int64))
    return found[0], found[1]


def _beside(member: Bool, *, equal_counts: EqualCounts) -> tuple[tuple[Int64, Int64], tuple[Int64, Int64]]:
    """(e,) numbers of IN and of OUT models beside a target that is a member, and beside one that is not."""
    n_in = np.count_nonzero(member, axis=0)
    n_out = len(member) - n_in
    if not equal_counts:
        return (n_in - 1, n_out), (n_in, n_out - 1)
    if equal_counts == "fixed":
        both = np.maximum(np.minimum(n_in, n_out) - 1, 0)
        return (both, both), (both, both)
    beside_member = np.maximum(np.minimum(n_in - 1, n_out), 0)
    beside_other = np.maximum(np.minimum(n_in, n_out - 1), 0)
    return (beside_member, beside_member), (beside_other, beside_other)


def equal_others(
    member: Bool,
    *,
    models: Int64,
    examples: Int64,
    seed: int,
    counts: EqualCounts = True,
    most: int | None = None,
) -> Others:
    """As many IN as OUT models: the first k of each side in `model_order`, the target passed over.

    Args:
        member: (M, e) bool.
        models, examples: (M,), (e,) ids in the store.
        seed: settles the order.
        counts: True, or "fixed" for a design with the same number of IN models everywhere.
        most: at most so many models a side, if given.
    """
    (beside_member, _), (beside_other, _) = _beside(member, equal_counts=counts)
    if most is not None:
        beside_member, beside_other = np.minimum(beside_member, most), np.minimum(beside_other, most)
    prefix = _Prefixes(member, model_order(models, examples, seed))
    base = prefix.take(beside_member + 1, beside_other + 1)
    n_both = np.where(member, beside_member, beside_other)
    return Others(
        n_in=n_both,
        n_out=n_both,
        cross=prefix.take(beside_other, beside_member),
        base=base,
        spare=None if base.all() else prefix.take(beside_member, beside_other),
    )


class _Prefixes:
    """The first models of each side of each example, in the order of their keys."""

    def __init__(self, member: Bool, keys: UInt64) -> None:
        self._member, self._keys = member, keys
        self._sorted = [_sorted_keys(keys, side) for side in (member, ~member)]

    def take(self, n_in: Int64, n_out: Int64) -> Bool:
        """(M, e): the first n_in (e,) IN models and the first n_out OUT models."""
        bounds = [
            np.take_along_axis(keys, count[:, None], axis=1)[:, 0]
            for keys, count in zip(self._sorted, (n_in, n_out), strict=True)
        ]
        return np.asarray(self._keys < np.where(self._member, *bounds))


def _sorted_keys(keys: UInt64, side: Bool) -> UInt64:
    """(e, M + 1): the keys of a side, ascending, then the greatest integer."""
    count, examples = keys.shape
    table = np.full((examples, count + 1), _NO_KEY)
    np.copyto(table[:, :count], keys.T, where=side.T)
    table.sort(axis=1)
    return table


def model_order(models: Int64, examples: Int64, seed: int) -> UInt64:
    """(M, e) uint64 keys: ascending, they give each example its own order of the models.

    Counter-based (splitmix64's finaliser over seed, example and model), so that the order is the same on
    every platform, for every version of numpy and for every cut into tiles. Model ids are below 2^20.
    """
    with np.errstate(over="ignore"):
        seeded = _mix(np.array([seed % 2**64], np.uint64))
        by_example = _mix(seeded + examples.astype(np.uint64))
        by_model = _mix(_mix(seeded) + models.astype(np.uint64))
        keys = _mix(by_example[None, :] ^ by_model[:, None])
    keys >>= _MODEL_BITS
    keys <<= _MODEL_BITS
    keys |= models.astype(np.uint64)[:, None]
    return keys


def _mix(value: UInt64) -> UInt64:
    """Steele, Lea and Flood's splitmix64: one step of the counter and the finaliser."""
    value = value + np.uint64(0x9E37_79B9_7F4A_7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return value ^ (value >> np.uint64(31))
