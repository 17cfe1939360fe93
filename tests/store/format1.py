"""Commits models the way `storage/FORMAT.md` says, with no use of the library's writer or protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lirastore.store import LogitStore
from lirastore.store.commit import Commit, keep_mask_digest
from lirastore.store.shards import ArrayWriter


def commit(
    store: LogitStore, model: int, arrays: Mapping[str, np.ndarray[Any, Any]], block: int = 7
) -> Commit:
    """Writes every array of one model (E, …), in blocks of `block` examples, then its marker."""
    objects = {}
    for name, values in arrays.items():
        directory = store.path / name / "c" / str(model)
        directory.parent.mkdir(parents=True, exist_ok=True)
        writer = ArrayWriter(directory, store.arrays[name])
        for start in range(0, len(values), block):
            writer.append(values[start : start + block])
        written = writer.finish()
        objects |= {f"{name}/c/{model}/{key}": stored for key, stored in written.items()}
    mask = keep_mask_digest(store.membership([model])[0])
    done = Commit.sealed(model, "attempt", metadata={}, keep_mask=mask, objects=objects)
    (store.lira / "commits" / f"{model}.json").write_bytes(done.to_bytes())
    return done


def random_model(store: LogitStore, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Values for every array of one model: {name: (E, …)}."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, 3, (spec.examples, *spec.example_shape)).astype(spec.dtype)
        for name, spec in store.arrays.items()
    }
