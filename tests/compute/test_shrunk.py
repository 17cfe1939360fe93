"""Variance `shrunk` against a naive version, and what it is for: few models."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from attack_harness import Experiment, membership, null, scores, summarise
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats
from scipy.special import gammaln
from test_attacks import hostile, naive_rows
from test_null import auc

from lirastore.attacks import Attack, compose, named
from lirastore.attacks.power import power
from lirastore.attacks.shrunk import Prior, shrinkage_prior, student_log_cdf
from lirastore.errors import AttackError, MissingData
from lirastore.moments import DeviationSums, Loo

Float64 = npt.NDArray[np.float64]

# --- the naive version --------------------------------------------------------------------------


def naive(test: str, experiment: Experiment) -> Float64:
    phi = experiment.signals["scaled_logit"].astype(np.float64)
    models, examples, queries = phi.shape
    result = np.empty((models, examples))
    for target in range(models):
        rows = [naive_rows(experiment, target, example) for example in range(examples)]
        priors = [
            [naive_prior(experiment, phi[:, :, query], [both[side] for both in rows]) for side in (0, 1)]
            for query in range(queries)
        ]
        for example in range(examples):
            if not all(rows[example][test == "gaussian-out" :]):
                result[target, example] = np.nan
                continue
            result[target, example] = np.mean(
                [
                    naive_score(
                        test,
                        phi[target, example, query],
                        [phi[side, example, query] for side in rows[example]],
                        priors[query],
                    )
                    for query in range(queries)
                ]
            )
    return result


def naive_prior(experiment: Experiment, values: Float64, rows: list[list[int]]) -> tuple[float, float]:
    """(ν, τ²) of one side's models: by example the standard deviation without bias, pooled the variance."""
    used = [
        values[row, example]
        for example, row in enumerate(rows)
        if len(row) > 1 and (experiment.mask is None or experiment.mask[example])
    ]
    squares = np.array([np.square(x - x.mean()).sum() for x in used])
    degrees = np.array([len(x) - 1 for x in used])
    unbiased = np.sqrt(squares) / stats.chi.mean(degrees)
    pooled = squares.sum() / degrees.sum()
    return naive_strength(unbiased.mean() ** 2 / pooled), float(unbiased.mean() ** 2)


def naive_strength(share: float) -> float:
    def excess(strength: float) -> float:
        gammas = gammaln((strength - 1) / 2) - gammaln(strength / 2)
        return float((strength - 2) / 2 * np.exp(2 * gammas) - share)

    if excess(1e6) < 0:
        return 1e6
    return float(optimize.brentq(excess, 2 + 1e-6, 1e6, xtol=1e-12, rtol=1e-14))


def naive_score(test: str, s: float, sides: list[Float64], priors: list[tuple[float, float]]) -> float:
    if test == "gaussian-out":
        return float(naive_t(sides[1], *priors[1]).logcdf(s))
    (nu_in, tau_in), (nu_out, tau_out) = priors
    relative_in, relative_out = (
        naive_variance(side, *prior) / prior[1] for side, prior in zip(sides, priors, strict=True)
    )
    of_in = naive_t(sides[0], nu_in, tau_in * relative_out)
    of_out = naive_t(sides[1], nu_out, tau_out * relative_in)
    return float(of_in.logpdf(s) - of_out.logpdf(s))


def naive_variance(side: Float64, strength: float, scale: float) -> float:
    return float((strength * scale + np.square(side - side.mean()).sum()) / (strength + len(side) - 1))


def naive_t(side: Float64, strength: float, scale: float):
    variance = naive_variance(side, strength, scale) * (1 + 1 / len(side))
    return stats.t(strength + len(side) - 1, side.mean(), np.sqrt(variance))


def shrunk(test: str, queries: str = "all", signal: str = "scaled_logit") -> Attack:
    return compose("mine", signal=signal, test=test, queries=queries, variance="shrunk")  # type: ignore[arg-type]


def varied(models: int, examples: int, design: str = "bernoulli", seed: int = 0) -> Experiment:
    """Noise whose standard deviation differs between examples, and members that stand out."""
    rng = np.random.default_rng([seed, 5])
    member = membership(design, models, examples, seed)
    deviation = np.sqrt(1 / rng.gamma(2, 1 / 2, (examples, 1)))
    phi = rng.normal(0, 3, (examples, 1)) + deviation * rng.normal(size=(models, examples, 2))
    gap = deviation * np.abs(rng.normal(0, 1, (examples, 1)))
    return Experiment(member, {"scaled_logit": (phi + gap * member[:, :, None]).astype(np.float32)})


