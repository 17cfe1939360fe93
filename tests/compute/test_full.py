"""Multivariate normals over the queries, against scikit-learn's OAS, one target at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from attack_harness import Experiment, membership, null, scores
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.covariance import OAS
from test_attacks import hostile, naive_rows
from test_null import auc

from lirastore.attacks import compose, named
from lirastore.attacks.full import log_densities

Float64 = npt.NDArray[np.float64]

FULL = named("lira_online_full")


def naive(experiment: Experiment) -> Float64:
    phi = experiment.signals["scaled_logit"].astype(np.float64)
    result = np.full(phi.shape[:2], np.nan)
    for target, example in np.ndindex(*result.shape):
        sides = naive_rows(experiment, target, example)
        if min(map(len, sides)) >= 2:
            inside, outside = (naive_density(phi[target, example], phi[rows, example]) for rows in sides)
            result[target, example] = inside - outside
    return result


def naive_density(s: Float64, sample: Float64) -> float:
    """log N(s) less its constant, with 1e-30 added to the deviation along every axis."""
    spread, axes = np.linalg.eigh(OAS().fit(sample).covariance_)
    deviation = np.sqrt(np.maximum(spread, 0)) + 1e-30
    z = (s - sample.mean(axis=0)) @ axes / deviation
    return float(-0.5 * z @ z - np.log(deviation).sum())


def correlated(models: int, queries: int, design: str = "bernoulli", seed: int = 0) -> Experiment:
    """Queries of one example go together, as augmentations do; every example in its own way."""
    rng = np.random.default_rng([seed, queries])
    examples = 12
    mixing = rng.normal(size=(examples, queries, queries)) + 2
    phi = np.einsum("mea,eab->meb", rng.normal(size=(models, examples, queries)), mixing)
    phi += rng.normal(0, 20, (1, examples, 1))
    member = membership(design, models, examples, seed)
    return Experiment(member, {"scaled_logit": phi.astype(np.float32)})


@pytest.mark.parametrize("queries", [1, 2, 5, 18])
@pytest.mark.parametrize("design", ["balanced", "bernoulli"])
@pytest.mark.parametrize("models", [8, 30])
def test_it_is_the_naive_version(models: int, design: str, queries: int) -> None:
    agree(correlated(models, queries, design))


@pytest.mark.parametrize("design", ["balanced", "bernoulli", "sparse", "dense"])
def test_equal_counts(design: str) -> None:
    agree(correlated(14, 3, design, seed=2).with_options(equal_counts=True, seed=6))


def agree(experiment: Experiment, tolerance: float = 1e-9) -> None:
    equal = experiment.options.get("equal_counts", False)
    scored = FULL.scored(experiment.member, equal_counts=equal)
    assert scored.any()
    found, expected = scores(FULL, experiment, tile=5)[:, scored], naive(experiment)[:, scored]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("equal_counts", [False, True])
@pytest.mark.parametrize(
    "make", [hostile, lambda: null("bernoulli", 16, 60, queries=1)], ids=["hostile", "null"]
)
def test_with_one_query_it_is_lira_online(make, equal_counts: bool) -> None:
    """Where a variance is all that there is, shrinking has nothing to draw it to."""
    experiment = make().with_options(equal_counts=equal_counts)
    first = [
        compose("mine", signal="scaled_logit", test=test, queries="first")
        for test in ("gaussian-in-out-full", "gaussian-in-out")
    ]
    scored = first[0].scored(experiment.member, equal_counts=equal_counts)
    found, expected = (scores(attack, experiment)[:, scored] for attack in first)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_it_sees_what_only_the_queries_together_show() -> None:
    """Membership moves two queries apart, by less than what moves both of them together. It takes so many
    models: with few of them shrinking covers it.
    """
    rng = np.random.default_rng(3)
    member = membership("bernoulli", 300, 12)
    common, apart = rng.normal(0, 5, (300, 12, 1)), rng.normal(0, 0.5, (300, 12, 1))
    apart = apart + member[:, :, None]
    experiment = Experiment(
        member, {"scaled_logit": np.concatenate([common + apart, common - apart], axis=2)}
    )
    areas = [auc(scores(attack, experiment), member)[0] for attack in (FULL, named("lira_online"))]
    assert areas[0] > 0.85
    assert areas[1] < 0.6


@pytest.mark.parametrize("design", ["balanced", "dense"])
def test_hostile_columns_are_finite(design: str) -> None:
    experiment = hostile(models=12, design=design)
    found = scores(FULL, experiment)[:, FULL.scored(experiment.member)]
    assert np.isfinite(found).all()


def test_hostile_columns_are_the_naive_ones() -> None:
    """Outliers, offsets, ties: all that float64 can do in the naive version too."""
    experiment = hostile(models=12)
    kept = [example for example in range(24) if example not in (2, 4, 5, 8, 9, 11, 12, 13, 14)]
    phi = experiment.signals["scaled_logit"][:, kept]
    agree(Experiment(experiment.member[:, kept], {"scaled_logit": phi}), tolerance=1e-7)


def test_fewer_models_than_queries() -> None:
    experiment = correlated(6, 18, "balanced")
    assert np.isfinite(scores(FULL, experiment)).all()
    agree(experiment)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(2, 7), st.integers(1, 4))
def test_every_density_is_finite_where_two_are_left(data: st.DataObject, models: int, queries: int) -> None:
    value = st.sampled_from([0.0, 1.0, -1.0, 1e4, -1e4, 1e-20, 3e38, -3e38, 1e-45])
    x = data.draw(hnp.arrays(np.float32, (models, 2, queries), elements=value))
    marked = data.draw(hnp.arrays(np.bool_, (models, 2)))
    own, whole = log_densities(x, marked)
    left = marked.sum(axis=0) - marked
    assert np.isfinite(own[marked & (left >= 2)]).all()
    assert np.isfinite(whole[:, marked.any(axis=0)]).all()


def test_scores_do_not_depend_on_the_tiles() -> None:
    experiment = correlated(16, 3).with_options(equal_counts=True, seed=9)
    found = [scores(FULL, experiment, tile=tile) for tile in (1, 12)]
    np.testing.assert_allclose(*found, rtol=1e-10, atol=1e-10)


def test_what_is_stamped() -> None:
    assert FULL.parameters == {
        "preset": "paper",
        "signal": "scaled_logit",
        "test": "gaussian-in-out-full",
        "queries": "all",
        "covariance": "oas",
    }
    assert (FULL.minimum.n_in, FULL.minimum.n_out) == (2, 2)
