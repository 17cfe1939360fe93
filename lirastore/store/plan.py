"""The checked inputs of a new store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from lirastore import __version__
from lirastore.errors import InputError
from lirastore.store.layout import (
    DTYPES,
    FLAT_SIGNAL_DIMS,
    FORMAT,
    SIGNAL_DIMS,
    ArraySpec,
    Json,
    StoreInfo,
    check_signal_name,
    model_arrays,
)

__all__ = ["Fingerprint", "Plan", "Signal", "Sliced", "checked_plan"]

Array = npt.NDArray[Any]
Signal = str | tuple[str, Sequence[str]]


class Sliced(Protocol):
    """Something of which rows can be had slice by slice: an array, a memory map, a reader of a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> Array: ...


@dataclass(frozen=True)
class Plan:
    """What a store will be: inputs that fit each other. Fields as in `lirastore.store.create`."""

    labels: Array
    membership: Array
    augmentations: tuple[str, ...]
    classes: int | None
    dtype: str
    name: str
    design: Mapping[str, Json]
    preview: Sliced | None
    attackable: Array | None
    signals: dict[str, tuple[str, ...]]
    population: int | None
    features: Sliced | None
    training: Mapping[str, Json] | None

    @property
    def specs(self) -> dict[str, ArraySpec]:
        """The per-model arrays."""
        models, examples = self.membership.shape
        return model_arrays(
            models=models,
            examples=examples,
            augmentations=len(self.augmentations),
            classes=self.classes,
            dtype=self.dtype,
            signals=self.signals,
            population=self.population,
        )

    def info(self, claim: str, fingerprint: str) -> StoreInfo:
        """The root document, as of now."""
        models, examples = self.membership.shape
        return StoreInfo(
            format=FORMAT,
            models=models,
            examples=examples,
            augmentations=self.augmentations,
            classes=self.classes,
            dtype=self.dtype,
            name=self.name,
            fingerprint=fingerprint,
            design=self.design,
            signals=self.signals,
            claim=claim,
            created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            library_version=__version__,
            population=self.population,
            training=self.training,
        )


