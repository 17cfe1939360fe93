"""What the report shows, pulled from a store: numbers by SQL over the views, signals by `LogitStore.read`.

Rates and shares are between 0 and 1 here; the page turns them into percent.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lirastore import catalog, results
from lirastore.catalog import HEADLINE, OPERATING_POINTS, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from lirastore.results import Result
    from lirastore.store import LogitStore, StoreInfo

__all__ = [
    "AttackRow",
    "Curve",
    "Exposed",
    "Outputs",
    "Rate",
    "ReportData",
    "gather",
]

SHOWN = 24  # examples with their pictures
CLOSE_UP = 5  # of which the distributions are shown, beside a typical example's
_PACKAGES = ("lirastore", "numpy", "scipy", "zarr", "dask", "duckdb", "pyarrow", "matplotlib")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """A true positive rate and its 95% Clopper–Pearson interval, None where the data has none."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class AttackRow:
    """The metrics of one attack, pooled over its targets; `rates` by column of `OPERATING_POINTS`.

    non_members: how many of its scores are of an example that the target was not trained on.
    """

    attack: str
    targets: int
    examples: int
    non_members: int
    auc: float | None
    balanced_accuracy: float | None
    rates: Mapping[str, Rate]


@dataclass(frozen=True)
class Curve:
    """An attack's ROC, both (n,), ascending; between points it is a step."""

    attack: str
    fpr: Floats
    tpr: Floats


@dataclass(frozen=True)
class Exposed:
    """One example as an attack sees it.

    score_in, score_out: mean scores where it was a member and where not. detected: the share of the `held`
    models trained on it whose score is above the threshold at 0.1% FPR. picture: (H, W, channel) uint8.
    """

    example: int
    label: int
    score_in: float | None
    score_out: float | None
    detected: float | None
    held: int
    picture: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class Outputs:
    """The scaled logits of one example's first query: inside (k,) of models trained on it, outside (l,)."""

    shown: Exposed
    title: str
    inside: Floats
    outside: Floats


@dataclass(frozen=True)
class ReportData:
    """All that a report shows.

    stale: names of the attacks whose results are of other models than those committed now. lead: the attack
    whose most exposed examples are shown, if any ran.
    """

    title: str
    info: StoreInfo
    committed: int
    set_digest: str
    train_accuracy: float | None
    test_accuracy: float | None
    attacks: tuple[AttackRow, ...]
    curves: tuple[Curve, ...]
    runs: tuple[Result, ...]
    stale: frozenset[str]
    lead: str | None
    exposed: tuple[Exposed, ...]
    outputs: tuple[Outputs, ...]
    versions: Mapping[str, str]
    written_at: datetime

    @property
    def non_members(self) -> int:
        """The most non-members that an attack has scored: one of them is the finest false positive rate."""
        return max((row.non_members for row in self.attacks), default=0)

    @property
    def headline(self) -> AttackRow | None:
        """The metrics of the leading attack."""
        return next((row for row in self.attacks if row.attack == self.lead), None)


def gather(store: LogitStore, *, memory: int | None = None, threads: int | None = None) -> ReportData:
    """Reads everything the report shows. Works before any attack has run, and on a read-only store.

    memory, threads: as `catalog.connect` has them. Raises DamagedStore or ResultError for what cannot be
    read, MemoryBudgetError if the memory is too little.
    """
    models = store.committed()
    member = store.membership(models)
    runs = results.current(store.lira)
    found = catalog.ask(store, _answers, memory=memory, threads=threads)
    lead = found.lead
    exposed, typical = _examples(store, found.ranked, runs[lead].models if lead else ())
    return ReportData(
        title=store.info.name or store.path.stem,
        info=store.info,
        committed=len(models),
        set_digest=store.set_digest(),
        train_accuracy=found.train_accuracy,
        test_accuracy=found.test_accuracy,
        attacks=found.attacks,
        curves=tuple(found.curves[row.attack] for row in found.attacks if row.attack in found.curves),
        runs=tuple(runs.values()),
        stale=found.stale,
        lead=lead,
        exposed=exposed,
        outputs=tuple(_outputs(store, models, member, exposed[:CLOSE_UP], typical)),
        versions=_versions(),
        written_at=datetime.now(UTC),
    )


class _Answers(NamedTuple):
    """What SQL says; `ranked` are rows of `_ranked` for the leading attack."""

    attacks: tuple[AttackRow, ...]
    curves: dict[str, Curve]
    train_accuracy: float | None
    test_accuracy: float | None
    lead: str | None
    ranked: list[dict[str, Any]]
    stale: frozenset[str]


