"""Small experiments to run the engine on, and scores computed the long way."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lirastore import attacks, engine, store, subsets
from lirastore.errors import MemoryBudgetError
from lirastore.results import Result
from lirastore.store import LogitStore


@dataclass(frozen=True)
class Shape:
    models: int = 8
    examples: int = 300
    queries: int = 2
    classes: int = 5


def make(path: Path, shape: Shape | None = None, *, seed: int = 0, **plan: Any) -> LogitStore:
    """A store with every model committed; members are surer of their label."""
    shape = shape or Shape()
    return make_partly(path, shape, models=shape.models, seed=seed, **plan)


def make_partly(path: Path, shape: Shape, *, models: int, seed: int = 0, **plan: Any) -> LogitStore:
    """A store with the first `models` models committed."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, shape.classes, shape.examples)
    drawn = subsets.draw("balanced", models=shape.models, examples=shape.examples, seed=seed)
    plan = {"membership": drawn, "augmentations": shape.queries, "classes": shape.classes, **plan}
    made = store.create(path, labels=labels, **plan)
    for model in range(models):
        fill(made, model, seed=seed)
    return made


def fill(made: LogitStore, model: int, seed: int = 0, population: np.ndarray[Any, Any] | None = None) -> None:
    """Commits random logits for one model, and `population` (Z,), φ of its points, if there are any."""
    rng = np.random.default_rng([seed, model])
    labels, member = made.labels(), made.membership([model])[0]
    shape = (made.info.examples, len(made.info.augmentations), made.info.classes)
    logits = rng.standard_normal(shape, dtype=np.float32)
    logits[np.arange(len(labels)), :, labels] += (2 + member)[:, None]
    with made.writer(model) as writer:
        for start in range(0, len(labels), 4096):
            stop = min(start + 4096, len(labels))
            writer.write(logits[start:stop], examples=slice(start, stop))
        if population is not None:
            writer.write_population(population)


def table(made: LogitStore, result: Result) -> dict[str, np.ndarray[Any, Any]]:
    """The columns of a result, part after part."""
    parts = [pq.read_table(file) for file in result.files(made.lira)]
    return {name: np.concatenate([part[name].to_numpy() for part in parts]) for name in result.columns}


def matrix(made: LogitStore, result: Result) -> np.ndarray[Any, Any]:
    """(M, E) float64 scores; NaN where an example was not scored."""
    columns = table(made, result)
    scores = np.full((made.info.models, made.info.examples), np.nan)
    scores[columns["model"], columns["example"]] = columns["score"]
    return scores


def phi(made: LogitStore) -> np.ndarray[Any, Any]:
    """(M, E, A) float32, as stored."""
    return np.stack(
        [made.read("scaled_logit", int(model), 0, made.info.examples) for model in made.committed()]
    )


def naive_online(made: LogitStore) -> np.ndarray[Any, Any]:
    """(M, E): LiRA online, target by target, in float64."""
    values, member = phi(made).astype(np.float64), made.membership()
    scores = np.empty(member.shape)
    for target in range(len(values)):
        others = np.arange(len(values)) != target
        for example in range(member.shape[1]):
            inside = others & member[:, example]
            outside = others & ~member[:, example]
            density = [
                _log_normal(values[target, example], values[side, example]) for side in (inside, outside)
            ]
            scores[target, example] = (density[0] - density[1]).mean()
    return scores


def _log_normal(x: np.ndarray[Any, Any], sample: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    deviation = sample.std(axis=0) + 1e-30
    return -0.5 * ((x - sample.mean(axis=0)) / deviation) ** 2 - np.log(deviation)


def make_signal_only(
    path: Path, models: int = 6, examples: int = 50, signals: tuple[str, ...] = ()
) -> LogitStore:
    """A store without logits, in which all other `signals` are equal to φ."""
    drawn = subsets.draw("balanced", models=models, examples=examples, seed=0)
    labels = np.zeros(examples, np.int64)
    made = store.create(path, labels=labels, membership=drawn, augmentations=1, classes=None, signals=signals)
    for model in range(models):
        values = np.random.default_rng(model).standard_normal((examples, 1)).astype(np.float32)
        with made.writer(model) as writer:
            phi = values + drawn[model][:, None]
            writer.write(examples=slice(0, examples), scaled_logit=phi, **dict.fromkeys(signals, phi))
    return made


def age_runs(made: LogitStore, seconds: float = 3600.0) -> None:
    """Makes everything that attacks left behind look as if it had been there for so long."""
    then = time.time() - seconds
    for path in (made.lira / "results").rglob("*"):
        os.utime(path, (then, then))


def least_budget(made: LogitStore, attack: str | attacks.Attack, **options: Any) -> int:
    """The smallest memory budget that works, as the error names it."""
    with pytest.raises(MemoryBudgetError, match="--memory") as caught:
        engine.plan(made, [attacks.resolve(attack)], engine.Options(memory=1, **options))
    return int(str(caught.value).partition("--memory ")[2].split()[0])
