"""What the cross-fitted attacks share: sums over the other folds, rows to fit on, fits fold by fold.

Whatever is fitted for the targets of a fold comes from the models of the other folds alone: nothing that a
target, or any other model of its fold, answers or was trained on enters it. Examples that the store marks as
not attackable are left out of what is fitted."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block
from lirastore.attacks.folds import FOLDS, folds
from lirastore.attacks.summary import Sizes, Summary
from lirastore.errors import MissingDependency
from lirastore.moments.counts import model_order

__all__ = [
    "MOST_ROWS",
    "Rows",
    "Sample",
    "Threads",
    "beside",
    "count_rows",
    "draw",
    "fit_each",
    "fold_of",
    "fold_sums",
    "for_fold",
    "join",
    "most_rows",
    "require_scikit_learn",
    "sample_bytes",
]

T = TypeVar("T")

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Rows = Literal["all", "non-members"]
"""Which pairs of model and example a fit may use: all, or those of models trained without the example."""

MOST_ROWS = 200_000
# Of one fit: what bounds its memory where a row is long.
_MOST_VALUES = 1 << 23
# Fits at a time, each on one thread: four take a few seconds, and their memory adds up.
_AT_ONCE = 2
# Bytes that a fit takes for each value of its rows: as float32, float64, and binned.
_FIT_BYTES = 13
# scikit-learn itself, with what it imports.
_LIBRARY_BYTES = 112 << 20
# Of a row, beside its values: key, fold, and what else is known of it, twice while pieces are joined.
_ROW_BYTES = 64
# Keeps the draw of the rows apart from the other orders that a run's seed settles.
_SALT = 0x726F_7773


# --- folds ---------------------------------------------------------------------------------------


def fold_of(block: Block) -> Int64:
    """(M,) int64: the fold of each of the block's models."""
    return block.once("folds", lambda: folds(block.models, block.seed))


def fold_sums(values: Array, use: Bool, fold: Int64) -> Float64:
    """(F, e, …) float64: Σ of the marked values over the models of each fold.

    Summed model by model, so that an example's sums do not depend on its neighbours.

    Args:
        values: (M, e, …). use: (M, e) bool. fold: (M,).
    """
    sums = np.zeros((FOLDS, *values.shape[1:]))
    for model, number in enumerate(fold.tolist()):
        marked = use[model].reshape(-1, *[1] * (values.ndim - 2))
        sums[number] += np.where(marked, values[model], 0)
    return sums


def beside(sums: Array) -> Array:
    """(F, …): for each fold, the sum over the other folds. Its own is never added, to be taken off again."""
    return np.stack([np.delete(sums, fold, axis=0).sum(axis=0) for fold in range(FOLDS)])


# --- rows to fit on ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sample:
    """Some of a run's pairs of model and example: rows to fit on.

    key (n,) uint64 settles which rows a fit takes, and their order. fold (n,) int8: of the row's model.
    columns: name -> (n, …), what is known of a row.
    """

    key: npt.NDArray[np.uint64]
    fold: npt.NDArray[np.int8]
    columns: Mapping[str, Array]


