"""Population points and features: what a store has besides its examples."""

from __future__ import annotations

import numpy as np
import pytest

import lirastore
from lirastore.errors import DamagedStore, IncompleteModel, InputError, NonFiniteLogits
from lirastore.store import create, discard, open_store, verify_store
from lirastore.store.layout import MAX_PIECE_BYTES

EXAMPLES, POINTS = 12, 30
PHI = np.random.default_rng(0).normal(0, 4, (3, POINTS))
LOGITS = np.random.default_rng(1).normal(0, 4, (3, EXAMPLES, 4)).astype(np.float32)


def plan(path, **options):
    labels = np.arange(EXAMPLES) % 4
    membership = np.random.default_rng(2).random((3, EXAMPLES)) < 0.5
    return create(path, labels=labels, membership=membership, augmentations=1, classes=4, **options)


@pytest.fixture
def store(tmp_path):
    return plan(tmp_path / "a.lira", population=POINTS)


def write(store, model, phi=None):
    with store.writer(model) as writer:
        writer.write(LOGITS[model], examples=slice(0, EXAMPLES))
        writer.write_population(PHI[model] if phi is None else phi)


def read(store, model, start=0, stop=POINTS):
    return store.read("population_scaled_logit", model, start, stop)


def test_points_are_read_as_they_were_written(store):
    write(store, 1)
    again = open_store(store.path)
    assert again.info.population == POINTS
    np.testing.assert_array_equal(read(again, 1), PHI[1].astype(np.float32))
    np.testing.assert_array_equal(read(again, 1, 5, 9), PHI[1, 5:9].astype(np.float32))
    np.testing.assert_array_equal(again.read("logits", 1, 0, EXAMPLES)[:, 0], LOGITS[1])
    with pytest.raises(InputError, match=r"expected a range within \[0, 30\)"):
        read(again, 1, 0, POINTS + 1)
    assert verify_store(again).ok


def test_they_are_of_any_floating_type_and_come_at_any_time(store):
    with store.writer(0) as writer:
        writer.write_population(PHI[0].astype(np.float16))
        for example in reversed(range(EXAMPLES)):
            writer.write(LOGITS[0, example : example + 1], examples=[example])
    np.testing.assert_array_equal(read(store, 0), PHI[0].astype(np.float16).astype(np.float32))
    torch = pytest.importorskip("torch")
    write(store, 1, torch.from_numpy(PHI[1]).to(torch.bfloat16))
    expected = torch.from_numpy(PHI[1]).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(read(store, 1), expected)


@pytest.mark.parametrize(
    ("phi", "error", "told"),
    [
        (PHI[0, 1:], InputError, r"population has shape \(29,\), expected \(30,\)"),
        (PHI[0, :, None], InputError, r"shape \(30, 1\)"),
        (np.arange(POINTS), InputError, "population has dtype int64"),
        (np.where(np.arange(POINTS) == 3, np.nan, 0), NonFiniteLogits, r"for point 3 \(1 such\)"),
        (np.full(POINTS, 1e39), NonFiniteLogits, r"for point 0 \(30 such\)"),
    ],
)
def test_what_is_no_population_is_refused(store, phi, error, told):
    with pytest.raises(error, match=f"model 0: .*{told}"):
        write(store, 0, phi)
    assert store.committed().tolist() == []
    assert not list((store.path / "population_scaled_logit" / "c").iterdir())


def test_after_a_refusal_the_right_ones_are_taken(store):
    with store.writer(0) as writer:
        with pytest.raises(InputError, match="shape"):
            writer.write_population(PHI[0, 1:])
        writer.write_population(PHI[0])
        with pytest.raises(IncompleteModel, match="population was written before; it is written once"):
            writer.write_population(PHI[0])
        writer.write(LOGITS[0], examples=slice(0, EXAMPLES))
    np.testing.assert_array_equal(read(store, 0), PHI[0].astype(np.float32))


def test_a_model_without_them_is_incomplete(store):
    with (
        pytest.raises(IncompleteModel, match="the 30 population points were never written"),
        store.writer(0) as writer,
    ):
        writer.write(LOGITS[0], examples=slice(0, EXAMPLES))
    assert store.committed().tolist() == []


def test_a_store_without_a_population_takes_none(tmp_path):
    store = plan(tmp_path / "a.lira")
    assert store.info.population is None
    assert list(store.arrays) == ["logits", "scaled_logit"]
    assert "population" not in store.info.to_json()
    with pytest.raises(InputError, match="this store has none"):
        write(store, 0)
    with pytest.raises(InputError, match="write_population was called before the block has begun"):
        store.writer(0).write_population(PHI[0])


