"""Reads CIFAR-10 and CIFAR-100 as torchvision finds them, and says what is wrong with the files.

The files are pickles, and unpickling can run code. torchvision therefore compares their checksums with the
published ones before it reads them; `unchecked` leaves that out, for files of one's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.errors import InputError, MissingDependency, SourceError

__all__ = ["CLASSES", "Split", "digest", "load"]

CLASSES = {"CIFAR-10": 10, "CIFAR-100": 100}
"""The data sets, and how many classes each has."""

LOCK = ".lirastore-download.lock"
"""Held in the directory of the data while files are downloaded into it."""


@dataclass(frozen=True)
class Split:
    """Some pictures, (n, 32, 32, 3) uint8, and their labels, (n,) int64."""

    pictures: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Split:
        """The first so many of them."""
        return Split(self.pictures[:count], self.labels[:count])


def load(dataset: str, data: str | Path, *, download: bool, unchecked: bool) -> tuple[Split, Split]:
    """The training and the test split in the directory `data`, which is made, and filled, by `download`.

    Raises InputError for a data set of another name, SourceError naming each file that is absent, damaged
    or, with unchecked, cannot be read.
    """
    kind = _kind(dataset, unchecked)
    try:
        with contextlib.redirect_stdout(sys.stderr), _downloading(Path(data), download):
            read = [kind(data, train=train, download=download and train) for train in (True, False)]
    except Exception as error:  # reading what is no pickle, or another one, can raise anything
        raise SourceError(_diagnosis(kind, Path(data), error, download)) from error
    return _split(kind, data, dataset, read[0]), _split(kind, data, dataset, read[1])


def digest(*splits: Split) -> str:
    """A sha256 of pictures and labels, by which a store knows its data again."""
    found = hashlib.sha256()
    for split in splits:
        found.update(split.pictures)
        found.update(split.labels.astype("<i8"))
    return found.hexdigest()


def _kind(dataset: str, unchecked: bool) -> Any:
    """torchvision's class of the data set; if `unchecked`, one that takes files whatever their checksum."""
    if dataset not in CLASSES:
        raise InputError(f"dataset = {dataset!r}: expected {' or '.join(CLASSES)}")
    try:
        from torchvision import datasets
    except ImportError as missing:
        raise MissingDependency(
            f"CIFAR is read by torchvision ({missing}); pip install 'lirastore[train]'"
        ) from missing
    kind = datasets.CIFAR10 if dataset == "CIFAR-10" else datasets.CIFAR100
    if not unchecked:
        return kind
    lists = {name: [[file, None] for file, _ in getattr(kind, name)] for name in ("train_list", "test_list")}
    return type(f"Unchecked{kind.__name__}", (kind,), {**lists, "meta": {**kind.meta, "md5": None}})


@contextlib.contextmanager
def _downloading(folder: Path, download: bool) -> Iterator[None]:
    """One process at a time: torchvision writes files in place, and shards would write them at once.

    Whoever comes later finds them whole. A folder that cannot be written, but may be complete, needs no lock.
    """
    if download:
        folder.mkdir(parents=True, exist_ok=True)
    if not download or not os.access(folder, os.W_OK):
        yield
        return
    with (folder / LOCK).open("a") as lock:  # closing it releases it, as does the end of the process
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _split(kind: Any, data: str | Path, dataset: str, read: Any) -> Split:
    """What torchvision read, if it is pictures with labels of the data set's classes."""
    pictures, labels = np.asarray(read.data), np.asarray(read.targets)
    classes, side = CLASSES[dataset], (32, 32, 3)
    fits = pictures.dtype == np.uint8 and pictures.shape == (len(labels), *side) and len(labels) > 0
    if not fits or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        files = ", ".join(file for file, _ in (read.train_list if read.train else read.test_list))
        raise SourceError(
            f"{Path(data) / kind.base_folder}: {files} hold {pictures.dtype} {pictures.shape} with "
            f"{len(labels)} labels; expected uint8 (n, 32, 32, 3) with n labels from 0 to {classes - 1}"
        )
    # torchvision's pictures are a transposed view of the files' rows
    return Split(np.ascontiguousarray(pictures), labels.astype(np.int64))


# --- what is wrong with the files ---------------------------------------------------------------


def _diagnosis(kind: Any, data: Path, error: Exception, download: bool) -> str:
    """Why the files were not read: those that are absent, or damaged, or not what they should be."""
    folder = data / kind.base_folder
    absent = [file for file, _ in _files(kind) if not (folder / file).is_file()]
    if absent:
        failed = f"; the download failed ({_brief(error)})" if download else ""
        return (
            f"{folder} lacks {', '.join(absent)}{failed}. Give the directory that holds "
            f"{kind.base_folder} as --data, or let --download get it from {kind.url}"
        )
    damaged = [
        f"{file} (md5 {found}, expected {expected})"
        for file, expected in _files(kind)
        if expected is not None and (found := _md5(folder / file)) != expected
    ]
    if damaged:
        return (
            f"{folder}: not the published {', '.join(damaged)}; nothing of it was read. Delete {folder} and "
            "get it again, by --download; or take files of your own, if you trust them, by --unchecked: "
            "reading them can run code"
        )
    unreadable = [file for file, _ in _files(kind) if not _readable(kind, folder / file)]
    files = ", ".join(unreadable or [file for file, _ in _files(kind)])
    return f"{folder}: {files} cannot be read ({_brief(error)}): truncated, or no CIFAR file; get it again"


def _files(kind: Any) -> list[tuple[str, str | None]]:
    """Every file of the data set, with its md5, None where any will do."""
    return [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _readable(kind: Any, file: Path) -> bool:
    """Whether a file that is not damaged, or may be another, holds what torchvision looks for."""
    try:
        with file.open("rb") as stream:
            entry = pickle.load(stream, encoding="latin1")
        if file.name == kind.meta["filename"]:
            return kind.meta["key"] in entry
        labels = entry["labels"] if "labels" in entry else entry["fine_labels"]
        return bool(np.reshape(entry["data"], (-1, 3 * 32 * 32)).shape == (len(labels), 3 * 32 * 32))
    except Exception:
        return False


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
