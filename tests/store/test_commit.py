"""Filesystem primitives, commit documents, claims and publication, one step at a time."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from actors import EXAMPLES, check, make_store, outputs, run, write

from lirastore.errors import (
    AlreadyCommitted,
    DamagedStore,
    FormatVersionError,
    InputError,
    LostClaim,
    ModelNotCommitted,
    UnsupportedFilesystem,
)
from lirastore.store import fsio
from lirastore.store.attempt import Attempt
from lirastore.store.commit import Commit, keep_mask_digest, model_digest, parse_commit, read_commit
from lirastore.store.protocol import Places, claim, current_claim, publish
from lirastore.store.recover import recover, settle
from lirastore.store.shards import StoredObject
from lirastore.store.withdraw import discard

# --- primitives ---------------------------------------------------------------------------------------


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    for data in (b"one", b"another"):
        fsio.write_atomic(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomic_that_fails_keeps_the_old(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    fsio.write_atomic(path, b"old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        fsio.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_aside_appears_whole(tmp_path):
    path = tmp_path / "page.html"
    with fsio.replacing(path) as file:
        file.write(b"first ")
        assert not path.exists()
        with fsio.replacing(path) as other:  # of the same process
            other.write(b"other")
        assert path.read_bytes() == b"other"
        file.write(b"second")
    assert path.read_bytes() == b"first second"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_fails_aside_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "page.html"
    path.write_bytes(b"old")
    with pytest.raises(error), fsio.replacing(path) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_move_says_whether_it_moved(tmp_path):
    (tmp_path / "a").touch()
    assert fsio.move(tmp_path / "a", tmp_path / "b")
    assert not fsio.move(tmp_path / "a", tmp_path / "c")
    assert not fsio.move(tmp_path / "b", tmp_path / "absent" / "b")
    assert (tmp_path / "b").exists()


def test_remove_tree_beside_another(tmp_path, monkeypatch):
    """What vanishes while it is being deleted was deleted by somebody else."""
    tree = tmp_path / "tree"
    (tree / "deep" / "deeper").mkdir(parents=True)
    (tree / "deep" / "file").touch()
    (tree / "link").symlink_to(tmp_path)
    real = fsio.entries

    def slow(directory):
        found = real(directory)
        if directory == tree:
            (tree / "deep" / "file").unlink()
            (tree / "deep" / "deeper").rmdir()
        return found

    monkeypatch.setattr(fsio, "entries", slow)
    fsio.remove_tree(tree)
    fsio.remove_tree(tree)
    assert list(tmp_path.iterdir()) == []


def test_the_clock_is_the_filesystems(tmp_path):
    assert abs(fsio.clock(tmp_path) - (tmp_path / "..").stat().st_mtime) < 60
    assert list(tmp_path.iterdir()) == []


def test_filesystems_without_links_are_found_out(tmp_path, monkeypatch):
    assert fsio.probe_claim_method(tmp_path) == "link"

    def refuse(self, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert fsio.probe_claim_method(tmp_path) == "rename"
    monkeypatch.setattr(Path, "rename", lambda self, target: None)
    with pytest.raises(UnsupportedFilesystem, match=r"link: hard links are refused .*; rename: .* replaced"):
        fsio.probe_claim_method(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_replaces_is_no_claim(tmp_path, monkeypatch):
    def replace(self, target):
        self.unlink(missing_ok=True)
        self.write_bytes(Path(target).read_bytes())

    monkeypatch.setattr(Path, "hardlink_to", replace)
    assert fsio.probe_claim_method(tmp_path) == "rename"


# --- documents ----------------------------------------------------------------------------------------

OBJECTS = {"logits/c/3/0/0/0": StoredObject(10, "ab" * 32), "logits/c/3/1/0/0": StoredObject(9, "cd" * 32)}


def sealed(**changes):
    commit = Commit.sealed(3, "attempt-1", metadata={"seed": 5}, keep_mask="ef" * 32, objects=OBJECTS)
    return dataclasses.replace(commit, **changes)


def test_a_marker_reads_back_as_it_was_written():
    commit = sealed()
    assert parse_commit(commit.to_bytes(), Path("3.json")) == commit
    assert json.loads(commit.to_bytes())["objects"]["logits/c/3/0/0/0"] == {"size": 10, "sha256": "ab" * 32}


def test_digests_know_the_data_and_nothing_else():
    assert sealed().digest == sealed(attempt="other", committed_at="later", metadata={}).digest
    assert model_digest(OBJECTS) == model_digest(dict(reversed(OBJECTS.items())))
    assert model_digest(OBJECTS) != model_digest({**OBJECTS, "x": StoredObject(1, "00")})
    mask = np.arange(10) % 3 == 0
    assert keep_mask_digest(mask) == keep_mask_digest(np.repeat(mask, 2)[::2]) != keep_mask_digest(~mask)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"format": 1}', b'{"format": 1, "model": "x"}']
)
def test_unreadable_markers(data):
    with pytest.raises(DamagedStore, match=r"3\.json is no readable commit marker .*discard --models 3"):
        parse_commit(data, Path("3.json"))


def test_a_marker_of_a_newer_format():
    with pytest.raises(FormatVersionError, match="format 2"):
        parse_commit(b'{"format": 2}', Path("3.json"))


@pytest.fixture
def store(fast_path):
    return make_store(fast_path / "s.lira")


def test_reading_markers(store):
    write(store.path, 0)
    assert read_commit(store, 0).model == 0
    with pytest.raises(ModelNotCommitted, match="model 1 is not committed"):
        read_commit(store, 1)
    marker = store.lira / "commits"
    (marker / "1.json").write_bytes((marker / "0.json").read_bytes())
    with pytest.raises(DamagedStore, match="the marker of model 0"):
        read_commit(store, 1)
    for name in ("00.json", "x.json", "3.json", "2.claim", ".2.json.partial", "2.json~"):
        (marker / name).touch()
    assert store.committed().tolist() == [0, 1]


def test_the_marker_lists_every_object_with_its_size(store):
    write(store.path, 2)
    commit = read_commit(store, 2)
    found = [
        path for name in store.arrays for path in (store.path / name / "c/2").rglob("*") if path.is_file()
    ]
    assert {path.relative_to(store.path).as_posix(): path.stat().st_size for path in found} == {
        key: stored.size for key, stored in commit.objects.items()
    }
    assert commit.keep_mask == keep_mask_digest(store.membership([2])[0])
    assert datetime.fromisoformat(commit.committed_at).tzinfo is UTC


# --- claims -------------------------------------------------------------------------------------------


def test_a_lost_reply_is_no_loss(store):
    """The link succeeded, the server's answer was lost, and the retry finds the name taken: by ourselves."""
    places = Places.of(store)
    attempt = Attempt(places, 0)
    for _ in range(2):
        claim(places, 0, attempt.name)
    assert current_claim(places, 0).attempt == attempt.name
    other = Attempt(places, 0)
    with pytest.raises(LostClaim, match=f"committed by attempt {attempt.name}"):
        claim(places, 0, other.name)
    attempt.close()
    other.close()