def _answers(connection: DuckDBPyConnection) -> _Answers:
    _sort_once(connection)
    attacks = tuple(_attack_rows(connection))
    lead = attacks[0].attack if attacks else None
    stale = connection.execute("select attack from attacks where stale").fetchall()
    return _Answers(
        attacks,
        _curves(connection),
        *_accuracies(connection),
        lead,
        _ranked(connection, lead) if lead else [],
        frozenset(attack for (attack,) in stale),
    )


# --- metrics ------------------------------------------------------------------------------------


def _rows(connection: DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _sort_once(connection: DuckDBPyConnection) -> None:
    """Keeps the points that metrics, curves and exposure are made of, one attack after the other.

    Each of these views would sort all scores again.
    """
    connection.execute("create table kept as from _pooled limit 0")
    for (attack,) in connection.execute("select attack from attacks order by attack").fetchall():
        connection.execute(f"insert into kept from _pooled where attack = {literal(attack)}")
    connection.execute("create or replace view _pooled as from kept")


_METRICS = f"""
    select m.*, k.non_members
    from metrics as m
    join (select distinct attack, nonmembers as non_members from _pooled) as k using (attack)
    order by {HEADLINE} desc nulls last, auc desc, attack
"""


def _attack_rows(connection: DuckDBPyConnection) -> Iterator[AttackRow]:
    """The strongest attack first: by TPR at 0.1% FPR, then by AUC."""
    for row in _rows(connection, _METRICS):
        yield AttackRow(
            attack=row["attack"],
            targets=row["targets"],
            examples=row["examples"],
            non_members=row["non_members"],
            auc=row["auc"],
            balanced_accuracy=row["balanced_accuracy"],
            rates={name: Rate(row[name], row[f"{name}_lo"], row[f"{name}_hi"]) for name in OPERATING_POINTS},
        )


def _curves(connection: DuckDBPyConnection) -> dict[str, Curve]:
    points = connection.execute("from roc order by attack, fpr, tpr").fetchnumpy()
    attacks = np.asarray(points["attack"])
    chosen = {str(attack): attacks == attack for attack in np.unique(attacks)}
    return {
        attack: Curve(attack, np.asarray(points["fpr"])[rows], np.asarray(points["tpr"])[rows])
        for attack, rows in chosen.items()
    }


def _accuracies(connection: DuckDBPyConnection) -> tuple[float | None, float | None]:
    means = "select avg(train_accuracy) as train, avg(test_accuracy) as test from models"
    (row,) = _rows(connection, means)
    return row["train"], row["test"]


# --- examples -----------------------------------------------------------------------------------


def _ranked(connection: DuckDBPyConnection, attack: str) -> list[dict[str, Any]]:
    """The most exposed examples in the order of `most_exposed`, and the one in the middle of that order."""
    middle = "ranked // 2 + 1"
    return _rows(
        connection,
        f"""
        select *, {middle} as middle from _ranked
        where attack = {literal(attack)} and (rank <= {SHOWN} or rank = {middle})
        order by rank
        """,
    )


def _examples(
    store: LogitStore, ranked: Sequence[Mapping[str, Any]], models: Sequence[int]
) -> tuple[tuple[Exposed, ...], tuple[Exposed, ...]]:
    """The examples to be shown, and the typical one; `models` are those that the attack has scored."""
    examples = np.array([row["example"] for row in ranked], dtype=np.int64)
    held = store.membership(models)[:, examples].sum(axis=0)
    pictures = store.preview(examples) if len(examples) else None
    shown = [
        Exposed(
            example=row["example"],
            label=row["label"],
            score_in=row["mean_score_in"],
            score_out=row["mean_score_out"],
            detected=row["detected"],
            held=int(held[position]),
            picture=None if pictures is None else pictures[position],
        )
        for position, row in enumerate(ranked)
    ]
    top = tuple(example for example, row in zip(shown, ranked, strict=True) if row["rank"] <= SHOWN)
    middle = tuple(
        example for example, row in zip(shown, ranked, strict=True) if row["rank"] == row["middle"]
    )
    return top, middle


def _outputs(
    store: LogitStore,
    models: npt.NDArray[np.int64],
    member: npt.NDArray[np.bool_],
    exposed: Sequence[Exposed],
    typical: Sequence[Exposed],
) -> Iterator[Outputs]:
    titled = [(shown, f"Most exposed, no. {rank}") for rank, shown in enumerate(exposed, start=1)]
    for shown, title in [*titled, *((shown, "A typical example") for shown in typical)]:
        example = shown.example
        values = np.array(
            [store.read("scaled_logit", model, example, example + 1).flat[0] for model in models.tolist()],
            dtype=np.float64,
        )
        inside = member[:, example]
        yield Outputs(shown, title, values[inside], values[~inside])


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version()}
    return versions | {package: metadata.version(package) for package in _PACKAGES}
