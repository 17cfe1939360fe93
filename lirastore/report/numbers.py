"""The report's numbers, by SQL over the views: metrics, curves, the talk's tables, power, bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lirastore.catalog import HEADLINE, OPERATING_POINTS, literal
from lirastore.report.content import (
    AblationStep,
    AttackRow,
    Bound,
    Calibrated,
    Curve,
    PaperRow,
    PowerPoint,
    Rate,
    Spread,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "ablation",
    "accuracies",
    "attacks",
    "bounds",
    "calibrated",
    "curves",
    "merged",
    "only",
    "paper",
    "power",
    "rates_by_name",
    "rows",
    "sort_once",
    "spreads",
    "with_main",
]

STRONGEST = 3  # attacks that are drawn at first,
DRAWN = 10  # and those of the paper's table, up to so many in all
_PAPER = {"loss", "shokri", "morgan", "modified_entropy", "sablayrolles", "long", "watson", "ye"}
_LIRA = {"lira_online", "lira_offline"}
_SPREADS = ("auc", "balanced_accuracy", "tpr_at_1pct", "tpr_at_0_1pct")


def rows(connection: DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    """The answer as one dictionary per row."""
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def sort_once(connection: DuckDBPyConnection) -> None:
    """Keeps the points that curves and exposure are made of, one attack after the other, and the metrics.

    Each view that is made of them would sort all scores again.
    """
    connection.execute("create table kept as from _pooled limit 0")
    for (attack,) in connection.execute("select a.attack from attacks as a order by a.attack").fetchall():
        with only(connection, attack):
            connection.execute("insert into kept from _pooled")
    connection.execute("create or replace view _pooled as from kept")
    connection.execute("create table measured as from metrics")
    connection.execute("create or replace view metrics as from measured")


@contextmanager
def only(connection: DuckDBPyConnection, attack: str) -> Iterator[None]:
    """Meanwhile the views know the scores of this attack alone, and need memory for no other.

    Its name is an ENUM of one: scores are sorted within attacks, and text in the key takes twice as long.
    """
    name = literal(attack)
    connection.execute(
        f"create or replace view scores as select s.* replace (s.attack::enum({name}) as attack) "
        f"from stored.scores as s where s.attack = {name}"
    )
    try:
        yield
    finally:
        connection.execute("create or replace view scores as from stored.scores")


# --- attacks --------------------------------------------------------------------------------------

_METRICS = f"""
    select m.*, k.non_members, a.stale
    from metrics as m
    join (select distinct p.attack, p.nonmembers as non_members from _pooled as p) as k using (attack)
    join attacks as a using (attack)
    order by {HEADLINE} desc nulls last, auc desc, attack
"""


def attacks(connection: DuckDBPyConnection) -> Iterator[AttackRow]:
    """The strongest attack first: by TPR at 0.1% FPR, then by AUC."""
    for row in rows(connection, _METRICS):
        yield AttackRow(
            attack=row["attack"],
            preset=row["preset"],
            targets=row["targets"],
            examples=row["examples"],
            non_members=row["non_members"],
            auc=_rate(row, "auc"),
            balanced_accuracy=_rate(row, "balanced_accuracy"),
            rates={name: _rate(row, name) for name in OPERATING_POINTS},
            stale=row["stale"],
        )


def _rate(row: Mapping[str, Any], name: str) -> Rate:
    """A column with whichever of its intervals the view has."""
    ends = (f"{name}_boot_lo", f"{name}_boot_hi", f"{name}_lo", f"{name}_hi")
    return Rate(row[name], *(row.get(end) for end in ends))


def spreads(connection: DuckDBPyConnection, attack: str) -> dict[str, Spread]:
    """Of one attack over its targets, by column."""
    with only(connection, attack):
        (row,) = rows(connection, "from metrics_over_models")
    return {name: Spread(row[f"{name}_mean"], row[f"{name}_std"]) for name in _SPREADS}


def curves(connection: DuckDBPyConnection) -> dict[str, Curve]:
    """By attack."""
    points = connection.execute("from roc order by attack, fpr, tpr").fetchnumpy()
    attacks = np.asarray(points["attack"])
    columns = [np.asarray(points[name], dtype=np.float64) for name in ("fpr", "tpr", "threshold")]
    names = [str(attack) for attack in np.unique(attacks)]
    return {name: Curve(name, *(column[attacks == name] for column in columns)) for name in names}


def merged(found: Iterable[AttackRow], curves: Mapping[str, Curve]) -> list[AttackRow]:
    """One row for attacks whose curves are the same, thresholds included: they gave the same scores.

    It bears the name that says most: a published attack's before that of a row of the ablation.
    """
    groups: dict[object, list[AttackRow]] = {}
    for row in found:
        curve = curves.get(row.attack)
        same = (curve.fpr.tobytes(), curve.tpr.tobytes(), curve.threshold.tobytes()) if curve else row.attack
        groups.setdefault((row.preset, same), []).append(row)
    return [_merge(group) for group in groups.values()]


def _merge(group: list[AttackRow]) -> AttackRow:
    first, *others = sorted(group, key=lambda row: (row.attack.startswith("ablation_"), row.attack))
    return replace(first, aliases=tuple(row.attack for row in others))


def with_main(found: Sequence[AttackRow]) -> tuple[AttackRow, ...]:
    """Marks what is drawn at first: the strongest attacks, and those of the paper's table."""
    known = _PAPER | _LIRA
    published = [row for row in found[STRONGEST:] if not known.isdisjoint((row.attack, *row.aliases))]
    main = {row.attack for row in [*found[:STRONGEST], *published][:DRAWN]}
    return tuple(replace(row, main=row.attack in main) for row in found)


