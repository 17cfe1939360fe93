"""Claim, publish and withdraw: what makes a model appear whole, once, or not at all.

Nobody holds a lock. Any process may be suspended between two system calls and wake when others have long
finished its work, so checking first is never enough: each single call must be harmless whenever it runs.

The directory of an attempt is the right to act for it.

* Every call that makes something of an attempt visible (its claim, its arrays, its marker) is a link or a
  rename whose source lies in `staging/<model>/<attempt>/`. Moving that directory away stops all of them at
  once, wherever their processes are: they get "no such file". Attempt ids are never used again.
* Every call that takes something of an attempt away is a rename into `discarded/<model>/<attempt>/objects/`.
  That directory appears once, and moving it away stops all of them in the same way.
* `commits/<model>.claim` names the one attempt that may publish. A claim is never removed. When its attempt
  has been discarded it is void, and the claim after it is `commits/<model>.claim.1`, then `.2`: a process
  that wakes with an old claim in its hands can neither take nor remove a new one.

So two attempts never act on `<array>/c/<model>` at one time, and of one attempt's many possible publishers
each step succeeds for one and is found done by the others.
"""

from __future__ import annotations

import itertools
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lirastore.errors import DamagedStore, LostClaim
from lirastore.store.commit import Commit, parse_commit, read_marker
from lirastore.store.faults import reach
from lirastore.store.fsio import fsync_dir, move, occupied, remove_tree
from lirastore.store.layout import ATTEMPTS, COMMITS, FORMAT

if TYPE_CHECKING:
    from lirastore.store.open import LogitStore

__all__ = [
    "HEARTBEAT",
    "MANIFEST",
    "PREPARATION",
    "Places",
    "Slot",
    "claim",
    "claim_document",
    "current_claim",
    "publish",
]

PREPARATION = ".new-"  # begins the name of a directory that will appear by one rename
HEARTBEAT = "heartbeat"
MANIFEST = "manifest.json"
CLAIM_FILE = "claim.json"
CLAIM_DIRECTORY = "claim.dir"
DISCARD_FILE = "discard.json"
DISCARD_OBJECTS = "objects"


@dataclass(frozen=True)
class Places:
    """Where everything of the protocol is. `method` is `link` or `rename` (see `fsio.probe_claim_method`)."""

    root: Path
    lira: Path
    method: str

    @classmethod
    def of(cls, store: LogitStore) -> Places:
        return cls(store.path, store.lira, store.info.claim)

    @property
    def commits(self) -> Path:
        return self.lira / COMMITS

    @property
    def staging(self) -> Path:
        return self.lira / ATTEMPTS

    @property
    def discarded(self) -> Path:
        return self.lira / "discarded"

    @property
    def trash(self) -> Path:
        return self.lira / "trash"

    def marker(self, model: int) -> Path:
        return self.commits / f"{model}.json"

    def claim(self, model: int, generation: int) -> Path:
        return self.commits / (f"{model}.claim.{generation}" if generation else f"{model}.claim")

    def attempt(self, model: int, attempt: str) -> Path:
        return self.staging / str(model) / attempt

    def discard(self, model: int, attempt: str) -> Path:
        return self.discarded / str(model) / attempt

    def array(self, name: str, model: int) -> Path:
        return self.root / name / "c" / str(model)

    def claim_source(self, model: int, attempt: str) -> Path:
        """What an attempt claims with: it has one from its first moment, and whoever takes it away knows that
        the attempt has claimed already or never will."""
        name = CLAIM_FILE if self.method == "link" else CLAIM_DIRECTORY
        return self.attempt(model, attempt) / name

    def throw_away(self, path: Path) -> bool:
        """Takes a path out of the protocol in one step, then deletes it. False if it was not there."""
        self.trash.mkdir(exist_ok=True)
        heap = self.trash / uuid.uuid4().hex
        if not move(path, heap):
            return False
        remove_tree(heap)
        return True

    def tidy(self, directory: Path) -> None:
        """Removes a directory if it is empty."""
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if not occupied(error):
                raise


class Slot(NamedTuple):
    """The current claim of a model: where it is or would be, and the attempt it names (None: free)."""

    path: Path
    attempt: str | None


def claim_document(model: int, attempt: str) -> bytes:
    """The contents of a claim."""
    return (json.dumps({"format": FORMAT, "model": model, "attempt": attempt}) + "\n").encode()


def current_claim(places: Places, model: int) -> Slot:
    """The first claim of the model that is not void. Raises DamagedStore if a claim is unreadable."""
    for generation in itertools.count():
        path = places.claim(model, generation)
        attempt = _read_claim(path)
        if attempt is None or not is_discarded(places, model, attempt):
            return Slot(path, attempt)
    raise AssertionError("unreachable")


