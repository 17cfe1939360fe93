"""What attacks may know of a store before anything of it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.attacks import Facts, Sizes
from lirastore.engine.reading import signal_arrays
from lirastore.store.layout import POPULATION

if TYPE_CHECKING:
    from lirastore.store import LogitStore

__all__ = ["facts_of", "population_points"]

Float = npt.NDArray[np.floating[Any]]
Int64 = npt.NDArray[np.int64]


def facts_of(store: LogitStore, models: Int64, labels: Int64, seed: int) -> Facts:
    """The facts of a run over the committed `models` (M,), with the store's `labels` (E,)."""
    info = store.info
    return Facts(
        name=info.name,
        arrays=frozenset(signal_arrays(store)),
        augmentations=info.augmentations,
        models=models,
        sizes=Sizes(
            models=len(models),
            examples=info.examples,
            queries=len(info.augmentations),
            classes=info.classes or 0,
            largest_class=int(np.unique(labels, return_counts=True)[1].max()),
        ),
        seed=seed,
        fewest_non_members=_fewest_non_members(store, models),
        population=_population(store, models),
        features=_features(store),
    )


def _fewest_non_members(store: LogitStore, models: Int64) -> int:
    others = ~store.membership(models)
    attackable = store.attackable()
    if attackable is not None:
        others &= attackable
    return int(others.sum(axis=1).min(initial=others.shape[1]))


def population_points(store: LogitStore) -> int:
    """Z, how many points the store's population has; 0 if there is none."""
    return store.arrays[POPULATION].examples if POPULATION in store.arrays else 0


def _population(store: LogitStore, models: Int64) -> Callable[[], Float] | None:
    points = population_points(store)
    if not points:
        return None

    def read() -> Float:
        rows = [store.read(POPULATION, model, 0, points).reshape(points) for model in models.tolist()]
        return np.stack(rows).astype(np.float32, copy=False)

    return read


def _features(store: LogitStore) -> Callable[[int, int], Float] | None:
    if "features" not in store.plain:
        return None

    def read(start: int, stop: int) -> Float:
        return np.asarray(store.features(start, stop), dtype=np.float32)

    return read
