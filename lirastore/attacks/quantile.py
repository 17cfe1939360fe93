"""Quantile regression (Bertran et al. 2023): what would the hinge of a non-member hardly exceed?"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks import crossfit
from lirastore.attacks.block import Block
from lirastore.attacks.definition import Attack
from lirastore.attacks.folds import FOLDS
from lirastore.attacks.summary import Facts, Sizes, Summary

__all__ = ["LEVEL", "QUANTILE", "quantile"]

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Read = Callable[[int, int], npt.NDArray[np.floating[Any]]]

# Of the quantile: a non-member is above it once in a hundred times. A finer one has too few rows above it.
LEVEL = 0.99
# A leaf with fewer rows has, on average, none above the quantile.
_LEAF = 100
_TREES = 100
# Examples whose features are read at a time.
_STEP = 4096


@dataclass(frozen=True, eq=False)
class _Part:
    """Of a run of examples: rows to fit on, labels (e,), and over the OUT models of the folds other than each
    the sums (F, e) of the hinge and their numbers (F, e)."""

    rows: crossfit.Sample
    label: npt.NDArray[np.integer[Any]]
    sums: Float64
    counts: Float64


def _part(width: int, block: Block) -> tuple[_Part, ...]:
    hinge = block.signal("hinge", queries="first")[:, :, 0]
    out, fold = ~block.member, crossfit.fold_of(block)

    def known(models: Array, places: Array) -> Mapping[str, Array]:
        return {"example": block.examples[places], "hinge": hinge[models, places]}

    (rows,) = crossfit.draw(block, "non-members", crossfit.most_rows(width), known)
    sums, counts = (crossfit.beside(crossfit.fold_sums(of, out, fold)) for of in (hinge, np.ones_like(hinge)))
    return (_Part(rows, block.label, sums, counts),)


@dataclass(frozen=True, eq=False)
class _Given:
    """What the quantile is conditional on: the label, and the mean OUT hinge or the store's features."""

    label: npt.NDArray[np.integer[Any]]
    sums: Float64
    counts: Float64
    read: Read | None

    @classmethod
    def of(cls, parts: tuple[_Part, ...], read: Read | None) -> _Given:
        return cls(
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.sums for part in parts], axis=1),
            np.concatenate([part.counts for part in parts], axis=1),
            read,
        )

    def of_rows(self, fold: int, examples: Array, hinge: Array) -> Float32:
        """(n, …): of rows to fit on; a row's own hinge is left out of the mean."""
        if self.read is None:
            sums, counts = self.sums[fold, examples] - hinge, self.counts[fold, examples] - 1
            return _columns(self.label[examples], self._mean(fold, sums, counts))
        return _columns(self.label[examples], _gather(self.read, examples, len(self.label)))

    def of_targets(self, fold: int, start: int, stop: int) -> Float32:
        """(stop − start, …): of examples, for the targets of a fold."""
        part = slice(start, stop)
        if self.read is None:
            mean = self._mean(fold, self.sums[fold, part], self.counts[fold, part])
            return _columns(self.label[part], mean)
        return _columns(self.label[part], self.read(start, stop))

    def _mean(self, fold: int, sums: Float64, counts: Float64) -> Float64:
        """Sums divided by counts; without models, the mean over all examples."""
        overall = self.sums[fold].sum() / max(1.0, self.counts[fold].sum())
        return np.divide(sums, counts, out=np.full_like(sums, overall), where=counts > 0)


def _columns(label: Array, others: Array) -> Float32:
    return np.column_stack([label, others]).astype(np.float32)


def _gather(read: Read, examples: Array, count: int) -> Float32:
    """(n, d): the features of some examples, read in runs."""
    found = np.empty((len(examples), read(0, 1).shape[1]), np.float32)
    for start in range(0, count, _STEP):
        stop = min(start + _STEP, count)
        rows = np.flatnonzero((examples >= start) & (examples < stop))
        found[rows] = read(start, stop)[examples[rows] - start]
    return found


