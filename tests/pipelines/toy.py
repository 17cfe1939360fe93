"""A pipeline of one linear layer. The environment says what is to go wrong: TOY=hang-fit:2,kill:3.

Faults name a model each. `hang-fit` and `hang-write` leave the process id in the file `at-<model>` beside the
store and wait until something ends them; `kill` is SIGKILL; the others are in `_fault`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lirastore
from lirastore.pipelines import core, running

EXAMPLES, FEATURES, CLASSES = 60, 5, 3
VARIABLE = "TOY"

if "pytest" not in sys.modules:
    # The public function imports torch's compiler first: longer than all else that these processes do.
    torch.use_deterministic_algorithms = torch._C._set_deterministic_algorithms


@dataclass(frozen=True)
class Recipe:
    """What can be set."""

    models: int
    epochs: int
    learning_rate: float = 0.5
    decay: float | None = None
    nesterov: bool = False
    schedule: str = "none"
    sleep: float = 0.0  # seconds an epoch


RECIPES = {"tiny": Recipe(models=5, epochs=3), "long": Recipe(models=3, epochs=40)}


def data() -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(EXAMPLES, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, EXAMPLES)


def plan(_recipe: Recipe) -> dict[str, Any]:
    """What `lirastore.create` is given."""
    training = {"data_sha256": "0" * 64, "inference": "plain"}
    return {"labels": data()[1], "classes": CLASSES, "augmentations": 1, "name": "toy", "training": training}


def prepare(
    path: Path,
    *,
    recipe: str | None = None,
    models: int | None = None,
    seed: int | None = None,
    **changes: Any,
) -> lirastore.Store:
    """See `core.prepare`."""
    prepare = partial(core.prepare, path, pipeline="toy", recipes=RECIPES, plan=plan)
    return prepare(recipe=recipe, changes=changes, models=models, seed=seed)


def train(
    store: lirastore.Store,
    *,
    models: list[int] | None = None,
    shard: tuple[int, int] | None = None,
    device: str | None = None,
    together: int = 1,
    progress: bool = True,
) -> list[int]:
    """See `running.train`."""
    run = partial(running.train, store, Trainer, models=models, shard=shard, device=device)
    return run(together=together, progress=progress)


class Trainer(core.Trainer):
    """Trains on the whole part of a model at once."""

    def __init__(self, store: lirastore.Store, device: torch.device, faults: str | None = None) -> None:
        self.faults = (os.environ.get(VARIABLE, "") if faults is None else faults).split(",")
        inputs, labels = data()
        self.store, self.recipe = store, core.settings(store, Recipe)
        self.inputs, self.labels = torch.from_numpy(inputs).to(device), torch.from_numpy(labels).to(device)

    def fit(self, model: int, epoch: core.Epoch) -> torch.nn.Module:
        """See `core.Trainer.fit`."""
        net = torch.nn.Linear(FEATURES, CLASSES)
        generator = core.generator(self.store.info.design["seed"], model)
        weights = list(net.parameters())
        with torch.no_grad():
            for values in weights:
                values.copy_(torch.randn(values.shape, generator=generator))
        keep = torch.from_numpy(self.store.keep_mask(model))
        for _ in range(self.recipe.epochs):
            loss = torch.nn.functional.cross_entropy(net(self.inputs[keep]), self.labels[keep])
            with torch.no_grad():
                for values, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                    values -= self.recipe.learning_rate * slope
            time.sleep(self.recipe.sleep)
            self._fault("fit", model)
            epoch(loss.detach() * (torch.nan if self.wrong("nan-loss", model) else 1), int(keep.sum()))
        return net

    @torch.inference_mode()
    def write(self, net: torch.nn.Module, model: int, writer: lirastore.ModelWriter) -> None:
        """See `core.Trainer.write`."""
        logits = net(self.inputs)
        if self.wrong("nan-outputs", model):
            logits[7] = torch.nan
        writer.write(logits[:30], examples=range(30))
        self._fault("write", model)
        writer.write(logits[30:], examples=range(30, EXAMPLES))
        right = (logits.argmax(1) == self.labels).numpy()
        keep = self.store.keep_mask(model)
        writer.metadata["train_accuracy"] = float(right[keep].mean())
        writer.metadata["test_accuracy"] = float(right[~keep].mean())

    def wrong(self, fault: str, model: int) -> bool:
        """Whether that is to happen to that model."""
        return f"{fault}:{model}" in self.faults

    def _fault(self, when: str, model: int) -> None:
        if self.wrong(f"hang-{when}", model):
            mark(self.store.path, model).write_text(str(os.getpid()))
            time.sleep(600)
        if when == "write":
            return
        if self.wrong("kill", model):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.wrong("memory", model):
            raise torch.OutOfMemoryError("CUDA out of memory")
        if self.wrong("disk", model):
            raise OSError(errno.EIO, "Input/output error", "data.bin")
        if self.wrong("bug", model):
            raise ZeroDivisionError("a bug of the pipeline")


def mark(path: Path, model: int) -> Path:
    """Where a process that hangs leaves its id."""
    return path.with_name(f"at-{model}")


def logits(store: lirastore.Store) -> dict[int, np.ndarray]:
    """The outputs of every committed model, (E, A, C)."""
    return {m: store.logits.read("logits", m, 0, EXAMPLES) for m in store.committed().tolist()}


def tidy(store: lirastore.Store) -> bool:
    """Whether nothing of an unfinished attempt lies about."""
    return not [*(store.path / "_lirastore" / "staging").iterdir()]
