"""Toy CIFAR-10 and CIFAR-100 in the form of the real files: pickles written by Python 2, names as bytes."""

from __future__ import annotations

import hashlib
import pickle
import struct
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

TRAIN, TEST = 40, 16  # pictures, of CIFAR-10 in each of its five batches, of CIFAR-100 in all, TRAIN each
FOLDERS = {"CIFAR-10": "cifar-10-batches-py", "CIFAR-100": "cifar-100-python"}
FILES = {
    "CIFAR-10": [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"],
    "CIFAR-100": ["train", "test", "meta"],
}


class _Python2(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, which is what the real files hold."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def _save_bytes(self, value: bytes) -> None:
        short = len(value) < 256
        head = b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))
        self.write(head + value)  # type: ignore[attr-defined]
        self.memoize(value)  # type: ignore[attr-defined]

    dispatch[bytes] = _save_bytes


def dump(file: Path, entry: Any) -> None:
    """Pickles an entry as Python 2 did."""
    stream = BytesIO()
    _Python2(stream, protocol=2).dump(entry)
    file.write_bytes(stream.getvalue())


def write(root: Path, dataset: str, *, train: int = TRAIN, test: int = TEST, seed: int = 0) -> Path:
    """Writes a toy set under `root`, `train` pictures in each file; returns the folder that holds the files.

    Each class has a colour of its own, so that networks learn something; the rest is noise.
    """
    rng = np.random.default_rng(seed)
    folder = root / FOLDERS[dataset]
    folder.mkdir(parents=True)
    *train_files, test_file, meta_file = FILES[dataset]
    for file in train_files:
        dump(folder / file, _entry(rng, dataset, train))
    dump(folder / test_file, _entry(rng, dataset, test))
    names = [f"class {number}".encode() for number in range(100)]
    if dataset == "CIFAR-10":
        dump(
            folder / meta_file, {b"num_cases_per_batch": train, b"label_names": names[:10], b"num_vis": 3072}
        )
    else:
        dump(folder / meta_file, {b"fine_label_names": names, b"coarse_label_names": names[:20]})
    return folder


def _entry(rng: np.random.Generator, dataset: str, count: int) -> dict[bytes, Any]:
    classes = 10 if dataset == "CIFAR-10" else 100
    labels = rng.permutation(np.arange(count) % classes)
    rows = pictures(rng, labels).transpose(0, 3, 1, 2).reshape(count, 3072)  # all red, then green, then blue
    entry = {
        b"data": rows,
        b"batch_label": b"a batch",
        b"filenames": [f"{number}.png".encode() for number in range(count)],
    }
    if dataset == "CIFAR-10":
        return entry | {b"labels": labels.tolist()}
    return entry | {b"fine_labels": labels.tolist(), b"coarse_labels": (labels // 5).tolist()}


def pictures(rng: np.random.Generator, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """(n, 32, 32, 3)."""
    colours = np.random.default_rng(1).integers(60, 196, (100, 1, 1, 3))
    noise = rng.integers(-60, 60, (len(labels), 32, 32, 3))
    return (colours[labels] + noise).astype(np.uint8)


def md5(file: Path) -> str:
    """As torchvision lists it."""
    return hashlib.md5(file.read_bytes()).hexdigest()
