"""Every test of the algebra against a naive loop, one target at a time, on friendly and hostile data."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from attack_harness import Experiment, membership, null, scores
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from lirastore.attacks import Attack, compose, named, registered
from lirastore.attacks.ranks import leave_one_out_cdf
from lirastore.errors import MissingData
from lirastore.moments.counts import model_order
from lirastore.signals import SIGNALS

Float64 = npt.NDArray[np.float64]

TESTS = ["global", "out-mean", "in-out-mean", "out-rank", "gaussian-out", "gaussian-in-out"]
GAUSSIAN = ["gaussian-out", "gaussian-in-out"]
CENTRED = ["out-mean", "in-out-mean", *GAUSSIAN]

# --- the naive version --------------------------------------------------------------------------


def naive(attack: Attack, experiment: Experiment) -> tuple[Float64, Float64]:
    """Scores (M, E) and their scale: the size of the terms that a score is a difference of."""
    wanted = {"variance": "example", "centre": "mean", **attack.parameters}
    # Extended precision for moments: in a saturated column float64 loses seven digits of a deviation.
    values = experiment.signals[wanted["signal"]].astype(np.longdouble)
    if wanted["queries"] == "first":
        values = values[:, :, :1]
    models, examples, queries = values.shape
    result, scale = np.empty((2, models, examples))
    centre = {"mean": np.mean, "median": np.median}[wanted["centre"]]
    for target in range(models):
        sides = [naive_rows(experiment, target, example) for example in range(examples)]
        pooled = [naive_pooled(values, [rows[side] for rows in sides]) for side in (0, 1)]
        for example in range(examples):
            parts = []
            for query in range(queries):
                others = [values[rows, example, query] for rows in sides[example]]
                deviations = [
                    pooled[side][query] if wanted["variance"] == "global" else np.std(others[side])
                    for side in (0, 1)
                ]
                parts.append(
                    naive_score(wanted["test"], values[target, example, query], others, deviations, centre)
                )
            result[target, example], scale[target, example] = np.mean(parts, axis=0)
    return result, scale


def naive_rows(experiment: Experiment, target: int, example: int) -> tuple[list[int], list[int]]:
    """The IN and the OUT models that an example's target is compared with."""
    member = experiment.member
    models = [model for model in range(len(member)) if model != target]
    if experiment.options.get("equal_counts"):
        keys = model_order(np.arange(len(member)), np.array([example]), experiment.options.get("seed", 0))[
            :, 0
        ]
        models.sort(key=lambda model: keys[model])
    inside = [model for model in models if member[model, example]]
    outside = [model for model in models if not member[model, example]]
    if experiment.options.get("equal_counts"):
        count = min(len(inside), len(outside))
        return inside[:count], outside[:count]
    return inside, outside


def naive_pooled(values: Float64, rows: list[list[int]]) -> Float64:
    """(A,): within-example squared deviations over all examples, divided by the number of values."""
    squares = sum(
        np.square(values[row, j] - values[row, j].mean(axis=0)).sum(axis=0)
        for j, row in enumerate(rows)
        if row
    )
    return np.sqrt(squares / max(1, sum(map(len, rows))))


def naive_score(
    test: str, s: float, others: list[Float64], deviations: list[float], centre
) -> tuple[float, float]:
    inside, outside = others
    if test == "global":
        return s, abs(s)
    if test == "out-rank":
        return naive_rank(s, outside), 1.0
    mu_out = centre(outside)
    if test == "out-mean":
        return s - mu_out, abs(s) + abs(mu_out)
    if test == "gaussian-out":
        z, unit = naive_z(s, mu_out, deviations[1])
        return norm.logcdf(z), unit + abs(norm.logcdf(z))
    mu_in = centre(inside)
    if test == "in-out-mean":
        return s - (mu_in + mu_out) / 2, abs(s) + abs(mu_in) + abs(mu_out)
    (z_in, unit_in), (z_out, unit_out) = naive_z(s, mu_in, deviations[0]), naive_z(s, mu_out, deviations[1])
    log_in, log_out = (
        norm.logpdf(z) - float(np.log(deviation + 1e-30))
        for z, deviation in zip((z_in, z_out), deviations, strict=True)
    )
    return log_in - log_out, unit_in + unit_out + abs(log_in) + abs(log_out)


