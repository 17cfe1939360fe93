"""Several processes that train models on one device side by side, each taking the next that is left.

Each speaks to the one that started it through a pipe of its own: None asks for a model, an Event is for the
journal, a Cost says that it is done, an error that it is not. Whoever dies closes his end of the pipe.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NoReturn

import lirastore
from lirastore.errors import InputError, LirastoreError, TrainingFailed
from lirastore.pipelines.core import torch
from lirastore.pipelines.journal import Cost, Event, Journal
from lirastore.pipelines.running import Make, Worker, using

__all__ = ["run_processes"]

PATIENCE = 20  # seconds to tidy up, for a process asked to end; Slurm and Kubernetes kill all after 30


def run_processes(
    path: Path, make: Make, device: torch.device, todo: list[int], count: int, journal: Journal
) -> list[Cost]:
    """Trains `todo` in `count` processes; returns what each cost. If one fails, all are ended."""
    _check_picklable(make)
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    children: dict[Connection, SpawnProcess] = {}
    try:
        for number in range(count):
            ours, theirs = spawn.Pipe()
            arguments = (theirs, path, make, str(device))
            child = spawn.Process(target=_child, args=arguments, name=f"trainer {number}", daemon=True)
            children[ours] = child
            with _deaf_to_interrupts():
                child.start()
            theirs.close()
        costs = list(_serve(children, iter(todo), journal))
        _join(children)
        return costs
    finally:
        _end(children)


def _check_picklable(make: Make) -> None:
    try:
        pickle.dumps(make)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"several models together are trained in processes, to which {make!r} cannot be sent ({error}): "
            "make trainers by a class of a module, or functools.partial of it"
        ) from error


def _serve(
    children: Mapping[Connection, SpawnProcess], models: Iterator[int], journal: Journal
) -> Iterator[Cost]:
    """Hands out models and listens, until every process has said what it cost."""
    at_work: dict[Connection, int | None] = dict.fromkeys(children)
    while at_work:
        for connection in wait(list(at_work)):
            assert isinstance(connection, Connection)
            try:
                said = connection.recv()
                if said is None:
                    at_work[connection] = next(models, None)
                    connection.send(at_work[connection])
            except (EOFError, OSError):  # EPIPE, ECONNRESET, or the end within a message
                raise _died(children[connection], at_work[connection]) from None
            if said is None:
                continue
            if isinstance(said, Event):
                journal(said)
            elif isinstance(said, Cost):
                del at_work[connection]
                yield said
            else:
                raise said


def _died(child: SpawnProcess, model: int | None) -> TrainingFailed:
    child.join(PATIENCE)
    code = child.exitcode
    how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    at = "" if model is None else f" at model {model}"
    memory = "; signal 9 often means that memory ran out: train fewer together" if code == -9 else ""
    return TrainingFailed(
        f"a training process ended {how}{at}{memory}. Committed models are kept, and the same command goes on"
    )


def _end(children: Mapping[Connection, SpawnProcess]) -> None:
    for child in children.values():
        if child.is_alive():
            child.terminate()
    for connection in children:  # nobody listens any more: who still has something to say must not wait
        connection.close()
    _join(children)
    for child in children.values():
        if child.is_alive():
            child.kill()
            child.join()


def _join(children: Mapping[Connection, SpawnProcess]) -> None:
    """Waits for processes that have no more work."""
    deadline = time.monotonic() + PATIENCE
    for child in children.values():
        if child.pid is not None:  # else it was never started
            child.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole group. Processes started here hear none, not even before they can say so."""
    resource_tracker.ensure_running()  # started by them it would undo this
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the processes ---------------------------------------------------------------------------


def _child(connection: Connection, path: Path, make: Make, device: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends us
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    line = _Line(connection)
    try:
        line.say(_work(line, path, make, torch.device(device)))
    except Exception as error:
        line.say(_portable(error))


def _work(line: _Line, path: Path, make: Make, device: torch.device) -> Cost:
    store = lirastore.open(path)
    with using(device):
        return Worker(store, make(store, device), device, line.say).run(line.models())


class _Line:
    """To the parent. If that was killed nobody listens, and the process ends without a word."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()  # the thread that commits has something to say as well

    def say(self, what: Any) -> None:
        """Sends an event, a cost, an error, or None: a request for a model."""
        with self._lock, _ending_in_silence():
            self._connection.send(what)

    def models(self) -> Iterator[int]:
        """What the parent hands out."""
        while True:
            self.say(None)
            with _ending_in_silence():
                model = self._connection.recv()
            if model is None:
                return
            yield model


@contextmanager
def _ending_in_silence() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        sys.exit(1)


def _portable(error: Exception) -> Exception:
    """The error, if it needs no traceback and arrives as it was sent; else a TrainingFailed with both."""
    if isinstance(error, LirastoreError | OSError):
        with contextlib.suppress(Exception):  # a class may well refuse its own pickle
            arrived = pickle.loads(pickle.dumps(error))
            if type(arrived) is type(error) and str(arrived) == str(error):
                return error
    return TrainingFailed(f"a training process failed:\n{''.join(traceback.format_exception(error))}")


def _terminate(_signal: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not disturb the tidying up
    sys.exit(143)


def _end_with_parent() -> None:
    """A parent that was killed ends nobody: do it ourselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
