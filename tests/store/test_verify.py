"""Verification finds every kind of damage and names its model."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from actors import make_store, outputs, write

from lirastore.errors import DamagedStore
from lirastore.store import verify_store
from lirastore.store.commit import Commit, keep_mask_digest, read_commit
from lirastore.store.shards import ArrayWriter


@pytest.fixture
def store(fast_path):
    store = make_store(fast_path / "s.lira")
    write(store.path, 0)
    write(store.path, 2)
    return store


def damaged(store):
    return verify_store(store).damaged


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def test_all_is_well(store, capsys):
    report = verify_store(store, progress=True)
    assert report.ok
    assert (report.models, report.objects) == (2, 4)
    assert report.bytes == sum(stored.size for c in store.commits().values() for stored in c.objects.values())
    assert report.lines() == [f"2 models, 4 objects, {report.bytes} bytes checked: all is well"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("array", ["logits/c/2/0/0/0", "scaled_logit/c/2/0/0"])
def test_every_single_byte_counts(store, array):
    path = store.path / array
    size = path.stat().st_size
    for offset in {0, size // 2, size - 30, size - 1}:
        flip(path, offset)
        assert list(damaged(store)) == [2]
        assert array in damaged(store)[2][0]
        flip(path, offset)
    assert damaged(store) == {}


@pytest.mark.parametrize("how", ["truncate", "extend", "remove", "empty", "directory"])
def test_objects_that_are_not_whole(store, how):
    path = store.path / "logits/c/0/0/0/0"
    match how:
        case "truncate":
            os.truncate(path, path.stat().st_size - 1)
        case "extend":
            path.write_bytes(path.read_bytes() + b"x")
        case "remove":
            path.unlink()
        case "empty":
            os.truncate(path, 0)
        case "directory":
            path.unlink()
            path.mkdir()
    assert list(damaged(store)) == [0]
    assert "logits/c/0/0/0/0" in damaged(store)[0][0]


def test_a_model_of_which_everything_is_gone(store):
    for name in store.arrays:
        shutil.rmtree(store.path / name / "c/2")
    assert list(damaged(store)) == [2]
    assert len(damaged(store)[2]) == 2


def test_objects_too_many(store):
    (store.path / "logits/c/0/0/0/1").touch()
    assert damaged(store) == {0: ["logits/c/0/0/0/1: no object of this store"]}


def test_objects_of_nobody(store):
    (store.path / "logits/c/1/0").mkdir(parents=True)
    assert list(damaged(store)) == [1]
    assert "nobody committed" in damaged(store)[1][0]


def test_markers(store):
    path = store.lira / "commits/0.json"
    whole = path.read_bytes()
    document = json.loads(whole)
    path.write_bytes(whole[:50])
    assert "no readable commit marker" in damaged(store)[0][0]
    path.write_text(json.dumps({**document, "digest": "0" * 64}))
    assert "digest" in damaged(store)[0][0]
    path.write_text(json.dumps({**document, "model": 2}))
    assert "marker of model 2" in damaged(store)[0][0]
    path.write_text(json.dumps({**document, "objects": {}}))
    assert any("absent from the marker" in line for line in damaged(store)[0])
    path.write_text(json.dumps({**document, "format": 9}))
    assert "upgrade" in damaged(store)[0][0]


def test_membership_rows(store):
    """A changed row with a right checksum is found by the digest in the marker; with a wrong one at once."""
    import zarr

    row = store.membership([2])[0]
    zarr.open_group(store.path)["membership"][2] = ~row
    assert list(damaged(store)) == [2]
    assert "membership" in damaged(store)[2][0]
    zarr.open_group(store.path)["membership"][2] = row
    assert damaged(store) == {}
    flip(store.path / "membership/c/2/0", 3)
    assert None in damaged(store)
    assert 2 in damaged(store)


def test_labels(store):
    import zarr

    labels = store.labels()
    zarr.open_group(store.path)["label"][...] = (labels + 1) % 3
    assert "fingerprint" in damaged(store)[None][0]
    zarr.open_group(store.path)["label"][...] = labels
    assert damaged(store) == {}
    flip(store.path / "label/c/0", 0)
    assert "label" in damaged(store)[None][0]


@pytest.mark.parametrize("name", ["model/c/0", "example/c/0", "augmentation/c/0"])
def test_coordinates(store, name):
    flip(store.path / name, 9)
    assert name in damaged(store)[None][0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_no_writer_lets_through(store, value):
    """Digests agree: it was stored like that, by another program."""
    values = outputs(1)
    values[7, 1, 0] = value
    objects = {}
    for name, block in (("logits", values), ("scaled_logit", values[..., 0])):
        array = ArrayWriter(store.path / name / "c/1", store.arrays[name])
        array.append(np.ascontiguousarray(block))
        objects |= {f"{name}/c/1/{key}": stored for key, stored in array.finish().items()}
    mask = keep_mask_digest(store.membership([1])[0])
    commit = Commit.sealed(1, "foreign", metadata={}, keep_mask=mask, objects=objects)
    (store.lira / "commits/1.json").write_bytes(commit.to_bytes())
    assert [line[:40] for line in damaged(store)[1]] == [
        "logits: NaN or infinity among examples 0",
        "scaled_logit: NaN or infinity among exam",
    ]


def test_results_are_checked_by_whoever_knows_them(store):
    report = verify_store(store, results=lambda lira: [f"scores/x: absent ({lira.name})"])
    assert report.damaged == {None: ["results/scores/x: absent (_lirastore)"]}
    assert report.lines()[0] == "store: results/scores/x: absent (_lirastore)"
    assert report.lines()[-1].endswith("checked: 1 problems")


def test_a_model_withdrawn_meanwhile_is_no_damage(store, monkeypatch):
    from lirastore.store import discard, verify

    real = verify.keep_mask_digest
    discard(store, [2])

    def slow(row):
        if 0 in store.committed():
            discard(store, [0])
        return real(row)

    monkeypatch.setattr(verify, "keep_mask_digest", slow)
    assert verify_store(store).ok


def test_a_model_written_again_meanwhile_is_checked_again(store, monkeypatch):
    from lirastore.store import discard, verify

    real = verify.keep_mask_digest
    discard(store, [2])
    old = read_commit(store, 0).attempt

    def slow(row):
        if read_commit(store, 0).attempt == old:
            discard(store, [0])
            write(store.path, 0, version=1)
        return real(row)

    monkeypatch.setattr(verify, "keep_mask_digest", slow)
    assert verify_store(store).ok


def test_damage_is_an_error_when_it_is_read(store):
    flip(store.path / "logits/c/0/0/0/0", 5)
    with pytest.raises(DamagedStore, match="model 0"):
        store.read("logits", 0, 0, 10)
