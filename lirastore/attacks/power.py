"""How well an attack does with fewer shadow models and queries than a store holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lirastore.attacks import presets
from lirastore.attacks.block import Block, stands_aside
from lirastore.attacks.definition import Attack, MinimumCounts, check_name
from lirastore.attacks.summary import Facts, FirstPass, PerTarget, TargetRow
from lirastore.errors import AttackError

__all__ = ["QueryCount", "is_power_name", "largest_shadows", "power", "query_counts"]

Bool = npt.NDArray[np.bool_]
QueryCount = int | Literal["first", "all"]

# A pooled variance takes two models a side: one has no degrees of freedom in any example.
_LEAST_POOLED = 4


@dataclass(frozen=True)
class _Limits:
    """K shadow models, half of them IN and half OUT, and the first q queries."""

    shadows: int
    queries: int

    @property
    def suffix(self) -> str:
        """Of the keys of first passes: all attacks with these limits share them, and none without."""
        return f"/k{self.shadows}-q{self.queries}"

    def block(self, block: Block) -> Block:
        return block.limited(self.shadows, self.queries, self.suffix)

    def facts(self, facts: Facts) -> Facts:
        """What is known of a store that has these queries only."""
        kept = [name for name in facts.augmentations if not stands_aside(name)][: self.queries]
        sizes = replace(facts.sizes, queries=len(kept))
        return replace(facts, augmentations=tuple(kept), sizes=sizes)


def is_power_name(name: str) -> bool:
    """Whether a name is of the form that `power` gives."""
    return re.fullmatch(r".*__k\d+_q\d+", name) is not None


def power(attack: Attack, shadows: int, queries: int) -> Attack:
    """The attack `<name>__k<K>_q<q>`: K/2 IN and K/2 OUT models beside each target, and the first q queries.

    For every target and example these are the first of either side in an order that the seed settles (see
    `moments.counts.model_order`): shadow models of a smaller K are among those of a larger one. Needs K/2 IN
    and K/2 OUT models besides the target for every example; scores as the attack itself. The parameters name
    the attack, `models` K and `queries` q.

    Raises:
        AttackError: K is odd or below 2, or too few for the attack; q is below 1; or the attack takes from
            other models more than `Block.loo` and `Block.others` give, which is all that can be limited.
    """
    _check(attack, shadows, queries)
    limits = _Limits(shadows, queries)
    minimum = MinimumCounts(shadows // 2, shadows // 2, degrees=attack.minimum.degrees)
    made = Attack(
        name=check_name(f"{attack.name}__k{shadows}_q{queries}"),
        function=_Limited(attack.function, limits),
        signals=attack.signals,
        summaries=tuple(_limited_pass(first, limits) for first in attack.summaries),
        minimum=minimum,
        kind="power",
        parameters={**attack.parameters, "attack": attack.name, "models": shadows, "queries": queries},
        described=attack.described,
        doc=f"{attack.doc} With {shadows} shadow models, half of them IN, and {queries} of the queries.",
    )
    return made if attack.for_store is None else replace(made, for_store=partial(_for_store, attack, limits))


def _for_store(attack: Attack, limits: _Limits, _: Attack, facts: Facts) -> Attack:
    made = power(attack.on(limits.facts(facts)), limits.shadows, limits.queries)
    return replace(made, for_store=None)


def _check(attack: Attack, shadows: int, queries: int) -> None:
    if not attack.limitable:
        known = [name for name, one in presets.attacks().items() if one.limitable]
        raise AttackError(
            f"{attack.name} cannot be limited to some of the shadow models: it takes from them more than IN "
            f"and OUT moments; those that can be are {', '.join(known)}, and new variants"
        )
    if shadows < 2 or shadows % 2:
        raise AttackError(f"{shadows} shadow models: expected an even number, half of them IN, of at least 2")
    if queries < 1:
        raise AttackError(f"{queries} queries: expected at least 1")
    need = 2 * max(attack.minimum.n_in, attack.minimum.n_out)
    least = max(need, _LEAST_POOLED) if attack.minimum.degrees else need
    if shadows < least:
        raise AttackError(
            f"{attack.name} with {shadows} shadow models has {shadows // 2} of each side, and it needs "
            f"{least // 2}: ask for {least} or more"
        )


@dataclass(frozen=True)
class _Limited:
    """What an attack, or the chunk of a first pass, says of a block with limits."""

    function: Callable[[Block], Any]
    limits: _Limits

    def __call__(self, block: Block) -> Any:
        return self.function(self.limits.block(block))


def _limited_pass(first: FirstPass, limits: _Limits) -> FirstPass:
    """The same first pass over blocks with limits, under a key of its own."""
    key, chunk = first.key + limits.suffix, _Limited(first.chunk, limits)
    requires = tuple(_limited_pass(required, limits) for required in first.requires)
    if isinstance(first, PerTarget):
        finish = partial(_finish, first, limits)
        return replace(first, key=key, chunk=chunk, finish=finish, requires=requires)
    return replace(first, key=key, chunk=chunk, requires=requires)


def _finish(first: PerTarget, limits: _Limits, row: TargetRow) -> npt.NDArray[np.float64]:
    return first.finish(replace(row, known=_without_suffix(row.known, limits.suffix)))


def _without_suffix(known: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """The values of passes with these limits, by the keys that they have without."""
    return {key.removesuffix(suffix): value for key, value in known.items() if key.endswith(suffix)}


# --- what a store has enough for ----------------------------------------------------------------


def query_counts(asked: Sequence[QueryCount], augmentations: Sequence[str]) -> list[int]:
    """How many queries are meant: `first` is 1, `all` those of a store but its noise and its tokens; each
    once.

    Raises:
        AttackError: below 1, or more than there are.
    """
    there = sum(not stands_aside(name) for name in augmentations)
    words = {"first": 1, "all": there}
    counts = [words.get(count, 0) if isinstance(count, str) else count for count in asked]
    for count, meant in zip(asked, counts, strict=True):
        if not 1 <= meant <= there:
            raise AttackError(f"queries {count}: expected first, all, or a number from 1 to {there}")
    return list(dict.fromkeys(counts))


def largest_shadows(member: Bool, attackable: Bool | None, *, skip: bool) -> int:
    """The most shadow models, half of them IN, that stand beside any target of every example.

    Args:
        member: (M, E) bool.
        attackable: (E,) bool, the examples that count; None: all.
        skip: of some example rather than of every one: those that have fewer are left out.
    """
    used = member if attackable is None else member[:, attackable]
    n_in = np.count_nonzero(used, axis=0)
    beside = np.minimum(n_in, len(used) - n_in) - 1
    if not beside.size:
        return 0
    return 2 * max(0, int(beside.max() if skip else beside.min()))
