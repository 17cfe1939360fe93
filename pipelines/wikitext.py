"""WikiText-103: small GPT-2s trained from scratch on windows of its text, half of the windows each.

An example is a window of `window` tokens, cut from one article, whose remainder is left out; of equal
windows only the first counts, or a model that saw one would know the other. A store has `examples` of them,
evenly spread over the corpus and numbered as they stand in it; no window of the population equals any. Tokens
are word pieces, a byte-level BPE that is learned from the whole training text: it is the same for all models,
whatever they are trained on. Each window is predicted from a token that begins it and from itself alone.

The store has no logits. `token_logprob` is t, the mean of log p over a window's tokens, in nats, and
`scaled_logit` is log(p/(1 − p)) with p = e^t, where t is cut at −1e-7; `clipped` in a model's metadata says
how often it was, of examples, their tokens if they are stored, and the population. With `tokens` there are,
after the query `identity`, which is the window, the queries `token(0)`, `token(1)`, …: the same two numbers
of each token. Attacks do not take them for queries of the window; one's own gets them by
block.signal("token_logprob", queries="tokens").

The paper (Carlini et al. 2022) trains GPT-2 small for 20 epochs, each example in half of 256 models; so does
the recipe `paper`, of which window, vocabulary, batch and learning rate are this file's choice. `cpu` is made
to show the order of the attacks in minutes: few, short windows, seen a dozen times, which lets it have the
64 models that it takes to estimate a variance for each example. With 16 of them LiRA with such variances
comes after the attacks that estimate means only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import lirastore
from lirastore.errors import InputError
from lirastore.pipelines import core, gpt, running, windows
from lirastore.pipelines.core import torch

__all__ = ["RECIPES", "Recipe", "WikiTextTrainer", "prepare", "text", "train"]

AT_ONCE = 1 << 14  # tokens that a model is asked about together: activations of 200 MB in GPT-2 small
MOST_LOGP = -1e-7  # φ of a probability of 1 would be infinite


@dataclass(frozen=True)
class Recipe:
    """What is trained, and on what. Steps are of `batch` windows; `epochs` go over a model's own windows.

    examples, population: windows of the training text, and of the validation text, which no model is trained
    on. vocabulary: tokens, the one that begins a window included. warmup: the share of the steps in which the
    learning rate rises; then it falls along half a cosine to 0. clip: the longest gradient. bf16: matrix
    products in bfloat16. tokens: store every token's numbers too. compile: with torch.compile.
    """

    models: int
    examples: int
    window: int
    vocabulary: int
    layers: int
    width: int
    heads: int
    epochs: int
    batch: int
    learning_rate: float
    warmup: float = 0.02
    weight_decay: float = 0.1
    clip: float = 1.0
    population: int = 1000
    bf16: bool = True
    tokens: bool = False
    compile: bool = False

    @property
    def shape(self) -> gpt.Shape:
        """Of the network."""
        return gpt.Shape(self.vocabulary, self.window, self.layers, self.width, self.heads)

    @property
    def queries(self) -> list[str]:
        """Names of the store's queries."""
        return ["identity"] + [f"token({place})" for place in range(self.window) if self.tokens]

    def check(self) -> None:
        """Raises InputError for numbers that make no model."""
        counts = ("examples", "population", "layers", "epochs", "batch")
        least = {"window": 2, "vocabulary": 258, **dict.fromkeys(counts, 1)}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InputError(f"{name} = {getattr(self, name)}: expected at least {value}")
        if self.heads < 1 or self.width < 1 or self.width % self.heads:
            raise InputError(f"width = {self.width} in {self.heads} heads: expected a multiple of the heads")


RECIPES = {
    "paper": Recipe(
        models=256,
        examples=180_000,
        window=512,
        vocabulary=32_000,
        layers=12,
        width=768,
        heads=12,
        epochs=20,
        batch=64,
        learning_rate=6e-4,
    ),
    "cpu": Recipe(
        models=64,
        examples=2000,
        window=8,
        vocabulary=1024,
        layers=2,
        width=128,
        heads=4,
        epochs=12,
        batch=64,
        learning_rate=2e-3,
        warmup=0.1,
    ),
}


# --- text ---------------------------------------------------------------------------------------


def text(
    store: lirastore.Store, data: str | Path, examples: Iterable[int], *, unchecked: bool = False
) -> list[str]:
    """The words of some windows, such as the most exposed; `data` as for `train`.

    A character that a window's first or last token has part of shows as U+FFFD. Raises InputError for
    examples that there are not and for other text than the store was planned with, and as `windows.load`.
    """
    wanted = list(examples)
    unknown = [example for example in wanted if not 0 <= example < store.info.examples]
    if unknown:
        raise InputError(f"no examples {unknown[:8]}; {store.path} has 0 to {store.info.examples - 1}")
    corpus = _planned(store, data, unchecked=unchecked)
    decoded: list[str] = corpus.tokenizer.decode_batch(corpus.windows[wanted].tolist())
    return decoded


