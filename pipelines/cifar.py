"""CIFAR-10 and CIFAR-100: shadow models trained on the device, their logits streamed into the store.

Three recipes (RECIPES). `paper` is that of Carlini et al., "Membership Inference Attacks From First
Principles", S&P 2022: WRN28-2, 100 epochs. `fast` learns 25,000 pictures by heart in a smaller network. `cpu`
shows the order of the attacks on two cores: 16 models on the first few thousand pictures.

The examples are the training pictures, or the first of them, each in the training set of half of the models.
The test pictures are the population: no model is trained on them, accuracy is measured on them, and RMIA and
Ye's population attack rank against them.

Data and augmentation live on the device: pictures stay there as uint8 (154 MB for 50,000), and a batch is
gathered, shifted and mirrored in one go. An epoch goes through all members in random order, in batches of
equal size, to within one, none larger than `batch`: with a smaller last batch its members would weigh more,
and its BatchNorm statistics be noisier; without it some members would be left out.

A model's initial weights, order and augmentations are drawn on the CPU from (seed, model) alone. So neither
who else is trained, nor when, nor beside whom matters; devices, versions of torch, and on the CPU numbers of
threads, sum in other orders, which changes the last bits at first and, over a training, more.

Networks see pixels from −1 to 1, as in the reference code: no mean or deviation is taken from the data. At
inference BatchNorm uses its running statistics; the reference code took those of each batch, in which
examples of one batch change each other's logits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lirastore
from lirastore.errors import InputError, SourceError
from lirastore.pipelines import cifar_data, core, running
from lirastore.pipelines.cifar_data import CLASSES, Split
from lirastore.pipelines.core import torch
from lirastore.pipelines.networks import NETWORKS, network
from lirastore.pipelines.pictures import SHIFT, Pictures, inputs, merlin, queries, scaled_logit, view, views

__all__ = ["RECIPES", "CifarTrainer", "Recipe", "prepare", "train"]

INFERENCE = "eval mode: BatchNorm uses its running statistics"


@dataclass(frozen=True)
class Recipe:
    """What models are trained on, how, and what is asked of them."""

    models: int
    dataset: str = "CIFAR-10"
    examples: int = 50_000  # the first of the training pictures
    population: int = 10_000  # the first of the test pictures
    queries: int = 18  # 1, 2, 18 or 162
    noise_queries: int = 100  # Merlin's; 0: none, and no array for them

    network: str = "wrn28"  # or "resnet9"
    width: int = 2  # of wrn28: times 16 channels; of resnet9: channels of the first layer
    stride: int = 1  # of the first convolution; 2 is four times as fast

    epochs: int = 100
    batch: int = 256  # at most
    lr: float = 0.1
    warmup: float = 0.01  # share of the training in which the learning rate rises
    cosine: float = 7 / 16  # how far it then falls along the cosine, in units of π: ½ is down to nought
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4  # of the weights; not of biases, nor BatchNorm's scales
    mirror: bool = True  # half of the pictures
    shift: int = 4  # pixels, at most

    bf16: bool = True  # autocast; the last layer is float32 all the same
    channels_last: bool = True
    compile: bool = False  # torch.compile
    inference_batch: int = 1000


RECIPES = {
    "paper": Recipe(models=256),
    "fast": Recipe(
        models=64,
        noise_queries=20,
        network="resnet9",
        width=64,
        epochs=40,
        batch=512,
        lr=0.2,
        warmup=0.15,
        cosine=0.5,
        nesterov=True,
    ),
    "cpu": Recipe(
        models=16,
        examples=4_000,
        population=2_000,
        queries=2,
        noise_queries=20,
        network="resnet9",
        width=16,
        stride=2,
        epochs=30,
        batch=64,
        warmup=0.1,
        cosine=0.5,
        nesterov=True,
        shift=0,
        inference_batch=250,
    ),
}
"""cpu mirrors pictures and does not shift them: 2,000 members are then learned by heart within 30 epochs, and
both queries show what networks were trained on. Where either is not so, variances that an example takes from
seven or eight models put lira_online behind attacks that take means only.

