"""RMIA and Attack-P against naive loops, one target and one population point at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from attack_harness import Experiment, null, scores
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_attacks import hostile
from test_null import auc

from lirastore.attacks import named
from lirastore.attacks.population import log_confidence, share_below
from lirastore.attacks.power import power
from lirastore.errors import MissingData
from lirastore.moments import all_others, beside_log_sums, equal_others
from lirastore.moments.counts import model_order

Float64 = npt.NDArray[np.float64]
Rows = list[int]

# --- the naive version --------------------------------------------------------------------------


def rows_beside(experiment: Experiment, target: int, example: int, most: int | None) -> tuple[Rows, Rows]:
    """The IN and the OUT models beside a target; `most`: at most so many of each."""
    member, equal = experiment.member, experiment.options.get("equal_counts", False)
    models = [model for model in range(len(member)) if model != target]
    if equal or most is not None:
        keys = model_order(np.arange(len(member)), np.array([example]), experiment.options.get("seed", 0))
        models.sort(key=lambda model: keys[model, 0])
    inside = [model for model in models if member[model, example]]
    outside = [model for model in models if not member[model, example]]
    if not equal and most is None:
        return inside, outside
    count = min(len(inside), len(outside))
    if equal == "fixed":
        n_in = int(member[:, example].sum())
        count = max(0, min(n_in, len(member) - n_in) - 1)
    count = count if most is None else min(count, most)
    return inside[:count], outside[:count]


def log_mean(logs: Float64) -> float:
    """log of the mean of e^logs."""
    return float(np.logaddexp.reduce(logs) - np.log(len(logs)))


def naive_log_p_bar(log_p: Float64, inside: list[int], outside: list[int], a: float | None) -> float:
    if a is None:
        return log_mean(log_p[inside + outside])
    return float(np.logaddexp(np.log((1 + a) / 2) + log_mean(log_p[outside]), np.log((1 - a) / 2)))


def naive_rmia(experiment: Experiment, a: float | None, shadows: int | None = None) -> Float64:
    """(M, E): every x of every target against every z."""
    log_p = experiment.signals["loss"][:, :, 0].astype(np.float64)
    models, examples = log_p.shape
    result = np.full((models, examples), np.nan)
    for target in range(models):
        rho = np.full(examples, np.nan)
        for x in range(examples):
            inside, outside = rows_beside(experiment, target, x, None if shadows is None else shadows // 2)
            if outside or (a is None and inside):
                rho[x] = log_p[target, x] - naive_log_p_bar(log_p[:, x], inside, outside, a)
        for x in np.flatnonzero(np.isfinite(rho)):
            population = naive_population(experiment, target, x, rho, a, shadows)
            result[target, x] = np.mean(rho[x] - population > np.log(2))
    return result


def naive_population(
    experiment: Experiment, target: int, x: int, rho: Float64, a: float | None, shadows: int | None
) -> Float64:
    """log ρ of the points that x is compared with."""
    if experiment.population is None:
        usable = np.isfinite(rho) & ~experiment.member[target]
        if experiment.mask is not None:
            usable &= experiment.mask
        usable[x] = False
        return rho[usable]
    log_p = log_confidence(experiment.population)
    beside = [model for model in range(len(log_p)) if model != target]
    found = []
    for z in range(log_p.shape[1]):
        chosen = beside
        if shadows is not None:
            keys = model_order(np.arange(len(log_p)), np.array([-1 - z]), experiment.options.get("seed", 0))
            chosen = sorted(beside, key=lambda model: keys[model, 0])[
                : shadows if a is None else shadows // 2
            ]
        found.append(log_p[target, z] - naive_log_p_bar(log_p[:, z], [], chosen, a))
    return np.array(found)


def agree(name: str, experiment: Experiment) -> None:
    attack = named(name).on(experiment.facts())
    equal = experiment.options.get("equal_counts", False)
    scored = attack.scored(experiment.member, experiment.mask, equal_counts=equal)
    assert scored.any()
    expected = naive_rmia(experiment, attack.parameters.get("a"))[:, scored]
    np.testing.assert_allclose(scores(attack, experiment, tile=7)[:, scored], expected, rtol=0, atol=1e-12)


def with_population(experiment: Experiment, points: int = 15, seed: int = 0) -> Experiment:
    rng = np.random.default_rng([seed, 77])
    phi = rng.normal(0, 3, (len(experiment.member), points)).astype(np.float32)
    return replace(experiment, population=phi)


# --- the definition -----------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True], ids=["non-members", "stored"])
@pytest.mark.parametrize(
    ("design", "equal_counts"),
    [("balanced", False), ("balanced", "fixed"), ("bernoulli", True), ("sparse", False), ("sparse", True)],
)
@pytest.mark.parametrize("name", ["rmia", "rmia_offline"])
def test_rmia_is_the_naive_loop(name: str, design: str, equal_counts: bool | str, stored: bool) -> None:
    experiment = null(design, 10, 24, seed=21).with_options(equal_counts=equal_counts, seed=5)
    agree(name, with_population(experiment) if stored else experiment)


@pytest.mark.parametrize("stored", [False, True], ids=["non-members", "stored"])
@pytest.mark.parametrize("name", ["rmia", "rmia_offline"])
def test_few_models_compare_with_points_of_few_models(name: str, stored: bool) -> None:
    """Online K of them speak for a point, offline K/2: as many as for an example."""
    experiment = null("balanced", 10, 14, seed=22).with_options(seed=3)
    experiment = with_population(experiment) if stored else experiment
    limited = power(named(name), 6, 1)
    found = scores(limited, experiment, tile=6)
    expected = naive_rmia(experiment, limited.on(experiment.facts()).parameters.get("a"), shadows=6)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def extreme(models: int = 12, seed: int = 1) -> Experiment:
    """Confidences of exactly 0 and 1, ties, constants, losses of 1e4 and 1e38."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(0, 2, (models, 16, 1))
    phi[:, 0] = 1e4 * rng.choice([-1, 1], (models, 1))
    phi[:, 1] = 1e4
    phi[:, 2] = -1e4
    phi[:, 3] = 0
    phi[:, 4] = rng.integers(0, 2, (models, 1))
    phi[:, 5] = np.where(np.arange(models) == 3, 1e4, -1e4)[:, None]
    phi[:, 6] = np.where(np.arange(models) == 3, -3e38, 3e38)[:, None]
    phi[:, 7] = -3e38
    member = rng.random((models, 16)).argsort(axis=0) < models // 2
    return Experiment(member, {"loss": log_confidence(phi.astype(np.float32))})


