"""Reads the Zarr documents (`zarr.json`) of a store, and holds them to format 1.

Plain JSON: opening a store imports no zarr, so that a training job starts fast and reads nothing it need not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lirastore.errors import DamagedStore, NotAStore
from lirastore.store.layout import ArraySpec, Json, StoreInfo, little, model_arrays
from lirastore.store.plain import PlainSpec

__all__ = ["DOCUMENT", "check_document", "plain_names", "read_arrays", "read_group", "read_plain_spec"]

DOCUMENT = "zarr.json"
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}
_REMEDY = "restore it from a copy of the store"
_PLAIN_DIMS = {
    "model": ("model",),
    "example": ("example",),
    "label": ("example",),
    "membership": ("model", "example"),
    "attackable": ("example",),
    "preview": ("example", "height", "width", "channel"),
    "features": ("example", "feature"),
}
_OPTIONAL = frozenset({"attackable", "preview", "features"})


def read_group(path: Path) -> dict[str, Json]:
    """The attributes of the Zarr group at `path`; NotAStore if there is none."""
    try:
        text = (path / DOCUMENT).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "is not a lirastore store: it has no zarr.json" if path.exists() else "does not exist"
        raise NotAStore(f"{path} {what}") from error
    document = _parse(text, path / DOCUMENT)
    if document.get("node_type") != "group" or not isinstance(document.get("attributes"), dict):
        raise NotAStore(f"{path} is no Zarr v3 group with attributes, so it is not a lirastore store")
    attributes: dict[str, Json] = document["attributes"]
    return attributes


def read_arrays(path: Path, info: StoreInfo) -> dict[str, ArraySpec]:
    """The per-model arrays with the chunks that their documents give.

    Raises DamagedStore if a document is absent, or says anything else than the root attributes and format 1.
    """
    planned = model_arrays(
        models=info.models,
        examples=info.examples,
        augmentations=len(info.augmentations),
        classes=info.classes,
        dtype=info.dtype,
        signals=info.signals,
        population=info.population,
    )
    return {name: _read_sharded(path / name / DOCUMENT, plan, info) for name, plan in planned.items()}


def plain_names(path: Path) -> list[str]:
    """Names of the plain arrays that the store has: a few are optional."""
    return [name for name in _PLAIN_DIMS if name not in _OPTIONAL or (path / name).exists()]


def read_plain_spec(root: Path, name: str, info: StoreInfo) -> PlainSpec:
    """The layout of a plain array as its document gives it; DamagedStore if that is not of format 1."""
    return _read_plain(root, name, _PLAIN_DIMS[name], info)


def check_document(path: Path) -> None:
    """Raises DamagedStore if the Zarr document at `path` is absent or unreadable."""
    _read(path)


def _read_sharded(path: Path, plan: ArraySpec, info: StoreInfo) -> ArraySpec:
    document = _read(path)
    try:
        shard = _integers(document["chunk_grid"]["configuration"]["chunk_shape"])
        (codec,) = document["codecs"]
        chunk = _integers(codec["configuration"]["chunk_shape"])
        found = {
            "shape": _planned_part(document["shape"], plan.dims, info),
            "data_type": document["data_type"],
            "dimension_names": tuple(document["dimension_names"]),
            "codec": (codec["name"], codec["configuration"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedStore(f"{path} is no sharded array of format 1 ({error!r}): {_REMEDY}") from error
    inner = {"chunk_shape": list(chunk), "codecs": [_BYTES, _CRC], "index_codecs": [_BYTES, _CRC]}
    expected = {
        "shape": plan.shape,
        "data_type": plan.dtype.name,
        "dimension_names": plan.dims,
        "codec": ("sharding_indexed", {**inner, "index_location": "end"}),
    }
    _compare(path, found, expected)
    spec = ArraySpec(plan.name, plan.dims, plan.shape, plan.dtype, chunk, shard)
    if not _is_format_1(spec):
        raise DamagedStore(f"{path}: inner chunks {chunk} and shards {shard} are not as format 1 allows")
    return spec


def _is_format_1(spec: ArraySpec) -> bool:
    """One model per chunk, whole inner chunks per shard, whole classes, objects in the order of examples."""
    chunk, shard = spec.chunk_shape, spec.shard_shape
    return (
        len(chunk) == len(shard) == len(spec.shape)
        and chunk[0] == shard[0] == 1
        and all(s % c == 0 for c, s in zip(chunk, shard, strict=True))
        and chunk[3:] == shard[3:] == spec.shape[3:]
        and (spec.shard_grid[1] == 1 or shard[1] == 1)
    )


def _read_plain(root: Path, name: str, dims: tuple[str, ...], info: StoreInfo) -> PlainSpec:
    path = root / name / DOCUMENT
    document = _read(path)
    lengths = {"model": info.models, "example": info.examples}
    try:
        shape = _planned_part(document["shape"], dims, info)
        chunk = _integers(document["chunk_grid"]["configuration"]["chunk_shape"])
        dtype = little(document["data_type"])
        found = {"dimension_names": tuple(document["dimension_names"]), "codecs": document["codecs"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedStore(f"{path} is no array of format 1 ({error!r}): {_REMEDY}") from error
    codec = _BYTES if dtype.itemsize > 1 else {"name": "bytes"}
    _compare(path, found, {"dimension_names": dims, "codecs": [codec, _CRC]})
    planned = tuple(lengths.get(dim, length) for dim, length in zip(dims, shape, strict=True))
    if shape != planned or chunk[1:] != shape[1:] or chunk[0] < 1:
        raise DamagedStore(f"{path}: shape {shape} in chunks {chunk}, expected shape {planned}")
    return PlainSpec(name, dims, shape, dtype, chunk)


def _planned_part(shape: Json, dims: tuple[str, ...], info: StoreInfo) -> tuple[int, ...]:
    """The shape of the part that the root document counts: arrays may have room for more models already."""
    found = _integers(shape)
    return (min(found[0], info.models), *found[1:]) if dims[0] == "model" else found


def _integers(values: Json) -> tuple[int, ...]:
    if not all(isinstance(value, int) and value > 0 for value in values):
        raise ValueError(f"{values!r}: expected integers of at least 1")
    return tuple(values)


def _compare(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for field, value in expected.items():
        if found[field] != value:
            raise DamagedStore(f"{path}: {field} is {found[field]!r}, expected {value!r}: {_REMEDY}")


def _read(path: Path) -> dict[str, Json]:
    try:
        return _parse(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise DamagedStore(f"{path} is absent: {_REMEDY}") from error


def _parse(text: bytes, path: Path) -> dict[str, Json]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DamagedStore(f"{path} is no JSON document ({error}): {_REMEDY}") from error
    if not isinstance(document, dict):
        raise DamagedStore(f"{path} is no JSON object: {_REMEDY}")
    return document
