"""Masks from a file of the caller's, for layouts that keep them where nobody should read them.

A `.npy` of (M, K) bool, or of integers 0 and 1; or JSON: a list of M lists of K truth values, or an object
that has for each model its truth values, or the indices of the samples it was trained on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import SourceError
from lirastore.importers.npyfile import open_npy
from lirastore.importers.source import parse_json

__all__ = ["TARGET", "Masks", "Model", "read_masks"]

Model = int | str
TARGET: Final = "target"
"""The target model among models that are otherwise numbers."""

_NPY_MAGIC: Final = b"\x93NUMPY"
_PICKLES: Final = (".pkl", ".pickle", ".joblib", ".pt", ".pth")
_PICKLE_MAGIC: Final = b"\x80"
_NAME: Final = re.compile(r"(?:sm_)?(\d+)")
_LARGEST_JSON: Final = 1 << 30


@dataclass(frozen=True)
class Masks:
    """What the file says: `matrix` (M, K) without names, or by the model's number or `target` either truth
    values (K,) bool or the samples that it was trained on, int64. The other one is None."""

    where: str
    matrix: NDArray[np.bool_] | None
    named: Mapping[Model, NDArray[Any]] | None


def read_masks(path: Path) -> Masks:
    """The file at `path`. Raises SourceError for a pickle, which is never loaded, and for other contents."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_NPY_MAGIC))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise SourceError(f"{path}: expected a file of masks, a .npy or JSON; there is none") from error
    if head.startswith(_PICKLE_MAGIC) or path.suffix in _PICKLES:
        raise SourceError(
            f"{path}: a pickle, which could run any code and is never loaded; export the masks as a .npy of "
            "(models, examples) bool, or as JSON"
        )
    if head == _NPY_MAGIC:
        return Masks(str(path), _matrix(open_npy(path).load(), str(path)), None)
    if path.stat().st_size > _LARGEST_JSON:
        raise SourceError(f"{path}: {path.stat().st_size} bytes of JSON; save masks of that size as a .npy")
    told = parse_json(path.read_bytes(), str(path))
    if isinstance(told, dict):
        return Masks(str(path), None, _named(told, str(path)))
    rows = [
        _row(row, f"{path}: row {index}") for index, row in enumerate(told if isinstance(told, list) else [])
    ]
    if not rows or any(row.dtype != np.bool_ or row.shape != rows[0].shape for row in rows):
        raise SourceError(
            f"{path}: expected a list of equally long lists of truth values, one for each model, or an "
            "object with a list for each model"
        )
    return Masks(str(path), np.stack(rows), None)


def _matrix(values: NDArray[Any], where: str) -> NDArray[np.bool_]:
    truths = values.dtype == np.bool_ or (
        values.dtype.kind in "iu" and not np.any((values < 0) | (values > 1))
    )
    if values.ndim != 2 or not truths or 0 in values.shape:
        raise SourceError(
            f"{where}: {values.dtype} {values.shape}, expected bool (models, examples), True where the model "
            "was trained on the example"
        )
    return values.astype(np.bool_)


def _named(told: dict[str, Any], where: str) -> dict[Model, NDArray[Any]]:
    named: dict[Model, NDArray[Any]] = {}
    for name, values in told.items():
        match = _NAME.fullmatch(name)
        if match is None and name != TARGET:
            raise SourceError(f"{where}: {name!r}, expected the number of a shadow model, or {TARGET!r}")
        model: Model = TARGET if match is None else int(match[1])
        if model in named:
            raise SourceError(f"{where}: tells of model {model} twice; correct it")
        named[model] = _row(values, f"{where}: model {name}")
    if not named:
        raise SourceError(f"{where}: expected an object with a list for each model; it is empty")
    return named


def _row(values: object, where: str) -> NDArray[Any]:
    """(K,) bool of truth values or of 0 and 1 (repeated, as no list of samples is), else int64 of samples."""
    if not isinstance(values, list) or not values or not all(isinstance(value, int) for value in values):
        raise SourceError(f"{where}: expected a list of truth values, or of the samples it was trained on")
    if len(set(values)) < len(values):
        if set(values) <= {0, 1}:
            return np.array(values, dtype=np.bool_)
        raise SourceError(f"{where}: a sample stands there twice; list each that it was trained on once")
    samples = np.array(values)
    if samples.dtype == np.bool_:
        return samples
    if samples.dtype.kind != "i" or samples.min() < 0:
        raise SourceError(f"{where}: expected indices of samples, of 0 or more")
    return samples.astype(np.int64)