@pytest.mark.parametrize("stored", [False, True], ids=["non-members", "stored"])
@pytest.mark.parametrize("name", ["rmia", "rmia_offline"])
def test_certain_and_impossible_predictions(name: str, stored: bool) -> None:
    experiment = extreme()
    if stored:
        phi = np.full((12, 9), 1e4, np.float32)
        phi[:, 3:6], phi[4, 6:] = -1e4, -3e38
        experiment = replace(experiment, population=phi)
    agree(name, experiment)


@pytest.mark.parametrize("name", ["rmia", "rmia_offline", "ye_population"])
def test_hostile_columns_are_finite(name: str) -> None:
    experiment = hostile(models=12)
    attack = named(name)
    scored = attack.scored(experiment.member)
    for one in (experiment, with_population(experiment)):
        found = scores(attack, one)[:, scored]
        assert np.isfinite(found).all()
        assert (np.abs(found) <= 1).all()


def test_gamma_is_exceeded_strictly() -> None:
    population = np.array([[0.0, 1.0, 1.0, 2.0]])
    found = share_below(population, np.array([[0.0, 1.0, 1.5, 3.0]]))
    assert found.tolist() == [[0.0, 0.25, 0.75, 1.0]]


def test_members_stand_out() -> None:
    experiment = with_population(null("bernoulli", 24, 60, seed=2))
    for signal in experiment.signals.values():
        signal += 3 * experiment.member[:, :, None]
    capped = replace(
        experiment, signals={**experiment.signals, "loss": np.minimum(experiment.signals["loss"], 0)}
    )
    for one in (capped, replace(capped, population=None)):
        for name in ("rmia", "rmia_offline", "ye_population"):
            assert auc(scores(named(name), one), one.member)[0] > 0.6


@pytest.mark.parametrize(
    ("dataset", "a"),
    [("CIFAR-10", 0.3), ("cifar-100 (part)", 0.6), ("Purchase-100", 0.2), ("digits", 0.3), ("", 0.3)],
)
def test_a_belongs_to_the_data_set(dataset: str, a: float) -> None:
    experiment = replace(null("bernoulli", 8, 10), name=dataset)
    found = named("rmia_offline").on(experiment.facts())
    assert found.parameters["a"] == a
    assert named("rmia").on(experiment.facts()).parameters.get("a") is None
    assert found.parameters["population"] == "target-nonmembers"
    stored = named("rmia_offline").on(with_population(experiment).facts())
    assert stored.parameters == {**found.parameters, "population": "stored"}


