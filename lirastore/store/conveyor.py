"""A bounded queue with one thread behind it: work that overlaps with the caller's and loses no error."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Conveyor"]

T = TypeVar("T")

_OVERHEAD = 1024  # bytes that an item costs beside its data: many tiny ones must not go unnoticed


class Conveyor(Generic[T]):
    """Hands items to `work`, one after the other, in a thread of its own.

    At most `limit` bytes wait (but always one item). If `work` raises, what waits is dropped, and every later
    call raises that same error: a caller blocked by a full queue wakes up with it.

    `cpu_seconds` is the processor time that the thread took, once it has ended.
    """

    def __init__(self, work: Callable[[T], None], *, limit: int, name: str) -> None:
        self._work = work
        self._limit = limit
        self._changed = threading.Condition()
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._error: BaseException | None = None
        self._ended = False
        self.cpu_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, make: Callable[[], T], nbytes: int) -> None:
        """Waits for room, then puts what `make` returns. Raises the error of the thread, if it has failed."""
        nbytes += _OVERHEAD
        with self._changed:
            self._changed.wait_for(lambda: self._error or not self._bytes or self._fits(nbytes))
            self._raise()
            self._bytes += nbytes
        try:
            item = make()
        except BaseException:
            self._release(nbytes)
            raise
        with self._changed:
            if self._error is None:
                self._items.append((item, nbytes))
            self._changed.notify_all()

    def check(self) -> None:
        """Raises the error of the thread, if it has failed."""
        with self._changed:
            self._raise()

    def finish(self) -> None:
        """Waits until all work is done. Raises the error of the thread, if it has failed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wait()
        self.check()

    def abort(self) -> None:
        """Drops what waits, and waits for the item at work."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
        self._wait()

    def fail(self, error: BaseException) -> None:
        """Drops what waits; every later call raises `error`, or the one that came first."""
        with self._changed:
            self._error = self._error or error
            self._items.clear()
            self._changed.notify_all()

    def _fits(self, nbytes: int) -> bool:
        return self._bytes + nbytes <= self._limit

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _release(self, nbytes: int) -> None:
        with self._changed:
            self._bytes -= nbytes
            self._changed.notify_all()

    def _wait(self) -> None:
        # not Thread.join: in CPython 3.11 one that was interrupted takes the thread for ended ever after
        with self._changed:
            self._changed.wait_for(lambda: self._ended)

    def _run(self) -> None:
        try:
            self._work_off()
        finally:
            with self._changed:
                self.cpu_seconds = time.thread_time()
                self._ended = True
                self._changed.notify_all()

    def _work_off(self) -> None:
        while (taken := self._take()) is not None:
            item, nbytes = taken
            try:
                self._work(item)
            except BaseException as error:  # carried to the caller's thread, whatever it is
                self.fail(error)
                return
            del item, taken
            self._release(nbytes)

    def _take(self) -> tuple[T, int] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed or self._error)
            return self._items.popleft() if self._items else None