def is_discarded(places: Places, model: int, attempt: str) -> bool:
    """Whether the attempt has been withdrawn, completely."""
    token = places.discard(model, attempt)
    return (token / DISCARD_FILE).exists() and not (token / DISCARD_OBJECTS).exists()


def _read_claim(path: Path) -> str | None:
    try:
        try:
            data = path.read_bytes()
        except IsADirectoryError:
            data = (path / CLAIM_FILE).read_bytes()
        return str(json.loads(data)["attempt"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStore(
            f"{path} is no readable claim ({type(error).__name__}: {error}): restore it from a copy of the "
            f"store"
        ) from error


def claim(places: Places, model: int, attempt: str) -> None:
    """Makes the sealed attempt the one that will be published, or raises LostClaim and changes nothing.

    The answer of the link is not believed, for network filesystems lose replies: the claim is read back.
    """
    reach("claim.ready")
    while (slot := current_claim(places, model)).attempt is None:
        if not _put_claim(places.claim_source(model, attempt), slot.path, places.method):
            raise LostClaim(
                f"attempt {attempt} at model {model} was removed: another process committed the model, or "
                f"`lirastore gc` took the attempt for abandoned; nothing was changed"
            )
        reach("claim.linked")
    if slot.attempt != attempt:
        raise LostClaim(
            f"model {model} was committed by attempt {slot.attempt} while this one, {attempt}, was being "
            f"written; nothing was changed: the model is in the store, there is nothing to do"
        )
    fsync_dir(places.commits)
    reach("claim.durable")


def _put_claim(source: Path, target: Path, method: str) -> bool:
    """Tries once; False if the source is gone. That the target stands already is for the caller to find."""
    try:
        os.utime(source)  # the age of a claim counts from here
        if method == "link":
            target.hardlink_to(source)
        else:
            source.rename(target)
    except FileNotFoundError:
        return False
    except OSError as error:
        if not occupied(error):
            raise
    return True


def publish(places: Places, model: int, attempt: str) -> Commit:
    """Rolls a claimed attempt forward: its arrays, then its marker. Anyone may, at any time, repeatedly.

    Raises LostClaim if the attempt was discarded meanwhile, DamagedStore if its files are gone or are not
    what was sealed.
    """
    directory = places.attempt(model, attempt)
    manifest = directory / MANIFEST
    try:
        commit = parse_commit(manifest.read_bytes(), manifest)
    except FileNotFoundError:
        return _published(places, model, attempt)
    for name in commit.arrays:
        _publish_array(directory / name, places.array(name, model))
        reach("publish.array")
    fsync_dir(directory, missing_ok=True)  # somebody may have been faster, and have tidied up
    reach("publish.arrays")
    problem = _difference(places, commit)
    if problem is None and move(manifest, places.marker(model)):
        reach("publish.marker")
        fsync_dir(places.commits)
        reach("publish.durable")
    _published(places, model, attempt, problem)
    places.throw_away(directory)
    places.tidy(directory.parent)
    reach("publish.tidied")
    return commit


def _publish_array(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    try:
        move(source, target)
    except OSError as error:
        if not occupied(error):
            raise
        raise DamagedStore(
            f"{target} is in the way of publishing {source}, and no commit made it: move it out of the "
            f"store, then run `lirastore gc`"
        ) from error
    fsync_dir(target.parent)


def _difference(places: Places, commit: Commit) -> str | None:
    """What is absent or of another size among the objects in their final places."""
    for key, expected in commit.objects.items():
        try:
            size = (places.root / key).stat().st_size
        except FileNotFoundError:
            return f"{key} is absent"
        if size != expected.size:
            return f"{key} has {size} bytes, expected {expected.size}"
    return None


def _published(places: Places, model: int, attempt: str, problem: str | None = None) -> Commit:
    """The marker of an attempt that has left staging; explains if it is not there.

    The caller has found the attempt's files gone. They go in three ways, in this order of steps: the marker
    is published, then they are thrown away; a discard begins, then it takes them; or they are lost.
    """
    commit = read_marker(places.marker(model))
    if commit is not None and commit.attempt == attempt:
        return commit
    if places.discard(model, attempt).exists():
        raise LostClaim(
            f"model {model} was discarded while attempt {attempt} was being published; "
            f"it is pending again: write it once more"
        )
    raise DamagedStore(
        f"model {model} is claimed by attempt {attempt}, which cannot be published: "
        f"{problem or f'{places.attempt(model, attempt)} is gone'}; "
        f"`lirastore discard --models {model}` withdraws the claim so that the model can be written again"
    )