@pytest.mark.parametrize("equal_counts", [False, True], ids=["unasked", "asked"])
@pytest.mark.parametrize("design", ["balanced", "bernoulli", "sparse"])
@pytest.mark.parametrize("test", ["gaussian-out", "gaussian-in-out"])
def test_it_is_the_naive_version(test: str, design: str, equal_counts: bool) -> None:
    """With equal counts, whether or not they are asked for."""
    experiment = varied(9, 16, design).with_options(equal_counts=equal_counts, seed=2)
    attack = shrunk(test)
    scored = attack.scored(experiment.member, equal_counts=True)
    found = scores(attack, experiment, tile=5)[:, scored]
    with np.errstate(all="ignore"):
        expected = naive(test, experiment.with_options(equal_counts=True))[:, scored]
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


def test_the_first_query_has_the_prior_of_the_first_query() -> None:
    experiment = varied(9, 16, "balanced")
    one = Experiment(experiment.member, {"scaled_logit": experiment.signals["scaled_logit"][:, :, :1]})
    for test in ("gaussian-out", "gaussian-in-out"):
        np.testing.assert_allclose(
            scores(shrunk(test, "first"), experiment), scores(shrunk(test), one), rtol=1e-12
        )


def test_examples_that_are_exempt_have_no_part_in_the_prior() -> None:
    whole = varied(10, 30, seed=6)
    mask = np.arange(30) % 3 == 0
    phi = whole.signals["scaled_logit"].copy()
    phi[:, ~mask] *= 100
    louder, as_it_was = (
        scores(shrunk("gaussian-in-out"), Experiment(whole.member, {"scaled_logit": values}, mask), tile=4)
        for values in (phi, whole.signals["scaled_logit"])
    )
    assert np.array_equal(louder[:, mask], as_it_was[:, mask])
    assert not np.allclose(louder[:, ~mask], as_it_was[:, ~mask])


# --- the prior ----------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [5, 33])
@pytest.mark.parametrize("strength", [3.0, 8.0, 40.0])
def test_the_prior_is_found_again(strength: float, models: int) -> None:
    """Variances drawn from a scaled inverse χ² of known ν; τ is the mean standard deviation."""
    rng = np.random.default_rng(8)
    examples = 40_000
    deviation = np.sqrt(4 * strength / rng.chisquare(strength, examples))
    values = deviation[:, None] * rng.normal(size=(models, examples, 1))
    prior = fitted(values)
    assert prior.strength.mean() == pytest.approx(strength, rel=0.2)
    assert prior.scale.mean() == pytest.approx(deviation.mean() ** 2, rel=0.03)


def fitted(values: np.ndarray, tile: int = 4096) -> Prior:
    """Of the IN models, values (M, E, A); as many OUT models stand beside them."""
    summary = shrinkage_prior("scaled_logit")
    member = np.repeat([True, False], len(values))[:, None] & np.ones((1, values.shape[1]), bool)
    experiment = Experiment(member, {"scaled_logit": np.concatenate([values, values])})
    attack = Attack("mine", lambda block: None, summaries=(summary,))
    prior: Prior = summarise(attack, experiment, tile)[summary.key]["in"]
    return prior


def test_one_variance_for_all_is_seen() -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(size=(17, 20_000, 1))
    prior = fitted(values)
    assert prior.strength.min() > 100
    assert prior.scale.mean() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_constant_columns_do_not_upset_the_prior(share: float) -> None:
    """With logarithms of variances a single one would."""
    rng = np.random.default_rng(8)
    values = rng.normal(size=(9, 5000, 1))
    values[:, rng.random(5000) < share] = 3
    prior = fitted(values)
    assert 2.5 < prior.strength.mean() < 60
    assert prior.scale.mean() == pytest.approx((1 - share) ** 2, rel=0.1)


def test_deviations_add_up_over_tiles_and_heed_what_counts() -> None:
    experiment = varied(8, 30, "sparse")
    values, use = experiment.signals["scaled_logit"], np.arange(30) % 2 == 0
    parts = [slice(0, 11), slice(11, 30)]
    sums = [DeviationSums.of(Loo(values[:, part], experiment.member[:, part]), use[part]) for part in parts]
    total = sums[0] + sums[1]
    whole = DeviationSums.of(Loo(values[:, use], experiment.member[:, use]))
    np.testing.assert_allclose(total.mean_in, whole.mean_in, rtol=1e-12)
    np.testing.assert_allclose(total.mean_out, whole.mean_out, rtol=1e-12)
    assert (total.count_in == whole.count_in).all()


def test_a_prior_needs_two_degrees_of_freedom() -> None:
    member = np.array([[True, True], [True, True], [False, False], [False, False]])
    experiment = Experiment(member, {"scaled_logit": np.ones((4, 2, 1), np.float32)})
    with pytest.raises(MissingData, match="degrees of freedom"):
        scores(named("lira_online_shrunk"), experiment)


# --- what it is for -----------------------------------------------------------------------------


def area(name: str, experiment: Experiment, shadows: int) -> float:
    return auc(scores(power(named(name), shadows, 2), experiment, tile=256), experiment.member)[0]


