"""Processes that do something to a store and may be killed or suspended while they do it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
from nursery import Nursery, leave

from lirastore.errors import AlreadyCommitted, LostClaim, ModelNotCommitted
from lirastore.store import create, faults, open_store
from lirastore.store.housekeeping import gc_store
from lirastore.store.open import LogitStore
from lirastore.store.recover import recover
from lirastore.store.verify import verify_store
from lirastore.store.withdraw import discard

MODELS, EXAMPLES, AUGMENTATIONS, CLASSES, POINTS = 3, 40, 2, 3, 11
DONE, FAILED, LOST, EXISTS, ABSENT = 0, 1, 3, 4, 5
NOW = timedelta(0)


def make_store(path: Path, method: str = "link") -> LogitStore:
    """A small store of three models; `method` is how models are claimed in it."""
    rng = np.random.default_rng(0)
    create(
        path,
        labels=rng.integers(0, CLASSES, EXAMPLES),
        membership=rng.random((MODELS, EXAMPLES)) < 0.5,
        augmentations=AUGMENTATIONS,
        classes=CLASSES,
        population=POINTS,
    )
    set_method(path, method)
    return open_store(path)


def set_method(path: Path, method: str) -> None:
    """Makes a store one in which models are claimed by `link` or by `rename`."""
    document = path / "zarr.json"
    document.write_text(document.read_text().replace('"claim": "link"', f'"claim": "{method}"'))
    assert open_store(path).info.claim == method


def outputs(model: int, version: int = 0) -> np.ndarray:
    """The logits (E, A, C) of a model; another `version` is another training of it."""
    rng = np.random.default_rng([model, version])
    return rng.normal(0, 3, (EXAMPLES, AUGMENTATIONS, CLASSES)).astype(np.float32)


def population(model: int, version: int = 0) -> np.ndarray:
    """φ of the population points (Z,) of a model."""
    return np.random.default_rng([model, version, 1]).normal(0, 3, POINTS).astype(np.float32)


# --- what actors do -----------------------------------------------------------------------------------


def write(path: Path, model: int, version: int = 0, *, shuffled: bool = False, fail: bool = False) -> None:
    """Writes a model in three batches; `fail` raises at the end of the block."""
    values = outputs(model, version)
    ids = np.random.default_rng(version).permutation(EXAMPLES) if shuffled else np.arange(EXAMPLES)
    with open_store(path).writer(model, metadata={"version": version}) as writer:
        for part in np.split(ids, [15, 30]):
            writer.write(values[part], examples=part)
        writer.write_population(population(model, version))
        if fail:
            raise ZeroDivisionError


def write_pending(path: Path, models: range = range(MODELS)) -> None:
    """What a restarted job does: writes every model that is not there yet."""
    for model in models:
        try:
            write(path, model)
        except AlreadyCommitted:
            continue


def discard_model(path: Path, model: int) -> None:
    discard(open_store(path), [model])


def recover_now(path: Path) -> None:
    recover(open_store(path), older_than=NOW)


def collect_now(path: Path) -> None:
    gc_store(open_store(path), older_than=NOW)


def forever(action: Callable[[], None]) -> None:
    """Repeats until killed."""
    while True:
        action()
        time.sleep(0.001)


def check(path: Path) -> list[int]:
    """The invariants: every committed model is whole and is one training. Returns the committed models."""
    store = open_store(path)
    report = verify_store(store)
    assert report.ok, report.lines()
    commits = store.commits()
    for model, commit in commits.items():
        expected = outputs(model, commit.metadata["version"])
        np.testing.assert_array_equal(store.read("logits", model, 0, EXAMPLES), expected)
        expected = population(model, commit.metadata["version"])
        np.testing.assert_array_equal(store.read("population_scaled_logit", model, 0, POINTS), expected)
    return list(commits)


# --- processes ----------------------------------------------------------------------------------------


_running: set[int] = set()


@cache
def nursery() -> Nursery:
    made = Nursery()
    made.ask(_rehearse)
    return made


def _rehearse() -> None:
    """Does everything once, so that what is imported late is there before the forks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.lira"
        make_store(path)
        write(path, 0, shuffled=True)
        check(path)
        discard_model(path, 0)
        recover_now(path)
        collect_now(path)


def end_all() -> None:
    """Kills what a failed test has left behind, suspended or running."""
    for pid in list(_running):
        os.kill(pid, signal.SIGKILL)
        wait(pid)


def start(action: Callable[[], None], fault: str | None = None) -> int:
    """Runs `action`, which pickle must know, in a process of its own, which costs milliseconds."""
    pid: int = nursery().ask(_fork, action, fault)
    _running.add(pid)
    return pid


def _fork(action: Callable[[], None], fault: str | None) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside idle threads of libraries
        pid = os.fork()
    if pid:
        return pid
    code = FAILED
    try:
        leave()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if fault is not None:
            os.environ[faults.VARIABLE] = fault
        code = _outcome(action)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _outcome(action: Callable[[], None]) -> int:
    try:
        action()
    except LostClaim:
        return LOST
    except AlreadyCommitted:
        return EXISTS
    except ModelNotCommitted:
        return ABSENT
    except BaseException:
        traceback.print_exc()
        return FAILED
    return DONE


def wait(pid: int) -> int:
    """The exit code of a process, or minus the signal that ended it."""
    _running.discard(pid)
    return os.waitstatus_to_exitcode(nursery().ask(os.waitpid, pid, 0)[1])


def run(action: Callable[[], None], fault: str | None = None) -> int:
    """`start`, then `wait`."""
    return wait(start(action, fault))


def start_suspended(action: Callable[[], None], point: str) -> int:
    """Runs `action` up to a fault point and leaves it suspended there."""
    pid = start(action, f"{point}:stop")
    _, status = nursery().ask(os.waitpid, pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        _running.discard(pid)
        raise AssertionError(f"{point} was not reached: exit {os.waitstatus_to_exitcode(status)}")
    return pid


def resume(pid: int) -> int:
    """Wakes a suspended process; returns how it ends."""
    os.kill(pid, signal.SIGCONT)
    return wait(pid)