def test_an_unreadable_claim_is_named(store):
    path = Places.of(store).commits / "0.claim"
    path.write_bytes(b"")
    with pytest.raises(DamagedStore, match=r"0\.claim is no readable claim"):
        store.writer(0)


def claimed(store, model=0):
    """A model that is claimed and not published: its writer died between the two."""
    assert run(partial(write, store.path, model), "claim.durable") == -9
    return current_claim(Places.of(store), model).attempt


def test_settling_publishes_once(store):
    claimed(store)
    assert store.committed().size == 0
    assert settle(store, 0)
    assert settle(store, 0)
    assert not settle(store, 1)
    assert check(store.path) == [0]


def test_publishing_again_is_harmless(store):
    attempt = claimed(store)
    places = Places.of(store)
    first = publish(places, 0, attempt)
    assert publish(places, 0, attempt) == first == read_commit(store, 0)


def test_young_claims_are_left_to_their_writers(store):
    claimed(store)
    assert recover(store).published == []
    claim_path = current_claim(Places.of(store), 0).path
    os.utime(claim_path, (claim_path.stat().st_mtime - 601,) * 2)
    assert recover(store).published == [0]
    assert recover(store).published == []


def test_the_age_of_a_claim_counts_from_the_claim(store):
    """Not from the beginning of the attempt, hours before."""
    places = Places.of(store)
    attempt = Attempt(places, 0)
    os.utime(places.claim_source(0, attempt.name), (0, 0))
    claim(places, 0, attempt.name)
    attempt.close()
    assert abs(current_claim(places, 0).path.stat().st_mtime - fsio.clock(store.lira)) < 5


