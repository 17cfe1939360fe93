"""Modified entropy (Song & Mittal 2021): a threshold per class, fitted on the other folds' models."""

from __future__ import annotations

import operator
from functools import partial

import numpy as np
import numpy.typing as npt

from lirastore.attacks.block import Block
from lirastore.attacks.definition import Attack
from lirastore.attacks.folds import FOLDS
from lirastore.attacks.intervals import Intervals, best_intervals, pairs, pairs_bytes
from lirastore.attacks.summary import Summary

__all__ = ["MODIFIED_ENTROPY", "modified_entropy"]

_SIGNAL = "modified_entropy"

THRESHOLDS = Summary(
    key="modified-entropy/thresholds",
    signals=(_SIGNAL,),
    chunk=partial(pairs, signal=_SIGNAL),
    combine=operator.add,
    finalise=partial(best_intervals, per_label=True, open_below=True),
    state_bytes=pairs_bytes,
)


def modified_entropy(block: Block) -> npt.NDArray[np.float64]:
    """(M, e) float64: τ_y − Mentr, where Mentr = −(1 − p_y)·log p_y − Σ_{c≠y} p_c·log(1 − p_c), first query.

    Song & Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models", USENIX Security 2021.
    Higher means member: one is called so from 0 on. Needs logits.

    Cross-fitted over 4 folds of models: τ_y is the threshold for label y that maximises the balanced accuracy
    of "member iff Mentr ≤ τ" over all examples of that label (those that may be attacked) and all models of
    the other folds; of several, the smallest; always one of the values of Mentr there. For a label without
    members, or without non-members, in the other folds nothing can be fitted, and τ_y is 0, the smallest
    Mentr. Memory: 12 bytes per model and example.
    """
    thresholds: Intervals = block.summary(THRESHOLDS)
    _, scores = thresholds.of(block)
    np.nan_to_num(scores, copy=False, nan=0.0)
    scores += block.signal(_SIGNAL, queries="first")[:, :, 0]
    return scores


MODIFIED_ENTROPY = Attack(
    name="modified_entropy",
    function=modified_entropy,
    signals=(_SIGNAL,),
    summaries=(THRESHOLDS,),
    parameters={"preset": "paper", "signal": _SIGNAL, "queries": "first", "folds": FOLDS},
    described=True,
    doc=modified_entropy.__doc__ or "",
)
