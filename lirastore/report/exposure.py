"""Per-example arrays: how the attacks see each example, and what the models say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.report.content import Floats, Integers, Seen, Sketch
from lirastore.report.numbers import only

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from lirastore.store import LogitStore

__all__ = ["BINS", "by_models", "correctness", "percentiles", "ranked", "seen", "sketch", "subset"]

BINS = 24
_BLOCK = 1 << 20  # values of all models, first query, that are held at once
_BUFFER = 1 << 22  # values of one model, all queries, that are read at once


def ranked(connection: DuckDBPyConnection, attack: str) -> tuple[Integers, Integers]:
    """All examples that an attack has scored, the most exposed first, and their labels."""
    with only(connection, attack):
        found = connection.execute("select r.example, r.label from _ranked as r order by r.rank").fetchnumpy()
    return np.asarray(found["example"], np.int64), np.asarray(found["label"], np.int64)


def seen(connection: DuckDBPyConnection, attack: str, held: Integers) -> Seen:
    """All examples of the store as an attack sees them; `held` (E,): by how many of its targets."""
    with only(connection, attack):
        found = connection.execute(
            "select x.example, x.mean_score_in, x.mean_score_out, x.detected from exposure as x"
        ).fetchnumpy()
    at = np.asarray(found["example"], np.int64)
    score_in, score_out, detected = (
        _spread(at, found[name], len(held)) for name in ("mean_score_in", "mean_score_out", "detected")
    )
    scored = np.isfinite(detected)
    count = np.rint(np.where(scored, detected, 0) * held).astype(np.int64)
    return Seen(attack, score_in, score_out, count, np.where(scored, held, 0))


def _spread(at: Integers, values: Any, total: int) -> Floats:
    """(total,) with the values where they belong, and NaN where there is none."""
    placed = np.full(total, np.nan)
    placed[at] = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)
    return placed


def correctness(connection: DuckDBPyConnection, total: int) -> Floats | None:
    """(total, 2): shares of the models with, without each example that predict its label; None: not run."""
    return _pair(connection, "select example, p_correct_in, p_correct_out from memorization", total)


def percentiles(connection: DuckDBPyConnection, attack: str, total: int) -> Floats | None:
    """(total, 2): mean and standard deviation of the percentile of an example's score within its targets."""
    with only(connection, attack):
        return _pair(
            connection, "select s.example, s.mean_percentile, s.std_percentile from stability as s", total
        )


def _pair(connection: DuckDBPyConnection, sql: str, total: int) -> Floats | None:
    at, *columns = connection.execute(sql).fetchnumpy().values()
    if not len(at):
        return None
    rows = np.asarray(at, np.int64)
    return np.stack([_spread(rows, column, total) for column in columns], axis=1)


def held_by(store: LogitStore, models: Sequence[int]) -> Integers:
    """(E,): how many of the models were trained on each example, row by row to stay small."""
    total = np.zeros(store.info.examples, np.int64)
    for model in models:
        total += store.membership([model])[0]
    return total


def subset(whole: Seen, examples: Integers) -> Seen:
    """What an attack says of some examples."""
    return Seen(
        whole.attack,
        whole.score_in[examples],
        whole.score_out[examples],
        whole.detected[examples],
        whole.held[examples],
    )


def by_models(store: LogitStore, models: Mapping[str, Sequence[int]]) -> dict[str, Integers]:
    """Per attack `held_by` of its targets, computed once for attacks with the same ones."""
    counted = {targets: held_by(store, targets) for targets in {tuple(ids) for ids in models.values()}}
    return {attack: counted[tuple(ids)] for attack, ids in models.items()}


# --- outputs --------------------------------------------------------------------------------------


def sketch(store: LogitStore, models: Sequence[int], examples: Integers) -> Sketch:
    """The scaled logits of `examples` (n,), any order, in all `models`; read in blocks of bounded size."""
    order = np.argsort(examples)
    low, high = np.empty((2, len(examples)))
    mean, std = np.empty((2, len(examples), 2))
    counts = np.empty((len(examples), 2, BINS), np.int64)
    for rows, values, member in _blocks(store, models, examples[order]):
        at = order[rows]
        low[at], high[at] = (values.min(axis=0), values.max(axis=0)) if len(models) else (0.0, 0.0)
        for side, chosen in enumerate((member, ~member)):
            mean[at, side], std[at, side] = _moments(values, chosen)
            counts[at, side] = _histogram(values, chosen, low[at], high[at])
    return Sketch(low, high, mean, std, counts)


def _blocks(
    store: LogitStore, models: Sequence[int], ascending: Integers
) -> Iterator[tuple[slice, Floats, npt.NDArray[np.bool_]]]:
    """Slices of `ascending`, with the values (M, e) of those examples' first query and their membership."""
    width = max(1, _BLOCK // max(1, len(models)))
    span = max(1, _BUFFER // len(store.info.augmentations))
    member = np.zeros((len(models), len(ascending)), bool)
    for row, model in enumerate(models):
        member[row] = store.membership([model])[0][ascending]
    start = 0
    while start < len(ascending):
        stop = int(np.searchsorted(ascending, ascending[start] + span))
        stop = min(stop, start + width)
        chosen = ascending[start:stop]
        first, last = int(chosen[0]), int(chosen[-1]) + 1
        values = np.empty((len(models), len(chosen)))
        for row, model in enumerate(models):
            values[row] = store.read("scaled_logit", model, first, last)[chosen - first, 0]
        yield slice(start, stop), values, member[:, start:stop]
        start = stop


def _moments(values: Floats, chosen: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    count = chosen.sum(axis=0)
    share = np.where(count > 0, count, np.nan)
    mean = np.where(chosen, values, 0).sum(axis=0) / share
    return mean, np.sqrt((np.where(chosen, values - mean, 0) ** 2).sum(axis=0) / share)


def _histogram(values: Floats, chosen: npt.NDArray[np.bool_], low: Floats, high: Floats) -> Integers:
    """(e, BINS): how many of the chosen values lie in each even part of [low, high], ends included."""
    width = np.where(high > low, high - low, 1.0)
    bins = np.minimum(((values - low) / width * BINS).astype(np.int64), BINS - 1)
    flat = bins + np.arange(values.shape[1]) * BINS
    return np.bincount(flat[chosen], minlength=values.shape[1] * BINS).reshape(-1, BINS)