def remove_attempt(store, attempt):
    fsio.remove_tree(Places.of(store).attempt(0, attempt))


def test_a_claim_whose_attempt_is_lost_is_named_and_can_be_withdrawn(store):
    attempt = claimed(store)
    remove_attempt(store, attempt)
    with pytest.raises(DamagedStore, match=f"claimed by attempt {attempt}.*gone.*discard --models 0"):
        store.writer(0)
    os.utime(current_claim(Places.of(store), 0).path, (0, 0))
    assert list(recover(store).stuck) == [0]
    discard(store, [0])
    write(store.path, 0, version=1)
    assert check(store.path) == [0]


@pytest.mark.parametrize("spoil", ["truncate", "remove"])
def test_a_claimed_attempt_that_was_damaged_is_not_published(store, spoil):
    attempt = claimed(store)
    staged = Places.of(store).attempt(0, attempt) / "scaled_logit/0/0"
    if spoil == "truncate":
        os.truncate(staged, 5)
    else:
        staged.unlink()
    with pytest.raises(DamagedStore, match="scaled_logit/c/0/0/0"):
        store.writer(0)
    assert store.committed().size == 0
    discard(store, [0])
    write(store.path, 0)
    assert check(store.path) == [0]


def test_something_in_the_way_is_not_replaced(store):
    stray = store.path / "logits/c/0/stray"
    stray.parent.mkdir()
    stray.touch()
    with pytest.raises(DamagedStore, match="in the way"):
        write(store.path, 0)
    assert stray.exists()
    assert store.committed().size == 0
    stray.unlink()
    with pytest.raises(AlreadyCommitted):
        store.writer(0)
    assert check(store.path) == [0]


# --- discarding ---------------------------------------------------------------------------------------


def test_a_discarded_model_can_be_written_again_and_again(store):
    for version in range(4):
        write(store.path, 0, version)
        assert check(store.path) == [0]
        np.testing.assert_array_equal(store.read("logits", 0, 0, EXAMPLES), outputs(0, version))
        assert discard(store, [0]) == [0]
        assert check(store.path) == []
        with pytest.raises(ModelNotCommitted):
            store.read("logits", 0, 0, EXAMPLES)
    assert not (store.path / "logits/c/0").exists()


def test_discarding_is_all_or_nothing_about_what_it_is_asked(store):
    write(store.path, 0)
    with pytest.raises(ModelNotCommitted, match="1, 2 of the models to discard"):
        discard(store, [0, 1, 2])
    assert check(store.path) == [0]


def test_a_damaged_model_can_be_discarded(store):
    write(store.path, 0)
    (store.lira / "commits/0.json").write_bytes(b"{")
    fsio.remove_tree(store.path / "logits/c/0")
    with pytest.raises(DamagedStore):
        read_commit(store, 0)
    discard(store, [0])
    write(store.path, 0)
    assert check(store.path) == [0]


@pytest.mark.parametrize("marker", ["whole", "damaged"])
def test_a_model_whose_claim_was_lost_can_be_discarded(store, marker):
    write(store.path, 0)
    (store.lira / "commits/0.claim").unlink()
    if marker == "damaged":
        (store.lira / "commits/0.json").write_bytes(b"")
    discard(store, [0])
    write(store.path, 0)
    assert check(store.path) == [0]


def test_a_reader_with_the_model_open_is_told(store):
    write(store.path, 0)
    assert store.committed().tolist() == [0]
    discard(store, [0])
    with pytest.raises(ModelNotCommitted):
        store.read("scaled_logit", 0, 0, EXAMPLES)


def test_discarding_nothing_is_a_mistake(fast_path):
    with pytest.raises(InputError, match="no models given"):
        discard(make_store(fast_path / "s.lira"), [])