@pytest.mark.parametrize("name", ["rmia", "rmia_offline", "ye_population"])
def test_the_population_has_no_part_that_is_exempt(name: str) -> None:
    whole = null("bernoulli", 12, 40, seed=6)
    mask = np.arange(40) % 3 > 0
    loss = whole.signals["loss"].copy()
    loss[:, ~mask] *= 50
    exempt = Experiment(whole.member, {"loss": loss}, mask)
    part = Experiment(whole.member[:, mask], {"loss": loss[:, mask]})
    np.testing.assert_allclose(
        scores(named(name), exempt, tile=9)[:, mask], scores(named(name), part), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", ["rmia", "rmia_offline", "ye_population"])
def test_a_target_that_holds_nearly_all_has_no_population(name: str) -> None:
    member = np.zeros((6, 8), bool)
    member[0, 1:] = member[1, ::2] = member[2, 1::2] = True
    experiment = Experiment(member, {"loss": -np.ones((6, 8, 1))})
    with pytest.raises(MissingData, match="has 1 non-members"):
        scores(named(name), experiment)


@pytest.mark.parametrize("stored", [False, True], ids=["non-members", "stored"])
@pytest.mark.parametrize("name", ["rmia", "rmia_offline", "ye_population"])
def test_scores_do_not_depend_on_the_tiles(name: str, stored: bool) -> None:
    experiment = null("bernoulli", 16, 40).with_options(equal_counts=True, seed=9)
    experiment = with_population(experiment) if stored else experiment
    found = [scores(named(name), experiment, tile=tile) for tile in (1, 40)]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(("design", "options"), [("bernoulli", {}), ("balanced", {"equal_counts": "fixed"})])
@pytest.mark.parametrize("name", ["rmia", "rmia_offline", "ye_population"])
def test_a_stored_population_gives_nothing_away(name: str, design: str, options: dict[str, object]) -> None:
    """The points are OUT for every model, whatever the examples are."""
    experiment = with_population(null(design, 16, 2500, seed=31), points=200).with_options(**options)
    area, error = auc(scores(named(name), experiment, tile=512), experiment.member)
    assert error < 0.005
    assert abs(area - 0.5) < 4 * error


def test_online_is_blind_even_where_counts_leak() -> None:
    """p̄ is the mean of all models but the target: as many beside a member as beside a non-member."""
    experiment = null("balanced", 8, 6000, queries=1, seed=13)
    area, error = auc(scores(named("rmia"), experiment, tile=512), experiment.member)
    assert abs(area - 0.5) < 4 * error


# --- Attack-P -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True], ids=["non-members", "stored"])
def test_attack_p_is_the_share_of_smaller_losses(stored: bool) -> None:
    experiment = null("sparse", 8, 30, seed=4)
    experiment.signals["loss"][:, ::3] = np.round(experiment.signals["loss"][:, ::3])  # ties
    experiment = with_population(experiment) if stored else experiment
    losses = -experiment.signals["loss"][:, :, 0]
    found = scores(named("ye_population"), experiment, tile=7)
    for target, x in np.ndindex(*losses.shape):
        if stored:
            population = -log_confidence(experiment.population)[target]
        else:
            others = ~experiment.member[target] & (np.arange(30) != x)
            population = losses[target, others]
        expected = -np.mean(population < losses[target, x])
        assert found[target, x] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("stored", [False, True], ids=["non-members", "stored"])
def test_attack_p_ranks_within_a_target_as_loss_does(stored: bool) -> None:
    experiment = null("bernoulli", 6, 300, seed=4)
    experiment = with_population(experiment, points=80) if stored else experiment
    rank, loss = (scores(named(name), experiment) for name in ("ye_population", "loss"))
    for one, other in zip(rank, loss, strict=True):
        assert (np.diff(one[np.argsort(other)]) >= -1e-12).all()


# --- sums of exponentials -----------------------------------------------------------------------


LOGS = st.floats(-1e4, 0, width=32) | st.sampled_from([0.0, -1e4, -745.2, -30.0])


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 7), st.sampled_from([False, True, "fixed"]), st.sampled_from([None, 1, 2]))
def test_log_sums_are_those_of_the_models_beside_the_target(
    data: st.DataObject, models: int, counts: bool | str, most: int | None
) -> None:
    x = data.draw(hnp.arrays(np.float64, (models, 3), elements=LOGS))
    member = data.draw(hnp.arrays(np.bool_, (models, 3)))
    experiment = Experiment(member, {}, options={"equal_counts": counts, "seed": 4})
    most = most if counts else None
    others = all_others(member)
    if counts:
        ids = np.arange(models), np.arange(3)
        others = equal_others(member, models=ids[0], examples=ids[1], seed=4, counts=counts, most=most)
    found = beside_log_sums(x, member, others)
    for target, example in np.ndindex(*x.shape):
        for side, rows in zip(found, rows_beside(experiment, target, example, most), strict=True):
            expected = np.logaddexp.reduce(x[rows, example]) if rows else -np.inf
            assert side[target, example] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_what_a_dominating_value_leaves_is_not_rounded_away() -> None:
    x = np.array([[0.0], [-50.0], [-51.0]])
    member = np.ones((3, 1), bool)
    inside, outside = beside_log_sums(x, member, all_others(member))
    assert inside[0, 0] == pytest.approx(np.logaddexp(-50, -51), rel=1e-14)
    assert np.isneginf(outside).all()