def accuracies(connection: DuckDBPyConnection) -> tuple[float | None, float | None]:
    """Mean over the models that recorded it: on members, on others."""
    means = "select avg(train_accuracy) as train, avg(test_accuracy) as test from models"
    (row,) = rows(connection, means)
    return row["train"], row["test"]


def calibrated(connection: DuckDBPyConnection, attack: str) -> Calibrated:
    """Of one attack, at the rate by which attacks are compared."""
    with only(connection, attack):
        (row,) = rows(connection, f"from calibrated({OPERATING_POINTS[HEADLINE]})")
    ends = (row[f"fpr_realised{end}"] for end in ("", "_min", "_max"))
    return Calibrated(row["tpr_realised"], *ends)


# --- tables ---------------------------------------------------------------------------------------


def rates_by_name(found: Iterable[AttackRow]) -> dict[str, Rate]:
    """TPR at 0.1% FPR of every attack, aliases included, with both of its intervals."""
    return {name: row.rates[HEADLINE] for row in found for name in (row.attack, *row.aliases)}


def _with_exact(row: Mapping[str, Any], known: Mapping[str, Rate]) -> Rate:
    """Of a table that has only the bootstrap interval."""
    exact = known.get(row["attack"], Rate(None))
    return replace(_rate(row, HEADLINE), exact_low=exact.exact_low, exact_high=exact.exact_high)


def paper(connection: DuckDBPyConnection, known: Mapping[str, Rate]) -> list[PaperRow]:
    """Every row of the talk's table, in its order; `known`: as `rates_by_name`."""
    return [
        PaperRow(
            row=row["row"],
            attack=row["attack"],
            preset=row["preset"],
            balanced_accuracy=row["balanced_accuracy"],
            rate=_with_exact(row, known),
            finest=row["tpr_at_0_001pct"],
            published_balanced_accuracy=row["published_balanced_accuracy"],
            published_rate=row["published_tpr_at_0_1pct"],
            published_finest=row["published_tpr_at_0_001pct"],
            data_set=row["data_set"],
        )
        for row in rows(connection, "from paper_table")
    ]


def ablation(connection: DuckDBPyConnection, known: Mapping[str, Rate]) -> list[AblationStep]:
    """Every step of the talk's chains, in their order; `known`: as `rates_by_name`."""
    return [
        AblationStep(
            chain=row["chain"],
            step=row["step"],
            adds=row["adds"],
            attack=row["attack"],
            preset=row["preset"],
            rate=_with_exact(row, known),
            published=row["published_tpr_at_0_1pct"],
            data_set=row["data_set"],
        )
        for row in rows(connection, "from ablation_table")
    ]


def power(connection: DuckDBPyConnection) -> list[PowerPoint]:
    """By attack and preset, then queries, then models."""
    return [
        PowerPoint(
            attack=row["attack"],
            preset=row["preset"],
            models=row["models"],
            queries=row["queries"],
            auc=row["auc"],
            rate=_rate(row, "tpr_at_0_1pct"),
        )
        for row in rows(connection, "from power order by attack, preset, queries, models")
    ]


def bounds(connection: DuckDBPyConnection) -> list[Bound]:
    """As the view has them; an attack's preset is in its own row."""
    return [
        Bound(**row) for row in rows(connection, "select b.* exclude (preset) from epsilon_lower_bound as b")
    ]
