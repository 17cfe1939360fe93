"""A store, written as an archive and read back, is the store it was."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import foreign
import numpy as np
import pytest

from lirastore import importers
from lirastore.errors import DamagedStore, InputError, MissingData, SourceError
from lirastore.store import LogitStore, create, open_store


@pytest.fixture
def truth():
    return foreign.experiment()


def made(path: Path, truth: foreign.Truth, models: list[int], **options) -> LogitStore:
    """A store in which `models` are committed."""
    usual = {"classes": 5, "augmentations": ["identity", "flip"], "name": "digits"}
    store = create(path, labels=truth.labels, membership=truth.membership, **{**usual, **options})
    for model in models:
        with store.writer(model, metadata={"seed": model, "train_accuracy": 0.5}) as writer:
            signals = {"mine": truth.scaled[model] / 2} if options.get("signals") else {}
            if "aside" in store.arrays:
                signals["aside"] = truth.scaled[model, :, 0] / 3
            if store.info.population is not None:
                writer.write_population(truth.scaled[model, :7, 0])
            if store.info.classes is None:
                writer.write(examples=slice(0, 53), scaled_logit=truth.scaled[model], **signals)
            else:
                writer.write(truth.logits[model], examples=slice(0, 53), **signals)
    return store


def again(store: LogitStore, file: Path, **options) -> LogitStore:
    """The store exported to `file`, anew, and ingested from it."""
    file.unlink(missing_ok=True)
    importers.export(store, file)
    path = file.with_suffix(".lira")
    importers.ingest(file, path, progress=False, **options)
    return open_store(path)


def test_numpy_reads_it(tmp_path, truth):
    importers.export(made(tmp_path / "a.lira", truth, [0, 1, 2, 3]), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        np.testing.assert_array_equal(archive["logits"], truth.logits)
        np.testing.assert_array_equal(archive["membership"], truth.membership)
        np.testing.assert_array_equal(archive["label"], truth.labels)
        assert archive["augmentation"].tolist() == ["identity", "flip"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "float16"},
        {"classes": None},
        {"signals": ["mine", ("aside", ("model", "example"))]},
        {"population": 7, "features": np.linspace(0, 1, 3 * 53, dtype=np.float32).reshape(53, 3)},
        {"classes": None, "population": 7},
        {"preview": True, "attackable": True, "design": {"scheme": "balanced", "seed": 7}},
    ],
)
def test_a_store_comes_back_as_it_was(tmp_path, truth, options):
    if options.get("preview"):
        options = {**options, "preview": truth.images, "attackable": truth.labels > 0}
    store = made(tmp_path / "a.lira", truth, [0, 1, 2, 3], **options)
    back = again(store, tmp_path / "b.npz")
    assert back.set_digest() == store.set_digest()
    assert back.info.fingerprint == store.info.fingerprint
    for field in ("models", "augmentations", "classes", "dtype", "name", "design", "signals", "population"):
        assert getattr(back.info, field) == getattr(store.info, field)
    for model, commit in store.commits().items():
        found = back.commits()[model].metadata
        assert {key: found[key] for key in commit.metadata} == dict(commit.metadata)
        assert found["source_id"] == str(model)
        for array in store.arrays:
            stop = store.arrays[array].examples
            np.testing.assert_array_equal(back.read(array, model, 0, stop), store.read(array, model, 0, stop))
    if "features" in options:
        np.testing.assert_array_equal(back.features(0, 53), options["features"])
    if options.get("preview") is not None:
        np.testing.assert_array_equal(back.preview(range(53)), truth.images)
        np.testing.assert_array_equal(back.attackable(), truth.labels > 0)


def test_missing_models_stay_missing_in_their_places(tmp_path, truth):
    store = made(tmp_path / "a.lira", truth, [1, 3])
    importers.export(store, tmp_path / "b.npz")
    with pytest.raises(SourceError, match="2 of 4 models are missing: 0, 2"):
        importers.ingest(tmp_path / "b.npz", tmp_path / "b.lira", progress=False)
    back = again(store, tmp_path / "b.npz", allow_missing=True)
    foreign.assert_holds(back, truth, [1, 3])
    assert back.set_digest() == store.set_digest()
    np.testing.assert_array_equal(back.membership(range(4)), truth.membership)


def test_a_later_export_completes_the_copy(tmp_path, truth):
    store = made(tmp_path / "a.lira", truth, [1, 3])
    again(store, tmp_path / "b.npz", allow_missing=True)
    for model in (0, 2):
        with store.writer(model) as writer:
            writer.write(truth.logits[model], examples=slice(0, 53))
    back = again(store, tmp_path / "b.npz")
    foreign.assert_holds(back, truth)
    assert back.set_digest() == store.set_digest()


def test_what_carlini_left_comes_through(tmp_path, truth):
    source = foreign.carlini(tmp_path / "log", truth)
    importers.ingest(source, tmp_path / "a.lira", progress=False)
    store = open_store(tmp_path / "a.lira")
    back = again(store, tmp_path / "b.npz")
    foreign.assert_holds(back, truth)
    assert back.set_digest() == store.set_digest()
    metadata = back.commits()[2].metadata
    assert metadata["source_id"] == "experiment-2_4"
    assert metadata["hparams"] == foreign.hparams(2, 4)


def test_equal_stores_make_equal_files(tmp_path, truth):
    digests = set()
    for name, order in (("a", [0, 1, 2, 3]), ("b", [3, 1, 0, 2])):
        importers.export(made(tmp_path / f"{name}.lira", truth, order), tmp_path / f"{name}.npz")
        digests.add(hashlib.sha256((tmp_path / f"{name}.npz").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_members_are_not_compressed(tmp_path, truth):
    importers.export(made(tmp_path / "a.lira", truth, [0]), tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None


def test_masks_that_were_never_known_stay_unknown(tmp_path, truth):
    source = foreign.carlini(tmp_path / "log", truth)
    foreign.run_of(source, 1).rename(tmp_path / "aside")
    importers.ingest(source, tmp_path / "a.lira", allow_missing=True, progress=False)
    store = open_store(tmp_path / "a.lira")
    back = again(store, tmp_path / "b.npz", allow_missing=True)
    assert back.info.design == store.info.design
    assert back.info.design["unknown_masks"] == [1]
    assert importers.ingest(tmp_path / "b.npz", back.path, allow_missing=True, progress=False).skipped == (
        0,
        2,
        3,
    )
    with pytest.raises(InputError, match="model 1: its training set was unknown"):
        back.writer(1)


def test_a_damaged_store_leaves_no_file(tmp_path, truth):
    store = made(tmp_path / "a.lira", truth, [0, 1, 2, 3])
    shard = next(path for path in (store.path / "logits" / "c" / "3").rglob("*") if path.is_file())
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(DamagedStore, match="model 3"):
        importers.export(open_store(store.path), tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.lira"]


def test_what_exists_is_not_replaced(tmp_path, truth):
    store = made(tmp_path / "a.lira", truth, [0])
    (tmp_path / "a.npz").write_text("mine")
    (tmp_path / "link.npz").symlink_to("nowhere")
    for name in ("a.npz", "link.npz"):
        with pytest.raises(InputError, match=f"{name} exists, and is not replaced: remove it"):
            importers.export(store, tmp_path / name)
    assert (tmp_path / "a.npz").read_text() == "mine"


def test_the_name_says_what_it_is(tmp_path, truth):
    store = made(tmp_path / "a.lira", truth, [0])
    with pytest.raises(InputError, match=r"logits: expected a name that ends in .npz, such as logits.npz"):
        importers.export(store, tmp_path / "logits")
    assert not (tmp_path / "logits").exists()


def test_nothing_to_export_and_nowhere(tmp_path, truth):
    empty = made(tmp_path / "a.lira", truth, [])
    with pytest.raises(MissingData, match="no model is committed"):
        importers.export(empty, tmp_path / "a.npz")
    store = made(tmp_path / "b.lira", truth, [0])
    with pytest.raises(InputError, match="is a directory"):
        importers.export(store, tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        importers.export(store, tmp_path / "nowhere" / "a.npz")