def test_they_belong_to_the_models_digest(store, tmp_path):
    write(store, 0)
    other = plan(tmp_path / "b.lira", population=POINTS)
    write(other, 0, PHI[1])
    assert store.set_digest() != other.set_digest()
    discard(other, [0])
    assert not list((other.path / "population_scaled_logit" / "c").iterdir())
    write(other, 0)
    assert store.set_digest() == other.set_digest()


def test_damage_is_found(store):
    write(store, 0)
    path = store.path / "population_scaled_logit" / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[17] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedStore, match=r"model 0 .*population_scaled_logit/c/0/0.*crc32c"):
        read(store, 0)
    assert any("population_scaled_logit/c/0/0" in line for line in verify_store(store).lines())
    path.unlink()
    with pytest.raises(DamagedStore, match="absent"):
        read(store, 0)


def test_they_are_in_the_dataset(store):
    write(store, 2)
    dataset = store.dataset
    assert dataset["population_scaled_logit"].dims == ("model", "point")
    np.testing.assert_array_equal(dataset["population_scaled_logit"].values, PHI[2:].astype(np.float32))


@pytest.mark.parametrize("population", [0, -1, True, 2.5, "9"])
def test_numbers_of_points_that_cannot_be(tmp_path, population):
    with pytest.raises(InputError, match="expected the number of points, at least 1, or None"):
        plan(tmp_path / "a.lira", population=population)


@pytest.mark.parametrize("name", ["point", "population", "population_scaled_logit", "features"])
def test_their_names_are_taken(tmp_path, name):
    with pytest.raises(InputError, match="is taken by the format"):
        plan(tmp_path / "a.lira", signals=[name])


# --- features -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8])
def test_features_are_float32(tmp_path, dtype):
    features = np.random.default_rng(3).integers(0, 90, (EXAMPLES, 5)).astype(dtype)
    store = plan(tmp_path / "a.lira", features=features)
    found = open_store(store.path).features(2, 9)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, features[2:9])
    assert store.features(4, 4).shape == (0, 5)
    assert store.dataset["features"].dims == ("example", "feature")
    with pytest.raises(InputError, match=r"expected a range within \[0, 12\)"):
        store.features(0, EXAMPLES + 1)
    assert verify_store(store).ok


def test_without_features_there_are_none(store):
    assert store.features(0, 3) is None


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (np.zeros((EXAMPLES - 1, 5)), r"float64 of shape \(11, 5\), expected numbers of shape \(12, d\)"),
        (np.zeros(EXAMPLES), r"shape \(12,\)"),
        (np.zeros((EXAMPLES, 0)), r"shape \(12, 0\)"),
        (np.zeros((EXAMPLES, 2), dtype=complex), "complex128"),
        (np.where(np.arange(EXAMPLES) == 7, np.inf, 0)[:, None], "NaN or infinity.* for example 7"),
        (np.full((EXAMPLES, 2), 1e39), "more than float32 holds, for example 0"),
    ],
)
def test_features_that_do_not_fit_are_refused(tmp_path, features, told):
    with pytest.raises(InputError, match=told):
        plan(tmp_path / "a.lira", features=features)
    assert not list(tmp_path.iterdir())


def test_features_are_read_slice_by_slice(tmp_path):
    class Rows:
        dtype, shape = np.dtype(np.float64), (3_000_000, 2)
        asked: list[int] = []  # noqa: RUF012

        def __getitem__(self, rows):
            self.asked.append(rows.stop - rows.start)
            return np.repeat(np.arange(rows.start, rows.stop, dtype=np.float64)[:, None], 2, axis=1)

    labels = np.zeros(3_000_000, dtype=np.int64)
    store = create(
        tmp_path / "a.lira",
        labels=labels,
        membership=np.zeros((1, 3_000_000), dtype=bool),
        augmentations=1,
        features=Rows(),
    )
    assert len(Rows.asked) > 2
    assert max(Rows.asked) * 8 <= MAX_PIECE_BYTES  # as float32
    np.testing.assert_array_equal(store.features(2_999_990, 3_000_000)[:, 1], np.arange(2_999_990, 3_000_000))


def test_the_facade_plans_both(tmp_path):
    features = np.ones((EXAMPLES, 2))
    store = lirastore.create(
        tmp_path / "a.lira",
        labels=np.zeros(EXAMPLES, dtype=int),
        classes=4,
        models=3,
        augmentations=1,
        population=POINTS,
        features=features,
    )
    with store.writer(0) as writer:
        writer.write(LOGITS[0], examples=slice(0, EXAMPLES))
        writer.write_population(PHI[0])
    np.testing.assert_array_equal(store.logits.features(0, EXAMPLES), features)
    assert store.info.population == POINTS
