"""The committed models of a store as a lazy xarray.Dataset.

The arrays are dask's and go through `LogitStore.read`: what is damaged raises, where a Zarr client would read
it as the fill value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.store.layout import MAX_PIECE_BYTES, ArraySpec
from lirastore.store.plain import PlainSpec

if TYPE_CHECKING:
    import dask.array
    import xarray

    from lirastore.store.open import LogitStore

__all__ = ["dataset"]

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]
Index = int | slice | Sequence[int] | Ids


def dataset(store: LogitStore) -> xarray.Dataset:
    """All arrays of the store, for the models committed now; reads no values.

    Dims and coordinates are the store's, `model` holding the ids of the committed models. Per-model arrays
    are in dask chunks of one model and one shard. Computing raises DamagedStore for damage, and
    ModelNotCommitted if a model was withdrawn meanwhile.
    """
    import xarray

    models = store.committed()
    coordinates = {
        "model": models,
        "example": np.arange(store.info.examples),
        "augmentation": np.asarray(store.info.augmentations, dtype=np.dtypes.StringDType()),
    }
    variables: dict[str, Any] = {}
    for name, spec in store.arrays.items():
        chunks = (1, spec.shard, *spec.shard_shape[2:])
        variables[name] = (spec.dims, _lazy(_ModelArray(store, spec, models), chunks))
    for name, plain in store.plain.items():
        if name not in coordinates:
            rows = models if plain.dims[0] == "model" else np.arange(plain.shape[0])
            array = _PlainArray(store, plain, rows)
            variables[name] = (plain.dims, _lazy(array, _plain_chunks(plain)))
    return xarray.Dataset(variables, coordinates, {"lirastore": store.info.to_json()})


def _lazy(array: _ModelArray | _PlainArray, chunks: tuple[int, ...]) -> dask.array.Array:
    import dask.array

    meta = np.empty((0,) * array.ndim, dtype=array.dtype)
    fitting = tuple(max(1, min(chunk, length)) for chunk, length in zip(chunks, array.shape, strict=True))
    lazy: dask.array.Array = dask.array.from_array(  # type: ignore[no-untyped-call]
        array, chunks=fitting, name=False, meta=meta
    )
    return lazy


def _plain_chunks(plain: PlainSpec) -> tuple[int, ...]:
    """Whole pieces, as many as make a dask task worth its while."""
    piece_bytes = math.prod(plain.chunk_shape) * plain.dtype.itemsize
    return (plain.chunk_shape[0] * max(1, MAX_PIECE_BYTES // piece_bytes), *plain.chunk_shape[1:])


class _ModelArray:
    """What dask slices: the committed models' part of one per-model array."""

    def __init__(self, store: LogitStore, spec: ArraySpec, models: Ids) -> None:
        self._store = store
        self._spec = spec
        self._models = models
        self.shape = (len(models), *spec.shape[1:])
        self.dtype = spec.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, index: tuple[Index, ...]) -> Array:
        which, examples, *rest = index
        models = self._models[which]
        start, stop, within = _hull(examples, self.shape[1])
        out = np.empty((models.size, stop - start, *self.shape[2:]), dtype=self.dtype)
        for row, model in zip(out, np.atleast_1d(models).tolist(), strict=True):
            self._store.read(self._spec.name, model, start, stop, out=row)
        return _outer(out, (slice(None) if models.ndim else 0, within, *rest))


class _PlainArray:
    """What dask slices: some rows of a small array."""

    def __init__(self, store: LogitStore, spec: PlainSpec, rows: Ids) -> None:
        self._store = store
        self._spec = spec
        self._rows = rows
        self.shape = (len(rows), *spec.shape[1:])
        self.dtype = spec.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, index: tuple[Index, ...]) -> Array:
        which, *rest = index
        rows = self._rows[which]
        values = self._store.read_plain(self._spec.name, np.atleast_1d(rows))
        return _outer(values, (slice(None) if rows.ndim else 0, *rest))


def _hull(index: Index, length: int) -> tuple[int, int, Index]:
    """The smallest range [start, stop) that holds `index`, and what `index` is within it."""
    picked = np.arange(length)[index]
    if not picked.size:
        return 0, 0, picked
    start = int(picked.min())
    if isinstance(index, slice):  # stays a slice, hence a view
        return start, int(picked.max()) + 1, slice(None, None, index.step)
    return start, int(picked.max()) + 1, picked - start


def _outer(values: Array, index: tuple[Index, ...]) -> Array:
    """Each axis by its own index, independently; integers drop their axis."""
    kept = 0
    for one in index:
        values = values[(slice(None),) * kept + (one,)]
        kept += np.ndim(one) if not isinstance(one, slice) else 1
    return values