def _planned(store: lirastore.Store, data: str | Path, *, unchecked: bool = False) -> windows.Corpus:
    """The corpus that the store was planned with. Raises InputError if it is another one now."""
    corpus = _load(core.settings(store, Recipe), data, unchecked=unchecked)
    recorded = store.info.training or {}
    expected, then, now = recorded.get("data_sha256"), recorded.get("tokenizers"), windows.version()
    if corpus.sha256 != expected:
        remedy = "" if then == now else f" and install tokenizers {then}, which may have learned other pieces"
        raise InputError(
            f"the text in {data} gives other windows (sha256 {corpus.sha256[:12]} …, tokenizers {now}) than "
            f"those that {store.path} was planned with ({str(expected)[:12]} …, tokenizers {then}): pass the "
            f"--data of then{remedy}, or choose another path for a store of this text"
        )
    return corpus


def _load(recipe: Recipe, data: str | Path, **options: Any) -> windows.Corpus:
    recipe.check()
    return windows.load(
        data,
        vocabulary=recipe.vocabulary - 1,  # the last id is that of the token that begins a window
        window=recipe.window,
        examples=recipe.examples,
        population=recipe.population,
        **options,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr)


# --- the store ----------------------------------------------------------------------------------


def prepare(
    path: str | Path,
    *,
    recipe: str | None = None,
    models: int | None = None,
    seed: int | None = None,
    data: str | Path = "data",
    download: bool = False,
    unchecked: bool = False,
    **changes: object,
) -> lirastore.Store:
    """Creates the store of the experiment, or opens the one at `path` if it holds what is asked for.

    data: the folder with WikiText-103's files, or with the folder `wikitext-103`. unchecked: take files that
    were cut off. changes: fields of the recipe. Raises InputError, SourceError; see `core.prepare` and
    `windows.load`.
    """
    _refuse_download(download)
    return core.prepare(
        path,
        pipeline="wikitext",
        recipes=RECIPES,
        recipe=recipe,
        changes=changes,
        models=models,
        seed=seed,
        plan=partial(_plan, data=data, unchecked=unchecked),
    )


def _refuse_download(download: bool) -> None:
    if download:
        raise InputError(
            "the wikitext pipeline downloads nothing: leave --download out, and " + windows.REMEDY
        )


def _plan(recipe: Recipe, *, data: str | Path, unchecked: bool) -> dict[str, Any]:
    corpus = _load(recipe, data, unchecked=unchecked, say=_say)
    of = f"{recipe.examples:,} windows of {recipe.window} tokens, of {corpus.articles:,} articles"
    dims = ("model", "example", "augmentation") if recipe.tokens else ("model", "example")
    return {
        "labels": np.full(recipe.examples, -1),
        "classes": None,
        "augmentations": recipe.queries,
        "signals": [("token_logprob", dims)],
        "population": recipe.population,
        "name": "WikiText-103" if corpus.whole else f"WikiText-103 (part: {of})",
        "training": {
            "data_sha256": corpus.sha256,
            "tokenizers": windows.version(),
            "inference": "log p of each token given those before it in its window; no dropout",
        },
    }


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
    """Trains what is not committed yet of `models` (None: all); see `running.train`.

    Raises InputError where the text in `data` is not what the store was planned with, and as `windows.load`.
    """
    _refuse_download(download)
    if store.pending():
        _say("text: {} and {}".format(*windows.files(data)))
    make = partial(WikiTextTrainer, data=data, unchecked=unchecked)
    return running.train(
        store, make, models=models, shard=shard, device=device, together=together, progress=progress
    )


# --- training -----------------------------------------------------------------------------------