On an AVX-512 core that knows bfloat16, bf16 with channels_last was the fastest of the four ways in cpu's
network; compile gained nothing, and costs each process its start. On a GPU nothing was measured: compile is
off, and `--set compile=true` worth a try."""


# --- training -------------------------------------------------------------------------------------


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """That of step `step` of `steps`: a linear rise over the warm-up, times a falling part of a cosine."""
    rise = min(1.0, (step + 1) / max(1.0, recipe.warmup * steps))
    return recipe.lr * rise * math.cos(math.pi * recipe.cosine * step / steps)


class CifarTrainer(core.Trainer):
    """Trains and asks the models of one store on one device."""

    def __init__(
        self, store: lirastore.Store, device: torch.device, *, data: str | Path, unchecked: bool
    ) -> None:
        """Raises SourceError if the files are not those that the store was planned with."""
        self.store, self.device = store, device
        self.recipe = core.settings(store, Recipe)
        self.seed = int(store.info.design["seed"])
        examples, population = _data(self.recipe, data, download=False, unchecked=unchecked)
        _refuse_other_data(store, data, examples, population)
        self.examples = Pictures.of(examples.pictures, examples.labels, device)
        self.population = Pictures.of(population.pictures, population.labels, device)
        self.queries = queries(self.recipe.queries)

    def fit(self, model: int, epoch: core.Epoch) -> torch.nn.Sequential:
        """See `core.Trainer.fit`."""
        recipe, generator = self.recipe, core.generator(self.seed, model)
        net = self._network(generator)
        compiled = torch.compile(net, dynamic=False) if recipe.compile else net
        optimiser = _optimiser(recipe, net)
        members = torch.from_numpy(self.store.keep_mask(model)).nonzero()[:, 0]
        steps = -(-len(members) // recipe.batch)
        for number in range(recipe.epochs):
            loss = torch.zeros((), device=self.device)
            for step, batch in enumerate(self._batches(members, steps, generator), number * steps):
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(recipe, step, recipe.epochs * steps)
                loss += self._step(compiled, optimiser, *batch)
            epoch(loss / len(members), len(members))
        return net

    def write(self, net: torch.nn.Sequential, model: int, writer: lirastore.ModelWriter) -> None:
        """See `core.Trainer.write`.

        Memory on the device, beside the pictures: the activations of `inference_batch` pictures, and their
        logits for all queries: 65 MB for 1,000 pictures, 162 queries and 100 classes. Merlin's noise is drawn
        there, from the store's seed alone: the same for all models trained on devices of one kind.
        """
        net.eval()
        noise = torch.Generator(self.device).manual_seed(self.seed)
        correct = []
        with torch.inference_mode():
            for part in _parts(len(self.examples), self.recipe.inference_batch):
                some = self.examples[part]
                logits = torch.stack([self._ask(net, view(some.pictures, q)) for q in self.queries], dim=1)
                writer.write(logits, examples=part, **self._merlin(net, some, noise))
                correct.append(logits[:, 0].argmax(dim=1) == some.labels)
            self._write_population(net, writer)
        right = torch.cat(correct).cpu()
        member = torch.from_numpy(self.store.keep_mask(model))
        writer.metadata["train_accuracy"] = float(right[member].float().mean())
        writer.metadata["out_accuracy"] = float(right[~member].float().mean())

    def _network(self, generator: torch.Generator) -> torch.nn.Sequential:
        recipe, classes = self.recipe, CLASSES[self.recipe.dataset]
        net = network(
            recipe.network, width=recipe.width, stride=recipe.stride, classes=classes, generator=generator
        )
        form = torch.channels_last if recipe.channels_last else torch.contiguous_format
        return net.to(self.device).to(memory_format=form)

    def _batches(
        self, members: torch.Tensor, steps: int, generator: torch.Generator
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """An epoch: all members in random order, as inputs and labels, in `steps` batches."""
        drawn = draw_epoch(self.recipe, members, generator)
        order, flip, down, right = (each.to(self.device) for each in drawn)
        parts = [each.tensor_split(steps) for each in (order, flip, down, right)]
        for some, mirrored, lower, sideways in zip(*parts, strict=True):
            pictures = views(self.examples.pictures, some, flip=mirrored, down=lower, right=sideways)
            yield self._inputs(pictures), self.examples.labels[some]

    def _step(
        self, net: Any, optimiser: torch.optim.Optimizer, x: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """One step down the loss; returns its sum over the batch, before the step."""
        with core.autocast(self.device, bf16=self.recipe.bf16):
            loss = torch.nn.functional.cross_entropy(net(2 * x - 1), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach() * len(labels)

    def _inputs(self, pictures: torch.Tensor) -> torch.Tensor:
        return inputs(pictures, channels_last=self.recipe.channels_last)

    def _logits(self, net: torch.nn.Sequential, x: torch.Tensor) -> torch.Tensor:
        """Inputs from 0 to 1 -> float32 (n, classes)."""
        with core.autocast(self.device, bf16=self.recipe.bf16):
            logits: torch.Tensor = net(2 * x - 1)
        return logits.float()

    def _ask(self, net: torch.nn.Sequential, pictures: torch.Tensor) -> torch.Tensor:
        return self._logits(net, self._inputs(pictures))

    def _merlin(
        self, net: torch.nn.Sequential, some: Pictures, noise: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The array `merlin` of some examples, if the store has one."""
        count = self.recipe.noise_queries
        if not count:
            return {}

        def phi(x: torch.Tensor) -> torch.Tensor:
            return scaled_logit(self._logits(net, x), some.labels)

        return {"merlin": merlin(phi, self._inputs(some.pictures), count, noise)}

    def _write_population(self, net: torch.nn.Sequential, writer: lirastore.ModelWriter) -> None:
        """φ of the test pictures, and how many of them are classified right."""
        if not len(self.population):
            return
        parts = _parts(len(self.population), self.recipe.inference_batch)
        logits = torch.cat([self._ask(net, self.population[part].pictures) for part in parts])
        labels = self.population.labels
        writer.write_population(scaled_logit(logits, labels))
        writer.metadata["test_accuracy"] = float((logits.argmax(dim=1) == labels).float().mean())


