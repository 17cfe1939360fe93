"""Runs DuckDB aside, so that a signal ends a long query: inside DuckDB it would wait until the end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """One thread that works on one connection, while the caller's thread waits where signals reach it."""

    def __init__(self, connection: DuckDBPyConnection) -> None:
        self._connection = connection
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lirastore-query")

    def run(self, work: Callable[[], T]) -> T:
        """Returns what `work` returns; what a signal handler raises meanwhile interrupts the connection."""
        future = self._pool.submit(work)
        try:
            return future.result()
        except BaseException:
            while not future.done():  # again and again: an interrupt before the query starts is lost
                self._connection.interrupt()
                wait([future], timeout=0.1)
            raise

    def close(self) -> None:
        """Ends the thread."""
        self._pool.shutdown()
