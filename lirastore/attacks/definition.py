"""What an attack is: a pure function of a block of examples, and what it needs to know and to have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block
from lirastore.attacks.summary import Facts, FirstPass
from lirastore.errors import AttackError, name_some
from lirastore.moments import EqualCounts, degrees_of_freedom

__all__ = ["Attack", "Kind", "MinimumCounts", "check_name", "check_scores"]

Bool = npt.NDArray[np.bool_]
Kind = Literal["scores", "examples", "pairs", "power"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def check_name(name: str) -> str:
    """Returns `name` if an attack may be called that: results are stored and selected under it.

    Raises:
        AttackError: not a lower-case letter followed by at most 63 lower-case letters, digits and
    underscores."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise AttackError(
            f"attack name {name!r}: expected a lower-case letter, then at most 63 lower-case letters, digits "
            "and underscores; choose another name"
        )
    return name


@dataclass(frozen=True)
class MinimumCounts:
    """How many IN and OUT models a test needs for an example.

    Attributes:
        n_in, n_out: the least numbers of models.
        leave_one_out: they are counted after the target, which may be any of the models, is left out.
        degrees: of each side that has a minimum, the least degrees of freedom Σ_j max(k_j − 1, 0) of all
            examples that may be attacked, k_j being the models beside the target, whichever that is.
    """

    n_in: int = 0
    n_out: int = 0
    leave_one_out: bool = True
    degrees: int = 0

    def short(self, member: Bool, *, equal_counts: EqualCounts = False) -> Bool:
        """(e,) bool: examples for which some target is left with too few models.

        Args:
            member: (M, e) bool, the committed models' membership; each of them is a target.
            equal_counts: both sides are cut to the smaller one.
        """
        n_in = np.count_nonzero(member, axis=0)
        n_out = member.shape[0] - n_in
        if self.leave_one_out:
            n_in, n_out = np.maximum(n_in - 1, 0), np.maximum(n_out - 1, 0)
        if equal_counts:
            n_in = n_out = np.minimum(n_in, n_out)
        return np.asarray((n_in < self.n_in) | (n_out < self.n_out))

    def lacking(
        self, member: Bool, attack_mask: Bool | None = None, *, equal_counts: EqualCounts = False
    ) -> dict[str, Bool]:
        """Sides ("IN", "OUT") with too few `degrees` for some target, and which targets: (M,) bool."""
        if not self.degrees:
            return {}
        found = degrees_of_freedom(member, attack_mask, equal_counts=equal_counts)
        sides = zip(("IN", "OUT"), (self.n_in, self.n_out), found, strict=True)
        return {
            side: degrees < self.degrees
            for side, least, degrees in sides
            if least and (degrees < self.degrees).any()
        }

    def met(self, block: Block) -> Bool:
        """(e,) bool: the block's examples that are not exempt and meet the minimum for every target."""
        enough = ~self.short(block.member, equal_counts=block.equal_counts)
        return enough if block.attack_mask is None else enough & block.attack_mask

    def __str__(self) -> str:
        return f"{self.n_in} IN and {self.n_out} OUT models" + " besides the target" * self.leave_one_out


@dataclass(frozen=True)
class Attack:
    """A membership-inference attack: a pure function of a block, and what it needs.

    Attributes:
        name: [a-z][a-z0-9_]{0,63}; results are stored under it.
        function: block -> (M, e) float64 scores of every model as target, higher means member, finite
            wherever `minimum` is met; with kind `examples`, block -> {column: (e,) array},
            with `pairs` (n,) arrays.
        signals: names of the signals that the function reads.
        summaries: first passes that it reads.
        minimum: how many models its test needs per example.
        kind: `scores`; `examples` for quantities that belong to an example and not to a target; `pairs` for
            those of two examples, any number of rows a block; `power` for scores with few shadow models.
        parameters: JSON values that describe the computation; stamped on the results.
        described: the parameters, with the version of the library, describe it fully: results with the same
            ones are the same. Only then are results kept as up to date and interrupted runs resumed. Not so
            of a user's function, which may close over variables and call what it imports.
        limitable: all that it knows of the other models is from `Block.others` and `Block.loo`, so that it
            can be asked how well it would do with fewer of them.
        equal_counts: it takes as many IN as OUT models whether or not the run does: `Block.even`.
        separate: a model's score of an example is made of that model's own outputs, and what it was trained
            on, alone: no other model is read, nothing is fitted to others. Stamped on the results: models
            that are independent runs then have independent scores, and cannot betray each other's membership.
        for_store: (the attack, what is known of a store) -> the attack as that store can give it: chooses
            signals, and parameters to be stamped. Raises MissingData, or MissingDependency, with the remedy.
        doc: paper, formula, direction.
    """

    name: str
    function: Callable[[Block], Any]
    signals: tuple[str, ...] = ("scaled_logit",)
    summaries: tuple[FirstPass, ...] = ()
    minimum: MinimumCounts = MinimumCounts()
    kind: Kind = "scores"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    described: bool = False
    limitable: bool = False
    equal_counts: bool = False
    separate: bool = False
    for_store: Callable[[Attack, Facts], Attack] | None = field(default=None, repr=False)
    doc: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)

    def __call__(self, block: Block) -> Any:
        """What the function says of a block, unchecked."""
        return self.function(block)

    def on(self, facts: Facts) -> Attack:
        """The attack as a store can give it. Raises MissingData or MissingDependency if it cannot."""
        return self if self.for_store is None else self.for_store(self, facts)

    def scored(
        self, member: Bool, attack_mask: Bool | None = None, *, equal_counts: EqualCounts = False
    ) -> Bool:
        """(e,) bool: examples that this attack can score: not exempt, and with models enough."""
        enough = ~self.minimum.short(member, equal_counts=equal_counts)
        return enough if attack_mask is None else enough & attack_mask


def check_scores(attack: Attack, block: Block, scores: Any) -> npt.NDArray[np.float64]:
    """Returns what an attack's function returned as (M, e) float64, if it is that and finite.

    Examples that the attack cannot score (`Attack.scored`) may hold anything.

    Raises:
        AttackError: another shape or type, or NaN or infinity: names the attack, the models and the examples.
    """
    shape = block.member.shape
    array = np.asarray(scores)
    if array.shape != shape or array.dtype.kind not in "fiub":
        raise AttackError(
            f"attack {attack.name!r} returned {_described(scores, array)}; expected one real number per "
            f"model and example of the block, shape {shape}, float64"
        )
    array = np.ascontiguousarray(array, dtype=np.float64)
    scored = attack.minimum.met(block.even() if attack.equal_counts else block)
    bad = ~np.isfinite(array) & scored
    if bad.any():
        models = block.models[bad.any(axis=1)].tolist()
        examples = block.examples[bad.any(axis=0)].tolist()
        raise AttackError(
            f"attack {attack.name!r} returned {np.count_nonzero(bad)} scores that are NaN or infinite, for "
            f"models {name_some(models)} and examples {name_some(examples)}; scores must be finite: floor a "
            "standard deviation (σ + 1e-30) before dividing by it, and use log-densities"
        )
    return array


def _described(value: object, array: npt.NDArray[Any]) -> str:
    return f"{type(value).__name__} of shape {array.shape} and dtype {array.dtype}"
