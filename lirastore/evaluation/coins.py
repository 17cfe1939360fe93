"""Whether membership was drawn as one-run audits need it: for each model and example a fair coin of its own.

Designs drawn by `lirastore.subsets` are known. Of any other only the matrix is known: that its entries are
independent can be contradicted by counts, never proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lirastore import subsets

if TYPE_CHECKING:
    from lirastore.store import LogitStore

__all__ = ["Membership", "contradiction", "membership_of"]

Array = np.ndarray[Any, Any]

_LEVEL = 1e-4
"""Each of the five checks below calls independent fair coins dependent with about this probability."""

_BLOCK = 8192


@dataclass(frozen=True)
class Membership:
    """How the membership of the examples that may be scored came about.

    drawn: by `lirastore.subsets`, so that examples are independent of each other for certain. fixed: every
    example is in the same number of the planned models. half: the odds are even, as far as is known. doubt:
    what contradicts even odds, or examples being independent, if they were not drawn here; None: nothing.
    """

    drawn: bool
    fixed: bool
    half: bool
    doubt: str | None


def membership_of(store: LogitStore) -> Membership:
    """Looks at the planned models, committed or not, but for those whose masks an importer did not find.

    Memory: 5 bytes per planned model and example.
    """
    unknown = store.info.design.get("unknown_masks", [])
    member = store.membership(np.setdiff1d(np.arange(store.info.models), np.asarray(unknown, np.int64)))
    attackable = store.attackable()
    if attackable is not None:
        member = member[:, attackable]
    scheme = store.info.design.get("scheme")
    counts = np.count_nonzero(member, axis=0)
    fixed = bool(counts.size and (counts == counts[0]).all())
    if scheme in subsets.SCHEMES:
        if scheme == "bernoulli":
            return Membership(True, False, store.info.design.get("keep_fraction") == 0.5, None)
        return Membership(True, True, fixed and 2 * int(counts[0]) == len(member), None)
    return Membership(False, fixed, True, contradiction(member))


def contradiction(member: Array) -> str | None:
    """What shows that (M, n) bool are not fair coins, independent from example to example; None: nothing.

    Where every example is in half of the models, only the examples need be independent of each other.
    """
    models, examples = member.shape
    if not models or not examples:
        return None
    in_example, in_model = np.count_nonzero(member, axis=0), np.count_nonzero(member, axis=1)
    fixed = bool((2 * in_example == models).all())
    if not fixed:
        if (in_example == in_example[0]).all() and examples > 1:
            return f"every example is in {in_example[0]} of {models} models, not in half of them"
        if _unlikely(in_example.sum(), models * examples):
            share = in_example.sum() / (models * examples)
            return f"{share:.1%} of the memberships are true, not half of them"
        if _spread_unlikely(in_example, models):
            return "in how many models the examples are varies otherwise than coins would let it"
    if _spread_unlikely(in_model, examples):
        return "how many examples the models hold varies otherwise than coins would let it"
    if _repeated(member, fixed):
        return "too many examples are in the same models as another, or in all the others"
    if (pair := _related_models(member, fixed)) is not None:
        return f"models {pair[0]} and {pair[1]} hold the same examples, or the opposite ones, too often"
    return None


def _unlikely(successes: Any, trials: int) -> bool:
    """Whether so many of `trials` fair coins are heads, or so few, with less than the level's probability."""
    from scipy.special import ndtr

    z = abs(2.0 * float(successes) - trials) / np.sqrt(trials)
    return bool(2 * ndtr(-z) < _LEVEL)


def _spread_unlikely(counts: Array, trials: int) -> bool:
    """Whether counts of heads vary too little or too much for binomial ones, by their χ² dispersion."""
    from scipy.special import chdtr, chdtrc

    dispersion = float(((counts - trials / 2) ** 2).sum() / (trials / 4))
    return bool(2 * min(chdtr(len(counts), dispersion), chdtrc(len(counts), dispersion)) < _LEVEL)


def _repeated(member: Array, fixed: bool) -> bool:
    """Whether more pairs of examples than by chance are in the same models, or in the opposite ones.

    By χ² over the sets of models that an example may be in, or their number of pairs by a Poisson law where
    there are more such sets than examples.
    """
    from scipy.special import binom, chdtrc, pdtrc

    models, examples = member.shape
    words = np.packbits(member ^ member[0], axis=0)  # a column and its opposite become one
    columns = np.ascontiguousarray(words.T).view(np.dtype((np.void, len(words)))).ravel()
    found = np.unique(columns, return_counts=True)[1].astype(np.float64)
    sets = binom(models, models // 2) / 2 if fixed else 2.0 ** (models - 1)
    if sets <= examples:
        return bool(chdtrc(sets - 1, sets / examples * (found**2).sum() - examples) < _LEVEL)
    pairs = (found * (found - 1)).sum() / 2
    return bool(pairs > 0 and pdtrc(pairs - 1, examples * (examples - 1) / 2 / sets) < _LEVEL)


def _related_models(member: Array, fixed: bool) -> tuple[int, int] | None:
    """Two models whose agreement over the examples is no chance, if there are any."""
    from scipy.special import ndtri

    models, examples = member.shape
    if models < 2:
        return None
    products = np.zeros((models, models))
    for start in range(0, examples, _BLOCK):
        signs = np.where(member[:, start : start + _BLOCK], np.float32(1), np.float32(-1))
        products += signs @ signs.T
    expected = -1 / (models - 1) if fixed else 0.0  # of one example: half of the models hold it
    variance = 1 - expected**2
    if variance == 0:  # two models that share every example between them
        return 0, 1
    z = np.triu(np.abs(products - examples * expected), 1) / np.sqrt(examples * variance)
    pairs = models * (models - 1) / 2
    worst = np.unravel_index(np.argmax(z), z.shape)
    return (int(worst[0]), int(worst[1])) if z[worst] > -ndtri(_LEVEL / 2 / pairs) else None
