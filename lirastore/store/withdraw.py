"""Discarding: takes a committed or claimed model out of the store, so that it can be written again.

The steps, each of them repeatable by anyone (see `protocol` for why no late process can do harm):

1. the token `discarded/<model>/<attempt>/` appears, with an empty `objects/` in it;
2. the attempt's directory, if there is one, moves into `objects/`: nobody can publish the attempt any more;
3. the marker moves there: readers do not see the model any more;
4. the arrays' objects move there;
5. `objects/` moves to the trash: nobody can take anything away in the name of this discard any more, and the
   claim is void. The token stays, some hundred bytes, for the claim does.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lirastore import __version__
from lirastore.errors import DamagedStore, InputError, ModelNotCommitted, name_some
from lirastore.store.commit import read_marker
from lirastore.store.faults import reach
from lirastore.store.fsio import entries, fsync_dir, move, occupied, remove_tree, write_new
from lirastore.store.layout import FORMAT
from lirastore.store.protocol import (
    DISCARD_FILE,
    DISCARD_OBJECTS,
    PREPARATION,
    Places,
    current_claim,
    is_discarded,
)

if TYPE_CHECKING:
    from lirastore.store.open import LogitStore

__all__ = ["discard", "finish_discards"]


def discard(store: LogitStore, models: Iterable[int]) -> list[int]:
    """Withdraws models that are committed (or claimed, should that have got stuck), and deletes their data.

    Returns the models, sorted. Raises InputError if none is given, UnknownModel, or ModelNotCommitted naming
    every model that is pending; then nothing was changed.
    """
    places = Places.of(store)
    wanted = sorted({store.check_model(model) for model in models})
    if not wanted:
        raise InputError("no models given: name those to discard, such as 3,17 or 40:48")
    attempts = {model: _holder(places, model) for model in wanted}
    pending = [model for model, attempt in attempts.items() if attempt is None]
    if pending:
        raise ModelNotCommitted(
            f"{name_some(pending)} of the models to discard: not committed in {store.path}, so there is "
            f"nothing to withdraw; no model was changed"
        )
    for model, attempt in attempts.items():
        if attempt is not None:
            _withdraw(places, tuple(store.arrays), model, attempt)
    return wanted


def finish_discards(store: LogitStore, models: Iterable[int] | None = None) -> list[int]:
    """Completes discards that were interrupted, of these models or of all; returns their models."""
    places = Places.of(store)
    found = _unfinished(places, models)
    for model, attempt in found:
        _withdraw(places, tuple(store.arrays), model, attempt)
    return [model for model, _ in found]


def _unfinished(places: Places, models: Iterable[int] | None) -> list[tuple[int, str]]:
    names = (path.name for path in entries(places.discarded)) if models is None else map(str, models)
    return [
        (int(name), token.name)
        for name in names
        for token in entries(places.discarded / name)
        if not token.name.startswith(PREPARATION) and (token / DISCARD_OBJECTS).exists()
    ]


def _holder(places: Places, model: int) -> str | None:
    """The attempt that holds the model: by its claim or, should the claim have been lost, by its marker."""
    attempt = current_claim(places, model).attempt
    if attempt is not None:
        return attempt
    try:
        commit = read_marker(places.marker(model))
    except DamagedStore:  # this is what discarding is for: any new name will do
        return f"unreadable-{uuid.uuid4().hex[:12]}"
    return None if commit is None else commit.attempt


def _withdraw(places: Places, arrays: Sequence[str], model: int, attempt: str) -> None:
    token = places.discard(model, attempt)
    _put_token(token)
    reach("discard.token")
    if is_discarded(places, model, attempt):
        return
    objects = token / DISCARD_OBJECTS
    staged = places.attempt(model, attempt)
    if move(staged, objects / "attempt.dir"):
        fsync_dir(staged.parent, missing_ok=True)
    reach("discard.fenced")
    move(places.marker(model), objects / "marker.json")
    fsync_dir(places.commits)
    reach("discard.marker")
    for name in arrays:
        if move(places.array(name, model), objects / f"{name}.array"):
            fsync_dir(places.array(name, model).parent)
        reach("discard.array")
    reach("discard.arrays")
    places.throw_away(objects)
    fsync_dir(token)
    reach("discard.finished")


def _put_token(token: Path) -> None:
    """Makes the token appear with its `objects/`, unless it stands: the discard has begun, or is over."""
    fresh = token.with_name(PREPARATION + uuid.uuid4().hex)
    (fresh / DISCARD_OBJECTS).mkdir(parents=True)
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    document = {"format": FORMAT, "discarded_at": now, "library_version": __version__}
    write_new(fresh / DISCARD_FILE, (json.dumps(document) + "\n").encode())
    fsync_dir(fresh)
    try:
        fresh.rename(token)
    except OSError as error:
        if not occupied(error):
            raise
        remove_tree(fresh)
    fsync_dir(token.parent)
    fsync_dir(token.parent.parent)
