"""What an attack said of a tile, checked, as columns of a Parquet part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks import Attack, Block, check_scores
from lirastore.errors import AttackError, LirastoreError

__all__ = ["rows"]

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]

_STORED = {"f": np.float64, "i": np.int64, "u": np.int64, "b": np.bool_}


def rows(attack: Attack, scored: Bool, block: Block) -> dict[str, Array]:
    """The columns of one tile, in the order of (example, model); `scored` (e,) marks what is kept.

    Raises AttackError if the function fails, or returns something other than its kind says.
    """
    value = _evaluate(attack, block)
    if attack.kind == "examples":
        kept = {name: column[scored] for name, column in _columns(attack, value, scored.size).items()}
        return {"example": block.examples[scored], **_checked(attack, kept)}
    if attack.kind == "pairs":
        return _checked(attack, _columns(attack, value))
    scores = check_scores(attack, block, value)
    model, example, member = block.once(("rows", scored.tobytes()), lambda: _ids(block, scored))
    kept_scores = scores if scored.all() else scores[:, scored]
    return {"model": model, "example": example, "score": kept_scores.T.ravel(), "member": member}


def _ids(block: Block, scored: Bool) -> tuple[Array, Array, Array]:
    """Model, example and member of every row: one copy for all attacks that score these examples."""
    examples, member = block.examples[scored], block.member[:, scored]
    return np.tile(block.models, len(examples)), np.repeat(examples, len(block.models)), member.T.ravel()


def _evaluate(attack: Attack, block: Block) -> Any:
    try:
        return attack.function(block)
    except (LirastoreError, MemoryError):
        raise
    except Exception as error:  # a user's function may raise anything
        raise AttackError(
            f"attack {attack.name!r} failed on examples {block.start} to {block.stop - 1}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _columns(attack: Attack, value: Any, length: int | None = None) -> dict[str, Array]:
    """The columns that a function returned: numbers, one per example, or in pairs any number of them."""
    if not isinstance(value, Mapping) or not value:
        raise AttackError(
            f"attack {attack.name!r} of kind {attack.kind!r} returned {type(value).__name__}; expected "
            f"columns, {{name: ({'n' if length is None else 'e'},) array}}"
        )
    columns = {name: np.asarray(column) for name, column in value.items()}
    expected = (next(iter(columns.values())).size if length is None else length,)
    for name, column in columns.items():
        if column.shape != expected or column.dtype.kind not in _STORED:
            raise AttackError(
                f"attack {attack.name!r} returned column {name!r} of shape {column.shape} and dtype "
                f"{column.dtype}; expected numbers of shape {expected}"
            )
    return columns


def _checked(attack: Attack, columns: Mapping[str, Array]) -> dict[str, Array]:
    """The columns in the types that are stored: int64, float64, bool. Raises AttackError for NaN."""
    for name, column in columns.items():
        if not np.isfinite(column).all():
            raise AttackError(f"attack {attack.name!r} returned NaN or infinity in column {name!r}")
    return {name: column.astype(_STORED[column.dtype.kind]) for name, column in columns.items()}
