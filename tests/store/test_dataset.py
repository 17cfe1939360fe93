"""The lazy xarray view: committed models only, nothing read until computed, damage an error."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from format1 import commit, random_model

from lirastore.errors import DamagedStore
from lirastore.store import LogitStore, create
from lirastore.store.layout import ArraySpec

M, E, C = 4, 23, 3


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    made = create(
        tmp_path / "s.lira",
        labels=rng.integers(0, C, E),
        membership=rng.random((M, E)) < 0.5,
        augmentations=["identity", "flip"],
        classes=C,
        dtype="float16",
        signals=[("share", ("model", "example"))],
        preview=rng.integers(0, 255, (E, 2, 2, 1), dtype=np.uint8),
        attackable=np.ones(E, bool),
    )
    for model in (3, 0):
        commit(made, model, random_model(made, model))
    return made


def test_committed_models_only_with_the_coordinates_of_the_store(store):
    found = store.dataset
    assert dict(found.sizes) == {
        "model": 2,
        "example": E,
        "augmentation": 2,
        "class": C,
        "height": 2,
        "width": 2,
        "channel": 1,
    }
    assert found.model.values.tolist() == [0, 3]
    assert found.augmentation.values.tolist() == ["identity", "flip"]
    assert found.logits.dtype == np.float16
    for name in store.arrays:
        for model in (0, 3):
            np.testing.assert_array_equal(found[name].sel(model=model), random_model(store, model)[name])
    np.testing.assert_array_equal(found.membership, store.membership())
    np.testing.assert_array_equal(found.label, store.labels())
    np.testing.assert_array_equal(found.preview, store.preview(np.arange(E)))
    np.testing.assert_array_equal(found.attackable, store.attackable())
    assert found.attrs["lirastore"]["format"] == 1


def test_nothing_is_read_until_it_is_computed(store, monkeypatch):
    def read(*args: object, **kwargs: object) -> None:
        raise AssertionError("read")

    def compute(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(LogitStore, "read", read)
    monkeypatch.setattr(LogitStore, "read_plain", read)
    with dask.config.set(scheduler=compute):
        lazy = store.dataset
        (lazy.logits - lazy.logits.mean("model")).where(lazy.membership).sel(example=slice(2, 9))
        with pytest.raises(AssertionError, match="computed"):
            lazy.logits.compute()


def test_a_slice_reads_only_the_examples_and_models_it_needs(store, monkeypatch):
    asked = []
    read = LogitStore.read

    def recording(self, array, model, start, stop, out=None):
        asked.append((array, model, start, stop))
        return read(self, array, model, start, stop, out=out)

    monkeypatch.setattr(LogitStore, "read", recording)
    found = store.dataset.scaled_logit.isel(model=1, example=slice(4, 9), augmentation=1)
    np.testing.assert_array_equal(found, random_model(store, 3)["scaled_logit"][4:9, 1])
    assert asked == [("scaled_logit", 3, 4, 9)]


@pytest.mark.parametrize(
    "index",
    [
        {"example": 5},
        {"example": slice(20, 3, -4), "model": 1},
        {"example": slice(1, None, 5), "class": slice(None, None, -1)},
        {"example": slice(3, 3)},
        {"example": [7, 2, 2], "augmentation": 0},
        {"model": [1, 0], "class": [2, 0]},
    ],
)
def test_any_index_gives_what_numpy_gives(store, index):
    lazy = store.dataset.logits
    np.testing.assert_array_equal(lazy.isel(index), lazy.compute().isel(index))
    assert lazy.isel(index).compute().shape == lazy.isel(index).shape


def test_a_store_with_no_model_yet(tmp_path):
    store = create(
        tmp_path / "s", labels=np.zeros(E, int), membership=np.ones((M, E), bool), augmentations=1, classes=2
    )
    assert store.dataset.compute().logits.shape == (0, E, 1, 2)


def test_chunks_are_one_model_and_one_shard(store, monkeypatch):
    whole = store.arrays["logits"]
    small = ArraySpec(whole.name, whole.dims, whole.shape, whole.dtype, (1, 2, 2, C), (1, 10, 2, C))
    store.arrays = {"logits": small}
    assert store.dataset.logits.chunks == ((1, 1), (10, 10, 3), (2,), (C,))


def test_damage_is_an_error_where_a_zarr_client_reads_fill(store):
    (store.path / "scaled_logit/c/3/0/0").unlink()
    lazy = store.dataset
    lazy.scaled_logit.sel(model=0).compute()
    with pytest.raises(DamagedStore, match=r"model 3.*scaled_logit/c/3/0/0"):
        lazy.scaled_logit.compute()
    (store.path / "label/c/0").unlink()
    with pytest.raises(DamagedStore, match="label/c/0"):
        lazy.label.compute()