class WikiTextTrainer(core.Trainer):
    """The windows on a device, and the recipe of the store."""

    unit = "tokens"
    strict = True  # of attention's gradients

    def __init__(
        self, store: lirastore.Store, device: torch.device, *, data: str | Path, unchecked: bool = False
    ) -> None:
        corpus = _planned(store, data, unchecked=unchecked)
        self._store, self._device = store, device
        self._recipe = core.settings(store, Recipe)
        self._seed = int(store.info.design["seed"])
        self._windows = torch.from_numpy(corpus.windows).to(device)
        self._population = torch.from_numpy(corpus.population).to(device)

    def fit(self, model: int, epoch: core.Epoch) -> gpt.GPT:
        """AdamW, the learning rate rising linearly, then falling along half a cosine."""
        recipe, generator = self._recipe, core.generator(self._seed, model)
        net = gpt.make(recipe.shape, generator, self._device)
        members = torch.from_numpy(np.flatnonzero(self._store.keep_mask(model)))
        optimiser = _optimiser(net, recipe)
        rate = _schedule(recipe, recipe.epochs * -(-len(members) // recipe.batch))
        called = torch.compile(net) if recipe.compile else net
        for _ in range(recipe.epochs):
            order = members[torch.randperm(len(members), generator=generator)].to(self._device)
            total = torch.zeros((), device=self._device)
            for batch in order.split(recipe.batch):
                optimiser.param_groups[0]["lr"] = optimiser.param_groups[1]["lr"] = next(rate)
                total += self._step(net, called, optimiser, self._windows[batch].long()) * len(batch)
            epoch(total / len(members), len(members) * recipe.window)
        return net

    def _step(
        self, net: gpt.GPT, called: Any, optimiser: torch.optim.Optimizer, windows: torch.Tensor
    ) -> torch.Tensor:
        """The mean loss of the batch, before the step."""
        with core.autocast(self._device, bf16=self._recipe.bf16):
            loss = gpt.training_loss(called, net.head, net.shifted(windows), windows)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), self._recipe.clip)
        optimiser.step()
        return loss.detach()

    @torch.inference_mode()
    def write(self, net: gpt.GPT, model: int, writer: lirastore.ModelWriter) -> None:
        """Both signals of all examples and of the population, and losses in nats a token."""
        member = torch.from_numpy(self._store.keep_mask(model)).to(self._device)
        tally = _Tally(self._device)
        for part, logp, right in self._ask(net, self._windows):
            values = self._queries(logp)
            stored = values if self._recipe.tokens else values[:, 0]
            writer.write(examples=part, scaled_logit=tally.scaled_logit(values), token_logprob=stored.float())
            tally.count("train", logp, right, member[part])
            tally.count("out", logp, right, ~member[part])
        points = []
        for _, logp, right in self._ask(net, self._population):
            points.append(tally.scaled_logit(logp.mean(dim=1)))
            tally.count("test", logp, right, torch.ones_like(right[:, 0]))
        writer.write_population(torch.cat(points))
        writer.metadata.update(tally.facts())

    def _ask(self, net: gpt.GPT, asked: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Some windows after the other, (n, T) log p of their tokens, and which are predicted right."""
        step = max(1, AT_ONCE // self._recipe.window)
        for start in range(0, len(asked), step):
            part = slice(start, min(start + step, len(asked)))
            yield part, *gpt.token_scores(net, asked[part].long(), bf16=self._recipe.bf16)

    def _queries(self, logp: torch.Tensor) -> torch.Tensor:
        """(n, T) -> (n, A): t of the window, then, if they are stored, log p of its tokens."""
        whole = logp.mean(dim=1, keepdim=True)
        return torch.cat([whole, logp], dim=1) if self._recipe.tokens else whole


class _Tally:
    """What is said of a model besides its outputs; added up on the device, in float64."""

    def __init__(self, device: torch.device) -> None:
        self._sums = {name: torch.zeros(3, dtype=torch.float64, device=device) for name in _PARTS}
        self._clipped = torch.zeros((), dtype=torch.int64, device=device)

    def scaled_logit(self, logp: torch.Tensor) -> torch.Tensor:
        """t -> φ = t − log(1 − e^t), float32, where t is cut at −1e-7."""
        self._clipped += (logp > MOST_LOGP).sum()
        cut = logp.clamp(max=MOST_LOGP)
        return (cut - torch.log(-torch.expm1(cut))).float()

    def count(self, name: str, logp: torch.Tensor, right: torch.Tensor, rows: torch.Tensor) -> None:
        """Adds the tokens of those rows of (n, T) where `rows`, (n,) bool, to one of the parts."""
        each = rows[:, None]  # and no waiting for the device to say how many
        tokens = rows.sum().double() * logp.shape[1]
        self._sums[name] += torch.stack([(logp * each).sum(), (right & each).sum().double(), tokens])

    def facts(self) -> dict[str, float | int]:
        """Mean losses, their exponentials, how often a token has the largest logit, how often t was cut."""
        found: dict[str, float | int] = {"clipped": int(self._clipped)}
        for name, sums in self._sums.items():
            logp, right, tokens = sums.tolist()
            if tokens:
                loss = -logp / tokens
                perplexity = math.exp(min(loss, 700.0))  # which is still a number
                found |= {f"{name}_loss": loss, f"{name}_perplexity": perplexity}
                found[f"{name}_accuracy"] = right / tokens
        return found


_PARTS = ("train", "out", "test")  # members, the other examples, the population


def _optimiser(net: gpt.GPT, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; biases and norms do not decay."""
    parts = list(net.parameters())
    groups = [
        {"params": [part for part in parts if part.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [part for part in parts if part.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)


def _schedule(recipe: Recipe, steps: int) -> Iterator[float]:
    """The learning rate of each step."""
    rising = max(1, round(recipe.warmup * steps))
    for step in range(steps):
        done = (step - rising) / max(1, steps - rising)
        share = (step + 1) / rising if step < rising else (1 + math.cos(math.pi * done)) / 2
        yield recipe.learning_rate * share
