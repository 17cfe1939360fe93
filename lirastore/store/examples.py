"""Example ids as callers give them: slices, ranges, sequences, arrays; and as messages name them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.errors import IncompleteModel, InputError, name_some

__all__ = ["Examples", "describe", "parse_examples", "rows_of"]

Examples = range | npt.NDArray[np.int64]
"""The distinct ids of a batch: a range if they are consecutive and ascending, however they were given."""


def parse_examples(examples: Any, total: int, model: int) -> Examples:
    """Checks a caller's ids against a store of `total` examples; `model` is for messages.

    Raises InputError for what is no list of ids from 0 to total − 1, IncompleteModel for an id given twice.
    """
    if isinstance(examples, slice):
        examples = _range_of(examples, total, model)
    if isinstance(examples, range) and examples.step == 1:
        if examples and (examples.start < 0 or examples.stop > total):
            raise _beyond(f"examples {describe(examples)}", total, model)
        return examples
    return _compact(_id_array(examples, total, model), model)


def _range_of(examples: slice, total: int, model: int) -> range:
    for edge in (examples.start, examples.stop):
        if edge is not None and not 0 <= edge <= total:
            raise _beyond(f"examples {examples}", total, model)
    return range(*examples.indices(total))


def _id_array(examples: Any, total: int, model: int) -> npt.NDArray[np.int64]:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(examples, torch.Tensor):
        examples = examples.cpu()
    ids = np.asarray(examples)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise InputError(
            f"model {model}: examples are an array of dtype {ids.dtype} and shape {ids.shape}: expected a "
            f"slice or a flat sequence of integers"
        )
    ids = ids.astype(np.int64)
    outside = ids[(ids < 0) | (ids >= total)]
    if outside.size:
        raise _beyond(f"examples {describe(outside)}", total, model)
    return ids


def _beyond(what: str, total: int, model: int) -> InputError:
    return InputError(f"model {model}: {what}: the store has examples 0 to {total - 1}")


def _compact(ids: npt.NDArray[np.int64], model: int) -> Examples:
    if not ids.size:
        return range(0)
    if (np.diff(ids) == 1).all():
        return range(int(ids[0]), int(ids[-1]) + 1)
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        twice = describe(unique[counts > 1])
        raise IncompleteModel(f"model {model}: examples {twice} are twice in one batch; each is written once")
    return ids


def rows_of(examples: Examples) -> slice | npt.NDArray[np.int64]:
    """What selects these examples from an array of all of them, without a copy where possible."""
    return slice(examples.start, examples.stop) if isinstance(examples, range) else examples


def describe(examples: Examples) -> str:
    """Names ids as ranges: `0–511, 700`."""
    ids = np.unique(np.asarray(examples, dtype=np.int64))
    if not ids.size:
        return "(none)"
    starts = np.concatenate(([0], np.flatnonzero(np.diff(ids) != 1) + 1))
    stops = np.concatenate((starts[1:], [len(ids)])) - 1
    runs = [
        str(ids[first]) if first == last else f"{ids[first]}–{ids[last]}"
        for first, last in zip(starts, stops, strict=True)
    ]
    return name_some(runs)
