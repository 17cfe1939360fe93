"""The kernels against float64 and against the definition, on hostile logits."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import logsumexp

from lirastore import kernels
from lirastore.errors import InputError


def _others(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    others = logits.astype(np.float64)
    others[np.arange(len(labels)), :, labels] = -np.inf
    return others


def _own(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return logits.astype(np.float64)[np.arange(len(labels)), :, labels]


def naive_scaled_logit(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return _own(logits, labels) - logsumexp(_others(logits, labels), axis=2)


def naive_hinge(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return _own(logits, labels) - _others(logits, labels).max(axis=2)


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    error = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    assert error.size == 0 or error.max() <= tolerance


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize(("classes", "augmentations"), [(2, 3), (10, 1), (10, 18), (100, 2), (1000, 1)])
def test_scaled_logit_is_float64_to_float32_precision(dtype, scale, classes, augmentations):
    generator = np.random.default_rng(classes)
    shape = (3000 // augmentations, augmentations, classes)
    logits = np.clip(generator.standard_normal(shape) * scale, -6e4, 6e4).astype(dtype)
    labels = generator.integers(0, classes, shape[0])
    assert_close(kernels.scaled_logit(logits, labels), naive_scaled_logit(logits, labels))
    assert_close(kernels.hinge(logits, labels), naive_hinge(logits, labels))


def test_a_small_phi_beside_huge_logits_keeps_its_digits():
    logits = np.array([[[1e4, 9999.0, -1e4], [-1e4, -1e4, -1e4], [9e3, 1e4, 1e4]]], np.float32)
    expected = np.array([[1.0, -np.log(2.0), -1000 - np.log(2.0)]])
    assert_close(kernels.scaled_logit(logits, np.array([0])), expected, 1e-7)


def test_extremes_do_not_overflow():
    logits = np.array([[[1e4, -1e4]], [[-1e4, 1e4]], [[1e38, -1e38]], [[0.0, -np.inf]]], np.float32)
    phi = kernels.scaled_logit(logits, np.zeros(4, int))
    assert phi[:, 0].tolist() == [2e4, -2e4, np.float32(2e38), np.inf]


def test_nan_stays_in_its_own_row():
    logits = np.zeros((3, 2, 5), np.float32)
    logits[1, 0, 3] = np.nan
    for kernel in (kernels.scaled_logit, kernels.hinge):
        found = np.isnan(kernel(logits, np.array([3, 0, 1])))
        assert np.argwhere(found).tolist() == [[1, 0]]


@pytest.mark.parametrize("examples", [0, 1, 7, 8, 9, 40])
def test_tile_bounds_change_nothing(monkeypatch, examples):
    logits = np.random.default_rng(3).standard_normal((examples, 3, 4), dtype=np.float32)
    labels = np.arange(examples) % 4
    whole = kernels.scaled_logit(logits, labels)
    monkeypatch.setattr(kernels, "_TILE_ROWS", 24)
    assert np.array_equal(kernels.scaled_logit(logits, labels), whole)
    monkeypatch.setattr(kernels, "_TILE_ROWS", 1)
    assert np.array_equal(kernels.scaled_logit(logits, labels), whole)


def test_more_augmentations_than_a_tile_has_rows_and_more_classes_than_elements(monkeypatch):
    monkeypatch.setattr(kernels, "_TILE_ELEMENTS", 8)
    logits = np.random.default_rng(3).standard_normal((2, 30, 12), dtype=np.float32)
    assert_close(kernels.scaled_logit(logits, np.array([1, 5])), naive_scaled_logit(logits, np.array([1, 5])))


@pytest.mark.parametrize("kernel", [kernels.scaled_logit, kernels.hinge])
def test_any_memory_order_and_an_out_array_in_any_order(kernel):
    generator = np.random.default_rng(5)
    logits = generator.standard_normal((50, 4, 6), dtype=np.float32)
    labels = generator.integers(0, 6, 50).astype(np.uint8)
    expected = kernel(logits, labels)
    assert np.array_equal(kernel(np.asfortranarray(logits), labels), expected)
    assert np.array_equal(kernel(np.repeat(logits, 2, axis=1)[:, ::2], labels), expected)
    out = np.full((4, 50), np.nan, np.float32).T
    assert kernel(logits, labels, out) is out
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.int32])
def test_labels_of_any_integer_type(dtype):
    logits = np.random.default_rng(5).standard_normal((9000, 1, 3), dtype=np.float32)
    labels = np.arange(9000) % 3
    expected = kernels.scaled_logit(logits, labels)
    assert np.array_equal(kernels.scaled_logit(logits, labels.astype(dtype)), expected)


def test_the_input_is_left_alone():
    logits = np.random.default_rng(5).standard_normal((50, 4, 6), dtype=np.float32)
    logits.flags.writeable = False
    before = logits.copy()
    kernels.scaled_logit(logits, np.zeros(50, int))
    assert np.array_equal(logits, before)


def test_threads_do_not_share_buffers():
    generator = np.random.default_rng(6)
    inputs = [
        (generator.standard_normal((4000, 2, 10), dtype=np.float32), generator.integers(0, 10, 4000))
        for _ in range(4)
    ]
    expected = [kernels.scaled_logit(*pair) for pair in inputs]
    found: dict[int, list[np.ndarray]] = {}

    def work(index: int) -> None:
        found[index] = [kernels.scaled_logit(*inputs[index]) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, expected[index]) for index in range(4) for one in found[index])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_property_of_hostile_logits(data):
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(2, 6)))
    width = data.draw(st.sampled_from([16, 32]))
    elements = st.one_of(
        st.floats(-1e4, 1e4, width=width),
        st.sampled_from([0.0, 1.0, -1.0, 1e4, -1e4]),  # ties
    )
    logits = data.draw(hnp.arrays(np.dtype(f"float{width}"), shape, elements=elements))
    labels = data.draw(hnp.arrays(np.int64, shape[:1], elements=st.integers(0, shape[2] - 1)))
    assert_close(kernels.scaled_logit(logits, labels), naive_scaled_logit(logits, labels))
    assert_close(kernels.hinge(logits, labels), naive_hinge(logits, labels))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 1, 1), np.float32), np.zeros(2, int), "at least 2"),
        (np.zeros((2, 3), np.float32), np.zeros(2, int), r"expected \(n, A, C\)"),
        (np.zeros((2, 1, 3)), np.zeros(2, int), "float64; expected float32 or float16"),
        (
            np.zeros((2, 1, 3), np.float32),
            np.zeros(3, int),
            r"shape \(3,\); expected integers of shape \(2,\)",
        ),
        (np.zeros((2, 1, 3), np.float32), np.zeros(2), "expected integers"),
        (np.zeros((2, 1, 3), np.float32), np.array([0, 3]), "at rows 1: 3"),
        (np.zeros((2, 1, 3), np.float32), np.array([-1, 2]), "at rows 0: -1"),
    ],
)
def test_what_is_refused(logits, labels, message):
    with pytest.raises(InputError, match=message):
        kernels.scaled_logit(logits, labels)


@pytest.mark.parametrize("out", [np.empty((2, 2), np.float32), np.empty((2, 1))])
def test_a_wrong_out_is_refused(out):
    with pytest.raises(InputError, match="`out` is"):
        kernels.scaled_logit(np.zeros((2, 1, 3), np.float32), np.zeros(2, int), out)
