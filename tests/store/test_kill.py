"""Processes killed at every step of the protocol and at random, with others working on the same store."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from functools import partial

import numpy as np
import pytest
from actors import (
    DONE,
    EXAMPLES,
    EXISTS,
    FAILED,
    MODELS,
    check,
    collect_now,
    discard_model,
    forever,
    make_store,
    recover_now,
    run,
    start,
    wait,
    write,
    write_pending,
)

from lirastore.errors import ModelNotCommitted
from lirastore.store import faults, open_store
from lirastore.store.housekeeping import status


@pytest.fixture(scope="module")
def digest(memory):
    """The set digest of an undisturbed run."""
    path = memory / "undisturbed.lira"
    make_store(path)
    write_pending(path)
    return open_store(path).set_digest()


def action_that_reaches(point):
    """The store to begin with, what to do to it, and to which model."""
    match point.split(".")[0]:
        case "spill":
            return "one.lira", partial(write, model=1, shuffled=True), 1
        case "retire":
            return "one.lira", partial(write, model=1, fail=True), 1
        case "discard":
            return "one.lira", partial(discard_model, model=0), 0
        case _:
            return "one.lira", partial(write, model=1), 1


def assert_completes(path, digest):
    """A rerun finishes everything, gc leaves nothing over, and the store is as if nothing had happened."""
    assert run(partial(write_pending, path)) == DONE
    assert check(path) == list(range(MODELS))
    assert open_store(path).set_digest() == digest
    for preparation in (path / "_lirastore").glob("*/*/.new-*"):  # gc waits until nobody can be at work on it
        os.utime(preparation, (0, 0))
    collect_now(path)
    assert status(open_store(path)).attempts == []
    assert [*(path / "_lirastore/staging").iterdir(), *(path / "_lirastore/trash").iterdir()] == []
    assert not list((path / "_lirastore").glob("*/*/.new-*"))


POINTS = [
    *faults.POINTS,
    "write.batch:kill:3",
    *(f"{step}.array:kill:{n}" for step in ("publish", "discard") for n in (2, 3)),
]


@pytest.mark.parametrize("method", ["link", "rename"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_point(path_of, digest, point, method):
    name, action, model = action_that_reaches(point)
    path = path_of(name, method)
    assert run(partial(action, path), point) == -signal.SIGKILL, f"{point} was not reached"
    committed = check(path)
    if model != 0:
        assert 0 in committed
    # The claim is the point of no return: from there on the model comes, whoever brings it.
    if point.startswith(("claim.linked", "claim.durable", "publish")):
        recover_now(path)
        assert check(path) == [0, 1]
    if point.startswith("discard"):
        recover_now(path)
        assert check(path) == []
    assert_completes(path, digest)


@pytest.mark.parametrize("second", [point for point in POINTS if point.startswith("publish")])
@pytest.mark.parametrize("first", ["claim.linked", "publish.array", "publish.arrays", "publish.marker"])
def test_killed_again_while_recovering(path_of, digest, first, second):
    path = path_of("one.lira")
    assert run(partial(write, path, 1), first) == -signal.SIGKILL
    assert run(partial(recover_now, path), second) in (-signal.SIGKILL, DONE)
    check(path)
    assert_completes(path, digest)


@pytest.mark.parametrize("first", [point for point in POINTS if point.startswith("discard")])
@pytest.mark.parametrize("second", ["discard.fenced", "discard.marker", "discard.array", "discard.arrays"])
def test_killed_again_while_completing_a_discard(path_of, digest, first, second):
    path = path_of("one.lira")
    assert run(partial(discard_model, path, 0), first) == -signal.SIGKILL
    assert run(partial(write, path, 0), second) in (-signal.SIGKILL, DONE)
    check(path)
    assert_completes(path, digest)


@pytest.mark.parametrize("point", ["claim.linked", "publish.array", "publish.marker", "publish.durable"])
def test_who_wants_a_claimed_model_publishes_it_at_once(path_of, point):
    path = path_of("one.lira")
    assert run(partial(write, path, 1), point) == -signal.SIGKILL
    assert run(partial(write, path, 1, version=1)) == EXISTS
    assert check(path) == [0, 1]
    assert open_store(path).commits()[1].metadata["version"] == 0


@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith(("write", "spill", "seal", "claim"))])
def test_interrupted_at_each_point(path_of, digest, point):
    """Ctrl-C leaves nothing behind before the claim, and a model that will be published after it."""
    name, action, _ = action_that_reaches(point)
    path = path_of(name)
    point, *times = point.split(":kill:")
    assert run(partial(action, path), ":".join([point, "interrupt", *times])) == FAILED
    left = status(open_store(path)).attempts
    if point == "write.batch":  # the writing thread gets there, so the interrupt may come at any moment
        assert {attempt.state for attempt in left} <= {"claimed", "stale"}
    elif point in ("claim.linked", "claim.durable"):
        assert [attempt.state for attempt in left] == ["claimed"]
    else:
        assert left == []
    check(path)
    assert_completes(path, digest)


def test_killed_at_random_with_others_beside(path_of, digest):
    """Rounds of writers, gc, recovery, a discarder and a reader, all killed after some milliseconds."""
    rng = np.random.default_rng(int(os.environ.get("LIRASTORE_SEED", "0")))
    path = path_of("empty.lira")
    kills = 0
    for _ in range(int(os.environ.get("LIRASTORE_ROUNDS", "30"))):
        actions = [
            *(partial(write_pending, path, range(m, MODELS)) for m in (0, 0, 1)),
            partial(collect_now, path),
            partial(recover_now, path),
            partial(read_committed, path),
            *([partial(discard_model, path, int(rng.integers(MODELS)))] if rng.random() < 0.5 else []),
        ]
        pids = [start(partial(forever, action)) for action in actions]
        time.sleep(rng.uniform(0, 0.06))
        for pid in rng.permutation(pids).tolist():
            os.kill(pid, signal.SIGKILL)
        endings = [wait(pid) for pid in pids]
        assert FAILED not in endings
        kills += sum(ending == -signal.SIGKILL for ending in endings)
        check(path)
    assert kills >= 4 * 30
    assert_completes(path, digest)


def read_committed(path):
    """What a reader does: all of what is committed must be whole, though models come and go meanwhile."""
    store = open_store(path)
    for model in store.committed().tolist():
        with contextlib.suppress(ModelNotCommitted):  # withdrawn while it was read
            assert np.isfinite(store.read("logits", model, 0, EXAMPLES)).all()
