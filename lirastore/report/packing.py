"""Many numbers in few bytes for a page's script: columns of integers and of rounded reals, deflated.

The bytes of a column are split into planes, all first bytes and then all second ones, which deflate better.
`unpack.js` reads what is written here.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PRECISION", "Pack"]

PRECISION = 0.005
"""The widest step between neighbouring values of a rounded column, relative to the value."""

_FEW = 0.02
_RANGE = 1e-9  # what is smaller than this share of the largest need not be told from 0

Column = npt.NDArray[Any]


@dataclass
class Pack:
    """Columns by name; `size` is what they take in the page, in characters."""

    header: dict[str, dict[str, Any]] = field(default_factory=dict)
    _bodies: list[bytes] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Characters of `text`."""
        return sum(_characters(body) for body in self._bodies)

    def take(self, other: Pack) -> None:
        """Adds the columns of another pack to this one."""
        first = len(self._bodies)
        for name, entry in other.header.items():
            self.header[name] = {**entry, "body": entry["body"] + first}
        self._bodies += other._bodies

    def text(self) -> list[str]:
        """The bodies of all columns in base64, in the order that the header counts."""
        return [base64.b64encode(body).decode() for body in self._bodies]

    def integers(self, name: str, values: Column) -> None:
        """Whole numbers, of any sign, none missing."""
        low = int(values.min(initial=0))
        self._add(name, (values - low).astype(np.uint64), {"low": low})

    def reals(self, name: str, values: Column) -> None:
        """Reals rounded to steps of at most PRECISION of the value, or of one that few are smaller than.

        value = scale · sinh(step · (code − centre)); code 0 stands for what is missing (NaN).
        """
        known = values[np.isfinite(values)]
        sizes = np.abs(known[known != 0])
        largest = float(sizes.max(initial=0.0)) or 1.0
        scale = max(float(np.quantile(sizes, _FEW)) if len(sizes) else 1.0, _RANGE * largest)
        reach = float(np.arcsinh(largest / scale))
        half = max(1, int(np.ceil(reach / PRECISION)))
        codes = np.rint(np.arcsinh(np.nan_to_num(values) / scale) / (reach / half)) + half + 1
        codes = np.where(np.isfinite(values), codes, 0).astype(np.uint64)
        self._add(name, codes, {"scale": scale, "step": reach / half, "centre": half + 1})

    def floats(self, name: str, values: Column) -> None:
        """Reals as they are, infinite ones too."""
        self._add(name, values.astype("<f8").view("<u8"), {"float": True}, width=8)

    def _add(self, name: str, codes: Column, entry: dict[str, Any], width: int | None = None) -> None:
        flat = np.ascontiguousarray(codes, dtype="<u8").ravel()
        width = width or max(1, (int(flat.max(initial=0)).bit_length() + 7) // 8)
        planes = flat.view(np.uint8).reshape(-1, 8)[:, :width].T
        self.header[name] = {**entry, "width": width, "count": flat.size, "body": len(self._bodies)}
        self._bodies.append(zlib.compress(planes.tobytes(), 9))


def _characters(body: bytes) -> int:
    return -(-len(body) // 3) * 4
