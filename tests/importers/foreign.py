"""Makes small experiments, and writes them as other tools lay them out."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lirastore import subsets
from lirastore.store import LogitStore


@dataclass(frozen=True)
class Truth:
    """An experiment: logits (M, E, A, C), membership (M, E), labels (E,), images (E, 4, 4, 3) uint8."""

    logits: np.ndarray
    membership: np.ndarray
    labels: np.ndarray
    images: np.ndarray

    @property
    def models(self) -> int:
        return len(self.logits)

    def with_logits(self, logits: np.ndarray) -> Truth:
        return replace(self, logits=logits)

    @property
    def scaled(self) -> np.ndarray:
        """φ (M, E, A) in float64, by its definition."""
        logits = self.logits.astype(np.float64)
        others = np.ones(logits.shape[-1], dtype=bool)[None, :] & (
            np.arange(logits.shape[-1])[None, :] != self.labels[:, None]
        )
        true = np.take_along_axis(logits, self.labels[None, :, None, None], axis=-1)[..., 0]
        rest = np.where(others[None, :, None, :], logits, -np.inf)
        return true - np.logaddexp.reduce(rest, axis=-1)


def experiment(models=4, examples=53, augmentations=2, classes=5, seed=0, dtype=np.float32) -> Truth:
    """Random logits, masks of the reference design, labels of every class."""
    random = np.random.default_rng(seed)
    return Truth(
        logits=(3 * random.standard_normal((models, examples, augmentations, classes))).astype(dtype),
        membership=subsets.draw("carlini", models=models, examples=examples),
        labels=np.arange(examples, dtype=np.int64) % classes,
        images=random.integers(0, 256, (examples, 4, 4, 3), dtype=np.uint8),
    )


def hparams(model: int, models: int | None) -> dict[str, Any]:
    """What train.py of the reference code writes."""
    return {
        "mnist": False,
        "epochs": 20,
        "expid": None if models is None else model,
        "num_experiments": models,
        "pkeep": 0.5,
        "arch": "wrn28-2",
        "lr": 0.1,
        "batch": 256,
        "seed": model if models is None else 1000 + model,
    }


def carlini(
    path: Path,
    truth: Truth,
    *,
    seeds: bool = False,
    fork: bool = False,
    kind: str = "logits",
    epochs: tuple[int, ...] = (20,),
) -> Path:
    """The log directory of research/mi_lira_2021. Outputs differ by their epoch's distance to the last."""
    path.mkdir()
    np.save(path / "x_train.npy", truth.images / 127.5 - 1)
    np.save(path / "y_train.npy", truth.labels)
    for model in reversed(range(truth.models)):  # no order may be relied upon
        run = path / (f"experiment-{model}" if seeds else f"experiment-{model}_{truth.models}")
        (run / kind).mkdir(parents=True)
        (run / "ckpt").mkdir()
        np.save(run / "keep.npy", truth.membership[model])
        (run / "hparams.json").write_text(json.dumps(hparams(model, None if seeds else truth.models)))
        values = truth.logits[model][:, None] if kind == "logits" else truth.scaled[model]
        for epoch in epochs:
            name = f"{epoch:010d}_{truth.logits.shape[2]:04d}.npy" if fork else f"{epoch:010d}.npy"
            np.save(run / kind / name, values + values.dtype.type(epochs[-1] - epoch))
    return path


def run_of(source: Path, model: int) -> Path:
    """A model's directory in a log directory."""
    return next(source.glob(f"experiment-{model}_*"))


def logits_of(source: Path, model: int, epoch: int = 20) -> Path:
    return run_of(source, model) / "logits" / f"{epoch:010d}.npy"


def npz(path: Path, truth: Truth, *, compressed: bool = False, **members: Any) -> Path:
    """One archive of all models. Members given replace the usual ones; None leaves one out."""
    usual = {"logits": truth.logits, "membership": truth.membership, "label": truth.labels}
    save = np.savez_compressed if compressed else np.savez
    save(path, **{name: value for name, value in {**usual, **members}.items() if value is not None})
    return path


def npz_directory(path: Path, truth: Truth, **members: Any) -> Path:
    """One archive per model."""
    path.mkdir()
    for model in range(truth.models):
        usual = {
            "logits": truth.logits[model],
            "membership": truth.membership[model],
            "label": truth.labels,
        }
        np.savez(path / f"model-{model}.npz", **{**usual, **members})
    return path


def assert_holds(store: LogitStore, truth: Truth, models: list[int] | None = None) -> None:
    """Every value that the store has of `models` (default all) is the truth's, and it has no other models."""
    models = list(range(truth.models)) if models is None else models
    examples = len(truth.labels)
    assert store.committed().tolist() == models
    np.testing.assert_array_equal(store.labels(), truth.labels)
    np.testing.assert_array_equal(store.membership(models), truth.membership[models])
    dtype = np.dtype(store.info.dtype)
    for model in models:
        read = store.read("logits", model, 0, examples)
        np.testing.assert_array_equal(read, truth.logits[model].astype(dtype))
        scaled = truth.with_logits(truth.logits.astype(dtype)).scaled[model]
        found = store.read("scaled_logit", model, 0, examples)
        np.testing.assert_allclose(found, scaled, rtol=2e-6, atol=2e-6)


def files_under(path: Path) -> set[Path]:
    return set(path.rglob("*")) if path.exists() else set()
