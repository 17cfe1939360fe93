"""Writes the committed models of a store as one `.npz`, the exchange form that `npz.py` describes and reads.

`numpy.load` opens it. Members are not compressed (logits hardly shrink), sizes beyond 4 GiB are zip64, and
equal stores make equal files, byte for byte. The file appears whole or not at all; one model after the
other streams into it, a few MiB at a time.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import InputError, MissingData
from lirastore.importers.npyfile import SLICE_BYTES
from lirastore.importers.npzform import SIGNAL_PREFIX
from lirastore.store import LogitStore
from lirastore.store.fsio import replacing
from lirastore.store.layout import POPULATION

__all__ = ["export"]

_LOGITS: Final = "logits"
_SCALED: Final = "scaled_logit"
_TIMESTAMP: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can hold: equal stores make equal files


def export(store: LogitStore, file: Path) -> None:
    """Writes the committed models of `store` to `file`, a new one whose name ends in `.npz`.

    A signal-only store gives `scaled_logit`, any other `logits`. Where planned models are not committed,
    `model` says which rows the others are and `planned_membership` keeps all masks, so that `ingest` (with
    allow_missing) restores every row to its place.

    Raises InputError if `file` exists, is named otherwise or has no directory to be in; MissingData if
    nothing is committed; DamagedStore if committed data are absent, fail their checksum or hold NaN or
    infinity.
    """
    _check_name(file)
    models = store.committed().tolist()
    if not models:
        raise MissingData(f"{store.path}: no model is committed, so there is nothing to export")
    with replacing(file) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, array in _small(store, models).items():
            _write(archive, name, array.shape, array.dtype, [np.ascontiguousarray(array)])
        for name in ("preview", "features"):
            if name in store.plain:
                _write_rows(store, archive, name)
        for name in store.arrays:
            if name != _SCALED or _LOGITS not in store.arrays:
                _write_values(store, archive, name, models)


def _check_name(file: Path) -> None:
    if file.is_dir():
        raise InputError(f"{file} is a directory: expected the name of a file to write, such as logits.npz")
    if file.suffix != ".npz":
        raise InputError(f"{file}: expected a name that ends in .npz, such as {file.name}.npz")
    if os.path.lexists(file):
        raise InputError(f"{file} exists, and is not replaced: remove it, or choose another name")
    if not file.parent.is_dir():
        raise InputError(f"{file} would be in a directory that does not exist: make {file.parent} first")


def _small(store: LogitStore, models: list[int]) -> dict[str, NDArray[Any]]:
    """Everything but values and pictures, by member name."""
    info, commits = store.info, store.commits()
    metadata = [dict(commits[model].metadata) for model in models]
    members: dict[str, NDArray[Any]] = {
        "label": store.labels(),
        "membership": store.membership(models),
        "model": np.array(models, dtype=np.int64),
        "models": np.array(info.models, dtype=np.int64),
        "augmentation": np.array(info.augmentations, dtype=np.str_),
        "name": np.array(info.name, dtype=np.str_),
        "design": np.array(_json(info.design), dtype=np.str_),
        "source_id": _texts(
            str(known.get("source_id", model)) for model, known in zip(models, metadata, strict=True)
        ),
        "metadata": _texts(_json(known) for known in metadata),
    }
    if len(models) < info.models:
        members["planned_membership"] = store.membership(range(info.models))
    attackable = store.attackable()
    if attackable is not None:
        members["attackable"] = attackable
    return members


def _json(value: Any) -> str:
    return json.dumps(dict(value), allow_nan=False, sort_keys=True)


def _texts(values: Iterable[str]) -> NDArray[np.str_]:
    return np.array(list(values), dtype=np.str_)


def _write_rows(store: LogitStore, archive: zipfile.ZipFile, name: str) -> None:
    """A plain array of the examples, a few MiB at a time."""
    spec = store.plain[name]
    step = max(1, SLICE_BYTES // (math.prod(spec.shape[1:]) * spec.dtype.itemsize))
    rows = np.arange(spec.shape[0])
    blocks = (store.read_plain(name, rows[start : start + step]) for start in range(0, len(rows), step))
    _write(archive, name, spec.shape, spec.dtype, blocks)


def _write_values(store: LogitStore, archive: zipfile.ZipFile, name: str, models: Sequence[int]) -> None:
    spec = store.arrays[name]
    member = name if name in (_LOGITS, _SCALED, POPULATION) else SIGNAL_PREFIX + name
    step = max(1, SLICE_BYTES // spec.example_bytes)

    def blocks() -> Iterator[NDArray[Any]]:
        for model in models:
            for start in range(0, spec.examples, step):
                stop = min(start + step, spec.examples)
                values = store.read(name, model, start, stop)
                if not np.isfinite(values).all():
                    raise store.damage(model, name, start, stop)
                yield values

    _write(archive, member, (len(models), *spec.shape[1:]), spec.dtype, blocks())


def _write(
    archive: zipfile.ZipFile,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    blocks: Iterable[NDArray[Any]],
) -> None:
    """Streams one member: the header of the whole array, then its values block by block."""
    info = zipfile.ZipInfo(f"{name}.npy", _TIMESTAMP)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(info, "w", force_zip64=True) as member:
        np.lib.format.write_array_header_2_0(_file(member), header)
        for block in blocks:
            member.write(np.ascontiguousarray(block, dtype=dtype).tobytes())


def _file(member: IO[bytes]) -> Any:
    """numpy's annotation asks for its own protocol of a writable file, which this is."""
    return member