@pytest.mark.parametrize("shadows", [4, 8, 16, 32])
def test_it_is_as_good_as_the_better_of_the_two(shadows: int) -> None:
    """Where examples differ: a variance per example fails with few models, one for all of them with many."""
    experiment = varied(40, 400, "balanced", seed=3)
    own, pooled, both = (
        area(f"lira_online{kind}", experiment, shadows) for kind in ("", "_fixed", "_shrunk")
    )
    assert both > max(own, pooled) - 0.002
    if shadows <= 8:
        assert both > own + 0.03


def test_with_many_models_it_is_the_variance_per_example() -> None:
    experiment = varied(400, 30, seed=3)
    own, both = (scores(named(f"lira_online{kind}"), experiment) for kind in ("", "_shrunk"))
    near = np.abs(own) < 4  # in the tails Student's t is not the normal
    assert np.abs(own - both)[near].mean() < 0.1


def test_with_one_variance_for_all_it_is_the_pooled_one() -> None:
    experiment = null("bernoulli", 12, 3000, seed=3)
    noise = np.random.default_rng(0).normal(size=(12, 3000, 2)).astype(np.float32)
    same = Experiment(experiment.member, {"scaled_logit": noise}).with_options(equal_counts=True)
    scored = named("lira_online_shrunk").scored(same.member, equal_counts=True)
    pooled, both = (scores(named(f"lira_online{kind}"), same)[:, scored] for kind in ("_fixed", "_shrunk"))
    assert np.corrcoef(pooled.ravel(), both.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("design", ["balanced", "dense"])
@pytest.mark.parametrize("test", ["gaussian-out", "gaussian-in-out"])
def test_hostile_columns_are_finite(test: str, design: str) -> None:
    experiment = hostile(models=12, design=design)
    for attack, equal in product((shrunk(test), shrunk(test, "first")), (False, True)):
        scored = attack.scored(experiment.member, equal_counts=True)
        found = scores(attack, experiment.with_options(equal_counts=equal))[:, scored]
        assert np.isfinite(found).all()


@pytest.mark.parametrize("test", ["gaussian-out", "gaussian-in-out"])
def test_nothing_varies_at_all(test: str) -> None:
    phi = np.ones((8, 5, 1), np.float32)
    experiment = Experiment(membership("balanced", 8, 5), {"scaled_logit": phi})
    assert np.isfinite(scores(shrunk(test), experiment)).all()
    phi = phi.copy()
    phi[2, 3] = 2
    assert np.isfinite(scores(shrunk(test), Experiment(experiment.member, {"scaled_logit": phi}))).all()


def test_scores_do_not_depend_on_the_tiles() -> None:
    experiment = varied(16, 40).with_options(equal_counts=True, seed=9)
    found = [scores(shrunk("gaussian-in-out"), experiment, tile=tile) for tile in (1, 40)]
    np.testing.assert_allclose(*found, rtol=1e-10, atol=1e-10)


def test_one_model_a_side_is_enough() -> None:
    attack = named("lira_online_shrunk")
    assert (attack.minimum.n_in, attack.minimum.n_out, attack.minimum.degrees) == (1, 1, 2)
    assert attack.parameters["variance"] == "shrunk"
    assert attack.equal_counts
    member = membership("balanced", 6, 50)
    phi = np.random.default_rng(0).normal(size=(6, 50, 1)).astype(np.float32)
    assert np.isfinite(scores(attack, Experiment(member, {"scaled_logit": phi}))).all()


def test_only_the_gaussian_tests_have_it() -> None:
    for test in ("out-mean", "gaussian-in-out-full"):
        with pytest.raises(AttackError, match="uses no variance"):
            shrunk(test)


# --- Student's t --------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.floats(-60, 60), st.floats(2, 1e4))
def test_log_cdf_of_students_t(z: float, degrees: float) -> None:
    found = student_log_cdf(np.array([z]), np.array([degrees]))[0]
    with np.errstate(divide="ignore"):
        expected = stats.t.logcdf(z, degrees)
    if expected > np.log(1e-300):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("z", "degrees"), [(-40.0, 1e6), (-45.0, 1e4), (-300.0, 200.0), (-1e60, 5.0)])
def test_the_far_tail(z: float, degrees: float) -> None:
    """∫ f over the tail in units of f at its end; the integrand's scale is that of its exponential decay."""
    found = student_log_cdf(np.array([z]), np.array([degrees]))[0]
    unit = -z / (degrees + 1) * (1 + degrees / z / z)

    def relative(step: float) -> float:
        moved = 2 * -z * step * unit + (step * unit) ** 2
        return float(np.exp(-(degrees + 1) / 2 * np.log1p(moved / (degrees + z * z))))

    mass = integrate.quad(relative, 0, np.inf, limit=200)[0] * unit
    expected = stats.t.logpdf(z, degrees) + np.log(mass)
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_tail_keeps_its_order_where_the_two_meet() -> None:
    z = -np.linspace(30, 45, 4000)
    found = student_log_cdf(z, np.full(z.shape, 1e6))
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()
