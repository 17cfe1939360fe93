"""Every signal against its definition in float64, from each of its sources."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax, softmax

from lirastore import signals
from lirastore.errors import InputError, MissingData
from lirastore.kernels import scaled_logit
from lirastore.signals import SIGNALS


def _at_label(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return values[np.arange(len(labels)), :, labels]


def _hinge(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    others = logits.astype(np.float64)
    others[np.arange(len(labels)), :, labels] = -np.inf
    return _at_label(logits, labels) - others.max(axis=2)


def _modified_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    z = logits.astype(np.longdouble)
    p = np.exp(z - z.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    others = (p.sum(axis=2, keepdims=True) - p).clip(1e-30)
    for row, column in np.argwhere(p.max(axis=2) > 0.5):  # 1 − p of the strongest class, without cancellation
        strongest = p[row, column].argmax()
        others[row, column, strongest] = np.delete(p[row, column], strongest).sum().clip(1e-30)
    terms = p * np.log(others)
    right = np.arange(len(labels))
    terms[right, :, labels] = others[right, :, labels] * np.log(p[right, :, labels].clip(1e-30))
    return terms.sum(axis=2).astype(float)


NAIVE = {
    "modified_entropy": _modified_entropy,
    "loss": lambda z, y: _at_label(log_softmax(z.astype(np.float64), axis=2), y),
    "confidence": lambda z, y: _at_label(softmax(z.astype(np.float64), axis=2), y),
    "hinge": _hinge,
    "correct": lambda z, y: (z.argmax(axis=2) == y[:, None]).astype(float),
}


def some_logits(scale: float = 3.0, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    logits = (generator.standard_normal((4000, 2, 10)) * scale).astype(dtype)
    return logits, generator.integers(0, 10, 4000)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("name", NAIVE)
def test_signals_are_their_definitions(name, scale, dtype):
    logits, labels = some_logits(scale, dtype)
    expected = NAIVE[name](logits, labels)
    for source, compute in SIGNALS[name].compute.items():
        raw = logits if source == "logits" else scaled_logit(logits, labels)
        found = compute(raw, labels)
        assert found.dtype == SIGNALS[name].dtype
        np.testing.assert_allclose(found, expected, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize(
    ("phi", "loss", "confidence"), [(-2e4, -2e4, 0), (2e4, 0, 1), (-200, -200, 0), (0, -np.log(2), 0.5)]
)
def test_functions_of_phi_at_their_ends(phi, loss, confidence):
    raw = np.array([[phi]], np.float32)
    labels = np.zeros(1, int)
    assert SIGNALS["loss"].compute["scaled_logit"](raw, labels) == loss
    assert SIGNALS["confidence"].compute["scaled_logit"](raw, labels) == pytest.approx(confidence, abs=1e-80)


def test_a_loss_far_below_float32_epsilon_is_not_zero():
    found = SIGNALS["loss"].compute["scaled_logit"](np.array([[30.0]], np.float32), np.zeros(1, int))
    np.testing.assert_allclose(found, -np.exp(-30.0), rtol=1e-12)


def test_the_surest_predictions_do_not_tie():
    phi = np.arange(100, 700, dtype=np.float32)[:, None]
    assert (np.diff(SIGNALS["loss"].compute["scaled_logit"](phi, np.zeros(600, int)), axis=0) > 0).all()


@settings(max_examples=100, deadline=None)
@given(
    logits=hnp.arrays(np.float32, (6, 2, 3), elements=st.sampled_from([-1.0, 0.0, 1.0])),
    labels=hnp.arrays(np.int64, (6,), elements=st.integers(0, 2)),
)
def test_correct_breaks_ties_as_argmax_does(logits, labels):
    found = SIGNALS["correct"].compute["logits"](logits, labels)
    assert np.array_equal(found, NAIVE["correct"](logits, labels))


@pytest.mark.parametrize("name", SIGNALS)
def test_every_signal_fills_out_leaves_its_input_and_owns_its_result(name):
    logits, labels = some_logits()
    for source, compute in SIGNALS[name].compute.items():
        raw = logits if source == "logits" else scaled_logit(logits, labels)
        before = raw.copy()
        width = 10 if SIGNALS[name].per == "class" else 2
        out = np.full((width, 4000), np.nan, SIGNALS[name].dtype).T
        found = compute(raw, labels)
        assert compute(raw, labels, out) is out
        assert np.array_equal(out, found)
        assert np.array_equal(raw, before)
        assert not np.shares_memory(found, raw)


@pytest.mark.parametrize("name", SIGNALS)
def test_every_signal_takes_no_examples(name):
    for source, compute in SIGNALS[name].compute.items():
        raw = np.zeros((0, 2, 10) if source == "logits" else (0, 2), np.float32)
        assert compute(raw, np.zeros(0, int)).shape == (0, 10 if SIGNALS[name].per == "class" else 2)


@pytest.mark.parametrize("name", [name for name, signal in SIGNALS.items() if signal.per == "query"])
def test_every_signal_is_higher_for_a_better_fit(name):
    labels = np.zeros(1, int)
    good, bad = np.array([[[2.0, 1.0]]], np.float32), np.array([[[1.0, 2.0]]], np.float32)
    for source, compute in SIGNALS[name].compute.items():
        pair = [raw if source == "logits" else scaled_logit(raw, labels) for raw in (good, bad)]
        assert compute(pair[0], labels) > compute(pair[1], labels)


def test_the_first_logits_are_those_of_the_first_query():
    logits, labels = some_logits()
    assert np.array_equal(SIGNALS["first_logits"].compute["logits"](logits, labels), logits[:, 0])


@pytest.mark.parametrize("name", SIGNALS)
def test_the_registry_is_consistent(name):
    entry = SIGNALS[name]
    assert entry.name == name
    assert tuple(entry.compute) == entry.sources
    assert entry.doc


def test_a_signal_is_found_by_what_is_available():
    assert (
        signals.signal("loss", {"scaled_logit", "logits"}).source({"logits", "scaled_logit"})
        == "scaled_logit"
    )
    assert signals.signal("loss", ["logits"]).source(["logits"]) == "logits"
    assert signals.signal("correct", ["logits", "scaled_logit"]).sources == ("logits",)


def test_an_auxiliary_array_is_a_signal_of_its_name():
    entry = signals.signal("token_logprob", ["scaled_logit", "token_logprob"])
    assert entry.sources == ("token_logprob",)
    values = np.arange(6, dtype=np.float16)
    assert np.array_equal(entry.compute["token_logprob"](values, np.zeros(6, int)), values[:, None])
    assert np.array_equal(
        entry.compute["token_logprob"](values.reshape(3, 2), np.zeros(3, int)), values.reshape(3, 2)
    )


def test_the_registry_comes_before_an_array_of_the_same_name_unless_it_cannot_serve():
    assert signals.signal("loss", ["loss", "scaled_logit"]) is SIGNALS["loss"]
    assert signals.signal("correct", ["correct", "scaled_logit"]).sources == ("correct",)


def test_what_cannot_be_had_is_named():
    with pytest.raises(MissingData, match=r"'correct' is computed from logits, .* only scaled_logit"):
        signals.signal("correct", ["scaled_logit"])
    with pytest.raises(MissingData, match=r"no signal or array 'los'; signals are scaled_logit, loss"):
        signals.signal("los", ["scaled_logit"])


def test_wrong_shapes_are_refused():
    compute = SIGNALS["loss"].compute["scaled_logit"]
    with pytest.raises(InputError, match="not logits"):
        compute(np.zeros((2, 1, 3), np.float32), np.zeros(2, int))
    with pytest.raises(InputError, match="`out` is float32"):
        compute(np.zeros((2, 1), np.float32), np.zeros(2, int), np.empty((2, 1), np.float32))
