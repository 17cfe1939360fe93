"""Real handwritten digits, some with a wrong label, and an ensemble that learns them by heart.

scikit-learn's 1,797 digits of 8×8 pixels; 64 networks (64–256–10), each digit in the training set of half
of them; all are trained at once, one batched matrix product a layer. After `make demo` their mean accuracies
are 91% on members and 87% on the others (view `models`; wrong labels count in both).

A tenth of the labels is replaced, each by one of the nine others, drawn uniformly. Such examples cannot be
learned from the rest of the data, only remembered, which makes them easy prey: `summary` therefore states the
true positive rates of clean and of randomised labels apart. Nothing has to be written down to tell them apart
later: an example was randomised if and only if the store's label differs from scikit-learn's (`randomised`).

A model's initial weights, order of examples and shifts are drawn from (seed, model) alone. So it does not
matter which models are trained together, but for the order in which a batched product sums: the last bits of
a logit may differ. Committed models are skipped; the others are trained in one go and committed one by one,
so what is lost with a killed job is at most one training of the ensemble.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import lirastore
from lirastore.errors import AlreadyCommitted, InputError, MissingDependency

try:
    import torch
    from sklearn.datasets import load_digits

    from lirastore.pipelines import core, running
except ImportError as missing:
    raise MissingDependency(
        f"the digits pipeline needs torch and scikit-learn ({missing}); pip install 'lirastore[demo]'"
    ) from missing

__all__ = ["AUGMENTATIONS", "RECIPES", "GroupRates", "Recipe", "prepare", "randomised", "summary", "train"]

SHIFTS = {  # (rows down, columns right); the same shifts are used in training and as queries
    "identity": (0, 0),
    "shift(+1,0)": (1, 0),
    "shift(-1,0)": (-1, 0),
    "shift(0,+1)": (0, 1),
    "shift(0,-1)": (0, -1),
}
AUGMENTATIONS = list(SHIFTS)
CLASSES = 10
HIDDEN = 256
BATCH = 128
LEARNING_RATE = 0.02
MODELS_AT_ONCE = 8  # of which logits are held in memory while they are written
WRITE_BATCH = 512  # examples
NOISE_QUERIES, NOISE = 100, 0.01  # Merlin's: how many, and their standard deviation in units of the inputs

Parameters = list[torch.Tensor]


# --- data ---------------------------------------------------------------------------------------


def noisy_labels(truth: npt.NDArray[np.int64], label_noise: float, seed: int) -> npt.NDArray[np.int64]:
    """Replaces the share `label_noise` of the labels, each by one of the nine others, drawn uniformly."""
    if not 0 <= label_noise <= 1:
        raise InputError(f"label_noise is {label_noise}; expected a share from 0 to 1, such as 0.1")
    rng = np.random.default_rng([seed, len(truth)])
    chosen = rng.permutation(len(truth))[: round(label_noise * len(truth))]
    labels = truth.copy()
    labels[chosen] = (truth[chosen] + rng.integers(1, CLASSES, len(chosen))) % CLASSES
    return labels


def shifted_images(images: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """(E, 8, 8) pixels from 0 to 16 -> (E, A, 64) inputs from 0 to 1, one per augmentation; zeros move in."""
    padded = np.pad(images.astype(np.float32) / np.float32(16), ((0, 0), (1, 1), (1, 1)))
    views = [padded[:, 1 - down : 9 - down, 1 - right : 9 - right] for down, right in SHIFTS.values()]
    return np.stack(views, axis=1).reshape(len(images), len(views), -1)


@dataclass(frozen=True)
class Recipe:
    """What the store is planned with."""

    models: int = 64
    epochs: int = 60
    label_noise: float = 0.1


RECIPES = {"demo": Recipe()}


def prepare(
    path: str | Path,
    *,
    recipe: str | None = None,
    models: int | None = None,
    seed: int | None = None,
    **changes: object,
) -> lirastore.Store:
    """Makes the store of the experiment, or opens the one at `path` if it holds what is asked for.

    changes: other values in the recipe, such as label_noise=0.2. Raises InputError for what does not fit.
    """
    return core.prepare(
        path,
        pipeline="digits",
        recipes=RECIPES,
        recipe=recipe,
        changes=changes,
        models=models,
        seed=seed,
        plan=partial(_plan, seed=seed or 0),
    )


def _plan(recipe: Recipe, *, seed: int) -> dict[str, Any]:
    digits = load_digits()
    return {
        "labels": noisy_labels(digits.target.astype(np.int64), recipe.label_noise, seed),
        "classes": CLASSES,
        "augmentations": AUGMENTATIONS,
        "signals": [("merlin", ("model", "example"))],
        "name": f"scikit-learn digits, {recipe.label_noise:.0%} of the labels randomised",
        "preview": np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None],
    }


def randomised(store: lirastore.Store) -> npt.NDArray[np.bool_]:
    """(E,) True where the label was replaced: where the store's label is not scikit-learn's."""
    truth = load_digits().target
    labels = store.labels
    if len(labels) != len(truth):
        raise InputError(
            f"{store.path} has {len(labels)} examples; expected scikit-learn's {len(truth)} digits. "
            "Make the store with lirastore.pipelines.digits.prepare"
        )
    wrong: npt.NDArray[np.bool_] = labels != truth
    return wrong


# --- training -----------------------------------------------------------------------------------


def train(
    store: lirastore.Store,
    *,
    models: Iterable[int] | None = None,
    shard: tuple[int, int] | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> list[int]:
    """Trains those of `models` (None: all) that are not committed yet, streams their logits into the store.

    Returns the ids of the models trained now. Raises InputError for a store that holds other data.
    """
    wrong = randomised(store)
    todo = running.left(store, models, shard)
    if not todo:
        return []
    member = store.membership
    job = Job(
        seed=int(store.info.design["seed"]),
        models=todo,
        inputs=torch.from_numpy(shifted_images(load_digits().images)).to(device),
        labels=torch.from_numpy(store.labels).to(device),
        member=torch.from_numpy(member[todo]).to(device),
        batches=-(-int(member.sum(axis=1).max()) // BATCH),
        epochs=core.settings(store, Recipe).epochs,
        progress=progress,
    )
    with core.one_thread():
        parameters = fit(job)
        _write(store, job, parameters, label_noise=float(wrong.mean()))
    return todo


@dataclass(frozen=True)
class Job:
    """What is trained together: m models on the examples that `member` gives each of them."""

    seed: int
    models: list[int]
    inputs: torch.Tensor  # (E, A, 64)
    labels: torch.Tensor  # (E,)
    member: torch.Tensor  # (m, E)
    batches: int  # an epoch; that of the largest training set of the store, whoever is trained now
    epochs: int
    progress: bool


def fit(job: Job) -> Parameters:
    """Trains the ensemble: Adam, the learning rate falling along a quarter of a cosine."""
    generators = [core.generator(job.seed, model) for model in job.models]
    parameters = [part.to(job.inputs.device).requires_grad_() for part in _initial(generators)]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
    steps = job.epochs * job.batches
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: math.cos(math.pi / 2 * step / steps))
    title = f"training {len(job.models)} models"
    for _ in tqdm(range(job.epochs), desc=title, unit="epoch", **_bar(job.progress)):
        order, weight, shift = draw_epoch(job, generators)
        for batch in torch.arange(job.batches * BATCH).split(BATCH):
            examples = order[:, batch]
            logits = forward(parameters, job.inputs[examples, shift.gather(1, examples)])
            optimiser.zero_grad()
            _loss(logits, job.labels[examples], weight[:, batch]).backward()
            optimiser.step()
            schedule.step()
    return [part.detach() for part in parameters]


def forward(parameters: Parameters, inputs: torch.Tensor) -> torch.Tensor:
    """(m, n, 64) inputs -> (m, n, 10) logits: all models in one batched product a layer."""
    weight1, bias1, weight2, bias2 = parameters
    hidden = torch.baddbmm(bias1, inputs, weight1).relu()
    return torch.baddbmm(bias2, hidden, weight2)


def _initial(generators: list[torch.Generator]) -> Parameters:
    """Normal weights of variance 2/fan-in and 1/fan-in (He), zero biases."""
    pixels, models = 64, len(generators)
    weight1 = torch.stack([torch.randn(pixels, HIDDEN, generator=g) for g in generators])
    weight2 = torch.stack([torch.randn(HIDDEN, CLASSES, generator=g) for g in generators])
    biases = torch.zeros(models, 1, HIDDEN), torch.zeros(models, 1, CLASSES)
    return [weight1 * (2 / pixels) ** 0.5, biases[0], weight2 * (1 / HIDDEN) ** 0.5, biases[1]]


def draw_epoch(
    job: Job, generators: list[torch.Generator]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An epoch's order of examples and their weights, both (m, batches·BATCH), and the shifts (m, E).

    Members in random order come first; models with fewer members than the largest are filled up with examples
    that weigh nothing.
    """
    count, device = job.member.shape[1], job.member.device
    keys = torch.stack([torch.rand(count, generator=g) for g in generators]).to(device)
    shift = torch.stack([torch.randint(len(SHIFTS), (count,), generator=g) for g in generators]).to(device)
    order = keys.masked_fill(~job.member, 2.0).argsort(dim=1)
    length = job.batches * BATCH
    order = torch.nn.functional.pad(order[:, :length], (0, max(0, length - count)), value=0)
    position = torch.arange(length, device=device)
    weight = (position < job.member.sum(dim=1, keepdim=True)).float()
    return order, weight, shift


