"""Processes that race for one model, and zombies: suspended at any step, woken when all has moved on."""

from __future__ import annotations

import os
import shutil
import signal
import time
from functools import partial

import numpy as np
import pytest
from actors import (
    ABSENT,
    DONE,
    EXISTS,
    FAILED,
    LOST,
    check,
    collect_now,
    discard_model,
    outputs,
    population,
    recover_now,
    resume,
    run,
    start,
    start_suspended,
    wait,
    write,
)

from lirastore.errors import AlreadyCommitted
from lirastore.store import faults, open_store
from lirastore.store.housekeeping import status

METHODS = pytest.mark.parametrize("method", ["link", "rename"])


def contents(path):
    """Every committed object and document, by its path: what must not change behind a reader's back."""
    kept = [*path.glob("*/c/*/**/*"), *path.glob("_lirastore/commits/*.json")]
    return {file.relative_to(path): file.read_bytes() for file in kept if file.is_file()}


# --- races ------------------------------------------------------------------------------------------------


def write_together(path, version, ready, go):
    """Writes everything, tells that it is ready, and commits when all are. `ready` and `go` are FIFOs."""
    with open_store(path).writer(0, metadata={"version": version}) as writer:
        writer.write(outputs(0, version), examples=slice(None))
        writer.write_population(population(0, version))
        with ready.open("wb", buffering=0) as telling:
            telling.write(b"x")
        with go.open("rb", buffering=0) as waiting:
            waiting.read(1)


@METHODS
@pytest.mark.parametrize("racers", [2, 8])
def test_of_those_who_race_exactly_one_commits(path_of, fast_path, method, racers):
    path = path_of("empty.lira", method)
    fifos = [fast_path / "ready", fast_path / "go"]
    for fifo in fifos:
        os.mkfifo(fifo)
    ready, go = (os.open(fifo, os.O_RDWR) for fifo in fifos)
    pids = [start(partial(write_together, path, version, *fifos)) for version in range(racers)]
    while racers > 0:
        racers -= len(os.read(ready, racers))
    os.write(go, b"x" * len(pids))
    endings = [wait(pid) for pid in pids]
    for descriptor in (ready, go):
        os.close(descriptor)
    assert sorted(endings) == [DONE] + [LOST] * (len(pids) - 1)
    assert check(path) == [0]
    assert open_store(path).commits()[0].metadata["version"] == endings.index(DONE)
    assert status(open_store(path)).attempts == []


def write_models(path, models):
    for model in models:
        write(path, model)


def test_different_models_are_written_at_once(path_of):
    path = path_of("empty.lira")
    pids = [start(partial(write, path, model)) for model in range(3)]
    assert [wait(pid) for pid in pids] == [DONE] * 3
    assert check(path) == [0, 1, 2]


def test_two_recoverers_at_once(path_of):
    for point in ("claim.linked", "publish.array"):
        path = path_of("empty.lira")
        assert run(partial(write, path, 0), point) == -signal.SIGKILL
        pids = [start(partial(recover_now, path)) for _ in range(6)]
        assert [wait(pid) for pid in pids] == [DONE] * 6
        assert check(path) == [0]
        shutil.rmtree(path)
    path_of("empty.lira")


# --- zombies ----------------------------------------------------------------------------------------------


def replace(path):
    """Whatever has become of model 0, it is withdrawn and written anew."""
    discard_if_there(path)
    assert run(partial(write, path, 0, version=7)) in (DONE, EXISTS)


def discard_if_there(path):
    assert run(partial(discard_model, path, 0)) in (DONE, ABSENT)


def overtake(path):
    """Others want the model: gc takes what it may, another job writes it."""
    collect_now(path)
    assert run(partial(write, path, 0, version=7)) in (DONE, EXISTS)


def replace_twice(path):
    replace(path)
    discard_if_there(path)
    assert run(partial(write, path, 0, version=8)) == DONE


WRITING = [point for point in faults.POINTS if point.startswith(("attempt", "seal", "claim", "publish"))]
DISCARDING = [point for point in faults.POINTS if point.startswith("discard")]


@METHODS
@pytest.mark.parametrize("meanwhile", [overtake, recover_now, replace, replace_twice])
@pytest.mark.parametrize("point", WRITING)
def test_a_writer_that_wakes_late_changes_nothing(path_of, method, point, meanwhile):
    path = path_of("empty.lira", method)
    zombie = start_suspended(partial(write, path, 0), point)
    meanwhile(path)
    committed = check(path)
    before = contents(path) if committed else None
    ending = resume(zombie)
    if before is None:  # nobody else has written the model
        assert ending == DONE
    else:
        assert ending in (DONE, LOST)
        assert contents(path) == before
    assert check(path) == [0]
    # Done means that the committed model is this one's, or was until it was discarded.
    if meanwhile is recover_now or (meanwhile is overtake and ending == DONE):
        assert open_store(path).commits()[0].metadata["version"] == 0
    collect_now(path)
    assert status(open_store(path)).attempts == []


