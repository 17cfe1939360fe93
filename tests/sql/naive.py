"""Metrics straight from their definitions, one threshold at a time: what the SQL is held to."""

from __future__ import annotations

import numpy as np

NAMED = {
    "tpr_at_10pct": 0.1,
    "tpr_at_1pct": 0.01,
    "tpr_at_0_1pct": 0.001,
    "tpr_at_0_01pct": 0.0001,
    "tpr_at_0_001pct": 0.00001,
}


def points(score, member):
    """(fp, tp, threshold) of every threshold, the highest first."""
    return [
        (int((~member & (score >= s)).sum()), int((member & (score >= s)).sum()), s)
        for s in sorted(set(score.tolist()), reverse=True)
    ]


def operating_point(score, member, fpr):
    """(tp, threshold) of the largest TPR at an FPR of at most `fpr`; (0, None) if no threshold qualifies."""
    n = int((~member).sum())
    qualifying = [(tp, s) for fp, tp, s in points(score, member) if fp / n <= fpr] if n else []
    return qualifying[-1] if qualifying else (0, None)


def auc(score, member):
    a, b = score[member][:, None], score[~member][None, :]
    return ((a > b).sum() + (a == b).sum() / 2) / (a.size * b.size)


def balanced_accuracy(score, member):
    n, p = (~member).sum(), member.sum()
    return max((tp / p + 1 - fp / n) / 2 for fp, tp, _ in points(score, member))


def verdict(model, score, member, fpr):
    """(predicted, threshold) of each row: the threshold is that of all the other models' rows."""
    predicted, thresholds = np.zeros(len(score), bool), np.full(len(score), np.nan)
    for target in np.unique(model):
        others = model != target
        _, threshold = operating_point(score[others], member[others], fpr)
        if threshold is not None:
            predicted[~others] = score[~others] >= threshold
            thresholds[~others] = threshold
    return predicted, thresholds
