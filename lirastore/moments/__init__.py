"""Exact leave-one-out moments of the IN and OUT models: every model in turn is the target.

counts.py     which models stand beside a target: all others, or equally many IN and OUT
masked.py     reductions over marked models, without branches
downdate.py   moments of a column without each of its values in turn
medians.py    the same for medians
loo.py        `Loo`: all of it for a tile of examples
pooled.py     the variance and the standard deviation over all examples, as sums that merge
logsum.py     means of probabilities, from and as logarithms
"""

from __future__ import annotations

from lirastore.moments.counts import EqualCounts, Others, all_others, degrees_of_freedom, equal_others
from lirastore.moments.logsum import beside_log_sums, log_sum
from lirastore.moments.loo import Loo
from lirastore.moments.pooled import DeviationSums, PooledSums, PooledVariance

__all__ = [
    "DeviationSums",
    "EqualCounts",
    "Loo",
    "Others",
    "PooledSums",
    "PooledVariance",
    "all_others",
    "beside_log_sums",
    "degrees_of_freedom",
    "equal_others",
    "log_sum",
]
