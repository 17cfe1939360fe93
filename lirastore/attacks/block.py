"""What an attack is, what it sees of a store, and what it may ask to know of the whole store beforehand.

An `Attack` is a pure function of a `Block`: a run of examples with the signals of all committed models. What
one block cannot tell (a variance pooled over all examples, the smallest count of models) is a `Summary`: a
first pass that is declared as chunk, combine and finalise, and merged over one fixed tree of blocks, so that
results are reproducible to the bit whatever the number of threads."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from lirastore.errors import AttackError, MissingData, name_some
from lirastore.moments import EqualCounts, Loo, Others, all_others, degrees_of_freedom, equal_others

__all__ = ["Attack", "Block", "MinimumCounts", "Queries", "Summary", "check_name", "check_scores", "stages"]

T = TypeVar("T")

Float = npt.NDArray[np.floating[Any]]
Bool = npt.NDArray[np.bool_]
Queries = Literal["first", "all"]
Centre = Literal["mean", "median"]

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


@dataclass(frozen=True, eq=False)
class Block:
    """A run of examples, as all committed models answer them: what an attack function is given.

    Attributes:
        models: (M,) int64, ids of the committed models; each in turn is the target.
        start, stop: the examples' ids are start ≤ id < stop; e = stop − start.
        member: (M, e) bool, True where the example was in the model's training set.
        label: (e,) integers.
        augmentations: names of the A queries.
        signals: name -> (M, e, A), the signals that the attacks declared; read them with `signal`.
        summaries: key -> finalised value of the first passes; read them with `summary`.
        attack_mask: (e,) bool, the store's own `attackable` array, or None: no example is exempt.
        equal_counts: take as many IN as OUT models into the statistics of `loo`; "fixed" if the design has
            every example in the same number of models, see `moments.counts`.
        seed: decides which surplus models `equal_counts` drops.
        preset: whose numerics the attack follows; `paper` unless told.
    """

    models: npt.NDArray[np.int64]
    start: int
    stop: int
    member: Bool
    label: npt.NDArray[np.integer[Any]]
    augmentations: tuple[str, ...]
    signals: Mapping[str, Float] = field(repr=False)
    summaries: Mapping[str, Any] = field(default_factory=dict, repr=False)
    attack_mask: Bool | None = None
    equal_counts: EqualCounts = False
    seed: int = 0
    preset: str = "paper"
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def examples(self) -> npt.NDArray[np.int64]:
        """(e,) int64: the ids of the block's examples."""
        return np.arange(self.start, self.stop, dtype=np.int64)

    def signal(self, name: str = "scaled_logit", *, queries: Queries = "all") -> Float:
        """(M, e, A): a signal of every model, in its dtype; (M, e, 1) with `queries="first"`.

        Higher means member.

        Raises:
            MissingData: the attack did not declare the signal.
        """
        if name not in self.signals:
            raise MissingData(
                f"signal {name!r} is not in this block, which holds "
                f"{name_some(sorted(self.signals)) or 'none'}; declare it with the attack: "
                f"signals=({name!r},)"
            )
        values = self.signals[name]
        return values[:, :, :1] if queries == "first" else values

    def others(self) -> Others:
        """Which models stand beside each target: all others, or equally many IN and OUT."""
        return self.once("others", self._others)

    def _others(self) -> Others:
        if not self.equal_counts:
            return all_others(self.member)
        return equal_others(
            self.member,
            models=self.models,
            examples=self.examples,
            seed=self.seed,
            counts=self.equal_counts,
        )

    def loo(self, signal: str = "scaled_logit", *, centre: Centre = "mean", queries: Queries = "all") -> Loo:
        """Leave-one-out moments of a signal: row t holds the IN and OUT moments of every model but model t.

        Computed once per block, however many attacks ask. `equal_counts` is heeded.

        Raises:
            MissingData: the attack did not declare the signal.
        """
        values = self.signal(signal, queries=queries)
        return self.once(
            ("loo", signal, centre, queries),
            lambda: Loo(
                values,
                self.member,
                centre=centre,
                equal_counts=self.equal_counts,
                seed=self.seed,
                start=self.start,
                models=self.models,
            ),
        )

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """`compute()`, the first time that this block is asked for `key`: what attacks share, read-only."""
        if key not in self._made:
            self._made[key] = compute()
        made: T = self._made[key]
        return made

    def summary(self, summary: Summary) -> Any:
        """The finalised value of a first pass that the attack declared.

        Raises:
            MissingData: the attack did not declare it.
        """
        if summary.key not in self.summaries:
            raise MissingData(
                f"summary {summary.key!r} is not in this block; declare it with the attack: summaries=(…,)"
            )
        return self.summaries[summary.key]


@dataclass(frozen=True)
class Summary:
    """A mergeable first pass over the store: chunk each block, combine neighbours, finalise once.

    Attributes:
        key: identifies the value; two summaries with one key are one and the same computation.
        signals: the signals that `chunk` reads; none if membership alone decides, and then no data is read
            for it.
        chunk: block -> state.
        combine: (state of a run of examples, state of the run right after it) -> state of both. Runs are
            merged as a binary tree over the blocks, the same one whatever memory and threads. A state should
            hold no more than (2·A + 4) float64 values per model: that is what the memory plan counts.
        finalise: state -> the value that `Block.summary` returns.
        requires: summaries that `chunk` reads in turn, from a pass before.
    """

    key: str
    signals: tuple[str, ...]
    chunk: Callable[[Block], Any]
    combine: Callable[[Any, Any], Any]
    finalise: Callable[[Any], Any]
    requires: tuple[Summary, ...] = ()

    @property
    def stage(self) -> int:
        """0 if it requires nothing, else one more than the latest stage that it requires."""
        return max((required.stage + 1 for required in self.requires), default=0)


def stages(summaries: Iterable[Summary]) -> list[list[Summary]]:
    """The passes over the store that `summaries` and all that they require take: each key once, in stage
    order.

    A pass whose summaries have no signals needs membership and labels only.
    """
    passes: dict[int, dict[str, Summary]] = {}
    waiting = list(summaries)
    while waiting:
        summary = waiting.pop(0)
        passes.setdefault(summary.stage, {}).setdefault(summary.key, summary)
        waiting += summary.requires
    return [list(passes[stage].values()) for stage in sorted(passes)]


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
            wherever `minimum` is met; with kind `examples`, block -> {column: (e,) array}.
        signals: names of the signals that the function reads.
        summaries: first passes that it reads.
        minimum: how many models its test needs per example.
        kind: `scores`, or `examples` for quantities that belong to an example and not to a target.
        parameters: JSON values that describe the computation; stamped on the results.
        described: the parameters, with the version of the library, describe it fully: results with the same
            ones are the same. Only then are results kept as up to date and interrupted runs resumed. Not so
            of a user's function, which may close over variables and call what it imports.
        doc: paper, formula, direction.
    """

    name: str
    function: Callable[[Block], Any]
    signals: tuple[str, ...] = ("scaled_logit",)
    summaries: tuple[Summary, ...] = ()
    minimum: MinimumCounts = MinimumCounts()
    kind: Literal["scores", "examples"] = "scores"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    described: bool = False
    doc: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)

    def __call__(self, block: Block) -> Any:
        """What the function says of a block, unchecked."""
        return self.function(block)

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
    scored = attack.minimum.met(block)
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
