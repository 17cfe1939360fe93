"""Shokri et al. 2017: a classifier that was trained to tell members by what models answer."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks import crossfit
from lirastore.attacks.block import Block
from lirastore.attacks.definition import Attack
from lirastore.attacks.folds import FOLDS
from lirastore.attacks.summary import Facts, Sizes, Summary

__all__ = ["SHOKRI", "shokri"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_SIGNALS = ("first_logits", "scaled_logit")
# Below any log-probability that matters, and finite whatever the logits are.
_LEAST_LOG = np.float32(-1e4)
# Boosted trees: 50 of at most 31 leaves with rate 0.1 do as well as 200 on what was tried.
_TREES = 50


@dataclass(frozen=True, eq=False)
class Classifiers:
    """One fitted classifier per fold, for the targets of that fold; None where the rows were of one kind."""

    fitted: Sequence[Any]
    threads: crossfit.Threads

    def log_odds(self, fold: int, features: Float32) -> Float64:
        """(n,): log P(member) − log P(not), as the trees sum it up; never a saturated probability."""
        classifier = self.fitted[fold]
        if classifier is None:
            return np.zeros(len(features))
        with self.threads.one():
            found: Float64 = classifier.decision_function(features)
        return found


def _features(logits: Float32, phi: Float32, label: npt.NDArray[np.integer[Any]]) -> Float32:
    """(n, C + 2): log-probabilities, the label, and φ, of rows of logits (n, C)."""
    features = np.empty((len(logits), logits.shape[1] + 2), np.float32)
    log_p = features[:, :-2]
    with np.errstate(over="ignore"):
        np.subtract(logits, logits.max(axis=1, keepdims=True), out=log_p)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    np.maximum(log_p, _LEAST_LOG, out=log_p)
    features[:, -2], features[:, -1] = label, phi
    return features


def _sample(block: Block) -> tuple[crossfit.Sample, ...]:
    logits, phi = (block.signal(name, queries="first") for name in _SIGNALS)

    def known(models: npt.NDArray[Any], places: npt.NDArray[Any]) -> Mapping[str, npt.NDArray[Any]]:
        features = _features(logits[models, places], phi[models, places, 0], block.label[places])
        return {"features": features, "member": block.member[models, places]}

    return crossfit.draw(block, "all", _rows(logits.shape[2]), known)


def _rows(classes: int) -> int:
    return crossfit.most_rows(classes + 2)


def _fit(samples: tuple[crossfit.Sample, ...]) -> Classifiers:
    threads, sample = crossfit.Threads(), crossfit.join(samples)
    features, member = sample.columns["features"], sample.columns["member"]
    most = _rows(features.shape[1] - 2)

    def fit(fold: int) -> Any:
        rows = crossfit.for_fold(sample, fold, most)
        if len(np.unique(member[rows])) < 2:
            return None
        trees = import_module("sklearn.ensemble").HistGradientBoostingClassifier(
            max_iter=_TREES, early_stopping=False, random_state=0
        )
        return trees.fit(features[rows], member[rows])

    return Classifiers(crossfit.fit_each(fit, threads), threads)


def _state_bytes(sizes: Sizes) -> int:
    return crossfit.sample_bytes(sizes, sizes.classes + 2)


CLASSIFIERS = Summary(
    key="shokri/classifiers",
    signals=_SIGNALS,
    chunk=_sample,
    combine=operator.add,
    finalise=_fit,
    requires=(crossfit.count_rows("all"),),
    state_bytes=_state_bytes,
)


def shokri(block: Block) -> Float64:
    """(M, e) float64: log-odds of membership by a classifier g of (f(x), y), first query; 0 is undecided.

    Shokri, Stronati, Song & Shmatikov, "Membership Inference Attacks Against Machine Learning Models", IEEE
    S&P 2017, as Carlini et al. 2022 run it: one g for all classes, on logits and the label. The original's
    classifiers, one per class on probabilities, are left out: each would be fitted to a C-th of the rows; and
    trees, which see order only, split on p as on log p, but where p is rounded to 1 and tells nothing more.
    Higher means member. Needs logits, and scikit-learn.

    g: gradient-boosted trees (HistGradientBoostingClassifier, 50 of at most 31 leaves, rate 0.1). It sees the
    log-probabilities of all classes (logits, centred by their logsumexp), the label, and φ, for a tree cannot
    look up a column by the label. Trees need no scaling; where log-probabilities are below −10⁴ they are cut.

    Cross-fitted over 4 folds of models: g of a fold is trained on what the other folds' models answer to the
    examples that may be attacked (at most 200,000 rows and 2^23 values, drawn with the seed). Where these are
    all members, or none is, the score is 0. A g that recognises examples also learns how many of those models
    hold each one. Where membership is independent that says nothing of the target; in a balanced design it
    speaks against it, which costs a little of the AUC.
    """
    classifiers: Classifiers = block.summary(CLASSIFIERS)
    logits, phi = (block.signal(name, queries="first") for name in _SIGNALS)
    scores, fold = np.zeros(block.member.shape), crossfit.fold_of(block)
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        features = _features(
            logits[rows].reshape(-1, logits.shape[2]), phi[rows].ravel(), np.tile(block.label, len(rows))
        )
        scores[rows] = classifiers.log_odds(number, features).reshape(len(rows), -1)
    return scores


def _for_store(attack: Attack, facts: Facts) -> Attack:
    made_with = {"scikit_learn": crossfit.require_scikit_learn(attack.name)}
    rows = {"rows": _rows(facts.sizes.classes)}
    return replace(attack, parameters={**attack.parameters, **rows, **made_with})


SHOKRI = Attack(
    name="shokri",
    function=shokri,
    signals=_SIGNALS,
    summaries=(CLASSIFIERS,),
    parameters={
        "preset": "paper",
        "features": "logits and label",
        "queries": "first",
        "classifier": "boosted trees",
        "folds": FOLDS,
    },
    described=True,
    for_store=_for_store,
    doc=shokri.__doc__ or "",
)
