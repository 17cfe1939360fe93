"""Pulls what a report shows from a store: numbers by SQL over the views, signals by `LogitStore.read`."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from lirastore import catalog, results
from lirastore.report import exposure, numbers
from lirastore.report.classes import by_class
from lirastore.report.content import (
    AttackRow,
    Curve,
    Examples,
    Exposed,
    Facts,
    Floats,
    Integers,
    Outputs,
    ReportData,
    Seen,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from lirastore.results import Result
    from lirastore.store import LogitStore

__all__ = ["gather"]

SHOWN = 24  # examples with their pictures
CLOSE_UP = 5  # of which the distributions are shown, beside a typical example's
LOOKED_UP = 65_536  # examples that can be looked up in the page, the most exposed ones
DETAILED = 12  # attacks that are shown per example: the strongest of the main ones
SORTED = 13_000_000  # scores that are sorted once more, by class and by model,
AT_LEAST = 3  # though those of the strongest attacks always are
PICTURED = 200  # examples that can be looked up with their picture,
PICTURES = 400_000  # or all, if these are at most so many bytes
_PACKAGES = ("lirastore", "numpy", "scipy", "zarr", "dask", "duckdb", "pyarrow")


def gather(store: LogitStore, *, memory: int | None = None, threads: int | None = None) -> ReportData:
    """Reads everything the report shows. Works before any attack has run, and on a read-only store.

    memory, threads: as `catalog.connect` has them. Raises DamagedStore or ResultError for what cannot be
    read, MemoryBudgetError if the memory is too little.
    """
    runs = results.current(store.lira)

    def ask(connection: DuckDBPyConnection) -> _Answers:
        return _answers(connection, store, runs)

    found = catalog.ask(store, ask, memory=memory, threads=threads)
    labels = store.labels()
    return ReportData(
        facts=Facts(
            title=store.info.name or store.path.stem,
            info=store.info,
            committed=len(store.committed()),
            set_digest=store.set_digest(),
            train_accuracy=found.accuracies[0],
            test_accuracy=found.accuracies[1],
            labelled=bool((labels >= 0).any()),
        ),
        runs=tuple(runs.values()),
        stale=found.stale,
        versions=_versions(),
        written_at=datetime.now(UTC),
        attacks=found.attacks,
        curves=found.curves,
        **found.tables,
        **(_examples(store, found.ranking) if found.ranking else {}),
    )


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version()}
    return versions | {package: metadata.version(package) for package in _PACKAGES}


# --- what SQL says --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ranking:
    """All that the leading attack has scored, most exposed first (n,), and what `seen` says of those chosen.

    chosen: the first of `ids`, and the typical one at the end. correct, percentile: as in `Examples`, but of
    all examples of the store.
    """

    ids: Integers
    labels: Integers
    seen: tuple[Seen, ...]
    correct: Floats | None
    percentile: Floats | None


@dataclass(frozen=True)
class _Answers:
    attacks: tuple[AttackRow, ...]
    curves: tuple[Curve, ...]
    accuracies: tuple[float | None, float | None]
    stale: frozenset[str]
    tables: Mapping[str, Any]
    ranking: _Ranking | None


def _answers(connection: DuckDBPyConnection, store: LogitStore, runs: Mapping[str, Result]) -> _Answers:
    numbers.sort_once(connection)
    curves = numbers.curves(connection)
    attacks = numbers.with_main(numbers.merged(numbers.attacks(connection), curves))
    known = numbers.rates_by_name(attacks)
    tables: dict[str, Any] = {
        "paper": tuple(numbers.paper(connection, known)),
        "ablation": tuple(numbers.ablation(connection, known)),
        "power": tuple(numbers.power(connection)),
        "bounds": tuple(numbers.bounds(connection)),
    }
    ranking = None
    if attacks:
        tables["calibrated"] = numbers.calibrated(connection, attacks[0].attack)
        seen = _seen(connection, store, runs, attacks)
        tables |= _in_depth(connection, attacks, seen, store.labels())
        ranking = _ranking(connection, store, attacks[0].attack, seen)
    shown = tuple(curves[row.attack] for row in attacks if row.attack in curves)
    stale = connection.execute("select a.attack from attacks as a where a.stale").fetchall()
    names = frozenset(attack for (attack,) in stale)
    return _Answers(attacks, shown, numbers.accuracies(connection), names, tables, ranking)


def _seen(
    connection: DuckDBPyConnection,
    store: LogitStore,
    runs: Mapping[str, Result],
    attacks: Sequence[AttackRow],
) -> tuple[Seen, ...]:
    """What the strongest of the main attacks say of all examples of the store, the leading one first."""
    names = [row.attack for row in attacks if row.main][:DETAILED]
    held = exposure.by_models(store, {name: runs[name].models for name in names})
    return tuple(exposure.seen(connection, name, held[name]) for name in names)


def _in_depth(
    connection: DuckDBPyConnection, attacks: Sequence[AttackRow], seen: Sequence[Seen], labels: Integers
) -> dict[str, Any]:
    """By class and over the models: of as many attacks as can be sorted again in some seconds."""
    scores = max(row.targets * row.examples for row in attacks)
    chosen = seen[: max(AT_LEAST, SORTED // scores)]
    return {
        "classes": {one.attack: by_class(connection, one, labels) for one in chosen},
        "spreads": {one.attack: numbers.spreads(connection, one.attack) for one in chosen},
    }


def _ranking(
    connection: DuckDBPyConnection, store: LogitStore, lead: str, seen: tuple[Seen, ...]
) -> _Ranking:
    total = store.info.examples
    correct = exposure.correctness(connection, total)
    ids, labels = exposure.ranked(connection, lead)
    return _Ranking(ids, labels, seen, correct, exposure.percentiles(connection, lead, total))


# --- examples -------------------------------------------------------------------------------------


def _examples(store: LogitStore, ranking: _Ranking) -> dict[str, Any]:
    """The fields of ReportData that show single examples."""
    models = store.committed().tolist()
    ids = ranking.ids[:LOOKED_UP]
    lead = ranking.seen[0]
    top = _exposed(store, ranking, np.arange(min(SHOWN, len(ids))))
    typical = _exposed(store, ranking, np.array([len(ranking.ids) // 2]))
    return {
        "examples": Examples(
            ids=ids,
            labels=ranking.labels[:LOOKED_UP],
            total=len(ranking.ids),
            often=int(((2 * lead.detected >= lead.held) & (lead.held > 0)).sum()),
            never=int(((lead.detected == 0) & (lead.held > 0)).sum()),
            seen=tuple(exposure.subset(one, ids) for one in ranking.seen),
            correct=None if ranking.correct is None else ranking.correct[ids],
            percentile=None if ranking.percentile is None else ranking.percentile[ids],
            sketch=exposure.sketch(store, models, ids),
        ),
        "pictures": _pictures(store, ids),
        "exposed": top,
        "outputs": tuple(_outputs(store, models, top[:CLOSE_UP], typical)),
    }


def _exposed(store: LogitStore, ranking: _Ranking, places: Integers) -> tuple[Exposed, ...]:
    lead = ranking.seen[0]
    ids = ranking.ids[places]
    pictures = store.preview(ids)
    return tuple(
        Exposed(
            example=int(example),
            label=int(ranking.labels[place]),
            score_in=_present(lead.score_in[example]),
            score_out=_present(lead.score_out[example]),
            detected=int(lead.detected[example]) if lead.held[example] else None,
            held=int(lead.held[example]),
            picture=None if pictures is None else pictures[number],
        )
        for number, (place, example) in enumerate(zip(places, ids, strict=True))
    )


def _present(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _pictures(store: LogitStore, ids: Integers) -> Any:
    """(n, H, W, channel) of the first n examples; None without pictures."""
    one = store.preview(ids[:1])
    if one is None:
        return None
    return store.preview(ids if one.nbytes * len(ids) <= PICTURES else ids[:PICTURED])


def _outputs(
    store: LogitStore, models: Sequence[int], exposed: Sequence[Exposed], typical: Sequence[Exposed]
) -> Iterator[Outputs]:
    shown = [*exposed, *typical]
    titles = [f"Most exposed, no. {rank}" for rank in range(1, len(exposed) + 1)]
    sketch = exposure.sketch(store, models, np.array([one.example for one in shown], np.int64))
    for row, (one, title) in enumerate(zip(shown, [*titles, "A typical example"], strict=True)):
        yield Outputs(one, title, sketch, row)
