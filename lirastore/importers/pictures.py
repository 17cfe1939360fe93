"""Pictures of the examples for reports, made of a data set's `x_train.npy`.

The rule: (E, height, width, channel) arrays with 1, 3 or 4 channels are pictures. uint8 is taken as it is.
Of floats, the range of the whole array decides: within [0, 1] they are scaled by 255; within [-1, 1], as
the reference code has them, by x → (x + 1) · 127.5. Anything else, standardised data for instance, gives no
pictures. They are a convenience: larger ones than 192 MiB in all are left out.
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

__all__ = ["Pictures", "open_pictures"]

_CHANNELS: Final = (1, 3, 4)
_MOST_BYTES: Final = 192 << 20


@dataclass(frozen=True)
class Pictures:
    """A data set's inputs, of which pictures can perhaps be made."""

    array: Npy

    @property
    def is_images(self) -> bool:
        return len(self.array.shape) == 4

    def preview(self, warnings: list[str]) -> NDArray[np.uint8] | None:
        """(E, H, W, channel) uint8; None if there are no pictures, with a warning if some cannot be used."""
        if not self.is_images or self.array.shape[3] not in _CHANNELS:
            return None
        scaling = self._scaling()
        if isinstance(scaling, str):
            warnings.append(f"no pictures for the report: {self.array.where} is {scaling}")
            return None
        return self._scaled(*scaling)

    def _scaling(self) -> tuple[float, float] | str:
        """(offset to add, factor to multiply by after it), or what makes the pictures unusable."""
        if math.prod(self.array.shape) > _MOST_BYTES:
            return f"larger than {_MOST_BYTES >> 20} MiB"
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

    def _scaled(self, offset: float, factor: float) -> NDArray[np.uint8]:
        pictures = np.empty(self.array.shape, dtype=np.uint8)
        for start, values in self._slices():
            scaled = (values.astype(np.float32, copy=False) + np.float32(offset)) * np.float32(factor)
            pictures[start : start + len(values)] = np.rint(scaled)
        return pictures


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
