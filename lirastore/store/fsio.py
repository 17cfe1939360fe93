"""The few filesystem operations that everything durable here is made of.

Each is atomic against a crash of the process, and durable against a crash of the machine once it has
returned: file contents are fsynced before a name points at them, and directories after a name changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lirastore.errors import UnsupportedFilesystem

__all__ = [
    "clock",
    "entries",
    "fsync_dir",
    "fsync_file",
    "is_clock",
    "move",
    "occupied",
    "probe_claim_method",
    "remove_tree",
    "replacing",
    "write_atomic",
    "write_new",
]

# What a rename onto a directory that is not empty, or a link onto an existing name, may say.
_OCCUPIED = frozenset({errno.EEXIST, errno.ENOTEMPTY})


_CLOCK = ".clock-"


def occupied(error: OSError) -> bool:
    """Whether a link or a rename failed because its target stands already."""
    return error.errno in _OCCUPIED


def fsync_file(path: Path) -> None:
    """Flushes a file's contents to disk."""
    _fsync(path, os.O_RDONLY)


def fsync_dir(path: Path, *, missing_ok: bool = False) -> None:
    """Flushes a directory, so that the names in it survive a power failure.

    Filesystems that cannot flush a directory (some network mounts answer EINVAL) order their metadata
    themselves; only that answer is accepted.
    """
    try:
        _fsync(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        if not missing_ok:
            raise
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes) -> None:
    """Creates a file with these contents and flushes it; FileExistsError if it exists. Not atomic: for names
    that nobody looks at yet."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new binary file, written aside in the same directory, that takes the name `path` on a clean exit.

    Every reader of `path` sees what was there before or the new file whole, even after a power failure. On an
    exception, whatever it is, the new file is removed and `path` stays as it was.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    fsync_dir(path.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces a file's contents as `replacing` does, with contents that are at hand."""
    with replacing(path) as file:
        file.write(data)


def move(source: Path, target: Path) -> bool:
    """Renames; False if the source, or the directory that should take it, is not there (any more).

    That answer is what makes a step repeatable: somebody else has done it, or has taken away the directory
    which gave the right to do it.
    """
    try:
        source.rename(target)
    except FileNotFoundError:
        return False
    return True


def remove_tree(path: Path) -> None:
    """Deletes a file, or a directory with all in it, beside others who may be deleting the same.

    Network filesystems keep the names of files that are still open somewhere: such a remainder stays for the
    next caller.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for entry in entries(path):
        remove_tree(entry)
    try:
        path.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        if not occupied(error) and error.errno != errno.EBUSY:
            raise


def entries(directory: Path) -> list[Path]:
    """What is in a directory, sorted; nothing if the directory is not there (any more)."""
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


def clock(directory: Path) -> float:
    """Now, in seconds, by the clock of the filesystem that holds `directory`.

    Ages of files on a network filesystem mean something only against the server's own clock.
    """
    probe = directory / f"{_CLOCK}{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def is_clock(path: Path) -> bool:
    """Whether a file is a probe of `clock`: one older than a moment was left by a killed process."""
    return path.name.startswith(_CLOCK)


def probe_claim_method(directory: Path) -> str:
    """How the filesystem lets exactly one process create a name: `link` or `rename`.

    `link`: a hard link onto an existing name fails. `rename`: renaming a directory onto one that is not empty
    fails. Raises UnsupportedFilesystem if neither holds. Leaves nothing behind.
    """
    place = directory / f".probe-{uuid.uuid4().hex}"
    place.mkdir()
    try:
        refusals = []
        for method, probe in (("link", _probe_link), ("rename", _probe_rename)):
            reason = probe(place)
            if reason is None:
                return method
            refusals.append(f"{method}: {reason}")
    finally:
        remove_tree(place)
    raise UnsupportedFilesystem(
        f"{directory}: this filesystem has no way to create a name only if it is absent "
        f"({'; '.join(refusals)}): put the store on a local disk, NFS, Lustre or another POSIX filesystem"
    )


def _probe_link(place: Path) -> str | None:
    first, second = place / "first", place / "second"
    first.touch()
    second.touch()
    try:
        (place / "linked").hardlink_to(first)
    except OSError as error:
        return f"hard links are refused ({error.strerror})"
    return _must_be_refused(lambda: (place / "linked").hardlink_to(second), "a hard link")


def _probe_rename(place: Path) -> str | None:
    for name in ("one", "other"):
        (place / name).mkdir()
        (place / name / "content").touch()
    return _must_be_refused(lambda: (place / "one").rename(place / "other"), "renaming a directory")


def _must_be_refused(act: Callable[[], object], name: str) -> str | None:
    try:
        act()
    except OSError as error:
        return None if occupied(error) else f"{name} fails ({error.strerror})"
    return f"{name} replaced an existing name"
