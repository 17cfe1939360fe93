"""Folds of models, so that whatever is fitted for a target never saw the target."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["FOLDS", "folds"]

FOLDS = 4


def folds(models: npt.NDArray[np.int64], seed: int, count: int = FOLDS) -> npt.NDArray[np.int64]:
    """(M,) int64 from 0 to count − 1: the fold of each model, as even as they can be, drawn with the seed.

    With fewer models than folds some folds are empty.
    """
    order = np.random.default_rng([seed, len(models), count]).permutation(len(models))
    found = np.empty(len(models), np.int64)
    found[order] = np.arange(len(models)) % count
    return found