class Fingerprint:
    """sha256 that tells data sets apart: over the labels, and the pictures if there are any."""

    def __init__(self, labels: Array) -> None:
        self._digest = hashlib.sha256()
        self._begin("label", labels.dtype, labels.shape)
        self.update(labels)

    def begin_pictures(self, shape: tuple[int, ...]) -> None:
        """Says that pictures (E, H, W, channel) uint8 follow, in blocks along their first axis."""
        self._begin("preview", np.dtype(np.uint8), shape)

    def update(self, block: Array) -> None:
        """Takes the next values."""
        self._digest.update(np.ascontiguousarray(block).view(np.uint8).data)

    def hexdigest(self) -> str:
        """The digest of what was taken so far."""
        return self._digest.hexdigest()

    def _begin(self, field: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        lengths = "x".join(str(length) for length in shape)
        self._digest.update(f"{field} {dtype.name} {lengths}\n".encode())


def checked_plan(
    *,
    labels: npt.ArrayLike,
    membership: npt.ArrayLike,
    augmentations: Sequence[str] | int,
    classes: int | None,
    dtype: str,
    name: str,
    design: Mapping[str, Json],
    preview: npt.ArrayLike | Sliced | None,
    attackable: npt.ArrayLike | None,
    signals: Sequence[Signal],
    population: int | None,
    features: npt.ArrayLike | Sliced | None,
    training: Mapping[str, Json] | None,
) -> Plan:
    """Holds the arguments of `create` to what the format allows; InputError says which does not fit."""
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: expected {' or '.join(DTYPES)}")
    if not isinstance(name, str):
        raise InputError(f"name {name!r}: expected text")
    label = _check_labels(_as_array("labels", labels), classes)
    return Plan(
        labels=label,
        membership=_check_membership(_as_array("membership", membership), len(label)),
        augmentations=_check_augmentations(augmentations),
        classes=None if classes is None else int(classes),
        dtype=dtype,
        name=name,
        design=_check_json("design", design),
        preview=None if preview is None else _check_preview(preview, len(label)),
        attackable=None if attackable is None else _check_attackable(attackable, len(label)),
        signals=_check_signals(signals),
        population=_check_population(population),
        features=None if features is None else _check_features(features, len(label)),
        training=None if training is None else _check_json("training", training),
    )


def _as_array(name: str, values: object) -> Array:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors on a device
        raise InputError(
            f"{name}: {type(values).__name__} from which numpy can make no array: {error}"
        ) from error


def _check_labels(labels: Array, classes: int | None) -> Array:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise InputError(
            f"labels: {labels.dtype} of shape {labels.shape}, expected integers of shape (examples,)"
        )
    countable = isinstance(classes, int | np.integer) and not isinstance(classes, bool)
    if classes is not None and (not countable or classes < 2):
        raise InputError(
            f"classes {classes!r}: expected an integer of at least 2, or None for a signal-only store"
        )
    low = 0 if classes is not None else -1
    high = np.iinfo(np.int64).max if classes is None else int(classes) - 1
    bad = np.flatnonzero((labels < low) | (labels > high))
    if len(bad):
        raise InputError(
            f"labels: example {bad[0]} has {labels[bad[0]]}, expected {low} to {high} ({len(bad)} such)"
        )
    return labels.astype("<i8")


def _check_membership(membership: Array, examples: int) -> Array:
    fits = membership.ndim == 2 and membership.shape[0] > 0 and membership.shape[1] == examples
    if membership.dtype != np.bool_ or not fits:
        raise InputError(
            f"membership: {membership.dtype} of shape {membership.shape}, "
            f"expected bool of shape (models, {examples})"
        )
    return membership


def _check_augmentations(augmentations: object) -> tuple[str, ...]:
    if isinstance(augmentations, int | np.integer) and not isinstance(augmentations, bool):
        if augmentations < 1:
            raise InputError(f"augmentations {augmentations}: expected at least 1")
        return ("identity",) if augmentations == 1 else tuple(f"query{i}" for i in range(augmentations))
    names: tuple[str, ...] = ()
    if isinstance(augmentations, Iterable) and not isinstance(augmentations, str):
        names = tuple(augmentations)
    if (
        not names
        or not all(isinstance(name, str) and name for name in names)
        or len(set(names)) != len(names)
    ):
        raise InputError(
            f"augmentations {augmentations!r}: expected unique names that are not empty, or how many"
        )
    return names


def _check_json(name: str, given: Mapping[str, Json]) -> Mapping[str, Json]:
    try:
        plain: dict[str, Json] = json.loads(json.dumps(dict(given), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} {given!r}: expected what JSON can hold: {error}") from error
    return plain


def _check_preview(given: npt.ArrayLike | Sliced, examples: int) -> Sliced:
    """Pictures, not read yet if they are something that can be read slice by slice."""
    preview = _as_sliced("preview", given)
    shape = tuple(preview.shape)
    if preview.dtype != np.uint8 or len(shape) != 4 or shape[0] != examples or 0 in shape:
        raise InputError(
            f"preview: {preview.dtype} of shape {shape}, expected uint8 of shape "
            f"({examples}, height, width, channel); grey pictures have one channel"
        )
    return preview


def _as_sliced(name: str, given: npt.ArrayLike | Sliced) -> Sliced:
    sliced = isinstance(getattr(given, "dtype", None), np.dtype) and hasattr(given, "shape")
    return cast(Sliced, given) if sliced else _as_array(name, given)


def _check_population(population: object) -> int | None:
    if population is None:
        return None
    countable = isinstance(population, int | np.integer) and not isinstance(population, bool)
    if not countable or cast(int, population) < 1:
        raise InputError(f"population {population!r}: expected the number of points, at least 1, or None")
    return int(cast(int, population))


def _check_features(given: npt.ArrayLike | Sliced, examples: int) -> Sliced:
    features = _as_sliced("features", given)
    shape = tuple(features.shape)
    if features.dtype.kind not in "fiu" or len(shape) != 2 or shape[0] != examples or 0 in shape:
        raise InputError(
            f"features: {features.dtype} of shape {shape}, expected numbers of shape ({examples}, d)"
        )
    return _Features(features)


@dataclass(frozen=True)
class _Features:
    """Rows as float32, each slice checked to be finite when it is read."""

    values: Sliced

    dtype = np.dtype("<f4")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    def __getitem__(self, rows: slice) -> Array:
        with np.errstate(over="ignore"):  # becomes infinity, and is refused below
            block = np.asarray(self.values[rows]).astype(self.dtype, copy=False)
        bad = np.flatnonzero(~np.isfinite(block).all(axis=tuple(range(1, block.ndim))))
        if len(bad):
            raise InputError(
                f"features: NaN or infinity, or more than float32 holds, for example {rows.start + bad[0]}; "
                "expected finite numbers"
            )
        return block


def _check_attackable(given: npt.ArrayLike, examples: int) -> Array:
    attackable = _as_array("attackable", given)
    if attackable.dtype != np.bool_ or attackable.shape != (examples,):
        raise InputError(
            f"attackable: {attackable.dtype} of shape {attackable.shape}, "
            f"expected bool of shape ({examples},)"
        )
    return attackable


def _check_signals(signals: object) -> dict[str, tuple[str, ...]]:
    if isinstance(signals, str) or not isinstance(signals, Iterable):
        raise InputError(f"signals {signals!r}: expected a list of names, or of (name, dims)")
    checked: dict[str, tuple[str, ...]] = {}
    for signal in signals:
        name, dims = _name_and_dims(signal)
        if dims not in (SIGNAL_DIMS, FLAT_SIGNAL_DIMS):
            raise InputError(f"signal {name!r}: dims {dims}, expected {SIGNAL_DIMS} or {FLAT_SIGNAL_DIMS}")
        if check_signal_name(name) in checked:
            raise InputError(f"signal {name!r} is named twice")
        checked[name] = dims
    return checked


def _name_and_dims(signal: Any) -> tuple[str, tuple[str, ...]]:
    if isinstance(signal, str):
        return signal, SIGNAL_DIMS
    match signal:
        case (name, [*dims]):
            return name, tuple(dims)
    raise InputError(f"signal {signal!r}: expected a name, or (name, dims)")
