"""The checked inputs of a new store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

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

__all__ = ["Plan", "Signal", "checked_plan", "dataset_fingerprint"]

Array = npt.NDArray[Any]
Signal = str | tuple[str, Sequence[str]]


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
    preview: Array | None
    attackable: Array | None
    signals: dict[str, tuple[str, ...]]

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
        )

    def info(self, claim: str) -> StoreInfo:
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
            fingerprint=dataset_fingerprint(self.labels, self.preview),
            design=self.design,
            signals=self.signals,
            claim=claim,
            created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            library_version=__version__,
        )


def dataset_fingerprint(labels: Array, preview: Array | None) -> str:
    """sha256 (hexadecimal) that tells data sets apart: over the labels, and the pictures if there are any."""
    digest = hashlib.sha256()
    for field, array in (("label", labels), ("preview", preview)):
        if array is not None:
            shape = "x".join(str(length) for length in array.shape)
            digest.update(f"{field} {array.dtype.name} {shape}\n".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def checked_plan(
    *,
    labels: npt.ArrayLike,
    membership: npt.ArrayLike,
    augmentations: Sequence[str] | int,
    classes: int | None,
    dtype: str,
    name: str,
    design: Mapping[str, Json],
    preview: npt.ArrayLike | None,
    attackable: npt.ArrayLike | None,
    signals: Sequence[Signal],
) -> Plan:
    """Holds the arguments of `create` to what the format allows; InputError says which does not fit."""
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: expected {' or '.join(DTYPES)}")
    if not isinstance(name, str):
        raise InputError(f"name {name!r}: expected text")
    label = _check_labels(np.asarray(labels), classes)
    return Plan(
        labels=label,
        membership=_check_membership(np.asarray(membership), len(label)),
        augmentations=_check_augmentations(augmentations),
        classes=None if classes is None else int(classes),
        dtype=dtype,
        name=name,
        design=_check_design(design),
        preview=None if preview is None else _check_preview(np.asarray(preview), len(label)),
        attackable=None if attackable is None else _check_attackable(np.asarray(attackable), len(label)),
        signals=_check_signals(signals),
    )


def _check_labels(labels: Array, classes: int | None) -> Array:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise InputError(
            f"labels: {labels.dtype} of shape {labels.shape}, expected integers of shape (examples,)"
        )
    if classes is not None and (isinstance(classes, bool) or int(classes) != classes or classes < 2):
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


def _check_augmentations(augmentations: Sequence[str] | int) -> tuple[str, ...]:
    if isinstance(augmentations, int | np.integer) and not isinstance(augmentations, bool):
        if augmentations < 1:
            raise InputError(f"augmentations {augmentations}: expected at least 1")
        return ("identity",) if augmentations == 1 else tuple(f"query{i}" for i in range(augmentations))
    names = () if isinstance(augmentations, str | bool) else tuple(augmentations)
    if (
        not names
        or not all(isinstance(name, str) and name for name in names)
        or len(set(names)) != len(names)
    ):
        raise InputError(
            f"augmentations {augmentations!r}: expected unique names that are not empty, or how many"
        )
    return names


def _check_design(design: Mapping[str, Json]) -> Mapping[str, Json]:
    try:
        plain: dict[str, Json] = json.loads(json.dumps(dict(design), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"design {design!r}: expected what JSON can hold: {error}") from error
    return plain


def _check_preview(preview: Array, examples: int) -> Array:
    if preview.dtype != np.uint8 or preview.ndim != 4 or len(preview) != examples or not preview.size:
        raise InputError(
            f"preview: {preview.dtype} of shape {preview.shape}, expected uint8 of shape "
            f"({examples}, height, width, channel); grey pictures have one channel"
        )
    return preview


def _check_attackable(attackable: Array, examples: int) -> Array:
    if attackable.dtype != np.bool_ or attackable.shape != (examples,):
        raise InputError(
            f"attackable: {attackable.dtype} of shape {attackable.shape}, "
            f"expected bool of shape ({examples},)"
        )
    return attackable


def _check_signals(signals: Sequence[Signal]) -> dict[str, tuple[str, ...]]:
    checked: dict[str, tuple[str, ...]] = {}
    for signal in signals:
        name, dims = (signal, SIGNAL_DIMS) if isinstance(signal, str) else (signal[0], tuple(signal[1]))
        if dims not in (SIGNAL_DIMS, FLAT_SIGNAL_DIMS):
            raise InputError(f"signal {name!r}: dims {dims}, expected {SIGNAL_DIMS} or {FLAT_SIGNAL_DIMS}")
        if check_signal_name(name) in checked:
            raise InputError(f"signal {name!r} is named twice")
        checked[name] = dims
    return checked