def _loss(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return (losses * weight.flatten()).sum() / BATCH


# --- writing ------------------------------------------------------------------------------------


@torch.inference_mode()
def _write(store: lirastore.Store, job: Job, parameters: Parameters, *, label_noise: float) -> None:
    with tqdm(total=len(job.models), desc="writing logits", unit="model", **_bar(job.progress)) as bar:
        for rows in torch.arange(len(job.models)).split(MODELS_AT_ONCE):
            some = [part[rows] for part in parameters]
            inputs = job.inputs.flatten(0, 1).expand(len(rows), -1, -1)
            logits = forward(some, inputs).view(len(rows), *job.inputs.shape[:2], CLASSES)
            shares = merlin(some, job.inputs[:, 0], job.labels, job.seed)
            for row, answers, share in zip(rows.tolist(), logits, shares, strict=True):
                # somebody else's commit of the same model is as good as ours: its seed is the same
                with contextlib.suppress(AlreadyCommitted):
                    _write_model(store, job, row, answers, share, label_noise)
                bar.update()


def merlin(parameters: Parameters, inputs: torch.Tensor, labels: torch.Tensor, seed: int) -> torch.Tensor:
    """(m, E): the share of noisy copies of each example, (E, 64) inputs, with a larger loss than it has.

    The copies are the same for all models. Jayaraman et al., "Revisiting Membership Inference", PoPETs 2021.
    """
    generator = torch.Generator().manual_seed(seed)
    shares = []
    for part, label in zip(inputs.split(WRITE_BATCH), labels.split(WRITE_BATCH), strict=True):
        plain = _losses(parameters, part, label)
        larger = torch.zeros_like(plain)
        for _ in range(NOISE_QUERIES):
            noise = NOISE * torch.randn(part.shape, generator=generator)
            larger += _losses(parameters, part + noise.to(part.device), label) > plain
        shares.append(larger / NOISE_QUERIES)
    return torch.cat(shares, dim=1)


def _losses(parameters: Parameters, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(m, n): cross-entropies of the same n inputs in all models."""
    logits = forward(parameters, inputs.expand(len(parameters[0]), -1, -1))
    return logits.logsumexp(dim=2) - logits[:, torch.arange(len(labels)), labels]


def _write_model(
    store: lirastore.Store,
    job: Job,
    row: int,
    logits: torch.Tensor,
    merlin: torch.Tensor,
    label_noise: float,
) -> None:
    correct = (logits[:, 0].argmax(dim=1) == job.labels).float()
    metadata = {
        "pipeline": "digits",
        "recipe": (store.info.training or {}).get("recipe"),
        "seed": job.seed,
        "epochs": job.epochs,
        "label_noise": label_noise,
        "train_accuracy": float(correct[job.member[row]].mean()),
        "test_accuracy": float(correct[~job.member[row]].mean()),
    }
    with store.writer(model=job.models[row], metadata=metadata) as writer:
        for start in range(0, len(logits), WRITE_BATCH):
            part = slice(start, min(start + WRITE_BATCH, len(logits)))
            writer.write(logits[part], examples=part, merlin=merlin[part])


def _bar(progress: bool) -> dict[str, object]:
    return {"file": sys.stderr, "disable": None if progress else True}


# --- what came out ------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupRates:
    """True positive rates of one attack among the members of one group of labels."""

    attack: str
    labels: str  # "clean" or "randomised"
    members: int  # (model, example) pairs that the rates are shares of
    tpr_at_1pct: float
    tpr_at_0_1pct: float


_SUMMARY = """
    select s.attack,
           if(r.randomised, 'randomised', 'clean') as labels,
           count(*) as members,
           coalesce(avg((s.score >= one.threshold)::int), 0) as tpr_at_1pct,
           coalesce(avg((s.score >= tenth.threshold)::int), 0) as tpr_at_0_1pct
    from scores as s
    join randomised as r on r.example = s.example
    left join tpr_at_fpr(0.01) as one on one.attack = s.attack
    left join tpr_at_fpr(0.001) as tenth on tenth.attack = s.attack
    where s.member
    group by s.attack, r.randomised
    order by max(tpr_at_0_1pct) over (partition by s.attack) desc, s.attack, labels
"""


def summary(store: lirastore.Store) -> list[GroupRates]:
    """TPR at 1% and at 0.1% FPR of every attack that has run, for clean and for randomised labels apart.

    Both groups are judged by one threshold, that of the ROC over all examples: the FPR is that of the whole
    data, not of a group.
    """
    import pyarrow as pa

    wrong = randomised(store)
    frame = pa.table({"example": np.arange(len(wrong)), "randomised": wrong})
    with store.connect() as connection:
        connection.register("randomised", frame)
        return [GroupRates(*row) for row in connection.execute(_SUMMARY).fetchall()]