def draw_epoch(recipe: Recipe, members: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """The members in random order, which are mirrored, and by how much they are shifted: (n,) each."""
    count = len(members)
    order = members[torch.randperm(count, generator=generator)]
    flip = torch.rand(count, generator=generator) < (0.5 if recipe.mirror else 0.0)
    down, right = torch.randint(-recipe.shift, recipe.shift + 1, (2, count), generator=generator)
    return order, flip, down, right


def _optimiser(recipe: Recipe, net: torch.nn.Sequential) -> torch.optim.SGD:
    weights = [part for part in net.parameters() if part.dim() > 1]
    others = [part for part in net.parameters() if part.dim() <= 1]
    return torch.optim.SGD(
        [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=True,
    )


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


# --- the store ------------------------------------------------------------------------------------


def prepare(
    path: str | Path,
    *,
    recipe: str | None = None,
    models: int | None = None,
    seed: int | None = None,
    data: str | Path = "data",
    download: bool = False,
    unchecked: bool = False,
    **changes: Any,
) -> lirastore.Store:
    """Makes the store at `path`, or opens the one there if it holds what is asked for (see `core.prepare`).

    data: the directory in which torchvision finds the set, or puts it by `download`. unchecked: its files may
    be others than the published ones; they are unpickled, which can run code. changes: fields of the Recipe.
    """

    def plan(chosen: Recipe) -> dict[str, Any]:
        _check(chosen)
        examples, population = _data(chosen, data, download=download, unchecked=unchecked)
        return {
            "labels": examples.labels,
            "classes": CLASSES[chosen.dataset],
            "augmentations": [query.name for query in queries(chosen.queries)],
            "signals": [("merlin", ("model", "example"))] if chosen.noise_queries else [],
            "population": len(population) or None,
            "preview": examples.pictures,
            "name": _name(chosen, str(recipe), changes, unchecked),
            "training": {"data_sha256": cifar_data.digest(examples, population), "inference": INFERENCE},
        }

    return core.prepare(
        path,
        pipeline="cifar",
        recipes=RECIPES,
        recipe=recipe,
        changes=changes,
        models=models,
        seed=seed,
        plan=plan,
    )


def train(
    store: lirastore.Store,
    *,
    models: Iterable[int] | None = None,
    data: str | Path = "data",
    download: bool = False,
    unchecked: bool = False,
    shard: tuple[int, int] | None = None,
    device: str | None = None,
    together: int = 1,
    progress: bool = True,
) -> list[int]:
    """Trains the models that are not committed yet; returns the ids committed now. See `running.train`."""
    if download:  # here, once, not in each process
        _data(core.settings(store, Recipe), data, download=True, unchecked=unchecked)
    make = functools.partial(CifarTrainer, data=data, unchecked=unchecked)
    return running.train(
        store, make, models=models, shard=shard, device=device, together=together, progress=progress
    )


def _data(recipe: Recipe, data: str | Path, *, download: bool, unchecked: bool) -> tuple[Split, Split]:
    """The examples and the population of a recipe. Raises InputError if there are fewer than it wants."""
    splits = cifar_data.load(recipe.dataset, data, download=download, unchecked=unchecked)
    wanted = {"examples": recipe.examples, "population": recipe.population}
    for split, (name, count) in zip(splits, wanted.items(), strict=True):
        if count > len(split):
            raise InputError(f"{name} = {count}: {recipe.dataset} in {data} has {len(split)}; set it to that")
    return splits[0].first(recipe.examples), splits[1].first(recipe.population)


def _refuse_other_data(store: lirastore.Store, data: str | Path, examples: Split, population: Split) -> None:
    found, planned = cifar_data.digest(examples, population), (store.info.training or {})["data_sha256"]
    if found != planned:
        raise SourceError(
            f"the pictures in {data} have sha256 {found[:12]}…, those that {store.path} was planned with "
            f"{planned[:12]}…, and all its models are trained on the same: give the directory that was used"
        )


def _name(recipe: Recipe, name: str, changes: dict[str, Any], unchecked: bool) -> str:
    """The data set's name comes first: the published values are found by it."""
    changed = ", ".join(f"{field}={value}" for field, value in changes.items() if field != "dataset")
    parts = [
        recipe.dataset,
        f"recipe {name}" + (f" ({changed})" if changed else ""),
        *([f"the first {recipe.examples:,} training images"] if recipe.examples < 50_000 else []),
        *(["files of unchecked origin"] if unchecked else []),
    ]
    return ", ".join(parts)


def _check(recipe: Recipe) -> None:
    """Refuses values that no training could start with; InputError names them all."""
    queries(recipe.queries)
    fits = {
        "examples": (recipe.examples >= 4, "at least 4"),
        "population": (recipe.population >= 0, "at least 0"),
        "noise_queries": (recipe.noise_queries >= 0, "at least 0"),
        "network": (recipe.network in NETWORKS, " or ".join(NETWORKS)),
        "width": (recipe.width >= 1, "at least 1"),
        "stride": (recipe.stride in (1, 2), "1 or 2"),
        "epochs": (recipe.epochs >= 1, "at least 1"),
        "batch": (recipe.batch >= 2, "at least 2"),
        "lr": (0 < recipe.lr < math.inf, "more than 0"),
        "warmup": (0 <= recipe.warmup <= 1, "a share, 0 to 1"),
        "cosine": (0 <= recipe.cosine <= 0.5, "0 to 0.5"),
        "momentum": (0 <= recipe.momentum < 1, "0 to less than 1"),
        "nesterov": (not recipe.nesterov or recipe.momentum > 0, "false, without momentum"),
        "weight_decay": (0 <= recipe.weight_decay < math.inf, "at least 0"),
        "shift": (0 <= recipe.shift <= SHIFT, f"0 to {SHIFT}"),
        "inference_batch": (recipe.inference_batch >= 1, "at least 1"),
    }
    wrong = [
        f"{name} = {getattr(recipe, name)!r}: expected {expected}"
        for name, (right, expected) in fits.items()
        if not right
    ]
    if wrong:
        raise InputError("; ".join(wrong))
