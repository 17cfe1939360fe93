"""Verification finds every kind of damage and names its model."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from actors import make_store, outputs, write

from lirastore.errors import DamagedStore
from lirastore.store import create, verify_store
from lirastore.store.commit import Commit, keep_mask_digest, read_commit
from lirastore.store.shards import ArrayWriter

REMEDY = "restore it from a copy of the store, or discard the model and write it again"


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
    assert (report.models, report.objects) == (2, 6)
    assert report.bytes == sum(stored.size for c in store.commits().values() for stored in c.objects.values())
    assert report.lines() == [f"2 models, 6 objects, {report.bytes} bytes checked: all is well"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "array", ["logits/c/2/0/0/0", "scaled_logit/c/2/0/0", "population_scaled_logit/c/2/0"]
)
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
    assert len(damaged(store)[2]) == 3


def test_objects_too_many(store):
    (store.path / "logits/c/0/0/0/1").touch()
    assert damaged(store) == {0: ["logits/c/0/0/0/1: no object of this store; move it out"]}


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


def test_markers_that_are_no_text_are_not_shown(store):
    (store.lira / "commits/0.json").write_bytes(b"\xff" * 10_000)
    (line,) = damaged(store)[0]
    assert "no readable commit marker (UnicodeDecodeError: " in line
    assert len(line) < 400


def test_claims(store):
    (store.lira / "commits/0.claim").write_bytes(b"{")
    (line,) = damaged(store)[0]
    assert "0.claim is no readable claim (JSONDecodeError: " in line


def test_membership_rows(store):
    """A changed row with a right checksum is found by the digest in the marker; with a wrong one at once."""
    import zarr

    row = store.membership([2])[0]
    zarr.open_group(store.path)["membership"][2] = ~row
    assert list(damaged(store)) == [2]
    assert "membership" in damaged(store)[2][0]
    zarr.open_group(store.path)["membership"][2] = row
    assert damaged(store) == {}
    for model in (1, 2):  # committed or not, one line that names it; the model's objects are checked as well
        flip(store.path / f"membership/c/{model}/0", 3)
    (store.path / "scaled_logit/c/2/0/0").unlink()
    crc = "it fails its crc32c; restore this file from a copy of the store"
    assert damaged(store) == {
        1: [f"membership/c/1/0: {crc}"],
        2: [f"membership/c/2/0: {crc}", f"scaled_logit/c/2/0/0: no such file or directory; {REMEDY}"],
    }


def test_labels(store):
    import zarr

    labels = store.labels()
    zarr.open_group(store.path)["label"][...] = (labels + 1) % 3
    (line,) = damaged(store)[None]
    assert line.startswith(
        "label: not what the store was made with (the data set's fingerprint differs); restore"
    )
    zarr.open_group(store.path)["label"][...] = labels
    assert damaged(store) == {}
    flip(store.path / "label/c/0", 0)
    assert "label" in damaged(store)[None][0]


@pytest.mark.parametrize("name", ["model/c/0", "example/c/0", "augmentation/c/0"])
def test_coordinates(store, name):
    flip(store.path / name, 9)
    (line,) = damaged(store)[None]
    assert line.startswith(f"{name}: ")
    assert "restore this file from a copy of the store" in line


def test_coordinates_with_a_right_checksum(store):
    import zarr

    zarr.open_group(store.path)["example"][3] = 4
    assert "example/c/0: it does not hold the row numbers" in damaged(store)[None][0]


@pytest.mark.parametrize("contents", [b'{"zarr_format": 3, "attr', b"", b"\xff\xfe\x00", b"[]"])
@pytest.mark.parametrize("name", ["label", "membership", "example", "augmentation", "_lirastore"])
def test_documents(store, name, contents):
    """One line each, and everything else is checked all the same."""
    (store.path / name / "zarr.json").write_bytes(contents)
    (store.path / "logits/c/2/0/0/0").unlink()
    (line,) = damaged(store)[None]
    assert f"{name}/zarr.json" in line
    assert "restore it from a copy of the store" in line
    assert damaged(store)[2] == [f"logits/c/2/0/0/0: no such file or directory; {REMEDY}"]


def test_pictures(fast_path):
    pictures = np.arange(40 * 12, dtype=np.uint16).astype(np.uint8).reshape(40, 2, 2, 3)
    plan = {
        "labels": np.zeros(40, int),
        "membership": np.ones((2, 40), bool),
        "augmentations": 1,
        "classes": 2,
    }
    store = create(fast_path / "p.lira", preview=pictures, **plan)
    assert damaged(store) == {}
    other = create(fast_path / "q.lira", preview=pictures + 1, **plan)
    shutil.copytree(other.path / "preview/c", store.path / "preview/c", dirs_exist_ok=True)
    assert damaged(store)[None][0].startswith("label, preview: not what the store was made with")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_no_writer_lets_through(store, value):
    """Digests agree: it was stored like that, by another program."""
    values = outputs(1)
    values[7, 1, 0] = value
    objects = {}
    points = np.full(11, value, dtype=np.float32)
    for name, block in (
        ("logits", values),
        ("scaled_logit", values[..., 0]),
        ("population_scaled_logit", points),
    ):
        array = ArrayWriter(store.path / name / "c/1", store.arrays[name])
        array.append(np.ascontiguousarray(block))
        objects |= {f"{name}/c/1/{key}": stored for key, stored in array.finish().items()}
    mask = keep_mask_digest(store.membership([1])[0])
    commit = Commit.sealed(1, "foreign", metadata={}, keep_mask=mask, objects=objects)
    (store.lira / "commits/1.json").write_bytes(commit.to_bytes())
    assert [line[:40] for line in damaged(store)[1]] == [
        "logits: NaN or infinity among examples 0",
        "population_scaled_logit: NaN or infinity",
        "scaled_logit: NaN or infinity among exam",
    ]


def test_results_are_checked_by_whoever_knows_them(store):
    report = verify_store(store, results=lambda lira: [f"scores/x: absent ({lira.name})"])
    assert report.damaged == {None: ["results/scores/x: absent (_lirastore)"]}
    assert report.lines()[0] == "store: results/scores/x: absent (_lirastore)"
    assert report.lines()[-1].endswith("checked: 1 problem")


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
