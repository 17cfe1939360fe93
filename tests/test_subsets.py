"""The membership matrix: exact counts, independence of platform, and the reference code's masks."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lirastore import subsets
from lirastore.errors import InputError

GOLDEN = {
    ("balanced", 16, 1000, 0.5, 0): "081999339e7e1e6d",
    ("balanced", 7, 123, 0.3, 12345): "a88a39ec967bb0b3",
    ("balanced", 300, 20011, 0.5, 2**32 - 1): "338972e50008addf",
    ("bernoulli", 16, 1000, 0.5, 0): "7c3cf691b6f3f049",
    ("bernoulli", 7, 123, 0.3, 12345): "736daa7846250b27",
    ("bernoulli", 300, 20011, 0.5, 2**32 - 1): "99b95ae3656d3230",
    ("carlini", 16, 1000, 0.5, 0): "81c297eade3d4b72",
    ("carlini", 7, 123, 0.3, 12345): "2581de9e64a62e78",
    ("carlini", 300, 20011, 0.5, 2**32 - 1): "efb32fb8b9239c7f",
}


def digest(membership: np.ndarray) -> str:
    return hashlib.sha256(np.packbits(membership).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("arguments", GOLDEN, ids=str)
def test_a_drawn_matrix_never_changes(arguments):
    scheme, models, examples, keep_fraction, seed = arguments
    drawn = subsets.draw(scheme, models=models, examples=examples, keep_fraction=keep_fraction, seed=seed)
    assert drawn.dtype == np.bool_
    assert drawn.shape == (models, examples)
    assert digest(drawn) == GOLDEN[arguments]


@pytest.mark.parametrize(
    ("models", "keep_fraction", "kept"),
    [(8, 0.5, 4), (7, 0.5, 4), (3, 0.3, 1), (10, 0.25, 3), (100, 0.29, 29)],
)
def test_balanced_puts_every_example_in_the_nearest_number_of_models(models, keep_fraction, kept):
    drawn = subsets.draw("balanced", models=models, examples=501, keep_fraction=keep_fraction, seed=3)
    assert (drawn.sum(axis=0) == kept).all()


def test_balanced_sets_are_uniform_and_independent():
    models, examples = 6, 60_000
    drawn = subsets.draw("balanced", models=models, examples=examples, seed=11)
    sets, counts = np.unique(np.packbits(drawn, axis=0), return_counts=True)
    assert len(sets) == 20  # 6 choose 3
    expected = examples / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001
    assert abs(drawn.sum(axis=1) - examples / 2).max() < 4.5 * np.sqrt(examples) / 2
    assert abs(np.corrcoef(drawn[0, :-1], drawn[0, 1:])[0, 1]) < 4 / np.sqrt(examples)


@pytest.mark.parametrize("keep_fraction", [0.1, 0.5, 0.9])
def test_bernoulli_entries_have_the_asked_probability_independently(keep_fraction):
    drawn = subsets.draw("bernoulli", models=20, examples=20_000, keep_fraction=keep_fraction, seed=5)
    error = np.sqrt(keep_fraction * (1 - keep_fraction) / drawn.size)
    assert abs(drawn.mean() - keep_fraction) < 4 * error
    correlations = np.corrcoef(drawn)
    assert abs(correlations - np.eye(20)).max() < 5 / np.sqrt(20_000)


@pytest.mark.parametrize(
    ("models", "examples", "keep_fraction", "seed"), [(16, 1000, 0.5, 0), (9, 77, 0.7, 0), (100, 31, 0.29, 4)]
)
def test_carlini_is_the_reference_code_bit_for_bit(models, examples, keep_fraction, seed):
    np.random.seed(seed)  # noqa: NPY002 - this is what the reference code does
    uniform = np.random.uniform(0, 1, size=(models, examples))  # noqa: NPY002
    keep = uniform.argsort(0) < int(keep_fraction * models)
    drawn = subsets.draw("carlini", models=models, examples=examples, keep_fraction=keep_fraction, seed=seed)
    np.testing.assert_array_equal(drawn, keep)


@pytest.mark.parametrize("scheme", subsets.SCHEMES)
def test_the_block_size_does_not_show(scheme, monkeypatch):
    whole = subsets.draw(scheme, models=12, examples=301, seed=8)
    monkeypatch.setattr(subsets, "_BLOCK_WORDS", 100)
    np.testing.assert_array_equal(subsets.draw(scheme, models=12, examples=301, seed=8), whole)


@pytest.mark.parametrize("scheme", subsets.SCHEMES)
def test_seeds_differ(scheme):
    first, second = (subsets.draw(scheme, models=12, examples=301, seed=seed) for seed in (0, 1))
    assert (first != second).mean() > 0.3


@pytest.mark.parametrize("scheme", subsets.SCHEMES)
def test_the_global_random_state_is_left_alone(scheme):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    subsets.draw(scheme, models=4, examples=10)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scheme": "random"}, "'random'.*balanced, bernoulli, carlini"),
        ({"models": 0}, "models is 0"),
        ({"models": 2.5}, "models is 2.5"),
        ({"models": True}, "models is True"),
        ({"examples": -1}, "examples is -1"),
        ({"keep_fraction": 0.0}, "keep_fraction is 0.0"),
        ({"keep_fraction": 1}, "keep_fraction is 1"),
        ({"keep_fraction": float("nan")}, "keep_fraction is nan"),
        ({"keep_fraction": "half"}, "keep_fraction is 'half'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is"),
        ({"seed": 2**32, "scheme": "carlini"}, "seed is 4294967296"),
        ({"models": 1}, "needs at least one model with and one without"),
        ({"keep_fraction": 0.01}, "no model"),
        ({"keep_fraction": 0.01, "scheme": "carlini"}, "no model"),
        ({"keep_fraction": 0.99}, "every model"),
    ],
)
def test_impossible_designs_are_refused(change, told):
    arguments = {"scheme": "balanced", "models": 8, "examples": 10, **change}
    with pytest.raises(InputError, match=told):
        subsets.draw(arguments.pop("scheme"), **arguments)


def test_numpy_scalars_are_numbers():
    one = subsets.draw("bernoulli", models=np.int64(4), examples=np.int32(9), keep_fraction=np.float32(0.5))
    np.testing.assert_array_equal(one, subsets.draw("bernoulli", models=4, examples=9))
