"""Runs attacks on arrays in memory, tile by tile with their first passes; and experiments for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks import Attack, Block, Facts, PerTarget, Sizes, Summary, TargetRow, check_scores, stages
from lirastore.signals import SIGNALS

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Experiment:
    """Signals (M, E, A) or (M, E, C) by name, and membership (M, E); `mask` is the store's `attackable`."""

    member: npt.NDArray[np.bool_]
    signals: Mapping[str, Array]
    mask: npt.NDArray[np.bool_] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    label: Array | None = None
    augmentations: tuple[str, ...] = ()
    name: str = ""
    arrays: frozenset[str] = frozenset({"logits", "scaled_logit"})
    population: Array | None = None
    features: Array | None = None

    def with_options(self, **options: Any) -> Experiment:
        return replace(self, options={**self.options, **options})

    @property
    def labels(self) -> Array:
        return np.zeros(self.member.shape[1], np.int64) if self.label is None else self.label

    @property
    def queries(self) -> tuple[str, ...]:
        """Names of the queries: those given, or as many as the widest signal has."""
        widest = max(
            (values.shape[2] for name, values in self.signals.items() if name != "first_logits"), default=1
        )
        return self.augmentations or tuple(f"query{query}" for query in range(widest))

    def facts(self) -> Facts:
        models, examples = self.member.shape
        first = self.signals.get("first_logits")
        sizes = Sizes(
            models=models,
            examples=examples,
            queries=len(self.queries),
            classes=0 if first is None else first.shape[2],
            largest_class=int(np.unique(self.labels, return_counts=True)[1].max()),
        )
        features = self.features
        return Facts(
            name=self.name,
            arrays=self.arrays,
            augmentations=self.queries,
            models=np.arange(models),
            sizes=sizes,
            seed=self.options.get("seed", 0),
            fewest_non_members=int(
                (~self.member & (True if self.mask is None else self.mask)).sum(axis=1).min()
            ),
            population=None if self.population is None else lambda: np.asarray(self.population),
            features=None if features is None else lambda start, stop: features[start:stop],
        )

    def blocks(self, tile: int, summaries: Mapping[str, Any], signals: set[str]) -> Iterator[Block]:
        models, examples = self.member.shape
        for start in range(0, examples, tile):
            span = slice(start, min(start + tile, examples))
            yield Block(
                models=np.arange(models),
                start=span.start,
                stop=span.stop,
                member=self.member[:, span],
                label=self.labels[span],
                augmentations=self.queries,
                signals={name: self.signals[name][:, span] for name in signals},
                summaries=summaries,
                attack_mask=None if self.mask is None else self.mask[span],
                **self.options,
            )


@dataclass(frozen=True)
class Kept:
    """A finished matrix, as the engine's file of one."""

    values: Array

    def read(self, start: int, stop: int) -> Array:
        return self.values[:, start:stop]


def summarise(attack: Attack, experiment: Experiment, tile: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for passes in stages(attack.summaries):
        signals = {name for first in passes for name in first.signals}
        states = [
            [first.chunk(block) for first in passes]
            for block in experiment.blocks(tile, dict(values), signals)
        ]
        done = {}
        for first, column in zip(passes, zip(*states, strict=True), strict=True):
            if isinstance(first, Summary):
                done[first.key] = first.finalise(reduce(first.combine, column))
            else:
                done[first.key] = _finished(first, np.concatenate(column, axis=1), experiment, values)
        values |= done
    return values


def _finished(first: PerTarget, matrix: Array, experiment: Experiment, known: Mapping[str, Any]) -> Kept:
    assert matrix.dtype == np.float64
    rows = [
        first.finish(TargetRow(target, row, experiment.member[target], experiment.mask, known))
        for target, row in enumerate(matrix)
    ]
    return Kept(np.stack(rows))


def scores(attack: Attack, experiment: Experiment, tile: int = 64) -> npt.NDArray[np.float64]:
    """(M, E) float64, checked; examples that cannot be scored hold anything."""
    attack = attack.on(experiment.facts())
    summaries = summarise(attack, experiment, tile)
    blocks = experiment.blocks(tile, summaries, set(attack.signals))
    return np.concatenate([check_scores(attack, block, attack.function(block)) for block in blocks], axis=1)


def from_logits(
    logits: Array,
    label: Array,
    member: npt.NDArray[np.bool_],
    extra: Mapping[str, Array] | None = None,
    **plan: Any,
) -> Experiment:
    """An experiment of logits (M, E, A, C), with every signal that is computed from them."""
    signals = {
        name: np.stack([signal.compute["logits"](model, label) for model in logits])
        for name, signal in SIGNALS.items()
        if "logits" in signal.compute
    }
    return Experiment(member, {**signals, **(extra or {})}, label=label, **plan)


def membership(design: str, models: int, examples: int, seed: int = 0) -> npt.NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    if design == "balanced":
        return rng.random((models, examples)).argsort(axis=0) < models // 2
    return rng.random((models, examples)) < {"bernoulli": 0.5, "sparse": 0.3, "dense": 0.75}[design]


def null(design: str, models: int, examples: int, queries: int = 2, seed: int = 0) -> Experiment:
    """An experiment whose outputs have nothing to do with membership: some examples harder than others."""
    rng = np.random.default_rng(seed + 1)
    classes = 4
    label = rng.integers(0, classes, examples)
    logits = rng.normal(0, 1, (models, examples, queries, classes)).astype(np.float32)
    hard = rng.normal(0, 2, (1, examples, 1)).astype(np.float32)
    logits[:, np.arange(examples), :, label] += hard.transpose(1, 0, 2)
    merlin = rng.integers(0, 101, (models, examples, 1)) / np.float32(100)
    member = membership(design, models, examples, seed)
    return from_logits(
        logits, label, member, {"merlin": merlin}, arrays=frozenset({"logits", "scaled_logit", "merlin"})
    )