@METHODS
@pytest.mark.parametrize("meanwhile", [replace, replace_twice])
@pytest.mark.parametrize("point", DISCARDING)
def test_a_discard_that_wakes_late_changes_nothing(path_of, method, point, meanwhile):
    path = path_of("one.lira", method)
    zombie = start_suspended(partial(discard_model, path, 0), point)
    meanwhile(path)
    before = contents(path)
    assert check(path) == [0]
    assert resume(zombie) == DONE
    assert contents(path) == before
    assert check(path) == [0]


@pytest.mark.parametrize("second", DISCARDING)
@pytest.mark.parametrize("first", DISCARDING)
def test_two_discards_that_wake_late_change_nothing(path_of, first, second):
    path = path_of("one.lira")
    zombies = [
        start_suspended(partial(discard_model, path, 0), first),
        start_suspended_if_reached(partial(discard_model, path, 0), second),
    ]
    replace(path)
    before = contents(path)
    for zombie in zombies:
        if zombie is not None:
            assert resume(zombie) in (DONE, ABSENT)
    assert contents(path) == before
    assert check(path) == [0]


def start_suspended_if_reached(action, point):
    """None if the process ends before: the other one had done that step."""
    try:
        return start_suspended(action, point)
    except AssertionError:
        return None


@pytest.mark.parametrize("point", [point for point in WRITING if point.startswith("publish")])
def test_a_recoverer_that_wakes_late_changes_nothing(path_of, point):
    path = path_of("empty.lira")
    assert run(partial(write, path, 0), "claim.linked") == -signal.SIGKILL
    zombie = start_suspended(partial(recover_now, path), point)
    replace(path)
    before = contents(path)
    assert resume(zombie) == DONE
    assert contents(path) == before
    assert check(path) == [0]


@METHODS
@pytest.mark.parametrize("point", ["attempt.created", "seal.manifest", "claim.ready"])
@pytest.mark.parametrize("gc_point", ["retire.disarmed", "retire.moved"])
def test_gc_and_a_writer_that_both_wake_late(path_of, method, point, gc_point):
    """gc goes for an attempt that is about to claim; each is suspended at its most delicate moment."""
    for writer_first in (True, False):
        path = path_of("empty.lira", method)
        writer = start_suspended(partial(write, path, 0), point)
        gc = start_suspended(partial(collect_now, path), gc_point)
        endings = [resume(pid) for pid in ((writer, gc) if writer_first else (gc, writer))]
        assert sorted(endings) == [DONE, LOST]
        assert check(path) == []
        assert run(partial(write, path, 0)) == DONE
        assert check(path) == [0]
        if writer_first:
            shutil.rmtree(path)


@METHODS
def test_gc_takes_nothing_from_a_writer_that_has_claimed(path_of, method):
    path = path_of("empty.lira", method)
    for point in ("claim.linked", "claim.durable", "publish.array"):
        writer = start_suspended(partial(write, path, 0), point)
        collect_now(path)  # an old claim is recovered by gc; this one is young
        assert resume(writer) == DONE
        assert check(path) == [0]
        assert run(partial(discard_model, path, 0)) == DONE


def test_a_discard_beats_a_publication_under_way(path_of):
    path = path_of("empty.lira")
    for point in ("claim.durable", "publish.array", "publish.arrays"):
        writer = start_suspended(partial(write, path, 0), point)
        assert run(partial(discard_model, path, 0)) == DONE
        assert resume(writer) == LOST
        assert check(path) == []
        assert not any((path / name / "c" / "0").exists() for name in ("logits", "scaled_logit"))


def test_chaos_on_one_model(path_of):
    """Everybody at one model, suspended and woken at random, repeatedly; nothing is ever half there."""
    rng = np.random.default_rng(int(os.environ.get("LIRASTORE_SEED", "0")))
    path = path_of("empty.lira")
    for version in range(int(os.environ.get("LIRASTORE_ROUNDS", "8"))):
        actions = [
            *(partial(write_if_pending, path, version * 3 + i) for i in range(3)),
            *(partial(discard_model, path, 0) for _ in range(2)),
            partial(recover_now, path),
            partial(collect_now, path),
        ]
        pids = [start(action) for action in actions]
        for _ in range(30):
            os.kill(int(rng.choice(pids)), signal.SIGSTOP if rng.random() < 0.6 else signal.SIGCONT)
            time.sleep(rng.uniform(0, 0.002))
        check(path)
        assert FAILED not in [resume(pid) for pid in rng.permutation(pids).tolist()]
        check(path)
    discard_if_there(path)
    assert check(path) == []
    assert run(partial(write, path, 0)) == DONE
    assert check(path) == [0]


def write_if_pending(path, version):
    try:
        write(path, 0, version)
    except AlreadyCommitted:
        return