def most_rows(values: int) -> int:
    """The most rows of one fit, with so many values each: 200,000, and no more than 2^23 values in all."""
    return max(1, min(MOST_ROWS, _MOST_VALUES // max(1, values)))


def sample_bytes(sizes: Sizes, values: int) -> int:
    """The most memory that the rows of `draw` and the fits on them take, with so many values per row, and
    scikit-learn."""
    fit = min(most_rows(values), sizes.models * sizes.examples)
    drawn = min(2 * _expected(fit), sizes.models * sizes.examples)
    rows = drawn * 2 * (4 * values + _ROW_BYTES) + _AT_ONCE * fit * (_FIT_BYTES * values + _ROW_BYTES)
    return _LIBRARY_BYTES + rows


def count_rows(rows: Rows) -> Summary:
    """(F,) int64: how many rows of that kind the models of each fold have. Reads no data."""
    return Summary(
        key=f"rows/{rows}",
        signals=(),
        chunk=partial(_count, rows),
        combine=operator.add,
        finalise=np.asarray,
    )


def _count(rows: Rows, block: Block) -> Int64:
    per_model = np.count_nonzero(_eligible(rows, block), axis=1)
    return np.bincount(fold_of(block), per_model, FOLDS).astype(np.int64)


def _eligible(rows: Rows, block: Block) -> Bool:
    eligible = np.ones_like(block.member) if rows == "all" else ~block.member
    return eligible if block.attack_mask is None else eligible & block.attack_mask


def draw(
    block: Block, rows: Rows, most: int, known: Callable[[Array, Array], Mapping[str, Array]]
) -> tuple[Sample, ...]:
    """The block's part of the rows that fits of at most `most` rows need; `count_rows` must be declared.

    Each row has a random key, which depends on the seed, the model and the example and on nothing else, and
    each fit takes the rows with the smallest keys: the same ones however examples are cut into tiles. Rows
    that are too late in that order for every fit are not kept.

    Args:
        known: (model rows (n,), examples' places in the block (n,)) -> columns of these rows.
    """
    fold = fold_of(block)
    keys = model_order(block.models, block.examples, block.seed ^ _SALT)
    latest = _latest_keys(block.summary(count_rows(rows)), most)
    models, places = np.nonzero(_eligible(rows, block) & (keys <= latest[fold][:, None]))
    return (Sample(keys[models, places], fold[models].astype(np.int8), known(models, places)),)


def _expected(most: int) -> int:
    """So many rows are expected to be drawn for a fit of `most`: fewer come once in 10^15 times."""
    return most + math.ceil(8 * math.sqrt(most)) + 8


def _latest_keys(counts: Int64, most: int) -> npt.NDArray[np.uint64]:
    """(F,) uint64: the latest key that a row of each fold may have, to be worth keeping."""
    others = np.array([counts.sum() - counts[fold] for fold in range(FOLDS)])
    wanted = np.where(others > 0, _expected(most) / np.maximum(others, 1), 0.0)
    share = np.array([np.delete(wanted, fold).max() for fold in range(FOLDS)]).clip(0, 1)
    # Folds of a very uneven number of rows: their fits are made of fewer, so that memory stays bounded.
    share *= min(1.0, 2 * _expected(most) / max(1.0, float(share @ counts)))
    return np.array([min(int(part * 2**64), 2**64 - 1) for part in share.tolist()], np.uint64)


def join(samples: tuple[Sample, ...]) -> Sample:
    """The rows of successive runs of examples as one sample."""
    names = samples[0].columns
    return Sample(
        np.concatenate([sample.key for sample in samples]),
        np.concatenate([sample.fold for sample in samples]),
        {name: np.concatenate([sample.columns[name] for sample in samples]) for name in names},
    )


def for_fold(sample: Sample, fold: int, most: int) -> npt.NDArray[np.intp]:
    """Places of the rows that the fit for the targets of `fold` takes, in the order of their keys."""
    others = np.flatnonzero(sample.fold != fold)
    return others[np.argsort(sample.key[others], kind="stable")[:most]]


# --- scikit-learn --------------------------------------------------------------------------------


def require_scikit_learn(attack: str) -> str:
    """The version of scikit-learn, on which fitted trees may depend; imports nothing of it.

    Raises:
        MissingDependency: it is not installed."""
    if find_spec("sklearn") is None:
        raise MissingDependency(
            f"the attack {attack!r} is fitted by scikit-learn, which is not installed; "
            "pip install 'lirastore[attacks]'"
        )
    return version("scikit-learn")


class Threads:
    """Keeps scikit-learn's trees to the calling thread: other threads have folds or tiles of their own.

    A fit or a prediction of one thread is also the same to the bit on every machine of a kind.
    """

    def __init__(self) -> None:
        import_module("sklearn.ensemble")  # the libraries to be limited are those that are loaded by now
        self._controller = import_module("threadpoolctl").ThreadpoolController()

    def one(self) -> AbstractContextManager[Any]:
        """While it is entered, OpenMP uses one thread for what the calling thread asks of it."""
        context: AbstractContextManager[Any] = self._controller.limit(limits=1, user_api="openmp")
        return context


def fit_each(fit: Callable[[int], T], threads: Threads) -> list[T]:
    """[fit(0), fit(1), …] for all folds, two at a time if there are two cores."""

    def on_one_thread(fold: int) -> T:
        with threads.one():
            return fit(fold)

    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        return list(pool.map(on_one_thread, range(FOLDS)))
