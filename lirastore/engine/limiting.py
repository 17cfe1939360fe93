"""Attacks with fewer shadow models and queries than a store holds: which of them it has enough for."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lirastore.attacks import Attack
from lirastore.attacks.power import QueryCount, largest_shadows, power, query_counts
from lirastore.errors import InputError, MissingData, name_some

if TYPE_CHECKING:
    from lirastore.engine.planning import Options
    from lirastore.store import LogitStore

__all__ = ["limited"]


def limited(
    store: LogitStore,
    attacks: Sequence[Attack],
    models: Sequence[int],
    queries: Sequence[QueryCount],
    options: Options,
) -> list[Attack]:
    """Every attack with every number of shadow models and of queries; see `attacks.power.power`.

    Numbers of shadow models that not every example has are left out, with a line on stderr that names the
    largest that works; with `options.skip_unattackable`, those that no example has.

    Raises:
        MissingData: no number of shadow models is left.
        AttackError: an attack that cannot be limited so; a number of queries that the store does not have.
    """
    if not models or not queries:
        raise InputError("models and queries are empty; expected at least one number of each")
    counts = query_counts(queries, store.info.augmentations)
    combinations = itertools.product(dict.fromkeys(models), counts, attacks)
    made: dict[int, list[Attack]] = {shadows: [] for shadows in models}
    for shadows, count, attack in combinations:
        made[shadows].append(power(attack, shadows, count))
    return [attack for shadows in _enough(store, list(made), options) for attack in made[shadows]]


def _enough(store: LogitStore, models: Sequence[int], options: Options) -> list[int]:
    member, attackable, skip = store.membership(), store.attackable(), options.skip_unattackable
    largest = largest_shadows(member, attackable, skip=skip)
    kept, over = [[n for n in models if (n > largest) == more] for more in (False, True)]
    if not over:
        return kept
    whom = "any example has" if skip else "every example has"
    message = (
        f"{name_some(over)} shadow models: {largest} is the most that {whom} besides the target, half IN; "
    )
    some_have = min(over) <= largest_shadows(member, attackable, skip=True)
    message += (
        "--skip-unattackable leaves out the examples that have fewer" if some_have else "commit more models"
    )
    if not kept:
        raise MissingData(message)
    print(f"skipped {message}", file=sys.stderr)
    return kept
