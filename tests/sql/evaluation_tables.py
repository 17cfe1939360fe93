"""A connection whose schema `stored` is tables, so that a test of a view can put there what it likes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from lirastore import catalog

COLUMNS = {
    "scores": "attack varchar, model bigint, example bigint, score double, member boolean",
    "influence": "example bigint, other bigint, influence double",
    "intervals": "attack varchar, metric varchar, lo double, hi double",
    "info": "name varchar, dataset varchar",
    "epsilon": "attack varchar, method varchar, model bigint, example bigint, guesses bigint, "
    "correct bigint, epsilon double, delta double, confidence double, assumption varchar, refused varchar",
}


@contextmanager
def tables(made) -> Iterator[Any]:
    """A connection to a store in which these of schema `stored` are empty tables, and with models 0 to 7."""
    with catalog.connect(made) as connection:
        for name, columns in COLUMNS.items():
            for (kind,) in connection.execute(
                "select table_type from information_schema.tables "
                f"where table_schema = 'stored' and table_name = '{name}'"
            ).fetchall():
                connection.execute(f"drop {'view' if kind == 'VIEW' else 'table'} stored.{name}")
            connection.execute(f"create table stored.{name} ({columns})")
        connection.execute("insert into stored.models (model) from range(8)")
        yield connection


def fill(connection, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Makes these the rows of a table of schema `stored`."""
    connection.execute(f"truncate stored.{table}")
    rows = list(rows)
    if rows:
        connection.executemany(f"insert into stored.{table} values ({', '.join('?' * len(rows[0]))})", rows)


def put_scores(
    connection, attacks: Mapping[str, tuple[Any, Any, Any, Any]], presets=None, named=None
) -> None:
    """attack -> (model, example, score, member), arrays of equal length; presets: attack -> preset.

    named: attack -> the named attack that it is, if not the one of its name.
    """
    connection.execute("truncate stored.scores")
    connection.execute("truncate stored.attacks")
    for name, values in attacks.items():
        kinds = (np.int64, np.int64, np.float64, bool)
        arrays = [np.array(value, kind) for value, kind in zip(values, kinds, strict=True)]
        connection.register("rows", dict(zip(("model", "example", "score", "member"), arrays, strict=True)))
        connection.execute(
            f"insert into stored.scores select '{name}', model, example, score, member from rows"
        )
        connection.unregister("rows")
        preset = (presets or {}).get(name, "paper")
        connection.execute(
            "insert into stored.attacks (attack, kind, preset, named, models, stale) "
            "values (?, 'scores', ?, ?, ?, false)",
            [name, preset, (named or {}).get(name, name), len(np.unique(arrays[0]))],
        )


def records(connection, sql: str, parameters: Iterable[Any] = ()) -> list[dict[str, Any]]:
    cursor = connection.execute(sql, list(parameters))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
