"""DuckDB connections that keep to a memory limit, and spill outside the store and the working directory."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from lirastore import memory as machine
from lirastore.errors import InputError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["limited", "literal"]


def limited(memory: int | None, threads: int | None, **config: bool) -> DuckDBPyConnection:
    """An in-memory database; `config`: DuckDB's settings that are made as it is opened.

    memory: what its tables and operators may take, in bytes (default: a quarter of the machine's); more is
    spilled to a private temporary folder. DuckDB makes that when it first spills, and removes it when the
    last connection to the database is closed. Raises InputError for limits below 1.
    """
    for name, value in (("memory", memory), ("threads", threads)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, expected at least 1")
    folder = _private_folder()
    connection = duckdb.connect(":memory:", config=dict(config))
    connection.execute(f"set memory_limit = '{memory or machine.default_budget()}B'")
    if threads is not None:
        connection.execute(f"set threads = {threads}")
    connection.execute(f"set temp_directory = {literal(str(folder / uuid.uuid4().hex))}")
    # A query that spills without end must not fill the disk.
    connection.execute(f"set max_temp_directory_size = '{shutil.disk_usage(folder).free // 2}B'")
    return connection


@cache
def _private_folder() -> Path:
    """Where the connections of this process spill: readable by its user only, which DuckDB's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="lirastore-query-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def literal(text: str) -> str:
    """A string in SQL."""
    return "'" + text.replace("'", "''") + "'"
