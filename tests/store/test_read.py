"""Reading committed models, and being told about everything that is not as it was committed."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from format1 import commit, random_model

from lirastore.errors import (
    DamagedStore,
    FormatVersionError,
    InputError,
    MissingData,
    ModelNotCommitted,
    NotAStore,
    UnknownModel,
)
from lirastore.store import create, open_store
from lirastore.store.integrity import store_damage

M, E, C = 4, 50, 6


@pytest.fixture
def store(tmp_path):
    """Models 1 and 3 of four are committed; two augmentations, one flat signal."""
    rng = np.random.default_rng(0)
    made = create(
        tmp_path / "s.lira",
        labels=rng.integers(0, C, E),
        membership=rng.random((M, E)) < 0.5,
        augmentations=["identity", "flip"],
        classes=C,
        signals=[("share", ("model", "example"))],
        preview=np.zeros((E, 2, 2, 1), np.uint8),
    )
    for model in (1, 3):
        commit(made, model, random_model(made, model))
    return made


@pytest.mark.parametrize("name", ["logits", "scaled_logit", "share"])
def test_what_was_committed_is_read(store, name):
    for model in (1, 3):
        expected = random_model(store, model)[name]
        found = store.read(name, model, 0, E)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(store.read(name, model, 7, 31), expected[7:31])
        out = np.empty_like(expected[7:31])
        assert store.read(name, model, 7, 31, out=out) is out
        np.testing.assert_array_equal(out, expected[7:31])


def test_committed_models_are_found_by_their_markers_afresh(store):
    other = open_store(store.path)
    assert store.committed().tolist() == [1, 3]
    assert store.committed().dtype == np.int64
    np.testing.assert_array_equal(store.membership(), store.membership([1, 3]))
    commit(other, 0, random_model(store, 0))
    assert store.committed().tolist() == [0, 1, 3]
    np.testing.assert_array_equal(store.read("share", 0, 0, E), random_model(store, 0)["share"])
    assert list(store.commits()) == [0, 1, 3]


def test_objects_without_a_marker_are_not_there(store):
    shutil.copytree(store.path / "logits/c/1", store.path / "logits/c/2")
    with pytest.raises(ModelNotCommitted, match="model 2 is not committed"):
        store.read("logits", 2, 0, 1)


def test_questions_that_have_no_answer(store):
    with pytest.raises(UnknownModel, match=r"model 4 is not in .*models are 0 to 3"):
        store.read("logits", 4, 0, 1)
    for model in (-1, 1.5, "1", None):
        with pytest.raises(UnknownModel, match=f"model {model} is not in"):
            store.read("logits", model, 0, 1)
    with pytest.raises(UnknownModel):
        store.membership([9])
    with pytest.raises(MissingData, match="no array 'loss'; it has logits, scaled_logit, share"):
        store.read("loss", 1, 0, 1)
    with pytest.raises(InputError, match=r"examples \[0, 51\).*\[0, 50\)"):
        store.read("logits", 1, 0, E + 1)
    with pytest.raises(InputError, match="examples"):
        store.read("logits", 1, 3, 2)
    with pytest.raises(InputError, match=r"shape \(3, 2, 6\), expected \(2, 2, 6\)"):
        store.read("logits", 1, 0, 2, out=np.empty((3, 2, C), np.float32))
    with pytest.raises(InputError, match="preview: rows 0 to 50, expected 0 to 49"):
        store.preview([0, 50])


def test_damage_names_the_model_and_the_object(store):
    path = store.path / "logits/c/3/0/0/0"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedStore, match=r"model 3 of .*logits/c/3/0/0/0: inner chunk 0 fails its crc32c"):
        store.read("logits", 3, 0, 1)
    path.write_bytes(data[:50])
    with pytest.raises(DamagedStore, match=r"logits/c/3/0/0/0.*index.*discard --models 3"):
        store.read("logits", 3, 0, 1)
    path.unlink()
    with pytest.raises(DamagedStore, match=r"logits/c/3/0/0/0: the object is absent"):
        store.read("logits", 3, 0, 1)
    store.read("logits", 1, 0, E)
    store.read("scaled_logit", 3, 0, E)


def test_the_engine_reports_nan_in_the_same_words(store):
    error = store.damage(3, "logits", 0, 10)
    assert isinstance(error, DamagedStore)
    assert "model 3" in str(error)
    assert "logits/c/3/0/0/0: it holds NaN or infinity within examples [0, 10)" in str(error)


def test_a_model_withdrawn_while_it_is_read_is_not_damage(store):
    store.committed()
    (store.lira / "commits" / "3.json").unlink()
    shutil.rmtree(store.path / "logits/c/3")
    with pytest.raises(ModelNotCommitted, match="model 3 was withdrawn"):
        store.read("logits", 3, 0, 1)


@pytest.mark.parametrize("key", ["label/c/0", "membership/c/1/0", "preview/c/0/0/0/0"])
@pytest.mark.parametrize("harm", ["flip", "cut", "grow", "remove"])
def test_labels_membership_and_pictures_are_never_filled_in(store, key, harm):
    path = store.path / key
    data = path.read_bytes()
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(
            {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "grow": data + b"x"}[harm]
        )
    reads = {"label": store.labels, "membership": store.membership, "preview": lambda: store.preview([3])}
    with pytest.raises(DamagedStore, match=key):
        reads[key.split("/")[0]]()
    ((owner, problem),) = store_damage(store)
    assert problem.startswith(f"{key}: ")
    assert owner == (1 if "membership" in key else None)


def test_damage_of_coordinates_is_found(store):
    (store.path / "augmentation/c/0").write_bytes(b"")
    (store.path / "model/c/0").unlink()
    first, second = (problem for _, problem in store_damage(store))
    assert first.startswith("model/c/0: the object is absent; restore this file")
    assert second.startswith("augmentation/c/0: ")
    (store.path / "augmentation/c/0").unlink()
    *_, (_, second) = store_damage(store)
    assert second.startswith("augmentation/c/0: the object is absent")


def edit(path, change) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_documents_that_disagree_are_damage(store):
    root = store.path
    good = (root / "logits/zarr.json").read_text()
    for change in (
        lambda d: d["shape"].__setitem__(1, 51),
        lambda d: d.__setitem__("data_type", "float64"),
        lambda d: d["dimension_names"].reverse(),
        lambda d: d["codecs"][0]["configuration"].__setitem__("index_location", "start"),
        lambda d: d["codecs"][0]["configuration"]["codecs"].pop(),
        lambda d: d["codecs"][0]["configuration"].__setitem__("chunk_shape", [1, 7, 2, 6]),
        lambda d: d["codecs"][0]["configuration"].__setitem__("chunk_shape", [1, 50, 2, 3]),
        lambda d: d["codecs"][0]["configuration"].__setitem__("chunk_shape", [1, "50", 2, 6]),
        lambda d: d["codecs"][0]["configuration"].__setitem__("chunk_shape", [1, 0, 2, 6]),
        lambda d: d.__setitem__("codecs", []),
        lambda d: d.pop("chunk_grid"),
    ):
        (root / "logits/zarr.json").write_text(good)
        edit(root / "logits/zarr.json", change)
        with pytest.raises(DamagedStore, match=r"logits/zarr\.json"):
            open_store(root)
    for text in ("", "[]", "{"):
        (root / "logits/zarr.json").write_text(text)
        with pytest.raises(DamagedStore, match=r"logits/zarr\.json"):
            open_store(root)
    (root / "logits/zarr.json").unlink()
    with pytest.raises(DamagedStore, match=r"logits/zarr\.json is absent"):
        open_store(root)


def test_small_arrays_whose_documents_disagree_are_damage(store):
    for name, change in (
        ("label", lambda d: d["shape"].__setitem__(0, 49)),
        ("membership", lambda d: d["codecs"].pop()),
        ("membership", lambda d: d["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(1, 25)),
        ("model", lambda d: d.pop("data_type")),
    ):
        path = store.path / name / "zarr.json"
        good = path.read_text()
        edit(path, change)
        with pytest.raises(DamagedStore, match=rf"{name}/zarr\.json"):
            open_store(store.path).labels()
        path.write_text(good)


def test_arrays_may_have_room_for_models_that_the_root_does_not_count_yet(store):
    before = store.set_digest()
    for name in ("logits", "scaled_logit", "share", "membership", "model"):
        edit(store.path / name / "zarr.json", lambda d: d["shape"].__setitem__(0, M + 2))
    (store.lira / "commits" / "5.json").write_text("{}")
    grown = open_store(store.path)
    assert grown.committed().tolist() == [1, 3]
    assert grown.set_digest() == before
    assert list(store_damage(grown)) == []
    np.testing.assert_array_equal(grown.read("share", 3, 0, E), store.read("share", 3, 0, E))
    with pytest.raises(UnknownModel):
        grown.read("share", 5, 0, 1)


def test_half_a_copy_is_no_store(store):
    shutil.rmtree(store.lira)
    with pytest.raises(NotAStore, match="_lirastore/commits: it is not a whole store"):
        open_store(store.path)


def test_a_marker_of_a_newer_format_is_refused(store):
    edit(store.lira / "commits" / "3.json", lambda d: d.__setitem__("format", 2))
    with pytest.raises(FormatVersionError, match=r"3\.json has format 2"):
        store.commits()


def test_a_marker_of_another_model_is_damage(store):
    edit(store.lira / "commits" / "3.json", lambda d: d.__setitem__("model", 1))
    with pytest.raises(DamagedStore, match=r"3\.json is the marker of model 1"):
        store.commits()


def test_the_set_digest_is_of_the_data_alone(store, tmp_path):
    first = store.set_digest()
    assert first == open_store(store.path).set_digest()
    edit(store.lira / "commits" / "3.json", lambda d: d.update(attempt="another", committed_at="later"))
    assert store.set_digest() == first
    (store.lira / "commits" / "3.json").rename(tmp_path / "3.json")
    without = store.set_digest()
    (tmp_path / "3.json").rename(store.lira / "commits" / "3.json")
    assert without != first
    assert store.set_digest() == first
    commit(store, 2, random_model(store, 2))
    assert store.set_digest() not in (first, without)


def test_many_threads_read_at_once(store):
    expected = {model: random_model(store, model)["logits"] for model in (1, 3)}

    def one(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            model = int(rng.choice([1, 3]))
            start, stop = np.sort(rng.integers(0, E + 1, 2))
            np.testing.assert_array_equal(
                store.read("logits", model, start, stop), expected[model][start:stop]
            )

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one, range(16)))


def test_an_open_store_travels_to_other_processes(store, monkeypatch):
    monkeypatch.chdir(store.path.parent)
    packed = pickle.dumps(open_store(store.path.name))
    monkeypatch.chdir("/")
    copy = pickle.loads(packed)
    np.testing.assert_array_equal(copy.read("share", 1, 0, 5), store.read("share", 1, 0, 5))
    assert repr(copy) == f"LogitStore('{store.path}')"
