"""What is wrong with the parts of a store that belong to all models: documents, small arrays, coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lirastore.errors import DamagedStore
from lirastore.store import metadata
from lirastore.store.layout import LIRA
from lirastore.store.plain import PlainSpec, piece_rows, read_plain, text_damage
from lirastore.store.plan import Fingerprint
from lirastore.store.reader import Unreadable

if TYPE_CHECKING:
    from lirastore.store.open import LogitStore

__all__ = ["explain", "readable_spec", "store_damage"]

_COORDINATES = ("model", "example")


def store_damage(store: LogitStore) -> Iterator[tuple[int | None, str]]:
    """(model, problem) of everything found; the model is None unless it is a row of the membership.

    Reads all of the small arrays, a piece of at most 8 MB at a time, and the pictures twice.
    """
    whole = {}
    for name in metadata.plain_names(store.path):
        problems = list(_array_damage(store, name))
        if not problems:
            whole[name] = metadata.read_plain_spec(store.path, name, store.info)
        yield from problems
    for problem in [*_documents(store), *_texts(store), *_other_data(store, whole)]:
        yield None, problem


def readable_spec(store: LogitStore, name: str) -> PlainSpec | None:
    """The layout of a plain array; None if its document is damaged, which `store_damage` tells."""
    try:
        return metadata.read_plain_spec(store.path, name, store.info)
    except DamagedStore:
        return None


def explain(error: Unreadable) -> str:
    """The line for an object of a small array."""
    return f"{error}; restore this file from a copy of the store"


def _array_damage(store: LogitStore, name: str) -> Iterator[tuple[int | None, str]]:
    try:
        spec = metadata.read_plain_spec(store.path, name, store.info)
    except DamagedStore as error:
        yield None, str(error)
        return
    for piece in range(spec.pieces):
        rows = piece_rows(spec, piece)
        try:
            values = read_plain(store.path, spec, rows)
            if name in _COORDINATES and not np.array_equal(values, rows):
                raise Unreadable(spec.key(piece), "it does not hold the row numbers 0, 1, 2, …")
        except Unreadable as error:
            yield int(rows[0]) if name == "membership" else None, explain(error)


def _documents(store: LogitStore) -> Iterator[str]:
    """What is wrong with the documents that nothing else reads."""
    for directory in (LIRA, "augmentation"):
        try:
            metadata.check_document(store.path / directory / metadata.DOCUMENT)
        except DamagedStore as error:
            yield str(error)


def _texts(store: LogitStore) -> list[str]:
    return [explain(error) for error in text_damage(store.path, "augmentation", store.info.augmentations)]


def _other_data(store: LogitStore, whole: dict[str, PlainSpec]) -> Iterator[str]:
    """Whether labels and pictures, if all of them can be read, are those of another data set."""
    names = [name for name in metadata.plain_names(store.path) if name in ("label", "preview")]
    if not all(name in whole for name in names):
        return
    labels = whole["label"]
    fingerprint = Fingerprint(read_plain(store.path, labels, np.arange(labels.shape[0])))
    if "preview" in names:
        pictures = whole["preview"]
        fingerprint.begin_pictures(pictures.shape)
        for piece in range(pictures.pieces):
            fingerprint.update(read_plain(store.path, pictures, piece_rows(pictures, piece)))
    if fingerprint.hexdigest() != store.info.fingerprint:
        yield (
            f"{', '.join(names)}: not what the store was made with (the data set's fingerprint differs); "
            f"restore {' and '.join(names)} from a copy of the store"
        )
