"""Pictures of the examples for reports, made of a data set's `x_train.npy`.

The rule: (E, height, width, channel) arrays with 1, 3 or 4 channels are pictures. uint8 is taken as it is.
Of floats, the range of the whole array decides: within [0, 1] they are scaled by 255; within [-1, 1], as
the reference code has them, by x → (x + 1) · 127.5. Anything else, standardised data for instance, gives no
pictures. They are a convenience that nobody asked for, so ones that would take more than 1 GiB of the
store's disk are left out; `lirastore.create` takes any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import SourceError
from lirastore.importers.npyfile import Npy, open_npy
from lirastore.store import Sliced

__all__ = ["Pictures", "open_pictures"]

_CHANNELS: Final = (1, 3, 4)
_MOST_BYTES: Final = 1 << 30


@dataclass(frozen=True)
class Pictures:
    """A data set's inputs, of which pictures can perhaps be made."""

    array: Npy

    @property
    def is_images(self) -> bool:
        return len(self.array.shape) == 4

    def preview(self, warnings: list[str]) -> Sliced | None:
        """(E, H, W, channel) uint8, read and scaled as they are sliced; None if there are no pictures, with a
        warning if some cannot be used."""
        if not self.is_images or self.array.shape[3] not in _CHANNELS:
            return None
        scaling = self._scaling()
        if isinstance(scaling, str):
            warnings.append(f"no pictures for the report: {self.array.where} is {scaling}")
            return None
        return _Scaled(self.array, *scaling)

    def _scaling(self) -> tuple[float, float] | str:
        """(offset to add, factor to multiply by after it), or what makes the pictures unusable."""
        if math.prod(self.array.shape) > _MOST_BYTES:
            return f"of more than {_MOST_BYTES >> 20} MiB as pictures"
        if self.array.fortran:
            return "in Fortran order"
        if self.array.dtype == np.uint8:
            return 0.0, 1.0
        if self.array.dtype.kind != "f":
            return f"of type {self.array.dtype}, not uint8 or float"
        low, high = self._range()
        if low >= 0 and high <= 1:
            return 0.0, 255.0
        if low >= -1 and high <= 1:
            return 1.0, 127.5
        return f"from {low:g} to {high:g}, in neither [0, 1] nor [-1, 1]"

    def _slices(self) -> Iterator[tuple[int, NDArray[Any]]]:
        return self.array.rows(self.array.shape[1:])

    def _range(self) -> tuple[float, float]:
        """(minimum, maximum), both NaN if there is a NaN."""
        ranges = np.array([(values.min(), values.max()) for _, values in self._slices()], dtype=np.float64)
        return float(ranges[:, 0].min()), float(ranges[:, 1].max())


@dataclass(frozen=True)
class _Scaled:
    """The pictures (x + offset) · factor, rounded; memory is that of the slice and a few of 4 MiB."""

    array: Npy
    offset: float
    factor: float

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __getitem__(self, rows: slice) -> NDArray[np.uint8]:
        row = self.shape[1:]
        first, last, _ = rows.indices(self.shape[0])
        pictures = np.empty((last - first, *row), dtype=np.uint8)
        step = self.array.step(row)
        with self.array.reading() as file:
            for start in range(first, last, step):
                values = self.array.read(file, start, min(start + step, last), row)
                pictures[start - first : start - first + len(values)] = self._scale(values)
        return pictures

    def _scale(self, values: NDArray[Any]) -> NDArray[Any]:
        if values.dtype == np.uint8:
            return values
        scaled: NDArray[Any] = values.astype(np.float32, copy=False) + np.float32(self.offset)
        scaled *= np.float32(self.factor)
        np.rint(scaled, out=scaled)
        return scaled


def open_pictures(path: Path, examples: int) -> Pictures | None:
    """The inputs at `path`, None if there are none. SourceError if they are of other examples."""
    if not path.exists():
        return None
    array = open_npy(path)
    if array.shape[:1] != (examples,):
        raise SourceError(
            f"{array.where}: shape {array.shape}, expected {examples} examples first, as in y_train.npy; "
            "both must be of the same data set (or move it away: it is only needed for pictures)"
        )
    return Pictures(array)
