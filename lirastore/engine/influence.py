"""The influence of a chosen block of examples on another, as a labelled array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks.influence import influence_block
from lirastore.errors import InputError, MissingData
from lirastore.signals import SIGNALS
from lirastore.store.examples import describe

if TYPE_CHECKING:
    import xarray

    from lirastore.store import LogitStore

__all__ = ["influence"]

Ids = npt.NDArray[np.int64]


def influence(store: LogitStore, examples: npt.ArrayLike, others: npt.ArrayLike) -> xarray.DataArray:
    """P[other correct | example in training] − P[other correct | it is not], over the committed models.

    Feldman & Zhang 2020. examples (n,), others (m,): ids. Returns float64 with dims (example, other), from −1
    to 1; positive: models that hold the example get the other right more often; NaN where all models hold the
    example, or none does. Takes n·m float64, and reads only the logits of `others`.

    Raises InputError for ids that the store does not have, MissingData without logits or committed models.
    """
    import xarray

    chosen, asked = (_ids(store, ids) for ids in (examples, others))
    models = store.committed()
    if "logits" not in store.arrays or not len(models):
        raise MissingData(
            f"influence asks whether predictions are correct: {store.path} needs logits of committed models; "
            f"it has the arrays {', '.join(store.arrays)} and {len(models)} committed models"
        )
    correct = np.stack([_correct(store, model, asked) for model in models.tolist()])
    values = influence_block(store.membership(models)[:, chosen], correct)
    return xarray.DataArray(
        values, dims=("example", "other"), coords={"example": chosen, "other": asked}, name="influence"
    )


def _ids(store: LogitStore, ids: npt.ArrayLike) -> Ids:
    found = np.atleast_1d(np.asarray(ids))
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise InputError(f"example ids are {found.dtype} of shape {found.shape}; expected integers, (n,)")
    outside = found[(found < 0) | (found >= store.info.examples)].astype(np.int64)
    if outside.size:
        raise InputError(
            f"examples {describe(outside)} are not in {store.path}: it has 0 to {store.info.examples - 1}"
        )
    return found.astype(np.int64)


def _correct(store: LogitStore, model: int, asked: Ids) -> npt.NDArray[np.bool_]:
    """(m,): whether a model's first query of each example is right."""
    labels = store.labels()
    correct = np.zeros(store.info.examples, np.bool_)
    for start, stop in _runs(np.unique(asked)):
        logits: npt.NDArray[Any] = store.read("logits", model, start, stop)
        right = SIGNALS["correct"].compute["logits"](logits[:, :1], labels[start:stop])
        correct[start:stop] = right[:, 0] > 0
    return correct[asked]


def _runs(ids: Ids) -> Iterator[tuple[int, int]]:
    """Consecutive ids as (first, past the last)."""
    for run in np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1):
        if run.size:
            yield int(run[0]), int(run[-1]) + 1
