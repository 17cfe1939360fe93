"""Clopper–Pearson intervals of proportions, as SQL functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["define_intervals"]

_CONFIDENCE = 0.95

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bound = Callable[[Floats, Floats], Floats]


def define_intervals(connection: DuckDBPyConnection) -> None:
    """Defines clopper_pearson_lo(successes, trials) and clopper_pearson_hi: the 95% interval.

    NULL where either argument is, or where there are no trials.
    """
    for name, bound in (("clopper_pearson_lo", _lower), ("clopper_pearson_hi", _upper)):
        connection.create_function(
            name,
            _vectorised(bound),
            ["bigint", "bigint"],
            "double",
            type=PythonUDFType.ARROW,
            null_handling=FunctionNullHandling.SPECIAL,
        )


def _vectorised(bound: Bound) -> Callable[[pa.Array, pa.Array], pa.Array]:
    def function(successes: pa.Array, trials: pa.Array) -> pa.Array:
        k, n = (np.array(column.to_pylist(), dtype=np.float64) for column in (successes, trials))
        known = (k >= 0) & (k <= n) & (n > 0)  # NULL is NaN here, so never known
        values = np.full(len(k), np.nan)
        values[known] = bound(k[known], n[known])
        return pa.array(values, mask=~known)

    return function


def _lower(k: Floats, n: Floats) -> Floats:
    """Clopper & Pearson (1934): the p at which k successes or more have probability 2.5%; 0 for k = 0."""
    from scipy.special import betaincinv

    tail = (1 - _CONFIDENCE) / 2
    return np.where(k == 0, 0.0, betaincinv(np.maximum(k, 1), n - k + 1, tail))


def _upper(k: Floats, n: Floats) -> Floats:
    """The p at which k successes or fewer have probability 2.5%; 1 for k = n. By symmetry from the other."""
    return 1 - _lower(n - k, n)