def naive_z(s: float, mu: float, sigma: float) -> tuple[float, float]:
    """z, and what a mean that is rounded to float64 may move log Φ(z) or z²/2 by, in units of 1e-10.

    A constant column's mean is exact, so that nothing is allowed for where σ = 0.
    """
    z = float((s - mu) / (sigma + 1e-30))
    rounding = 2**-52 * abs(mu) / sigma if sigma > 0 else 0.0
    return z, max(1.0, float(rounding * (abs(z) + 1) / 1e-10))


def naive_rank(s: float, values: Float64) -> float:
    ordered, count = np.sort(values), len(values)
    if count == 0:
        return np.nan
    if s < ordered[0] or s > ordered[-1]:
        return float(s > ordered[-1])
    points = np.unique(ordered)
    ranks = [np.mean([(i + 0.5) / count for i in range(count) if ordered[i] == point]) for point in points]
    return float(np.interp(float(s), points.astype(np.float64), ranks))


def agree(attack: Attack, experiment: Experiment, tile: int = 7, tolerance: float = 1e-10) -> None:
    """Wherever the attack can score, its scores are finite and the naive ones."""
    equal = bool(experiment.options.get("equal_counts"))
    scored = attack.scored(experiment.member, experiment.mask, equal_counts=equal)
    assert scored.any()
    found = scores(attack, experiment, tile)[:, scored]
    # Only examples that can be scored have naive scores, but all of them are in the pooled variance.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected, scale = (part[:, scored] for part in naive(attack, experiment))
    assert np.isfinite(found).all()
    error = np.abs(found - expected) / np.maximum(scale, 1)
    assert error.max() <= tolerance, (error.max(), np.argwhere(error > tolerance)[:5].tolist())


# --- experiments --------------------------------------------------------------------------------


def hostile(models: int = 10, seed: int = 3, design: str = "bernoulli") -> Experiment:
    """Each example is a trap of its own, three designs of membership apart."""
    rng = np.random.default_rng(seed)
    examples, queries = 24, 2
    member = membership(design, models, examples, seed)
    x = rng.normal(0, 1, (models, examples, queries))
    x[:, 1] = 2.5  # constant
    x[:, 2] += 1e6  # a huge offset
    x[3, 3] = 1e4  # an outlier in unit noise
    x[4, 4] = -1e6
    x[:, 5] = np.where(member[:, 5], 1.0, -1.0)[:, None]  # two constants: σ = 0 on both sides
    x[:, 6] = rng.integers(0, 2, (models, queries))  # ties
    x[:, 7] = 1e4 * rng.choice([-1, 1], (models, queries))
    x[:, 8] = 103.6 + rng.integers(0, 2, (models, queries)) * 1e-5  # saturated but for the last digit
    x[0, 9] = 7  # constant but for one
    x[1:, 9] = 5
    x[:, 10] = x[:, 10].astype(np.float16)
    x[:, 11] *= 1e-20
    x[:, 12] = 3e38 * rng.choice([-1, 1], (models, queries))  # float32's largest
    x[:, 13] = 1e30
    x[5, 13] = -3e38
    x[:, 14] = np.arange(models)[:, None]
    phi = x.astype(np.float32)
    logits, label = np.stack([phi, np.zeros_like(phi)], axis=3), np.zeros(examples, np.int64)
    signals = {
        name: np.stack([SIGNALS[name].compute["logits"](model, label) for model in logits])
        for name in ("loss", "hinge", "correct", "modified_entropy", "first_logits")
    }
    merlin = rng.integers(0, 2, (models, examples, 1)).astype(np.float32)
    arrays = frozenset({"logits", "scaled_logit", "merlin"})
    return Experiment(member, {"scaled_logit": phi, "merlin": merlin, **signals}, label=label, arrays=arrays)


