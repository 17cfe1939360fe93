"""One attempt at one model: the directory that a writer fills, shows signs of life in, and seals."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lirastore import __version__
from lirastore.errors import LostClaim
from lirastore.store.commit import Commit
from lirastore.store.faults import reach
from lirastore.store.fsio import entries, fsync_dir, write_new
from lirastore.store.layout import Json
from lirastore.store.protocol import (
    CLAIM_DIRECTORY,
    CLAIM_FILE,
    HEARTBEAT,
    MANIFEST,
    PREPARATION,
    Places,
    claim_document,
    current_claim,
)
from lirastore.store.shards import StoredObject

__all__ = ["HEARTBEAT_SECONDS", "Attempt", "AttemptInfo", "is_preparation", "list_attempts", "retire"]

HEARTBEAT_SECONDS = 30.0

ATTEMPT_FILE = "attempt.json"


class Attempt:
    """A staging directory that appears complete: with its heartbeat, its owner, and what it will claim with.

    While the attempt is open a thread touches `heartbeat`; `lost` turns true if the directory is found gone.
    """

    def __init__(self, places: Places, model: int) -> None:
        self.places = places
        self.model = model
        self.name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"
        self.directory = places.attempt(model, self.name)
        self._prepare()
        self.lost = False
        self._closed = threading.Event()
        self._pulse = threading.Thread(
            target=self._beat, name=f"lirastore heartbeat, model {model}", daemon=True
        )
        self._pulse.start()

    def _prepare(self) -> None:
        fresh = self.directory.with_name(PREPARATION + uuid.uuid4().hex)
        _make(fresh)
        write_new(fresh / ATTEMPT_FILE, _owner_document())
        document = claim_document(self.model, self.name)
        if self.places.method == "link":
            write_new(fresh / CLAIM_FILE, document)
        else:
            (fresh / CLAIM_DIRECTORY).mkdir()
            write_new(fresh / CLAIM_DIRECTORY / CLAIM_FILE, document)
            fsync_dir(fresh / CLAIM_DIRECTORY)
        (fresh / HEARTBEAT).touch()
        reach("attempt.prepared")
        fresh.rename(self.directory)
        reach("attempt.created")

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self.directory / HEARTBEAT)
            except FileNotFoundError:
                self.lost = True
                return
            except OSError:  # a network filesystem may be away for a moment; the next beat will do
                continue

    def close(self) -> None:
        """Stops the heartbeat."""
        self._closed.set()
        self._pulse.join()

    def seal(self, objects: Mapping[str, StoredObject], metadata: Mapping[str, Json], keep_mask: str) -> None:
        """Makes the attempt durable and writes its manifest, which will be the commit marker.

        The objects' files are flushed already; here go the directories. Raises LostClaim if the attempt was
        removed.
        """
        commit = Commit.sealed(self.model, self.name, metadata=metadata, keep_mask=keep_mask, objects=objects)
        try:
            self._flush_directories()
            reach("seal.flushed")
            write_new(self.directory / MANIFEST, commit.to_bytes())
            for directory in (self.directory, self.directory.parent, self.places.staging):
                fsync_dir(directory)
        except FileNotFoundError as error:
            raise self.explain(error) from None
        reach("seal.manifest")

    def _flush_directories(self) -> None:
        for name, _, _ in os.walk(self.directory, topdown=False):
            fsync_dir(Path(name))

    def gone(self) -> LostClaim:
        """The error for an attempt whose directory was taken away."""
        self.lost = True
        return LostClaim(
            f"attempt {self.name} at model {self.model} was removed while it was being written: another "
            f"process committed the model, or `lirastore gc` took the attempt for abandoned; "
            f"nothing was changed"
        )

    def explain(self, error: FileNotFoundError) -> LostClaim | FileNotFoundError:
        """The error behind a file of the attempt that could not be found: its removal, if that was it."""
        return error if (self.directory / HEARTBEAT).exists() else self.gone()


def retire(places: Places, model: int, attempt: str) -> bool:
    """Removes an attempt that has not claimed its model; False if it has, and then nothing is lost.

    Its writer may be alive and about to claim. So first it is disarmed: what it would claim with is taken
    away. If it does not hold the claim after that, it never will, and can go.
    """
    places.throw_away(places.claim_source(model, attempt))
    reach("retire.disarmed")
    if current_claim(places, model).attempt == attempt:
        return False
    places.throw_away(places.attempt(model, attempt))
    reach("retire.moved")
    places.tidy(places.attempt(model, attempt).parent)
    return True


def _make(directory: Path) -> None:
    """Makes a directory and its parent, which others remove whenever they find it empty."""
    while True:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            directory.mkdir()
            return


@dataclass(frozen=True)
class AttemptInfo:
    """What can be seen of an attempt: its last heartbeat (seconds since the epoch, by the store's clock), and
    whether its process is `alive` (None: it runs on another machine, or the system does not say)."""

    model: int
    attempt: str
    heartbeat: float
    host: str | None
    pid: int | None
    alive: bool | None


def list_attempts(places: Places) -> list[AttemptInfo]:
    """All attempts in staging, sorted by model. Reads only; attempts that vanish meanwhile are left out."""
    found = []
    for model in _models(places):
        for directory in entries(places.staging / str(model)):
            info = None if is_preparation(directory) else _look(model, directory)
            if info is not None:
                found.append(info)
    return found


def _models(places: Places) -> list[int]:
    return sorted(int(path.name) for path in entries(places.staging) if path.name.isdecimal())


def is_preparation(directory: Path) -> bool:
    """Whether a directory in staging is no attempt yet: its process is making it, or died doing so."""
    return directory.name.startswith(PREPARATION)


def _look(model: int, directory: Path) -> AttemptInfo | None:
    """None if the attempt vanished. One whose files are missing (left by a power failure, or made again by a
    writer whose attempt was removed) is shown by the age of its directory."""
    try:
        heartbeat = directory.stat().st_mtime
        with contextlib.suppress(FileNotFoundError):
            heartbeat = (directory / HEARTBEAT).stat().st_mtime
    except FileNotFoundError:
        return None
    owner = _owner(directory / ATTEMPT_FILE)
    return AttemptInfo(
        model, directory.name, heartbeat, owner.get("host"), owner.get("pid"), _is_alive(owner)
    )


def _owner(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _owner_document() -> bytes:
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "namespace": _namespace(),
        "process": _start_time(os.getpid()),
        "started_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "library_version": __version__,
    }
    return (json.dumps(owner) + "\n").encode()


def _is_alive(owner: Mapping[str, Any]) -> bool | None:
    if owner.get("namespace") is None or owner["namespace"] != _namespace():
        return None
    return bool(_start_time(int(owner["pid"])) == owner["process"])


def _namespace() -> str | None:
    """Names the space in which process ids mean the same: this boot of this machine, this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """When a process began, as the kernel counts, so that a process id used again is not mistaken for it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
