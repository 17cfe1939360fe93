"""What an attack is given: a run of examples, as all committed models answer them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from lirastore.attacks.summary import FirstPass, PerTarget
from lirastore.errors import MissingData, name_some
from lirastore.moments import EqualCounts, Loo, Others, all_others, equal_others
from lirastore.signals import SIGNALS

__all__ = ["Aside", "Block", "Centre", "Queries", "is_noise", "stands_aside"]

T = TypeVar("T")

Float = npt.NDArray[np.floating[Any]]
Bool = npt.NDArray[np.bool_]
Queries = Literal["first", "all"]
Aside = Literal["noise", "tokens"]
Centre = Literal["mean", "median"]

_PER_CLASS = frozenset(name for name, signal in SIGNALS.items() if signal.per == "class")


# How queries begin that no attack takes for queries of the example unless it asks for them: the example with
# Gaussian noise, which only Merlin and Morgan look at, and the single tokens of a sequence.
_ASIDE: dict[Aside, str] = {"noise": "noise(", "tokens": "token("}


def stands_aside(augmentation: str, kind: Aside | None = None) -> bool:
    """Whether a query is left out of "all" queries; with `kind`, whether it is one of these."""
    prefixes = tuple(_ASIDE.values()) if kind is None else _ASIDE[kind]
    return augmentation.startswith(prefixes)


def is_noise(augmentation: str) -> bool:
    """Whether a query is the example with Gaussian noise."""
    return stands_aside(augmentation, "noise")


@dataclass(frozen=True, eq=False)
class Block:
    """A run of examples, as all committed models answer them: what an attack function is given.

    Attributes:
        models: (M,) int64, ids of the committed models; each in turn is the target.
        start, stop: the examples' ids are start ≤ id < stop; e = stop − start.
        member: (M, e) bool, True where the example was in the model's training set.
        label: (e,) integers.
        augmentations: names of the A queries.
        signals: name -> (M, e, A), or (M, e, C) of signals per class: those that the attacks declared; read
            them with `signal`.
        summaries: key -> finalised value of the first passes; read them with `summary`.
        attack_mask: (e,) bool, the store's own `attackable` array, or None: no example is exempt.
        equal_counts: take as many IN as OUT models into the statistics of `loo`; "fixed" if the design has
            every example in the same number of models, see `moments.counts`.
        even_counts: what `equal_counts` is where an attack takes them unasked, see `even`.
        seed: decides which surplus models `equal_counts` drops.
        preset: whose numerics the attack follows; `paper` unless told.
        shadows: of how many models beside the target the statistics of `loo` are made, half of them IN and
            half OUT; None: of all.
        per_class: names of the signals that are per class; by default those of the registry.
        pass_suffix: of the keys of `summaries` in a block with limited models.
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
    even_counts: EqualCounts = True
    seed: int = 0
    preset: str = "paper"
    shadows: int | None = None
    per_class: frozenset[str] = _PER_CLASS
    pass_suffix: str = ""
    _beside: dict[tuple[int | None, EqualCounts], Others] = field(default_factory=dict, repr=False)
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def examples(self) -> npt.NDArray[np.int64]:
        """(e,) int64: the ids of the block's examples."""
        return np.arange(self.start, self.stop, dtype=np.int64)

    def signal(
        self, name: str = "scaled_logit", *, queries: Queries | Aside | Literal["every"] = "all"
    ) -> Float:
        """(M, e, A): a signal of every model, in its dtype; higher means member. (M, e, C) of one per class.

        queries: the `first` one; `all` but those that stand aside: the `noise` queries, which are the example
        with Gaussian noise, and the `tokens` of a sequence; or `every` one.

        Raises:
            MissingData: the attack did not declare the signal, or there are no `tokens`.
        """
        if name not in self.signals:
            raise MissingData(
                f"signal {name!r} is not in this block, which holds "
                f"{name_some(sorted(self.signals)) or 'none'}; declare it with the attack: "
                f"signals=({name!r},)"
            )
        values = self.signals[name]
        if name in self.per_class or queries == "every":
            return values
        if queries == "first":
            return values[:, :, :1]
        kind = None if queries == "all" else queries
        chosen = [
            place
            for place, query in enumerate(self.augmentations)
            if stands_aside(query, kind) == (kind is not None)
        ]
        has_queries = values.shape[2] == len(self.augmentations)
        if queries == "tokens" and not (chosen and has_queries):
            raise MissingData(_no_tokens(name, self.augmentations))
        if not has_queries or len(chosen) == values.shape[2]:
            return values
        return self.once(("queries", name, queries), lambda: values[:, :, chosen])

    @property
    def per_side(self) -> int | None:
        """The most IN models, and the most OUT models, beside a target; None: no limit."""
        return None if self.shadows is None else self.shadows // 2

    def others(self) -> Others:
        """Which models stand beside each target: all others, or equally many IN and OUT."""
        key = self.shadows, self.equal_counts
        if key not in self._beside:  # of which blocks with other queries, shadows or counts have a share
            self._beside[key] = self._others()
        return self._beside[key]

    def _others(self) -> Others:
        if self.shadows is None and not self.equal_counts:
            return all_others(self.member)
        return equal_others(
            self.member,
            models=self.models,
            examples=self.examples,
            seed=self.seed,
            counts=self.equal_counts or self.even_counts,
            most=self.per_side,
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
            lambda: Loo(values, self.member, centre=centre, others=self.others()),
        )

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """`compute()`, the first time that this block is asked for `key`: what attacks share, read-only."""
        if key not in self._made:
            self._made[key] = compute()
        made: T = self._made[key]
        return made

    def summary(self, summary: FirstPass) -> Any:
        """The value of a first pass that the attack declared: finalised, or (M, e) of a `PerTarget`'s matrix.

        Raises:
            MissingData: the attack did not declare it.
        """
        key = summary.key + self.pass_suffix
        if key not in self.summaries:
            raise MissingData(
                f"summary {key!r} is not in this block; declare it with the attack: summaries=(…,)"
            )
        value = self.summaries[key]
        if isinstance(summary, PerTarget):
            return self.once(("pass", key), lambda: value.read(self.start, self.stop))
        return value

    def even(self) -> Block:
        """The same block with equal counts, or itself if it has them. Computed once per block."""
        if self.equal_counts or self.shadows is not None:
            return self
        return self.once("even", lambda: replace(self, equal_counts=self.even_counts))

    def limited(self, shadows: int, queries: int, pass_suffix: str = "") -> Block:
        """The same examples with the first `queries` queries and `shadows` models beside each target.

        Half of these are IN and half OUT, for every target and example the first in an order that is settled
        by the seed: those of fewer models are among those of more. The last one asked for is kept: attacks
        with equal limits, run one after the other, share what they compute, and others take no more memory.
        """
        limits = (shadows, queries, pass_suffix)
        held: tuple[Any, Block] | None = self._made.get("limited")
        if held is None or held[0] != limits:
            held = (limits, self._limited(*limits))
            self._made["limited"] = held
        return held[1]

    def _limited(self, shadows: int, queries: int, pass_suffix: str) -> Block:
        kept = [place for place, name in enumerate(self.augmentations) if not stands_aside(name)][:queries]
        per_query = {
            name
            for name, values in self.signals.items()
            if name not in self.per_class and values.shape[2] == len(self.augmentations)
        }
        return replace(
            self,
            augmentations=tuple(self.augmentations[place] for place in kept),
            signals={
                name: values[:, :, kept] if name in per_query else values
                for name, values in self.signals.items()
            },
            shadows=shadows,
            pass_suffix=pass_suffix,
        )


def _no_tokens(signal: str, augmentations: tuple[str, ...]) -> str:
    return (
        f"signal {signal!r} has no values per token: the queries here are {name_some(augmentations)}; "
        "expected some named token(0), token(1) …, as the wikitext pipeline stores with --tokens, and an "
        "attack that is not limited to some of the models or queries"
    )