POINTS = [
    (test, queries, variance, centre)
    for test, queries, variance, centre in product(
        TESTS, ["first", "all"], ["example", "global"], ["mean", "median"]
    )
    if (variance == "example" or test in GAUSSIAN) and (centre == "mean" or test in CENTRED)
]


def point(test: str, queries: str, variance: str, centre: str, signal: str = "scaled_logit") -> Attack:
    return compose("mine", signal=signal, test=test, queries=queries, variance=variance, centre=centre)  # type: ignore[arg-type]


@pytest.mark.parametrize("coordinates", POINTS, ids="/".join)
def test_the_algebra_is_the_naive_loop(coordinates: tuple[str, str, str, str]) -> None:
    agree(point(*coordinates), null("bernoulli", 9, 20, seed=5))


@pytest.mark.parametrize("equal_counts", [False, True], ids=["all-others", "equal-counts"])
@pytest.mark.parametrize("design", ["balanced", "bernoulli", "sparse", "dense"])
@pytest.mark.parametrize("test", TESTS)
def test_every_design(test: str, design: str, equal_counts: bool) -> None:
    experiment = null(design, 9, 20, seed=8).with_options(equal_counts=equal_counts, seed=4)
    agree(point(test, "all", "example", "mean"), experiment)
    if test in GAUSSIAN:
        agree(point(test, "all", "global", "median"), experiment)


@pytest.mark.parametrize("design", ["balanced", "sparse"])
@pytest.mark.parametrize("coordinates", POINTS, ids="/".join)
def test_hostile_columns(coordinates: tuple[str, str, str, str], design: str) -> None:
    agree(point(*coordinates), hostile(design=design))


@pytest.mark.parametrize("test", TESTS)
def test_hostile_columns_with_equal_counts(test: str) -> None:
    agree(point(test, "all", "example", "mean"), hostile(models=11).with_options(equal_counts=True, seed=1))


@pytest.mark.parametrize("test", TESTS)
def test_the_smallest_counts(test: str) -> None:
    """Every membership of four models, so that the minimum decides who is scored."""
    member = np.array(list(product([False, True], repeat=5))).T
    rng = np.random.default_rng(0)
    experiment = Experiment(member, {"scaled_logit": rng.normal(size=(*member.shape, 1)).astype(np.float32)})
    for variance in ["example", "global"] if test in GAUSSIAN else ["example"]:
        if test == "gaussian-in-out" and variance == "example":  # takes three of each
            continue
        agree(point(test, "all", variance, "mean"), experiment)


def test_six_models_are_the_fewest_for_online_variances() -> None:
    experiment = null("balanced", 6, 12)
    agree(named("lira_online"), experiment)
    assert not named("lira_online").scored(null("balanced", 5, 12).member).any()


def test_all_named_attacks_are_finite_on_hostile_columns() -> None:
    attacks = [attack for attack in registered().values() if attack.kind == "scores"]
    for attack, design in product(attacks, ["balanced", "dense"]):
        experiment = hostile(models=12, design=design)
        found = scores(attack, experiment)
        assert np.isfinite(found[:, attack.scored(experiment.member)]).all()


