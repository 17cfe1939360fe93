"""A DuckDB connection with the views: schema `stored` holds what the store says, the SQL files the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lirastore.catalog.describe import Definition, definitions
from lirastore.catalog.failures import located, translated
from lirastore.catalog.intervals import define_intervals
from lirastore.catalog.limits import limited
from lirastore.catalog.stored import checked, define_tables, define_views, read_files
from lirastore.catalog.worker import Worker

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from lirastore.store import LogitStore

__all__ = ["ask", "connect", "define"]

T = TypeVar("T")


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


def define(
    connection: DuckDBPyConnection, store: LogitStore, wanted: Iterable[Definition] | None = None
) -> list[Path]:
    """Makes tables, functions, views and macros of a store; returns the Parquet files that the views read.

    wanted: which views and macros, each after those that it refers to; default: all. Making one takes a
    hundredth of a second where many attacks have run.

    A signal ends it with what its handler raises: DuckDB's own word for that, had it the main thread, is
    RuntimeError.
    """
    with closing(Worker(connection)) as worker:
        return worker.run(lambda: _define(connection, store, definitions() if wanted is None else wanted))


def _define(connection: DuckDBPyConnection, store: LogitStore, wanted: Iterable[Definition]) -> list[Path]:
    found = checked(store)
    connection.execute("set enable_progress_bar = false")  # DuckDB draws it on stdout
    define_tables(connection, store, found)
    define_intervals(connection)
    files = read_files(store, found)
    with located(store, files):
        define_views(connection, store, found)
        for definition in wanted:
            connection.execute(definition.statement)
    return files
