"""Makes the golden stores of the current format. Run once, when a format is released; never for an older one.

    python storage/golden/make.py [KIND…]       all kinds, or those named

Chunks are far smaller than a writer would choose, so that a few kilobytes have many of them: several inner
chunks and objects per model, padding, and examples cut along their augmentations.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from lirastore.store import LogitStore, create, layout

HERE = Path(__file__).parent
MODELS, EXAMPLES, FEW_EXAMPLES, CLASSES, POINTS = 4, 23, 7, 5, 31
COMMITTED = (0, 2, 3)


def ordinary(path: Path, rng: np.random.Generator) -> LogitStore:
    """float32; an auxiliary signal of each kind; pictures; two inner chunks per shard, six shards."""
    sizes = {"LOGITS_CHUNK_BYTES": 90, "SIGNAL_CHUNK_BYTES": 40, "MAX_SHARD_BYTES": 270}
    with mock.patch.multiple(layout, **sizes):
        return create(
            path,
            labels=rng.integers(0, CLASSES, EXAMPLES),
            membership=rng.random((MODELS, EXAMPLES)) < 0.5,
            augmentations=["identity", "shift(+2,0)"],
            classes=CLASSES,
            name="golden",
            design={"scheme": "given"},
            preview=rng.integers(0, 256, (EXAMPLES, 4, 3, 1), dtype=np.uint8),
            attackable=rng.random(EXAMPLES) < 0.8,
            signals=["token_logprob", ("share", ("model", "example"))],
        )


def cut(path: Path, rng: np.random.Generator) -> LogitStore:
    """float16; every example is cut along its augmentations, and takes two objects."""
    sizes = {"LOGITS_CHUNK_BYTES": 30, "MAX_EXAMPLE_BYTES": 60, "MAX_SHARD_BYTES": 120}
    with mock.patch.multiple(layout, **sizes):
        return create(
            path,
            labels=rng.integers(0, CLASSES, FEW_EXAMPLES),
            membership=rng.random((MODELS, FEW_EXAMPLES)) < 0.5,
            augmentations=["identity", "flip", *(f"größer({i})" for i in range(7))],
            classes=CLASSES,
            dtype="float16",
        )


def signals_only(path: Path, rng: np.random.Generator) -> LogitStore:
    """No logits, no labels, as for a language model; chunks as a writer chooses them."""
    return create(
        path,
        labels=np.full(EXAMPLES, -1),
        membership=rng.random((MODELS, EXAMPLES)) < 0.5,
        augmentations=1,
        signals=["token_logprob"],
    )


def population(path: Path, rng: np.random.Generator) -> LogitStore:
    """Population points and features; several inner chunks and objects of the points."""
    with mock.patch.multiple(layout, SIGNAL_CHUNK_BYTES=40, MAX_SHARD_BYTES=150):
        return create(
            path,
            labels=rng.integers(0, CLASSES, EXAMPLES),
            membership=rng.random((MODELS, EXAMPLES)) < 0.5,
            augmentations=["identity"],
            classes=CLASSES,
            population=POINTS,
            features=rng.normal(0, 1, (EXAMPLES, 3)).astype(np.float32),
        )


KINDS: dict[str, Callable[[Path, np.random.Generator], LogitStore]] = {
    "ordinary": ordinary,
    "cut": cut,
    "signals-only": signals_only,
    "population": population,
}


def fill(store: LogitStore, rng: np.random.Generator) -> None:
    """Commits all models but one through the public writer."""
    given = [name for name in store.arrays if name != layout.SCALED_LOGIT or store.info.classes is None]
    for model in COMMITTED:
        with store.writer(model, metadata={"source_id": f"run-{model}", "test_accuracy": 0.5}) as writer:
            values = {}
            for name in given:
                spec = store.arrays[name]
                values[name] = rng.normal(0, 4, (spec.examples, *spec.example_shape)).astype(spec.dtype)
            if layout.POPULATION in values:
                writer.write_population(values.pop(layout.POPULATION))
            writer.write(values.pop(layout.LOGITS, None), examples=slice(0, store.info.examples), **values)


def main(kinds: list[str]) -> None:
    document = HERE / f"format-{layout.FORMAT}.json"
    digests = json.loads(document.read_text(encoding="utf-8")) if kinds else {}
    for seed, (name, make) in enumerate(KINDS.items()):
        if kinds and name not in kinds:
            continue
        path = HERE / f"format-{layout.FORMAT}-{name}.lira"
        shutil.rmtree(path, ignore_errors=True)
        rng = np.random.default_rng(seed)
        store = make(path, rng)
        fill(store, rng)
        numbers = {
            array: np.stack([store.read(array, model, 0, spec.examples) for model in COMMITTED])
            for array, spec in store.arrays.items()
        }
        for plain in store.plain:
            numbers[plain] = store.read_plain(plain)
        np.savez_compressed(path.with_suffix(".npz"), **numbers)
        digests[path.name] = {
            "augmentations": list(store.info.augmentations),
            "fingerprint": store.info.fingerprint,
            "models": {model: commit.digest for model, commit in store.commits().items()},
            "set_digest": store.set_digest(),
        }
    text = json.dumps(digests, indent=1, ensure_ascii=False) + "\n"
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
