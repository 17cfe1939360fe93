"""What is checked before and while scoring: refusals that name examples, and warnings for the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.errors import MissingData, name_some

if TYPE_CHECKING:
    from lirastore.attacks import Attack
    from lirastore.moments import EqualCounts

__all__ = ["Extremes", "membership_warnings", "merge_extremes", "scored_examples", "signal_warnings"]

Bool = npt.NDArray[np.bool_]

# Continuous signals hardly tie; a share of equal values at an end means that something cut them there.
SATURATED_SHARE = 0.01
# With fewer models than this, exactly balanced columns shift the null AUC by more than 0.005.
COUNTS_LEAK_BELOW = 32


@dataclass(frozen=True)
class Extremes:
    """Smallest and largest value of a signal, and how many values equal them; mergeable."""

    low: float
    high: float
    at_low: int
    at_high: int
    count: int

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Extremes:
        """Of a non-empty array."""
        low, high = values.min(), values.max()
        at = np.count_nonzero
        return cls(float(low), float(high), int(at(values == low)), int(at(values == high)), values.size)

    def merge(self, other: Extremes) -> Extremes:
        """Of both sets of values together."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        both = (self, other)
        return Extremes(
            low,
            high,
            sum(part.at_low for part in both if part.low == low),
            sum(part.at_high for part in both if part.high == high),
            self.count + other.count,
        )

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


def merge_extremes(parts: Sequence[Mapping[str, Extremes]]) -> dict[str, Extremes]:
    """Merges by signal name."""
    merged: dict[str, Extremes] = {}
    for part in parts:
        for name, extremes in part.items():
            merged[name] = merged[name].merge(extremes) if name in merged else extremes
    return merged


def signal_warnings(attack: Attack, extremes: Mapping[str, Extremes]) -> list[str]:
    """Signals that are constant over the whole store, or saturated at an end."""
    found = ((name, extremes[name]) for name in attack.signals if name in extremes)
    return [line for name, ends in found for line in _signal_warning(name, ends)]


def _signal_warning(name: str, ends: Extremes) -> list[str]:
    if ends.low == ends.high:
        return [
            f"signal {name} is constant: all {ends.count} values are {ends.low:g}; its scores mean nothing"
        ]
    if name == "correct":  # 0 or 1 by its nature
        return []
    tied = {f"{ends.low:g}": ends.at_low / ends.count, f"{ends.high:g}": ends.at_high / ends.count}
    return [
        f"signal {name} is saturated: {share:.1%} of its values are exactly {value}; "
        "were the logits clipped, or computed from rounded probabilities?"
        for value, share in tied.items()
        if share > SATURATED_SHARE
    ]


def membership_warnings(
    attack: Attack, member: Bool, attackable: Bool | None, scored: Bool, *, equal_counts: EqualCounts
) -> list[str]:
    """Columns of the membership matrix that make leave-one-out scores lopsided or biased."""
    if not (attack.minimum.n_in or attack.minimum.n_out):
        return []
    models = member.shape[0]
    n_in = np.count_nonzero(member, axis=0)[scored]
    fewer = np.minimum(n_in, models - n_in)
    lopsided = np.flatnonzero(scored)[fewer * 10 < models]
    lines = []
    if lopsided.size:
        lines.append(
            f"{lopsided.size} examples have fewer than a tenth of the {models} models on one side: "
            f"{name_some(lopsided.tolist())}; their statistics rest on few models"
        )
    same = n_in.size > 0 and bool((n_in == n_in[0]).all())
    equal = bool(equal_counts) or attack.kind == "power"
    if same and not equal and attack.minimum.leave_one_out and models < COUNTS_LEAK_BELOW:
        lines.append(
            f"every example is in exactly {n_in[0]} of only {models} models: leaving the target out changes "
            "the counts, which shifts scores against members; equal counts (--equal-counts) avoid that"
        )
    left_out = ~scored if attackable is None else attackable & ~scored
    if left_out.any() and attack.minimum.leave_one_out:
        lines.append(
            f"{np.count_nonzero(left_out)} examples with too few models were left out: "
            f"{name_some(np.flatnonzero(left_out).tolist())}; those that remain were chosen by their counts, "
            "of which a target's own membership is part, and near the minimum scores betray the counts: the "
            "TPR at low FPR may show that and no leak; more models, or a more even keep fraction, avoid it"
        )
    return lines


def scored_examples(
    attack: Attack, member: Bool, attackable: Bool | None, *, equal_counts: EqualCounts, skip: bool
) -> Bool:
    """(E,) bool: the examples that the attack is going to score, known from membership alone.

    Examples with attackable=False are never scored. Of the others, those with too few IN or OUT models are
    left out if `skip`. Raises MissingData naming them if not, or if no example is left, or if all examples
    together are too few for what the attack pools over them.
    """
    scored = attack.scored(member, attackable, equal_counts=equal_counts)
    short = ~scored if attackable is None else attackable & ~scored
    if short.any() and not skip:
        raise MissingData(
            f"{attack.name} needs {attack.minimum} for every example; among the {member.shape[0]} committed "
            f"models, examples {name_some(np.flatnonzero(short).tolist())} have fewer: commit more models, "
            "or leave these examples out with --skip-unattackable"
        )
    if not scored.any():
        raise MissingData(
            f"{attack.name} needs {attack.minimum}; with {member.shape[0]} committed models no example of "
            f"{member.shape[1]} can be scored: commit more models"
        )
    for side, targets in attack.minimum.lacking(member, attackable, equal_counts=equal_counts).items():
        raise MissingData(
            f"{attack.name} pools the {side} variance over all examples; with "
            f"{np.count_nonzero(targets)} of the {member.shape[0]} committed models as target it has fewer "
            f"than {attack.minimum.degrees} degrees of freedom: commit more models"
        )
    return scored
