"""Where the signal has nothing to do with membership, attacks are blind; the one known leak is as stated."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from attack_harness import Experiment, membership, null, scores
from scipy.stats import rankdata

from lirastore.attacks import Attack, presets

NAMED = [
    attack
    for preset in presets.PRESETS
    for attack in presets.attacks(preset).values()
    if attack.kind == "scores"
]


def identity(attack: Attack) -> str:
    return f"{attack.parameters['preset']}-{attack.name}"


def auc(found: npt.NDArray[np.float64], member: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """The pooled AUC, and its standard error with examples as the independent units.

    By Hájek's projection: a member counts the share of non-members below it, a non-member that of members
    above it; the models of one example, which are scored against each other, are summed before squares are
    taken."""
    inside, outside = member.sum(), (~member).sum()
    ranks = rankdata(found).reshape(found.shape)
    below_in_side = np.empty_like(ranks)
    for side in (member, ~member):
        below_in_side[side] = rankdata(found[side])
    other = ranks - below_in_side  # values of the other side below, ties half
    area = other[member].sum() / (inside * outside)
    influence = np.where(member, (other / outside - area) / inside, (1 - other / inside - area) / outside)
    return float(area), float(np.sqrt(np.square(influence.sum(axis=0)).sum()))


def assert_blind(attack: Attack, experiment: Experiment) -> None:
    """Four standard errors: one run in sixteen thousand would fail by chance, and the seeds are fixed."""
    assert attack.scored(experiment.member).all()
    area, error = auc(scores(attack, experiment), experiment.member)
    assert error < 0.004
    assert abs(area - 0.5) <= 4 * error, (area, error)  # one that calls nobody a member: 0 and 0


@pytest.mark.parametrize("attack", NAMED, ids=identity)
def test_bernoulli_membership_gives_nothing_away(attack: Attack) -> None:
    assert_blind(attack, null("bernoulli", 32, 1500, seed=11))


@pytest.mark.parametrize("attack", NAMED, ids=identity)
def test_equal_counts_of_a_balanced_design_give_nothing_away(attack: Attack) -> None:
    """Without equal counts, lira_online is at 0.39 here, thirty standard errors away."""
    assert_blind(attack, null("balanced", 8, 5000, seed=12).with_options(equal_counts=True, seed=3))


@pytest.mark.parametrize("name", ["lira_online_shrunk", "lira_offline_shrunk"])
def test_what_is_for_few_models_takes_equal_counts_unasked(name: str) -> None:
    assert_blind(presets.attacks("paper")[name], null("balanced", 8, 5000, seed=12))


@pytest.mark.parametrize(("models", "documented"), [(8, 0.432), (16, 0.486)])
def test_the_counts_of_a_balanced_design_leak(models: int, documented: float) -> None:
    """What `equal_counts` is for: members are left with fewer IN models and a smaller ddof-0 variance."""
    experiment = null("balanced", models, 6000, queries=1, seed=13)
    online = presets.attacks("paper")["lira_online"]
    area, error = auc(scores(online, experiment), experiment.member)
    assert abs(area - documented) < max(0.008, 4 * error)
    assert area < 0.5 - 4 * error


def tail(attack: Attack, experiment: Experiment, rate: float = 0.01) -> float:
    """The TPR at an FPR, pooled."""
    found, member = scores(attack, experiment), experiment.member
    return float((found[member] > np.quantile(found[~member], 1 - rate)).mean())


@pytest.mark.parametrize("name", ["watson", "sablayrolles", "lira_offline", "lira_online"])
def test_equal_counts_of_a_lopsided_design_leave_the_tail_alone(name: str) -> None:
    """3 IN of 7. An AUC of 0.5 would not show it: the counts betray membership in the tail.

    The bound is five standard errors of the TPR, were its trials as few as there are examples.
    """
    attack, noise = presets.attacks("paper")[name], null("balanced", 7, 6000, seed=14)
    blind = tail(attack, noise.with_options(equal_counts="fixed", seed=3))
    assert abs(blind - 0.01) < 5 * np.sqrt(0.01 * 0.99 / 6000)


def test_the_rule_of_independent_membership_leaks_on_a_lopsided_design() -> None:
    """Why there are two rules: by this one lira_online finds several times as many members as chance."""
    online, noise = presets.attacks("paper")["lira_online"], null("balanced", 7, 6000, seed=14)
    assert tail(online, noise.with_options(equal_counts=True, seed=3)) > 0.03


def test_the_standard_error_is_that_of_repetitions() -> None:
    """Of the estimator above, on scores that share examples."""
    areas, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = rng.normal(size=(6, 80)) + rng.normal(size=80)
        area, error = auc(found, membership("bernoulli", 6, 80, seed))
        areas.append(area)
        errors.append(error)
    assert np.std(areas) == pytest.approx(np.mean(errors), rel=0.25)
