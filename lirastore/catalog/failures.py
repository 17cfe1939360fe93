"""What goes wrong in DuckDB, as this library's errors: one line, the file or names concerned, the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from lirastore import results
from lirastore.catalog.describe import describe
from lirastore.errors import MemoryBudgetError, QueryError, ResultError

if TYPE_CHECKING:
    from lirastore.store import LogitStore

__all__ = ["located", "one_line", "translated"]

_NO_TABLE = re.compile(r"Table with name (\w+) does not exist")

# How every error begins that DuckDB raises on purpose: "Invalid Input Error: ", "IO Error: ". About a damaged
# file it gives the file's name, or else says, without such a beginning, what its reader stumbled over.
_CATEGORY = re.compile(r"([A-Z]\w* )+Error: ")


@contextmanager
def located(store: LogitStore, files: Sequence[Path]) -> Iterator[None]:
    """Turns DuckDB's failure to read one of the results' files into a ResultError that names it."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        blamed = _blamed(store, files, str(error))
        if blamed is None:
            raise
        raise ResultError(blamed) from error


def _blamed(store: LogitStore, files: Sequence[Path], message: str) -> str | None:
    """What is wrong with which file, and the remedy: DuckDB names it, or its digest tells."""
    for file in files:
        if str(file.absolute()) in message:
            return (
                f"{file} cannot be read ({one_line(message)}); "
                "run its attack again with `lirastore attack STORE NAME --force`"
            )
    if _CATEGORY.match(message):
        return None
    problems = results.verify_results(store.lira)
    return f"{results.results_folder(store.lira)}/{problems[0]}" if problems else None


@contextmanager
def translated(store: LogitStore, files: Sequence[Path]) -> Iterator[None]:
    """Turns DuckDB's errors into ResultError (a file), MemoryBudgetError, or QueryError (the statement)."""
    try:
        with located(store, files):
            yield
    except ResultError:
        raise
    except duckdb.CatalogException as error:
        raise QueryError(_uncalled(str(error)) or f"{one_line(str(error))} {_what_exists()}") from error
    except duckdb.OutOfMemoryException as error:
        raise MemoryBudgetError(
            f"{one_line(str(error))}. Allow more with `--memory`, or ask for less at once"
        ) from error
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # a stream's errors come as OSError
        raise QueryError(one_line(str(error))) from error


def one_line(message: str) -> str:
    """DuckDB's message without its picture of the statement."""
    return " ".join(message.split("\n\nLINE ")[0].split())


def _uncalled(message: str) -> str | None:
    """What to say where a macro's name stands without its arguments, as if it were a view."""
    missing = _NO_TABLE.search(message)
    name = missing[1].lower() if missing else None
    for item in describe():
        if item.kind == "macro" and item.name == name:
            return f"{name} is a macro: expected a call with its arguments, from {item.signature}"
    return None


def _what_exists() -> str:
    described = describe()
    views = ", ".join(item.signature for item in described if item.kind == "view")
    macros = ", ".join(item.signature for item in described if item.kind == "macro")
    return f"There are the views {views}, and the macros {macros}."
