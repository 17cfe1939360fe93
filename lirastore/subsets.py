"""Which examples each model trains on: the membership matrix of an experiment, drawn once from a seed.

Two designs of our own take nothing from numpy but the raw 64-bit words of its Philox counter-based
generator, whose stream numpy promises never to change, and do the rest in integers. The same arguments
therefore give the same matrix on every platform and with every numpy version. The third reproduces the
reference code of Carlini et al. (2022), so that masks drawn there and here are one and the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import InputError

__all__ = ["SCHEMES", "Scheme", "draw"]

Scheme = Literal["balanced", "bernoulli", "carlini"]

_BLOCK_WORDS: Final = 1 << 21
"""Random words held at a time: 16 MiB beyond the matrix itself. The draw does not depend on it."""


def draw(
    scheme: Scheme | str,
    *,
    models: int,
    examples: int,
    keep_fraction: float = 0.5,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Draws the membership matrix: (models, examples) bool, True where a model trains on an example.

    `balanced`   every example is in exactly ⌊keep_fraction · models + ½⌋ models, a uniformly random set
                 of them, independently of every other example. Every example thus has the same number of
                 IN and OUT models. Model sizes are *not* equalised, which would tie examples to each other:
                 they have mean examples · k / models and a standard deviation of at most √examples / 2.
    `bernoulli`  every entry is True with probability keep_fraction, independently.
    `carlini`    bit for bit what `train.py` of tensorflow/privacy research/mi_lira_2021 draws with
                 `--num_experiments models --dataset_size examples --pkeep keep_fraction`, where its
                 hard-coded seed is 0. Every example is in exactly int(keep_fraction * models) models, the
                 product in floating point. While it draws it needs 8 bytes per entry of the matrix, where
                 the other designs need 16 MiB however large the matrix is.

    Raises InputError for an unknown scheme, a count below 1, a keep_fraction outside (0, 1), a seed outside
    the generator's range, and for designs in which no example would be IN, or none OUT, of any model.
    """
    if scheme not in _DRAWS:
        raise InputError(f"unknown subset design {scheme!r}: expected one of {', '.join(SCHEMES)}")
    _check(scheme, models=models, examples=examples, keep_fraction=keep_fraction, seed=seed)
    return _DRAWS[scheme](int(models), int(examples), float(keep_fraction), int(seed))


def _balanced(models: int, examples: int, keep_fraction: float, seed: int) -> NDArray[np.bool_]:
    kept = _exact_count("balanced", math.floor(keep_fraction * models + 0.5), models, keep_fraction)
    membership = np.zeros((models, examples), dtype=np.bool_)
    for start, words in _random_words(models, examples, seed):
        chosen = words.argsort(axis=1, kind="stable")[:, :kept]
        membership[chosen, np.arange(start, start + len(words))[:, None]] = True
    return membership


def _bernoulli(models: int, examples: int, keep_fraction: float, seed: int) -> NDArray[np.bool_]:
    threshold = np.uint64(math.floor(math.ldexp(keep_fraction, 64)))  # exact: a float times a power of two
    membership = np.empty((models, examples), dtype=np.bool_)
    for start, words in _random_words(models, examples, seed):
        membership[:, start : start + len(words)] = (words < threshold).T
    return membership


def _carlini(models: int, examples: int, keep_fraction: float, seed: int) -> NDArray[np.bool_]:
    kept = _exact_count("carlini", int(keep_fraction * models), models, keep_fraction)
    # numpy froze this generator (NEP 19): the legacy stream is the reference, so it must be this one.
    uniform = np.random.RandomState(seed).uniform(0, 1, (models, examples))
    membership = np.empty((models, examples), dtype=np.bool_)
    step = max(1, _BLOCK_WORDS // models)
    for start in range(0, examples, step):
        columns = slice(start, min(start + step, examples))
        membership[:, columns] = uniform[:, columns].argsort(0) < kept
    return membership


_DRAWS: Final[dict[str, Callable[[int, int, float, int], NDArray[np.bool_]]]] = {
    "balanced": _balanced,
    "bernoulli": _bernoulli,
    "carlini": _carlini,
}
SCHEMES: Final = tuple(_DRAWS)


def _random_words(models: int, examples: int, seed: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """The generator's words, example by example: (first example, (examples of the block, models) uint64)."""
    generator = np.random.Philox(key=seed)
    step = max(1, _BLOCK_WORDS // models)
    for start in range(0, examples, step):
        count = min(step, examples - start)
        yield start, generator.random_raw(count * models).reshape(count, models)


def _exact_count(scheme: str, kept: int, models: int, keep_fraction: float) -> int:
    """The number of models that hold an example; refuses designs without any IN or any OUT model."""
    if 1 <= kept <= models - 1:
        return kept
    side = "no model" if kept < 1 else "every model"
    raise InputError(
        f"keep_fraction {keep_fraction} of {models} model(s) puts every example into {side} under the "
        f"{scheme} design; it needs at least one model with and one without each example: plan more models, "
        f"choose a keep_fraction nearer to 0.5, or use the bernoulli design"
    )


def _check(scheme: str, *, models: Any, examples: Any, keep_fraction: Any, seed: Any) -> None:
    for name, count in (("models", models), ("examples", examples)):
        if not _is_integer(count) or count < 1:
            raise InputError(f"{name} is {count!r}: expected a whole number of at least 1")
    if not isinstance(keep_fraction, (int, float, np.floating)) or not 0 < keep_fraction < 1:
        raise InputError(
            f"keep_fraction is {keep_fraction!r}: expected a number strictly between 0 and 1, such as 0.5"
        )
    seeds = 2**32 if scheme == "carlini" else 2**64
    if not _is_integer(seed) or not 0 <= seed < seeds:
        raise InputError(f"seed is {seed!r}: expected a whole number from 0 to {seeds - 1}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