@pytest.mark.parametrize("name", ["lira_online", "lira_online_fixed", "lira_offline_fixed", "ye"])
def test_scores_do_not_depend_on_the_tiles(name: str) -> None:
    experiment = null("bernoulli", 16, 40).with_options(equal_counts=True, seed=9)
    np.testing.assert_allclose(
        scores(named(name), experiment, tile=1),
        scores(named(name), experiment, tile=40),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("name", ["lira_online_fixed", "lira_offline_fixed"])
def test_examples_that_are_exempt_are_not_pooled(name: str) -> None:
    """Where only canaries are attacked, the variance of all the rest has nothing to say about them."""
    whole = null("bernoulli", 12, 30, seed=6)
    mask = np.arange(30) % 3 == 0
    phi = whole.signals["scaled_logit"].copy()
    phi[:, ~mask] *= 100
    exempt = Experiment(whole.member, {"scaled_logit": phi}, mask)
    part = Experiment(whole.member[:, mask], {"scaled_logit": phi[:, mask]})
    found = scores(named(name), exempt, tile=4)[:, mask]
    np.testing.assert_allclose(found, scores(named(name), part), rtol=1e-12, atol=1e-12)


def test_members_score_higher() -> None:
    experiment = null("bernoulli", 24, 60, seed=2)
    for signal in experiment.signals.values():
        signal += 3 * experiment.member[:, :, None]
    for test, signal in product(TESTS, ["scaled_logit", "loss"]):
        found = scores(point(test, "all", "example", "mean", signal), experiment)
        assert found[experiment.member].mean() > found[~experiment.member].mean()


def test_the_strongest_members_do_not_tie() -> None:
    """log Φ(z) in float32 is 0 from z ≈ 5.5 on, in float64 only beyond z = 38."""
    rng = np.random.default_rng(1)
    member = np.zeros((40, 3), bool)
    member[0] = True
    phi = rng.normal(size=(40, 3, 1)).astype(np.float32)
    phi[0, :, 0] = [15, 20, 25]
    found = scores(named("lira_offline"), Experiment(member, {"scaled_logit": phi}))[0]
    assert found[0] < found[1] < found[2] < 0


def test_a_pooled_variance_needs_two_degrees_of_freedom() -> None:
    member = np.array([[True, True], [True, True], [False, False], [False, False]])
    experiment = Experiment(member, {"scaled_logit": np.ones((4, 2, 1), np.float32)})
    with pytest.raises(MissingData, match="degrees of freedom"):
        scores(named("lira_online_fixed"), experiment)


# --- ranks --------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=12))
def test_ranks_with_ties(rows: list[tuple[int, bool]]) -> None:
    values = np.array([row[0] for row in rows], np.float32)[:, None, None]
    reference = np.array([row[1] for row in rows])[:, None]
    found = leave_one_out_cdf(values, reference)[:, 0, 0]
    for target in range(len(rows)):
        others = [value for i, (value, counted) in enumerate(rows) if counted and i != target]
        if others:
            assert found[target] == pytest.approx(naive_rank(rows[target][0], np.array(others)), abs=1e-12)
        else:
            assert np.isnan(found[target])


# --- memorization -------------------------------------------------------------------------------


def test_memorization_is_the_difference_of_shares() -> None:
    rng = np.random.default_rng(4)
    member = membership("bernoulli", 12, 30)
    correct = rng.integers(0, 2, (12, 30, 2)).astype(np.float64)
    experiment = Experiment(member, {"correct": correct.astype(np.float32)})
    attack = named("memorization")
    (block,) = experiment.blocks(30, {}, {"correct"})
    found = attack(block)
    assert list(found) == ["p_correct_in", "p_correct_out", "memorization"]
    for example in np.flatnonzero(attack.scored(member)):
        inside = correct[member[:, example], example, 0].mean()
        outside = correct[~member[:, example], example, 0].mean()
        assert found["p_correct_in"][example] == pytest.approx(inside, abs=1e-12)
        assert found["p_correct_out"][example] == pytest.approx(outside, abs=1e-12)
        assert found["memorization"][example] == pytest.approx(inside - outside, abs=1e-12)


def test_memorization_needs_one_model_on_each_side() -> None:
    member = np.array([[False, True, True], [False, False, True]])
    (block,) = Experiment(member, {"correct": np.ones((2, 3, 1), np.float32)}).blocks(3, {}, {"correct"})
    assert named("memorization").scored(member).tolist() == [False, True, False]
    found = named("memorization")(block)["memorization"]
    assert np.isnan(found).tolist() == [True, False, True]
