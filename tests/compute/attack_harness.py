"""Runs attacks on arrays in memory, tile by tile with their first passes; and experiments for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks import Attack, Block, check_scores, stages


@dataclass(frozen=True)
class Experiment:
    """Signals (M, E, A) by name, and membership (M, E); `mask` is the store's `attackable`."""

    member: npt.NDArray[np.bool_]
    signals: Mapping[str, npt.NDArray[Any]]
    mask: npt.NDArray[np.bool_] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def with_options(self, **options: Any) -> Experiment:
        return Experiment(self.member, self.signals, self.mask, {**self.options, **options})

    def blocks(self, tile: int, summaries: Mapping[str, Any], signals: set[str]) -> Iterator[Block]:
        models, examples = self.member.shape
        for start in range(0, examples, tile):
            span = slice(start, min(start + tile, examples))
            yield Block(
                models=np.arange(models),
                start=span.start,
                stop=span.stop,
                member=self.member[:, span],
                label=np.zeros(span.stop - span.start, np.int64),
                augmentations=tuple(f"query{a}" for a in range(next(iter(self.signals.values())).shape[2])),
                signals={name: self.signals[name][:, span] for name in signals},
                summaries=summaries,
                attack_mask=None if self.mask is None else self.mask[span],
                **self.options,
            )


def summarise(attack: Attack, experiment: Experiment, tile: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for summaries in stages(attack.summaries):
        signals = {name for summary in summaries for name in summary.signals}
        states = [
            [summary.chunk(block) for summary in summaries]
            for block in experiment.blocks(tile, dict(values), signals)
        ]
        for summary, column in zip(summaries, zip(*states, strict=True), strict=True):
            values[summary.key] = summary.finalise(reduce(summary.combine, column))
    return values


def scores(attack: Attack, experiment: Experiment, tile: int = 64) -> npt.NDArray[np.float64]:
    """(M, E) float64, checked; examples that cannot be scored hold anything."""
    summaries = summarise(attack, experiment, tile)
    blocks = experiment.blocks(tile, summaries, set(attack.signals))
    return np.concatenate([check_scores(attack, block, attack.function(block)) for block in blocks], axis=1)


def membership(design: str, models: int, examples: int, seed: int = 0) -> npt.NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    if design == "balanced":
        return rng.random((models, examples)).argsort(axis=0) < models // 2
    return rng.random((models, examples)) < {"bernoulli": 0.5, "sparse": 0.3, "dense": 0.75}[design]


def null(design: str, models: int, examples: int, queries: int = 2, seed: int = 0) -> Experiment:
    """An experiment whose signal has nothing to do with membership."""
    rng = np.random.default_rng(seed + 1)
    hard = rng.normal(0, 2, (1, examples, 1))
    phi = (hard + rng.normal(0, 1, (models, examples, queries))).astype(np.float32)
    signals = {"scaled_logit": phi, "loss": -np.logaddexp(0, -phi).astype(np.float32), "carlini_score": phi}
    return Experiment(membership(design, models, examples, seed), signals)
