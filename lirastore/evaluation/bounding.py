"""Lower bounds on ε from counts of right and wrong guesses: Steinke et al.'s for one run, Clopper–Pearson's.

ε and δ are those of (ε, δ) differential privacy, neighbours differing in one example, present or absent.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["Separations", "one_run_bound", "one_run_p_value"]

Array = np.ndarray[Any, Any]

_TOLERANCE = 1e-4
"""Of a bound, downward."""

_STEP = 256


def one_run_p_value(examples: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """The most probable that so many right guesses can be, if training is (ε, δ)-private.

    Steinke, Nasr & Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023, Theorem 5.2 and
    appendix D: with q = e^ε / (1 + e^ε), P[Bin(r, q) ≥ v] + 2mδ · max_i P[v > Bin(r, q) ≥ v − i] / i.

    examples: m, whose membership fair coins decided, each its own. guesses: r ≤ m of these, the others being
    abstained from; which ones may depend on the trained model. correct: v ≤ r.
    """
    from scipy.special import bdtrc

    q = 1 / (1 + math.exp(-epsilon))
    p_value = float(bdtrc(correct - 1, guesses, q)) if correct > 0 else 1.0
    if delta > 0 and p_value < 1:
        p_value += 2 * examples * delta * _steepest(guesses, correct, q)
    return min(p_value, 1.0)


def _steepest(guesses: int, correct: int, q: float) -> float:
    """max_i P[v > Bin(r, q) ≥ v − i] / i over i = 1 … v, from the logarithms of the mass function."""
    from scipy.special import gammaln, xlog1py, xlogy

    best, below, first = 0.0, 0.0, 1
    # What is below adds up to 1 at most: further on no mean can be larger than 1 / i.
    while first <= correct and best < 1 / first:
        i = np.arange(first, min(first + _STEP, correct + 1))
        k = correct - i
        log_mass = gammaln(guesses + 1) - gammaln(k + 1) - gammaln(guesses - k + 1)
        sums = below + np.cumsum(np.exp(log_mass + xlogy(k, q) + xlog1py(guesses - k, -q)))
        best = max(best, float((sums / i).max()))
        below, first = float(sums[-1]), first + _STEP
    return best


@lru_cache(maxsize=65536)
def one_run_bound(examples: int, guesses: int, correct: int, delta: float, significance: float) -> float:
    """The ε below which all are rejected, their p-values being below `significance`; 0 if none is.

    With δ = 0 it has a closed form; otherwise it is found by bisection, and rounded down.
    """
    from scipy.special import betaincinv

    if one_run_p_value(examples, guesses, correct, 0.0, delta) >= significance:
        return 0.0
    q = float(betaincinv(correct, guesses - correct + 1, significance))  # P[Bin(r, q) ≥ v] = significance
    low, high = 0.0, math.log(q) - math.log1p(-q)
    if delta == 0:
        return high
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        if one_run_p_value(examples, guesses, correct, middle, delta) < significance:
            low = middle
        else:
            high = middle
    return low


class Separations:
    """ε from true and false positives at a threshold that does not depend on them, by Clopper–Pearson.

    With probability 1 − `significance` both hold: TPR is at least its lower bound, and FPR at most its upper
    one. Then ε ≥ log((TPR − δ) / FPR), and ε ≥ log((TNR − δ) / FNR), as in google-deepmind/jax_privacy,
    `auditing.py`. Bounds are looked up: made once, for up to `trials` members and as many others.
    """

    def __init__(self, trials: int, *, delta: float, significance: float) -> None:
        """(trials + 1)² entries of a few tables; significance: of both bounds together."""
        from scipy.special import betaincinv

        self.delta = delta
        n, k = np.indices((trials + 1, trials + 1), dtype=np.float64)
        k = np.minimum(k, n)
        low = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, significance / 2), 0.0)
        high = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - significance / 2), 1.0)
        with np.errstate(divide="ignore"):
            self._tpr, self._fnr = np.log(np.maximum(low - delta, 0)), np.log1p(-low)
            self._fpr, self._tnr = np.log(high), np.log(np.maximum(1 - high - delta, 0))

    def bound(self, tp: Array, members: Array, fp: Array, nonmembers: Array) -> Array:
        """ε, at least 0, of counts of any one shape."""
        by_members = self._tpr[members, tp] - self._fpr[nonmembers, fp]
        by_others = self._tnr[nonmembers, fp] - self._fnr[members, tp]
        found: Array = np.maximum(np.maximum(by_members, by_others), 0.0)
        return found
