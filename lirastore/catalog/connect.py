"""A DuckDB connection with the views: schema `stored` holds what the store says, the SQL files the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from lirastore import results
from lirastore.catalog.describe import definitions
from lirastore.catalog.failures import located, translated
from lirastore.catalog.intervals import define_intervals
from lirastore.catalog.limits import limited, literal
from lirastore.catalog.values import json_value
from lirastore.catalog.worker import Worker
from lirastore.errors import ResultError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from lirastore.results import Result
    from lirastore.store import LogitStore

__all__ = ["ask", "connect", "define", "pattern"]

T = TypeVar("T")

_SCORES = {"model": "bigint", "example": "bigint", "score": "double", "member": "boolean"}
_MEMORIZATION = {
    "example": "bigint",
    "p_correct_in": "double",
    "p_correct_out": "double",
    "memorization": "double",
}


def connect(
    store: LogitStore, *, memory: int | None = None, threads: int | None = None
) -> DuckDBPyConnection:
    """An ordinary in-memory DuckDB connection with the views and macros of `lirastore.queries`.

    It shows the store as it is now: models committed and attacks run later appear in a new connection.
    Functions `clopper_pearson_lo(successes, trials)` and `clopper_pearson_hi` give the 95% interval of a
    proportion.

    memory: limit in bytes (default: a quarter of the machine's); more is spilled to a temporary folder, which
    goes when the connection is closed. threads: default one per core. Raises InputError for limits below 1,
    DamagedStore or ResultError, naming the file, for what cannot be read.
    """
    connection = limited(memory, threads)
    try:
        define(connection, store)
    except BaseException:
        connection.close()
        raise
    return connection


def ask(
    store: LogitStore,
    questions: Callable[[DuckDBPyConnection], T],
    *,
    memory: int | None = None,
    threads: int | None = None,
) -> T:
    """What `questions` finds on a connection as `connect` makes it; for this library's own questions.

    A signal ends it at once. What DuckDB raises becomes ResultError, MemoryBudgetError or QueryError.
    """
    with (
        limited(memory, threads) as connection,
        closing(Worker(connection)) as worker,
        translated(store, define(connection, store)),
    ):
        return worker.run(lambda: questions(connection))


def define(connection: DuckDBPyConnection, store: LogitStore) -> list[Path]:
    """Makes tables, functions, views and macros of a store; returns the Parquet files that the views read."""
    found = _checked(store)
    connection.execute("set enable_progress_bar = false")  # DuckDB draws it on stdout
    connection.execute("create schema stored")
    _load(
        connection,
        "models",
        _models(store),
        "* replace (members::bit as members, metadata::json as metadata)",
    )
    _load(connection, "examples", _examples(store), "*")
    _load(connection, "attacks", _attacks(store, found), "* replace (parameters::json as parameters)")
    define_intervals(connection)
    scores = {name: result for name, result in found.items() if result.kind == "scores"}
    memorization = {
        name: result for name, result in found.items() if name == "memorization" and result.kind == "examples"
    }
    files = [
        file for result in (*scores.values(), *memorization.values()) for file in result.files(store.lira)
    ]
    with located(store, files):
        connection.execute(_union("scores", _SCORES, scores, store.lira, named=True))
        connection.execute(_union("memorization", _MEMORIZATION, memorization, store.lira, named=False))
        for definition in definitions():
            connection.execute(definition.statement)
    return files


# --- what the store says --------------------------------------------------------------------------


def _load(connection: DuckDBPyConnection, name: str, table: pa.Table, columns: str) -> None:
    connection.register("_incoming", table)
    connection.execute(f"create table stored.{name} as select {columns} from _incoming")
    connection.unregister("_incoming")


def _models(store: LogitStore) -> pa.Table:
    """One row per committed model; its membership row as bits, the first example first.

    Read row by row: all rows together are eight times the bits.
    """
    commits = store.commits()
    members = [np.packbits(store.membership([model])[0]).tobytes() for model in commits]
    return pa.table(
        {
            "model": pa.array(list(commits), pa.int64()),
            "committed_at": pa.array(
                [_utc(commit.committed_at) for commit in commits.values()], pa.timestamp("us")
            ),
            "metadata": pa.array([_json(commit.metadata) for commit in commits.values()], pa.string()),
            "members": pa.array(members, pa.binary()),
        }
    )


def _examples(store: LogitStore) -> pa.Table:
    labels = store.labels()
    attackable = store.attackable()
    return pa.table(
        {
            "example": np.arange(len(labels), dtype=np.int64),
            "label": np.asarray(labels, dtype=np.int64),
            "attackable": pa.array(np.ones(len(labels), dtype=bool) if attackable is None else attackable),
        }
    )


def _attacks(store: LogitStore, found: Mapping[str, Result]) -> pa.Table:
    stale = results.stale(store)
    rows = found.values()
    parameters = [
        {**result.parameters, "equal_counts": result.equal_counts, "seed": result.seed} for result in rows
    ]
    return pa.table(
        {
            "attack": pa.array([result.attack for result in rows], pa.string()),
            "kind": pa.array([result.kind for result in rows], pa.string()),
            "preset": pa.array([result.preset for result in rows], pa.string()),
            "models": pa.array([len(result.models) for result in rows], pa.int64()),
            "stale": pa.array([result.attack in stale for result in rows], pa.bool_()),
            "seconds": pa.array([result.seconds for result in rows], pa.float64()),
            "bytes_read": pa.array([result.bytes_read for result in rows], pa.int64()),
            "parameters": pa.array([_json(value) for value in parameters], pa.string()),
        }
    )


def _utc(text: str) -> datetime:
    """A moment without its zone, as DuckDB's TIMESTAMP has it."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _json(value: Any) -> str:
    """In strict JSON: NaN and infinity, which Python's reader lets in, become null."""
    return json.dumps(json_value(value), ensure_ascii=False)


# --- what attacks left ----------------------------------------------------------------------------


def _checked(store: LogitStore) -> dict[str, Result]:
    """The current results, every file of which is there and has the size that its document states."""
    found = results.current(store.lira)
    for result in found.values():
        for part, file in zip(result.parts, result.files(store.lira), strict=True):
            _check(result, part, file)
    return found


def _check(result: Result, part: str, file: Path) -> None:
    expected = result.objects[part].bytes
    try:
        size = file.stat().st_size
    except OSError as error:
        raise ResultError(f"{file} of attack {result.attack}: {error.strerror}; {_again(result)}") from error
    if size != expected:
        raise ResultError(
            f"{file} of attack {result.attack} has {size} bytes, not {expected}; {_again(result)}"
        )


def _again(result: Result) -> str:
    return f"run the attack again with `lirastore attack STORE {result.attack} --force`"


def _union(
    view: str, columns: Mapping[str, str], found: Mapping[str, Result], lira: Path, *, named: bool
) -> str:
    """A view over the parts of some results, typed even if there are none.

    Each attack's name is a constant of its branch, so that a filter on it leaves out the others' files.
    """
    empty = ", ".join(f"null::{kind} as {name}" for name, kind in columns.items())
    branches = [f"select {'null::varchar as attack, ' if named else ''}{empty} where false"]
    for name, result in found.items():
        if result.parts:
            chosen = ", ".join(f"p.{column}::{kind} as {column}" for column, kind in columns.items())
            source = f"read_parquet({_list(map(pattern, result.files(lira)))}, hive_partitioning = false)"
            branches.append(
                f"select {literal(name) + ' as attack, ' if named else ''}{chosen} from {source} as p"
            )
    return f"create view stored.{view} as\n" + "\nunion all ".join(branches)


def pattern(file: Path) -> str:
    """The pattern that matches this file alone: DuckDB expands any * ? [ in a path."""
    return re.sub(r"([*?\[])", r"[\1]", str(file.absolute()))


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(literal(text) for text in texts) + "]"
