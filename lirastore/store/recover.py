"""Rolls forward what others began and could not finish: claims without a marker, discards half done."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from lirastore.errors import DamagedStore, LostClaim
from lirastore.store.fsio import clock
from lirastore.store.protocol import Places, current_claim, publish
from lirastore.store.withdraw import finish_discards

if TYPE_CHECKING:
    from lirastore.store.open import LogitStore

__all__ = ["RECOVER_AFTER", "RecoverReport", "recover", "settle"]

RECOVER_AFTER = timedelta(minutes=10)
"""A claim younger than this is left to the process that made it: it is most likely publishing."""

_CLAIM = re.compile(r"(\d+)\.claim(\.\d+)?")


@dataclass(frozen=True)
class RecoverReport:
    """What recovery did: models published, models whose discard was completed, and what it could not do."""

    published: list[int]
    discarded: list[int]
    stuck: dict[int, str]


def settle(store: LogitStore, model: int) -> bool:
    """Finishes whatever was begun with a model, at once; returns whether it is committed now.

    For whoever wants the model. Raises DamagedStore if a claimed attempt's files are gone.
    """
    places = Places.of(store)
    finish_discards(store, [model])
    if places.marker(model).exists():
        return True
    attempt = current_claim(places, model).attempt
    if attempt is None:
        return False
    try:
        publish(places, model, attempt)
    except LostClaim:  # discarded this very moment
        return False
    return True


def recover(store: LogitStore, *, older_than: timedelta = RECOVER_AFTER) -> RecoverReport:
    """Publishes claims that are older than `older_than` by the store's clock, and completes discards.

    Safe beside live writers, other recoverers, gc and discards. A claim that cannot be published does not
    keep the others from it: it is reported under `stuck`.
    """
    report = RecoverReport([], finish_discards(store), {})
    places = Places.of(store)
    for model in _claimed(places, older_than):
        try:
            if settle(store, model):
                report.published.append(model)
        except DamagedStore as error:
            report.stuck[model] = str(error)
    return report


def _claimed(places: Places, older_than: timedelta) -> list[int]:
    """Models with a claim of that age and no marker."""
    names = [path.name for path in places.commits.iterdir()]
    models = {int(match[1]) for match in map(_CLAIM.fullmatch, names) if match}
    unpublished = sorted(model for model in models if not places.marker(model).exists())
    if not unpublished:
        return []
    latest = clock(places.lira) - older_than.total_seconds()
    return [model for model in unpublished if _claimed_at(places, model) <= latest]


def _claimed_at(places: Places, model: int) -> float:
    """When the current claim was made; the end of time if there is none."""
    try:
        slot = current_claim(places, model)
        return slot.path.stat().st_mtime if slot.attempt is not None else float("inf")
    except DamagedStore:  # old enough to be looked at, and reported
        return float("-inf")
