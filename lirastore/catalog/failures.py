"""What goes wrong in DuckDB, as this library's errors: one line, the file or names concerned, the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from lirastore import results
from lirastore.catalog.describe import describe
from lirastore.errors import QueryError, ResultError

if TYPE_CHECKING:
    from lirastore.store import LogitStore

__all__ = ["located", "one_line", "translated"]

# What DuckDB raises when it reads a damaged file, among other things.
_READING = (
    duckdb.IOException,
    duckdb.InvalidInputException,
    duckdb.SerializationException,
    duckdb.InternalException,
    duckdb.FatalException,
    pa.ArrowException,
    OSError,
)


@contextmanager
def located(store: LogitStore, files: Sequence[Path]) -> Iterator[None]:
    """Turns DuckDB's failure to read one of the results' files into a ResultError that names it."""
    try:
        yield
    except _READING as error:
        blamed = _blamed(store, files, str(error))
        if blamed is None:
            raise
        raise ResultError(
            f"{blamed}; run its attack again with `lirastore attack STORE NAME --force`"
        ) from error


def _blamed(store: LogitStore, files: Sequence[Path], message: str) -> str | None:
    """What is wrong with which file: DuckDB names it, or its digest tells."""
    for file in files:
        if str(file.absolute()) in message:
            return f"{file} cannot be read ({one_line(message)})"
    problems = results.verify_results(store.lira)
    return f"{results.results_folder(store.lira)}/{problems[0]}" if problems else None


@contextmanager
def translated(store: LogitStore, files: Sequence[Path]) -> Iterator[None]:
    """Turns DuckDB's errors into ResultError (a file) or QueryError (the statement)."""
    try:
        with located(store, files):
            yield
    except duckdb.CatalogException as error:
        raise QueryError(f"{one_line(str(error))} {_what_exists()}") from error
    except (duckdb.Error, pa.ArrowException) as error:
        raise QueryError(one_line(str(error))) from error


def one_line(message: str) -> str:
    """DuckDB's message without its picture of the statement."""
    return " ".join(message.split("\n\nLINE ")[0].split())


def _what_exists() -> str:
    described = describe()
    views = ", ".join(item.signature for item in described if item.kind == "view")
    macros = ", ".join(item.signature for item in described if item.kind == "macro")
    return f"There are the views {views}, and the macros {macros}."
