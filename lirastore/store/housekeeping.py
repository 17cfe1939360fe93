"""What is in the store besides committed models: `status` shows it, `gc_store` removes what is of no use."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lirastore.store.attempt import AttemptInfo, is_preparation, list_attempts, retire
from lirastore.store.create import is_partial
from lirastore.store.fsio import clock, entries, is_clock, remove_tree
from lirastore.store.layout import RESULTS
from lirastore.store.protocol import Places, current_claim
from lirastore.store.recover import RecoverReport, recover

if TYPE_CHECKING:
    from lirastore.store.open import LogitStore

__all__ = ["AttemptStatus", "GcReport", "StoreStatus", "gc_store", "status"]

SILENT_AFTER = 300.0
"""Seconds without a heartbeat (due every 30) after which `status` calls an attempt stale."""

PREPARATION_SECONDS = 600.0
"""Preparing an attempt or a discard takes milliseconds: what is older was left by a process that died."""

CREATION_SECONDS = 86400.0
"""A directory of a creation that nothing was added to for so long was left by a process that died."""


@dataclass(frozen=True)
class AttemptStatus:
    """One attempt in staging. `state`: `active`; `claimed`, to be published by its writer or by recovery;
    `stale`: of no use any more, or silent, or its process has died. `silent`: seconds since its heartbeat."""

    model: int
    attempt: str
    state: Literal["active", "claimed", "stale"]
    silent: float
    host: str | None
    pid: int | None


@dataclass(frozen=True)
class StoreStatus:
    """models: planned. committed: how many. pending: ids of the others. attempts: all that are in staging."""

    models: int
    committed: int
    pending: list[int]
    stale_attempts: int
    attempts: list[AttemptStatus]


def status(store: LogitStore) -> StoreStatus:
    """What is committed, pending and stale. Writes nothing, so it works on a read-only mount; silence is
    therefore measured by this machine's clock."""
    places = Places.of(store)
    now = time.time()
    attempts = [_attempt_status(places, info, now - info.heartbeat) for info in list_attempts(places)]
    committed = set(store.committed().tolist())
    return StoreStatus(
        models=store.info.models,
        committed=len(committed),
        pending=[model for model in range(store.info.models) if model not in committed],
        stale_attempts=sum(attempt.state == "stale" for attempt in attempts),
        attempts=attempts,
    )


def _attempt_status(places: Places, info: AttemptInfo, silent: float) -> AttemptStatus:
    state: Literal["active", "claimed", "stale"] = "active"
    if places.marker(info.model).exists():
        state = "stale"
    elif current_claim(places, info.model).attempt == info.attempt:
        state = "claimed"
    elif info.alive is False or silent > SILENT_AFTER:
        state = "stale"
    return AttemptStatus(info.model, info.attempt, state, silent, info.host, info.pid)


@dataclass(frozen=True)
class GcReport:
    """What gc did: (model, attempt) pairs removed, runs of attacks removed, what recovery did first, and the
    remains of killed creations of this store, removed from beside it."""

    attempts: list[tuple[int, str]]
    runs: list[str]
    recovered: RecoverReport
    creations: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line per thing done."""
        return [
            *(f"published model {model}: it was claimed" for model in self.recovered.published),
            *(f"completed the discard of model {model}" for model in self.recovered.discarded),
            *(f"cannot publish model {model}: {why}" for model, why in self.recovered.stuck.items()),
            *(f"removed attempt {attempt} at model {model}" for model, attempt in self.attempts),
            *(f"removed run {run}" for run in self.runs),
            *(f"removed unfinished creation {name}" for name in self.creations),
        ]


def gc_store(
    store: LogitStore,
    *,
    older_than: timedelta = timedelta(hours=24),
    results: Callable[[Path, float], list[str]] | None = None,
) -> GcReport:
    """Removes attempts of committed models, unclaimed attempts silent for `older_than`, trash, and remains of
    killed processes, killed creations of this store included.

    Recovers first (see `recover`). Ages are by the store's clock. Safe beside live writers: an attempt that
    has claimed its model is never removed, and one that is removed can never claim; its writer gets
    LostClaim. `results(lira, seconds)` removes old runs of attacks and returns their names.
    """
    places = Places.of(store)
    recovered = recover(store)
    now = clock(places.lira)
    removed = [
        (info.model, info.attempt)
        for info in list_attempts(places)
        if _is_useless(places, info, now - info.heartbeat >= older_than.total_seconds())
        and _remove(places, info)
    ]
    for path in _litter(places, now - max(PREPARATION_SECONDS, older_than.total_seconds())):
        places.throw_away(path)
    for folder in entries(places.staging):
        places.tidy(folder)
    for heap in entries(places.trash):
        remove_tree(heap)
    runs = [] if results is None else results(store.lira, older_than.total_seconds())
    creations = list(_remove_creations(store.path.resolve(), now - CREATION_SECONDS))
    return GcReport(removed, runs, recovered, creations)


def _is_useless(places: Places, info: AttemptInfo, silent: bool) -> bool:
    return silent or places.marker(info.model).exists()


def _remove(places: Places, info: AttemptInfo) -> bool:
    if retire(places, info.model, info.attempt):
        return True
    # It holds the claim. Once the marker is there as well, all of it but this directory is published.
    if not places.marker(info.model).exists():
        return False
    return places.throw_away(places.attempt(info.model, info.attempt))


def _litter(places: Places, before: float) -> Iterator[Path]:
    """Preparations of attempts and discards that nobody will finish, and probes of the clock."""
    folders = [folder for area in (places.staging, places.discarded) for folder in entries(area)]
    remains = [path for folder in folders for path in entries(folder) if is_preparation(path)]
    for folder in (places.lira, places.lira / RESULTS):
        remains += [path for path in entries(folder) if is_clock(path)]
    for path in remains:
        with contextlib.suppress(FileNotFoundError):  # finished this moment
            if path.stat().st_mtime <= before:
                yield path


def _remove_creations(root: Path, before: float) -> Iterator[str]:
    """Removes what killed creations of the store at `root` left beside it, this user's only; gives the names.

    The store stands, so a creation that should still be alive could only be refused.
    """
    for path in entries(root.parent):
        if is_partial(path, root) and _abandoned(path, before):
            remove_tree(path)
            yield path.name


def _abandoned(path: Path, before: float) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and found.st_mtime <= before
