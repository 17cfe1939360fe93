"""log Σ exp over the models beside each target, IN and OUT apart: probabilities added up as logarithms.

Leaving one value out of a sum by subtraction is exact where that value does not dominate the sum; where it
does, and where nothing would be left, the entry is computed anew from the others.
"""

from __future__ import annotations

import numpy as np

from lirastore.moments.counts import Others
from lirastore.moments.masked import Bool, Float64

__all__ = ["beside_log_sums", "log_sum"]

# Below this share of the whole, what a subtraction leaves has lost three digits or more.
_DOMINATED = 1e-3
# So many values at a time are gathered to compute entries anew.
_GATHER = 256 * 1024


def beside_log_sums(x: Float64, member: Bool, others: Others) -> tuple[Float64, Float64]:
    """log Σ e^x over the IN models, and over the OUT models, that stand beside each target.

    Args:
        x: (M, K) finite.
        member: (M, K) bool.
        others: which models stand beside each target.

    Returns:
        Two (M, K) float64 arrays; −∞ where there are none.
    """
    return _beside(x, member, others), _beside(x, ~member, others)


def log_sum(x: Float64, mask: Bool) -> Float64:
    """(K,): log Σ e^x over the marked rows of each column; −∞ where nothing is marked."""
    terms, top = _terms(x, mask)
    return _log(terms.sum(axis=0)) + top


def _beside(x: Float64, side: Bool, others: Others) -> Float64:
    """The same for one side: without the target where it stands there, the whole elsewhere."""
    base = side if others.base is None else side & others.base
    own, whole = _without_each(x, base)
    cross = whole if others.cross is None else log_sum(x, side & others.cross)
    result = np.where(side, own, cross)
    if others.spare is not None and others.base is not None:
        np.copyto(result, log_sum(x, side & others.spare), where=side & ~others.base)
    return result


def _without_each(x: Float64, mask: Bool) -> tuple[Float64, Float64]:
    """(M, K) of the marked rows without each of them in turn, meaningless elsewhere; (K,) of all marked."""
    terms, top = _terms(x, mask)
    total = terms.sum(axis=0)
    left = total - terms
    rows, columns = np.nonzero(mask & (left < _DOMINATED * total))
    result = _log(left)
    result += top
    step = max(1, _GATHER // len(x))
    for start in range(0, len(rows), step):
        row, column = rows[start : start + step], columns[start : start + step]
        kept = mask[:, column]
        kept[row, np.arange(len(row))] = False
        result[row, column] = log_sum(x[:, column], kept)
    return result, _log(total) + top


def _terms(x: Float64, mask: Bool) -> tuple[Float64, Float64]:
    """(M, K) e^(x − top), 0 where not marked, and (K,) top: the greatest marked value, 0 if there is none."""
    terms = np.where(mask, x, -np.inf)
    top = terms.max(axis=0, initial=-np.inf)
    top[np.isneginf(top)] = 0
    terms -= top
    return np.exp(terms, out=terms), top


def _log(x: Float64) -> Float64:
    """log x, −∞ at 0. What a subtraction leaves below 0 is meaningless, and computed anew."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Float64 = np.log(x)
    return result
