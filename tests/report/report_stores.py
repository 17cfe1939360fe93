"""A small experiment in which some examples leak, made through the public API."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import lirastore

MODELS, EXAMPLES, CLASSES = 8, 60, 3


def make_store(path: Path, *, name: str = "", preview: bool = True, **plan: Any) -> lirastore.Store:
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (EXAMPLES, 8, 6, 3), dtype=np.uint8)
    chosen = {"labels": rng.integers(0, CLASSES, EXAMPLES), "classes": CLASSES, "models": MODELS}
    return lirastore.create(
        path,
        augmentations=["identity", "flip"],
        name=name,
        preview=pictures if preview else None,
        **(chosen | plan),
    )


def commit(store: lirastore.Store, models: Iterable[int]) -> None:
    """Members among the first quarter of the examples give themselves away."""
    labels = store.logits.labels()
    for model in models:
        rng = np.random.default_rng([2, model])
        logits = rng.normal(size=(len(labels), 2, CLASSES)).astype(np.float32)
        member = store.membership[model]
        leaks = np.arange(len(labels))[member, None] < len(labels) // 4
        logits[member, :, labels[member]] += 4 * leaks
        with store.writer(model=model, metadata={"train_accuracy": 0.9, "test_accuracy": 0.5}) as writer:
            writer.write(logits, examples=slice(0, len(labels)))
