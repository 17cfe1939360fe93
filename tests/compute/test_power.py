"""Attacks with fewer shadow models and queries, against a draw of them target by target."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import attack_harness as harness
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr

from lirastore import attacks
from lirastore.attacks import Attack, Block, MinimumCounts, PerTarget, Summary, TargetRow
from lirastore.attacks.power import is_power_name, largest_shadows, power, query_counts
from lirastore.errors import AttackError, MissingData
from lirastore.moments.counts import model_order

Array = npt.NDArray[Any]


def beside(member: Array, target: int, shadows: int, seed: int = 0) -> tuple[Array, Array]:
    """(M, e) each: the shadows/2 IN and OUT models beside a target that come first in the order."""
    models, examples = member.shape
    order = model_order(np.arange(models), np.arange(examples), seed).argsort(axis=0)
    masks = np.zeros((2, models, examples), np.bool_)
    for example in range(examples):
        for side in (0, 1):
            there = [m for m in order[:, example] if m != target and member[m, example] == (side == 0)]
            masks[side, there[: shadows // 2], example] = True
    return masks[0], masks[1]


def naive(name: str, experiment: harness.Experiment, shadows: int, queries: int, seed: int = 0) -> Array:
    """(M, e): the attack, target by target, on the models of `beside` and the first queries."""
    member = experiment.member
    phi = experiment.signals["scaled_logit"][:, :, :queries].astype(np.float64)
    scores = np.empty(member.shape)
    for target in range(len(member)):
        sides = [mask[:, :, None] for mask in beside(member, target, shadows, seed)]
        means = [np.mean(phi, axis=0, where=mask) for mask in sides]
        variances = [np.var(phi, axis=0, where=mask) for mask in sides]
        if name.endswith("_fixed"):
            pooled = [np.broadcast_to(var.mean(axis=0), var.shape) for var in variances]
            variances = pooled  # K/2 models in every example: the mean of the variances
        z = [(phi[target] - mean) / np.sqrt(var) for mean, var in zip(means, variances, strict=True)]
        if "offline" in name:
            scores[target] = log_ndtr(z[1]).mean(axis=1)
        else:
            density = [-0.5 * (one**2 + np.log(var)) for one, var in zip(z, variances, strict=True)]
            scores[target] = (density[0] - density[1]).mean(axis=1)
    return scores


NAMES = ("lira_online", "lira_offline", "lira_online_fixed", "lira_offline_fixed")


@pytest.mark.parametrize("design", ["balanced", "bernoulli"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shadows", "queries", "seed"), [(4, 1, 0), (6, 3, 7), (4, 2, 1)])
def test_scores_are_those_of_a_draw_for_every_target(
    design: str, name: str, shadows: int, queries: int, seed: int
) -> None:
    experiment = drawn(design).with_options(seed=seed)
    found = harness.scores(power(attacks.named(name), shadows, queries), experiment, tile=16)
    np.testing.assert_allclose(found, naive(name, experiment, shadows, queries, seed), rtol=1e-9, atol=1e-9)


def drawn(design: str, models: int = 16, examples: int = 60) -> harness.Experiment:
    """An experiment in which every example has four models of either side beside any target."""
    made = harness.null(design, models, 2 * examples, queries=3)
    enough = [
        example
        for example in range(2 * examples)
        if largest_shadows(made.member[:, [example]], None, skip=False) >= 8
    ][:examples]
    assert len(enough) == examples
    return replace(
        made,
        member=made.member[:, enough],
        signals={name: values[:, enough] for name, values in made.signals.items()},
        label=made.labels[enough],
    )


def others_of(block: Block, target: int) -> Array:
    """(M, e) bool: the models beside a target, from the masks of `Block.others`."""
    others, own = block.others(), block.member == block.member[target]
    assert others.cross is not None
    assert others.base is not None
    spare = others.base if others.spare is None else others.spare
    same = np.where(others.base[target], others.base, spare) & own
    same[target] = False
    return same | (others.cross & ~own)


@given(st.integers(0, 2**32), st.sampled_from(["balanced", "bernoulli"]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_fewer_models_are_among_more_and_half_of_each(seed: int, design: str, equal: bool) -> None:
    member = harness.membership(design, 12, 20, seed % 1000)
    counts: Any = "fixed" if equal and design == "balanced" else equal
    block = Block(
        models=np.arange(12), start=0, stop=20, member=member, label=np.zeros(20, int),
        augmentations=("a", "b"), signals={}, seed=seed, equal_counts=counts,
    )  # fmt: skip
    enough = np.minimum(member.sum(axis=0), 12 - member.sum(axis=0)) - 1
    for target in range(12):
        before = np.zeros_like(member)
        for shadows in (2, 4, 6):
            limited = block.limited(shadows, 1)
            chosen = others_of(limited, target)
            assert not chosen[target].any()
            assert (before <= chosen).all()
            full = enough >= shadows // 2
            assert ((chosen & member).sum(axis=0)[full] == shadows // 2).all()
            assert ((chosen & ~member).sum(axis=0)[full] == shadows // 2).all()
            assert (limited.others().n_in[:, full] == shadows // 2).all()
            assert (limited.others().n_out[:, full] == shadows // 2).all()
            before = chosen


@pytest.mark.parametrize("name", [*NAMES, "watson", "sablayrolles", "ye", "loss"])
def test_as_many_as_there_are_is_the_attack_with_equal_counts(name: str) -> None:
    """On a balanced design equal counts leave M/2 − 1 models a side: K = M − 2 takes the same ones."""
    experiment = harness.null("balanced", 10, 50, queries=2).with_options(equal_counts="fixed", seed=3)
    whole = harness.scores(attacks.named(name), experiment)
    np.testing.assert_array_equal(harness.scores(power(attacks.named(name), 8, 2), experiment), whole)
    plain = experiment.with_options(equal_counts=False)
    np.testing.assert_array_equal(harness.scores(power(attacks.named(name), 8, 2), plain), whole)


@pytest.mark.parametrize("name", ["lira_online", "lira_online_fixed", "ablation_global_phi_all"])
def test_the_first_queries_are_as_a_store_of_them(name: str) -> None:
    experiment = drawn("balanced")
    signals = {key: values[:, :, :2] for key, values in experiment.signals.items() if key == "scaled_logit"}
    fewer = replace(experiment, signals=signals)
    limited = harness.scores(power(attacks.named(name), 6, 2), experiment)
    np.testing.assert_array_equal(limited, harness.scores(power(attacks.named(name), 6, 2), fewer))
    assert (limited != harness.scores(power(attacks.named(name), 6, 1), experiment)).any()


def test_noise_queries_do_not_count() -> None:
    experiment = drawn("balanced")
    noisy = replace(
        experiment,
        augmentations=("identity", "noise(0.01)#0", "flip", "noise(0.01)#1"),
        signals={"scaled_logit": experiment.signals["scaled_logit"][:, :, [0, 2, 1, 2]]},
    )
    attack = attacks.named("lira_online")
    found = harness.scores(power(attack, 6, 2), noisy)
    np.testing.assert_array_equal(found, harness.scores(power(attack, 6, 2), experiment))
    assert query_counts(["first", "all", 2, 1], noisy.augmentations) == [1, 2]


@pytest.mark.parametrize("design", ["balanced", "bernoulli"])
def test_few_models_find_nothing_in_noise(design: str) -> None:
    """The counts are equal whoever is the target: neither the AUC nor the tail shows membership."""
    experiment = harness.null(design, 12, 4000, queries=1)
    mask = np.minimum(experiment.member.sum(axis=0), 12 - experiment.member.sum(axis=0)) > 2
    for name in NAMES:
        found = harness.scores(power(attacks.named(name), 4, 1), replace(experiment, mask=mask))[:, mask]
        member = experiment.member[:, mask]
        threshold = np.quantile(found[~member], 0.99)
        n = member.sum()
        tpr, fpr = ((found[side] >= threshold).mean() for side in (member, ~member))
        assert abs(tpr - fpr) < 5 * np.sqrt(2 * fpr * (1 - fpr) / n), name
        ranks = found.ravel().argsort().argsort().reshape(found.shape)[member]
        auc = (ranks.mean() - (n - 1) / 2) / (~member).sum()
        assert abs(auc - 0.5) < 0.01, name


# --- what is wrapped ------------------------------------------------------------------------------


def mean_in(block: Block) -> tuple[Array, int]:
    loo = block.loo()
    return loo.mean_in.sum(axis=1)[:, 0], loo.mean_in.shape[1]


MEAN_IN = Summary(
    "mean-in", ("scaled_logit",), mean_in, lambda a, b: (a[0] + b[0], a[1] + b[1]), lambda s: s[0] / s[1]
)


def rank(row: TargetRow) -> Array:
    centred = row.values - row.known["mean-in"][row.target]
    return np.searchsorted(np.sort(centred[~row.member]), centred).astype(np.float64)


RANKS = PerTarget(
    "ranks", ("scaled_logit",), lambda block: block.loo().mean_out[:, :, 0] - block.summary(MEAN_IN)[:, None],
    rank, requires=(MEAN_IN,),
)  # fmt: skip


def test_first_passes_are_made_of_the_same_models() -> None:
    experiment = drawn("bernoulli")
    attack = Attack(
        "ranked",
        lambda block: block.summary(RANKS) + block.summary(MEAN_IN)[:, None],
        summaries=(RANKS, MEAN_IN),
        minimum=MinimumCounts(1, 1),
        limitable=True,
    )
    member, phi = experiment.member, experiment.signals["scaled_logit"][:, :, 0].astype(np.float64)
    expected = np.empty(member.shape)
    for target in range(len(member)):
        inside, outside = beside(member, target, 4)
        whole = np.mean(phi, axis=0, where=inside).mean()
        values = np.mean(phi, axis=0, where=outside) - 2 * whole
        ranks = [(values[~member[target]] < value - 1e-12).sum() for value in values]
        expected[target] = ranks + whole
    limited = power(attack, 4, 1)
    np.testing.assert_allclose(harness.scores(limited, experiment, tile=7), expected, rtol=1e-9)
    assert {first.key for first in limited.summaries} == {"ranks/k4-q1", "mean-in/k4-q1"}
    (required,) = limited.summaries[0].requires
    assert required.key == "mean-in/k4-q1"


def test_an_attack_that_looks_at_the_store_is_asked_what_it_makes_of_these_queries() -> None:
    seen = []

    def choose(attack: Attack, facts: attacks.Facts) -> Attack:
        seen.append((facts.augmentations, facts.sizes.queries))
        return replace(attack, parameters={"test": "global"})

    attack = replace(attacks.named("loss"), for_store=choose)
    made = power(attack, 2, 2)
    adapted = made.on(harness.null("balanced", 8, 10, queries=3).facts())
    assert seen == [(("query0", "query1"), 2)]
    assert adapted.parameters == {"test": "global", "attack": "loss", "models": 2, "queries": 2}
    assert adapted.on(harness.null("balanced", 8, 10).facts()) == adapted

    def refuse(attack: Attack, facts: attacks.Facts) -> Attack:
        raise MissingData("no such array")

    with pytest.raises(MissingData):
        power(replace(attack, for_store=refuse), 2, 1).on(harness.null("balanced", 8, 10).facts())


def test_names_and_parameters() -> None:
    made = power(attacks.named("lira_online_fixed"), 16, 2)
    assert made.name == "lira_online_fixed__k16_q2"
    assert made.kind == "power"
    assert made.described
    assert not made.limitable
    assert made.minimum == MinimumCounts(8, 8, degrees=2)
    assert made.parameters["attack"] == "lira_online_fixed"
    assert (made.parameters["models"], made.parameters["queries"]) == (16, 2)
    assert made.parameters["variance"] == "global"
    assert is_power_name(made.name)
    assert not is_power_name("lira_online_fixed")


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shadows", "queries", "message"),
    [
        ("memorization", 4, 1, "cannot be limited.*lira_online, "),
        ("lira_online", 5, 1, "even number"),
        ("lira_online", 0, 1, "even number"),
        ("lira_online", 4, 0, "0 queries"),
        ("lira_online", 2, 1, "ask for 4"),
        ("lira_offline_fixed", 2, 1, "ask for 4"),
    ],
)
def test_what_cannot_be_is_refused(name: str, shadows: int, queries: int, message: str) -> None:
    with pytest.raises(AttackError, match=message):
        power(attacks.named(name), shadows, queries)


def test_a_limited_attack_is_not_limited_again() -> None:
    with pytest.raises(AttackError, match="cannot be limited"):
        power(power(attacks.named("lira_online"), 8, 1), 4, 1)


@pytest.mark.parametrize("asked", [[0], [4], ["some"]])
def test_numbers_of_queries_that_there_are_not(asked: list[Any]) -> None:
    with pytest.raises(AttackError, match="from 1 to 2"):
        query_counts(asked, ["identity", "flip", "noise(0.1)"])


def test_the_largest_number_of_shadow_models() -> None:
    member = np.arange(10)[:, None] < np.array([5, 4, 3, 10])
    largest = partial(largest_shadows, member)
    assert largest(None, skip=True) == 8
    assert largest(None, skip=False) == 0
    assert largest(np.array([True, True, True, False]), skip=False) == 4
    assert largest(np.zeros(4, np.bool_), skip=False) == 0
