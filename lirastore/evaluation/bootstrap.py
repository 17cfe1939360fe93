"""Percentile bootstrap intervals of an attack's metrics: examples are resampled, thresholds estimated anew.

An example is drawn with all of its models' scores, because those are not independent: the interval is for
other examples of the same kind, attacked with these models. In each replicate the threshold of a rate is the
one that the replicate's own non-members allow. Every count is of whole numbers and exact, ties are one step,
and so each TPR is the one that the resampled scores would give if they were sorted.

A pass surveys the scores; the next takes the non-members near each rate's threshold one by one, which finds
the thresholds of all replicates; the last counts the members above them. AUC and balanced accuracy are those
of the scores in 509 bins: exact for fewer distinct scores, else the ends of their intervals are off by about
a twentieth of the replicates' standard deviation.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from lirastore.evaluation.points import OPERATING_POINTS, resolved
from lirastore.evaluation.resampling import Resamples
from lirastore.evaluation.stream import Pass
from lirastore.evaluation.survey import Survey
from lirastore.evaluation.weighing import Weighing
from lirastore.evaluation.windows import Windows

__all__ = ["METRICS", "bootstrap", "replicates"]

Array = np.ndarray[Any, Any]

METRICS = ("auc", "balanced_accuracy", *OPERATING_POINTS)

_TAIL = 0.025
_MOST_UNDEFINED = 0.05
_DEVIATIONS = 5.0
_OVERSHOOT = 0.5826  # −ζ(1/2) / √(2π)
_NORMAL_MEDIAN = 0.6745  # of |x|, x standard normal


def bootstrap(
    examples: int, rows: int, resamples: Resamples
) -> Generator[Pass, None, dict[str, list[float] | None]]:
    """The 95% interval [lo, hi] of each metric, or None; of `rows` scores of a store of `examples`.

    There is none at a rate that is finer than the data resolve (non-members × FPR < 1), of fewer than two
    examples, and where over 5% of the replicates lack members or non-members.
    """
    survey, values = yield from replicates(examples, rows, resamples)
    intervals: dict[str, list[float] | None] = {}
    for metric, drawn in zip(METRICS, values[:, 1:], strict=True):
        known = drawn[~np.isnan(drawn)]
        sure = len(known) >= (1 - _MOST_UNDEFINED) * len(drawn) and survey.present.sum() > 1
        sure = sure and resolved(OPERATING_POINTS.get(metric, 0.0), survey.nonmembers)
        intervals[metric] = np.quantile(known, [_TAIL, 1 - _TAIL]).tolist() if sure else None
    return intervals


def replicates(examples: int, rows: int, resamples: Resamples) -> Generator[Pass, None, tuple[Survey, Array]]:
    """(metrics, 1 + B) of the data as they are, and of each replicate; NaN without members or non-members."""
    survey = Survey(examples, rows)
    if rows:
        yield survey.step()
    if not survey.members or not survey.nonmembers:
        return survey, np.full((len(METRICS), 1 + resamples.replicates), np.nan)
    survey.finish()
    edges, distinct = survey.edges()
    deviations, values = _DEVIATIONS, None
    while values is None:
        windows = Windows(survey, list(OPERATING_POINTS.values()), deviations)
        yield windows.step()
        windows.finish()
        values = yield from _weighed(windows, edges, distinct, resamples)
        deviations *= 2  # until a window holds everything
    return survey, values


def _weighed(
    windows: Windows, edges: Array, distinct: Array, resamples: Resamples
) -> Generator[Pass, None, Array | None]:
    """The metrics of all replicates, as many at a time as memory allows; None: a window was too narrow."""
    found = []
    for weights in resamples.chunks(len(windows.totals)):
        counted = windows.thresholds(weights)
        if counted is None:
            return None
        members, nonmembers, bounds = counted
        weighing = Weighing(weights, windows.example, edges, bounds)
        yield weighing.step()
        found.append(_metrics(weighing, distinct, members, nonmembers))
    return np.concatenate(found, axis=1)


def _metrics(weighing: Weighing, distinct: Array, members: Array, nonmembers: Array) -> Array:
    """(metrics, R) from counts."""
    with np.errstate(divide="ignore", invalid="ignore"):
        advantage = _from_above(weighing.inside) / members - _from_above(weighing.outside) / nonmembers
        # the members of a bin against the non-members below it, and half of those in it
        below = np.cumsum(weighing.outside, axis=0) - weighing.outside / 2
        auc = (weighing.inside * below).sum(axis=0) / (members * nonmembers)
        values = np.vstack([auc, (1 + _largest(advantage, distinct)) / 2, weighing.tp / members])
    values[:, (members == 0) | (nonmembers == 0)] = np.nan
    return values


def _from_above(counts: Array) -> Array:
    """Counts by bin -> counts in each bin and those above."""
    cumulated: Array = np.cumsum(counts[::-1], axis=0)[::-1]
    return cumulated


def _largest(advantage: Array, distinct: Array) -> Array:
    """(R,) largest advantage over all thresholds, from (BINS, R) that at the bins' lower edges.

    Between edges the curve is a random walk, whose maximum exceeds that at the edges by 0.5826 standard
    deviations of its step from edge to edge (Broadie, Glasserman & Kou 1997, A continuity correction for
    discrete barrier options), less the same for a walk of one step per distinct score. The step is estimated
    by the median of the second differences at the 17 edges around the maximum.
    """
    best = advantage.argmax(axis=0)
    last = max(np.flatnonzero(distinct)[-1] - 17, 1)
    inner = np.clip(best - 8, 1, last) + np.arange(17)[:, None]
    curve = np.take_along_axis(advantage, inner, axis=0) * 2
    curve -= np.take_along_axis(advantage, inner - 1, axis=0)
    curve -= np.take_along_axis(advantage, inner + 1, axis=0)
    step = np.median(np.abs(curve), axis=0) / (_NORMAL_MEDIAN * np.sqrt(2))
    around = np.maximum(np.minimum(distinct[np.maximum(best - 1, 0)], distinct[best]), 1)
    found: Array = advantage.max(axis=0) + _OVERSHOOT * step * (1 - 1 / np.sqrt(around))
    return found.clip(0, 1)