def _fit(width: int, read: Read | None, parts: tuple[_Part, ...]) -> Float64:
    """(F, E): the conditional quantile of every example, for the targets of each fold."""
    threads, sample = crossfit.Threads(), crossfit.join(tuple(part.rows for part in parts))
    given = _Given.of(parts, read)
    examples, hinge = sample.columns["example"], sample.columns["hinge"]
    count = len(given.label)

    def fit(fold: int) -> Float64:
        rows = crossfit.for_fold(sample, fold, crossfit.most_rows(width))
        if not len(rows):
            return np.zeros(count)
        trees = import_module("sklearn.ensemble").HistGradientBoostingRegressor(
            loss="quantile",
            quantile=LEVEL,
            max_iter=_TREES,
            min_samples_leaf=_LEAF,
            early_stopping=False,
            random_state=0,
        )
        trees.fit(given.of_rows(fold, examples[rows], hinge[rows]), hinge[rows])
        runs = [(start, min(start + _STEP, count)) for start in range(0, count, _STEP)]
        return np.concatenate([trees.predict(given.of_targets(fold, *run)) for run in runs])

    return np.stack(crossfit.fit_each(fit, threads))


def _state_bytes(width: int, sizes: Sizes) -> int:
    return crossfit.sample_bytes(sizes, width) + 32 * FOLDS * sizes.examples + 16 * sizes.examples


def _quantiles(width: int = 2, read: Read | None = None) -> Summary:
    """(F, E) float64: the conditional quantiles, with so many values given for each row."""
    return Summary(
        key="quantile/" + ("mean-out-hinge" if read is None else "features"),
        signals=("hinge",),
        chunk=partial(_part, width),
        combine=operator.add,
        finalise=partial(_fit, width, read),
        requires=(crossfit.count_rows("non-members"),),
        state_bytes=partial(_state_bytes, width),
    )


def quantile(block: Block) -> Float64:
    """(M, e) float64: hinge − q̂, q̂ the 0.99 quantile of the hinge of non-members like it; first query.

    Bertran, Tang, Roth, Kearns, Morgenstern & Wu, "Scalable Membership Inference Attacks via Quantile
    Regression", NeurIPS 2023. Hinge: z_y − max_{c≠y} z_c. Higher means member: a non-member's score is above
    0 once in a hundred times. They fit one quantile for each false positive rate; here one serves all rates,
    that of 1%, above which 200,000 rows leave 2,000. Needs logits, and scikit-learn.

    q̂: gradient-boosted trees under the pinball loss (HistGradientBoostingRegressor), given the label and the
    store's `features` of the example, if it has them, else the label and the mean hinge of its OUT models.

    Cross-fitted over 4 folds of models: q̂ of a fold is fitted on the non-members of the other folds' models,
    among the examples that may be attacked (at most 200,000 rows and 2^23 values, drawn with the seed), and
    the mean OUT hinge is over these folds' models; a row that is fitted on is left out of its own mean. An
    example without such models stands at the mean over all examples; without any non-members, q̂ is 0.
    """
    return _against(_quantiles(), block)


def _against(quantiles: Summary, block: Block) -> Float64:
    expected = block.summary(quantiles)[:, block.start : block.stop][crossfit.fold_of(block)]
    hinge = block.signal("hinge", queries="first")[:, :, 0]
    return np.asarray(hinge - expected)


def _for_store(attack: Attack, facts: Facts) -> Attack:
    """With the features that the store has, and the number of rows that they leave."""
    made_with = crossfit.require_scikit_learn(attack.name)
    width, given = 2, "mean OUT hinge"
    summary, function = attack.summaries[0], attack.function
    if facts.features is not None:
        width, given = 1 + facts.features(0, 1).shape[1], "features"
        summary = _quantiles(width, facts.features)
        function = partial(_against, summary)
    parameters = {
        **attack.parameters,
        "given": ["label", given],
        "rows": crossfit.most_rows(width),
        "scikit_learn": made_with,
    }
    return replace(attack, summaries=(summary,), function=function, parameters=parameters)


QUANTILE = Attack(
    name="quantile",
    function=quantile,
    signals=("hinge",),
    summaries=(_quantiles(),),
    parameters={"preset": "paper", "signal": "hinge", "queries": "first", "level": LEVEL, "folds": FOLDS},
    described=True,
    for_store=_for_store,
    doc=quantile.__doc__ or "",
)
