"""Several processes that train models on one device side by side, each taking the next that is left."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NoReturn

import lirastore
from lirastore.errors import InputError, LirastoreError, TrainingFailed
from lirastore.pipelines.core import torch
from lirastore.pipelines.journal import Cost, Event, Journal
from lirastore.pipelines.running import Make, Worker, reproducible

__all__ = ["run_processes"]

PATIENCE = 30  # seconds that a process which was asked to end has to tidy up


def run_processes(
    path: Path, make: Make, device: torch.device, todo: list[int], count: int, journal: Journal
) -> list[Cost]:
    """Trains `todo` in `count` processes; returns what each cost. If one fails, all are ended."""
    _check_picklable(make)
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    models = iter(todo)
    threads = max(1, len(os.sched_getaffinity(0)) // count) if hasattr(os, "sched_getaffinity") else 1
    children: dict[Connection, SpawnProcess] = {}
    try:
        for number in range(count):
            ours, theirs = spawn.Pipe()
            arguments = (theirs, path, make, str(device), threads)
            child = spawn.Process(target=_child, args=arguments, name=f"trainer {number}", daemon=True)
            child.start()
            theirs.close()
            children[ours] = child
        return list(_serve(children, models, journal))
    finally:
        _end(list(children.values()))


def _check_picklable(make: Make) -> None:
    try:
        pickle.dumps(make)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"several models together are trained in processes, to which {make!r} cannot be sent ({error}): "
            "make trainers by a class of a module, or functools.partial of it"
        ) from error


def _serve(
    children: dict[Connection, SpawnProcess], models: Iterator[int], journal: Journal
) -> Iterator[Cost]:
    """Hands out models and listens, until every process has said what it cost."""
    at_work: dict[Connection, int | None] = dict.fromkeys(children)
    while at_work:
        for connection in wait(list(at_work)):
            assert isinstance(connection, Connection)
            try:
                said = connection.recv()
            except EOFError:
                raise _died(children[connection], at_work[connection]) from None
            if said is None:
                at_work[connection] = next(models, None)
                connection.send(at_work[connection])
            elif isinstance(said, Event):
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


def _end(children: list[SpawnProcess]) -> None:
    for child in children:
        if child.is_alive():
            child.terminate()
    for child in children:
        child.join(PATIENCE)
        if child.is_alive():
            child.kill()
            child.join()


# --- in the processes ---------------------------------------------------------------------------


def _child(connection: Connection, path: Path, make: Make, device: str, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lock = threading.Lock()

    def say(what: Any) -> None:  # from the thread that commits as well
        with lock:
            connection.send(what)

    try:
        say(_work(connection, say, path, make, torch.device(device), threads))
    except BrokenPipeError:  # the parent was killed; nobody listens
        sys.exit(1)
    except (LirastoreError, OSError) as error:
        say(error)
    except Exception:
        say(TrainingFailed(f"a training process failed:\n{traceback.format_exc()}"))


def _work(
    connection: Connection, say: Any, path: Path, make: Make, device: torch.device, threads: int
) -> Cost:
    if device.type == "cpu":
        torch.set_num_threads(threads)
    store = lirastore.open(path)

    def models() -> Iterator[int]:
        say(None)
        while (model := connection.recv()) is not None:
            yield model
            say(None)

    with reproducible():
        return Worker(store, make(store, device), device, say).run(models())


def _terminate(_signal: int, _frame: object) -> NoReturn:
    sys.exit(143)


def _end_with_parent() -> None:
    """A parent that was killed ends nobody: do it ourselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
