"""Attacks that ask the engine for everything it can give, each with its result computed the long way."""

from __future__ import annotations

from typing import Any

import engine_stores as stores
import numpy as np
import numpy.typing as npt

from lirastore.attacks import Attack, Block, PerTarget, Summary, TargetRow
from lirastore.store import LogitStore

Array = npt.NDArray[Any]


def _total(block: Block) -> tuple[Array, int]:
    values = block.signal()[:, :, 0].astype(np.float64)
    return values.sum(axis=1), values.shape[1]


MEANS = Summary(
    "means", ("scaled_logit",), _total, lambda a, b: (a[0] + b[0], a[1] + b[1]), lambda s: s[0] / s[1]
)


def _centred(block: Block) -> Array:
    return block.signal()[:, :, 0] - block.summary(MEANS)[:, None]


def _share(row: TargetRow) -> Array:
    """Share of the target's non-members with a smaller value."""
    others = np.sort(row.values[~row.member])
    return np.searchsorted(others, row.values) / len(others)


SHARES = PerTarget("shares", ("scaled_logit",), _centred, _share, requires=(MEANS,))

SHARE = Attack(
    "share", lambda block: block.summary(SHARES) + block.loo().mean_out[:, :, 0], summaries=(SHARES,)
)


def shares(made: LogitStore) -> Array:
    """(M, E): what SHARE gives, without its leave-one-out mean."""
    phi, member = stores.phi(made)[:, :, 0].astype(np.float64), made.membership()
    rows = zip(phi, member, strict=True)
    return np.stack([[(row[~inside] < value).mean() for value in row] for row, inside in rows])


def shares_by_rank(made: LogitStore) -> Array:
    """The same for stores that are too large for `shares`."""
    phi, member = stores.phi(made)[:, :, 0].astype(np.float64), made.membership()
    others = [np.sort(row[~inside]) for row, inside in zip(phi, member, strict=True)]
    pairs = zip(phi, others, strict=True)
    return np.stack([np.searchsorted(below, row) / len(below) for row, below in pairs])


def _matrices(count: int) -> Attack:
    """The mean share over as many matrices, all of them equal."""
    passes = tuple(PerTarget(f"share-{number}", ("scaled_logit",), _first, _share) for number in range(count))

    def function(block: Block) -> Array:
        return sum(block.summary(one) for one in passes) / count

    return Attack("matrices", function, summaries=passes)


def _first(block: Block) -> Array:
    return block.signal()[:, :, 0].astype(np.float64)


MATRICES = _matrices(32)


def _spread(block: Block) -> Array:
    """Largest logit less the mean of all, of the first query."""
    logits = block.signal("first_logits").astype(np.float64)
    return logits.max(axis=2) - logits.mean(axis=2)


CLASSES = Attack("classes", _spread, signals=("first_logits",))


def spreads(made: LogitStore) -> Array:
    """(M, E): what CLASSES gives."""
    logits = [made.read("logits", model, 0, made.info.examples)[:, 0] for model in made.committed().tolist()]
    values = np.stack(logits).astype(np.float64)
    return values.max(axis=2) - values.mean(axis=2)


def _nearest(block: Block) -> dict[str, Array]:
    """Every example with the one before it, if its id is a multiple of three; twice if it is of six."""
    ids = block.examples[block.examples % 3 == 0]
    ids = np.sort(np.concatenate([ids, ids[ids % 6 == 0]]))
    return {"example": ids, "other": ids - 1, "influence": ids / 2}


PAIRS = Attack("nearest", _nearest, signals=(), kind="pairs")
