"""What status shows and gc removes."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from functools import partial

import pytest
from actors import DONE, NOW, check, make_store, run, start_suspended, wait, write

from lirastore.store import gc_store, open_store, status
from lirastore.store.protocol import Places


@pytest.fixture
def store(fast_path):
    return make_store(fast_path / "s.lira")


def kill_at(store, model, point, **options):
    assert run(partial(write, store.path, model, **options), point) == -9


def age(store, seconds, model="*"):
    for heartbeat in store.lira.glob(f"staging/{model}/*/heartbeat"):
        then = heartbeat.stat().st_mtime - seconds
        os.utime(heartbeat, (then, then))


def states(store):
    return [(attempt.model, attempt.state) for attempt in status(store).attempts]


def test_an_empty_store(store):
    found = status(store)
    assert (found.models, found.committed, found.pending) == (3, 0, [0, 1, 2])
    assert (found.stale_attempts, found.attempts) == (0, [])
    assert gc_store(store).lines() == []


def test_a_live_attempt_is_active_and_gc_leaves_it(store):
    with pytest.raises(ZeroDivisionError), store.writer(1):
        (attempt,) = status(store).attempts
        assert (attempt.model, attempt.state, attempt.pid) == (1, "active", os.getpid())
        assert attempt.silent < 30
        assert gc_store(store).attempts == []
        assert status(store).stale_attempts == 0
        raise ZeroDivisionError


def test_an_attempt_of_a_killed_process_is_stale_at_once_and_collected_in_time(store):
    kill_at(store, 1, "seal.manifest")
    found = status(store)
    assert (found.stale_attempts, found.pending) == (1, [0, 1, 2])
    assert gc_store(store).attempts == []  # a heartbeat of a second ago
    age(store, 24 * 3600 - 60)
    assert gc_store(store).attempts == []
    age(store, 61)
    report = gc_store(store)
    assert [model for model, _ in report.attempts] == [1]
    assert "removed attempt" in report.lines()[0]
    assert status(store).stale_attempts == 0
    write(store.path, 1)
    assert check(store.path) == [1]


def test_older_than_is_the_callers_choice(store):
    kill_at(store, 1, "seal.manifest")
    age(store, 120)
    assert gc_store(store, older_than=timedelta(minutes=3)).attempts == []
    assert len(gc_store(store, older_than=timedelta(minutes=1)).attempts) == 1


def test_a_silent_attempt_of_another_machine_is_stale_after_a_while(store):
    pid = start_suspended(partial(write, store.path, 0), "seal.manifest")
    assert states(store) == [(0, "active")]
    age(store, 200)
    assert states(store) == [(0, "active")]
    age(store, 101)
    assert states(store) == [(0, "stale")]
    os.kill(pid, 9)
    assert wait(pid) == -9


def test_attempts_of_a_committed_model_go_whatever_their_heartbeat(store):
    kill_at(store, 0, "claim.ready")
    write(store.path, 0)
    assert states(store) == [(0, "stale")]
    assert [model for model, _ in gc_store(store).attempts] == [0]
    assert states(store) == []
    assert check(store.path) == [0]


def test_a_claimed_attempt_is_shown_and_kept_and_published_when_it_is_old(store):
    kill_at(store, 0, "claim.linked")
    age(store, 10**6)
    assert states(store) == [(0, "claimed")]
    assert status(store).stale_attempts == 0
    assert gc_store(store, older_than=NOW).attempts == []
    claim = Places.of(store).claim(0, 0)
    os.utime(claim, (0, 0))
    report = gc_store(store)
    assert report.recovered.published == [0]
    assert "published model 0" in report.lines()[0]
    assert check(store.path) == [0]


def test_the_remains_of_a_publication_go(store):
    kill_at(store, 0, "publish.durable")
    assert check(store.path) == [0]
    assert len(gc_store(store).attempts) == 1
    assert list((store.lira / "staging").iterdir()) == []
    assert check(store.path) == [0]


def test_trash_and_old_preparations_go(store):
    kill_at(store, 0, "attempt.prepared")
    (store.lira / "trash/heap").mkdir(parents=True)
    (store.lira / "trash/heap/file").touch()
    gc_store(store, older_than=NOW)
    assert list((store.lira / "trash").iterdir()) == []
    (preparation,) = store.lira.glob("staging/0/.new-*")
    assert status(store).attempts == []
    os.utime(preparation, (0, 0))
    gc_store(store)
    assert list((store.lira / "staging").iterdir()) == []


def test_probes_of_the_clock_go(store):
    (store.lira / "results").mkdir(exist_ok=True)
    probes = [folder / ".clock-0123" for folder in (store.lira, store.lira / "results")]
    for probe in probes:
        probe.touch()
    gc_store(store)
    assert all(probe.exists() for probe in probes)  # somebody may be reading the time
    for probe in probes:
        os.utime(probe, (0, 0))
    gc_store(store)
    assert not any(probe.exists() for probe in probes)


def test_remains_of_killed_creations_go(store):
    parent = store.path.parent
    ours = parent / "s.lira.0123456789ab.partial"
    others = [
        parent / "t.lira.0123456789ab.partial",
        parent / "s.lira.backup.partial",
        parent / "s.lira.0123456789ab.partial.keep",
        parent / "sxlira.0123456789ab.partial",
        parent / "s.lira.ba9876543210.partial",
    ]
    for path in (ours, *others):
        (path / "label").mkdir(parents=True)
    assert gc_store(store, older_than=NOW).creations == []
    for path in (ours, *others[:-1]):
        os.utime(path, (0, 0))
    assert gc_store(store).lines() == ["removed unfinished creation s.lira.0123456789ab.partial"]
    assert not ours.exists()
    assert all(path.exists() for path in others)


def test_a_symlink_is_no_remainder(store):
    other = store.path.parent / "other"
    (other / "data").mkdir(parents=True)
    link = store.path.with_name("s.lira.0123456789ab.partial")
    link.symlink_to(other)
    os.utime(link, (0, 0), follow_symlinks=False)
    assert gc_store(store).creations == []
    assert (other / "data").exists()


def test_runs_are_left_to_whoever_knows_them(store):
    seen = []

    def old_runs(lira, seconds):
        seen.append((lira, seconds))
        return ["scores/lira_online/abc"]

    report = gc_store(store, older_than=timedelta(hours=1), results=old_runs)
    assert seen == [(store.lira, 3600.0)]
    assert report.lines() == ["removed run scores/lira_online/abc"]


def test_remains_without_a_heartbeat_are_shown_and_go(store):
    """A writer whose attempt was taken away can make its directory again by going on writing."""
    remains = store.lira / "staging/2/some-attempt/logits/0"
    remains.mkdir(parents=True)
    (remains.parent.parent / "attempt.json").write_bytes(b"")
    assert states(store) == [(2, "active")]
    os.utime(remains.parent.parent, (0, 0))
    assert states(store) == [(2, "stale")]
    assert len(gc_store(store).attempts) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user, to one who may not write")
def test_status_and_reading_write_nothing(store):
    write(store.path, 0)
    kill_at(store, 1, "seal.manifest")
    kill_at(store, 2, "claim.linked")
    for parent in (store.path.parent, store.path.parent.parent):
        parent.chmod(0o755)

    before = snapshot(store)
    assert run(partial(look, store.path)) == DONE
    assert snapshot(store) == before


def look(path):
    """As a user who may not write: model 0 is committed, 1 was killed before its claim, 2 after it."""
    os.setuid(65534)
    assert not os.access(path, os.W_OK)
    assert [attempt.state for attempt in status(open_store(path)).attempts] == ["stale", "claimed"]
    assert check(path) == [0]


def snapshot(store):
    return {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}


def test_permissions_are_the_users_own(store):
    """Documents are readable by whom the umask lets read: stores are shared within groups."""
    write(store.path, 0)
    umask = os.umask(0)
    os.umask(umask)
    for path in store.path.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o777 if path.is_dir() else 0o666) & ~umask
