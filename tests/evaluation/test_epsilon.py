"""ε lower bounds: against naive versions, on mechanisms whose ε is known, and what they refuse.

An audit fails if any of the bounds that are to hold together is above the truth. That may happen in 5% of
audits. A test fails if so many of its audits failed that this would happen once in 10,000 times by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, norm

from lirastore import subsets
from lirastore.evaluation.bounding import Separations, one_run_bound, one_run_p_value
from lirastore.evaluation.coins import contradiction
from lirastore.evaluation.epsilon import COLUMNS, DELTA, GUESSES, bounds
from lirastore.evaluation.guesses import Extremes, Separation
from lirastore.evaluation.stream import Block

ALONE = {"test": "global", "separate": True}  # each model is scored by itself
SHARED = {"test": "gaussian-in-out"}


class Store:
    """What an audit asks of a store."""

    def __init__(self, member, design=None, attackable=None):
        self._member, self._attackable = member, attackable
        self.info = SimpleNamespace(
            models=member.shape[0],
            examples=member.shape[1],
            design=design or {"scheme": "bernoulli", "seed": 0, "keep_fraction": 0.5},
        )

    def membership(self, models):
        return self._member[models]

    def attackable(self):
        return self._attackable


@dataclass
class Run:
    """What an audit asks of a result."""

    models: tuple[int, ...]
    rows: int
    parameters: dict[str, Any]
    equal_counts: bool = False
    kind: str = "scores"
    options: dict[str, Any] = field(default_factory=dict)


def blocks_of(score, member, size=1000, models=None):
    """(M, E) as the stream gives them: by (example, model), in blocks that break off anywhere."""
    models = np.arange(len(score)) if models is None else np.asarray(models)
    example = np.repeat(np.arange(score.shape[1]), len(score))
    model = np.tile(models, score.shape[1])
    s, m = score.T.ravel().astype(np.float64), member.T.ravel()
    for start in range(0, len(s), size):
        rows = slice(start, start + size)
        yield Block(start, example[rows], s[rows], m[rows], model[rows])


def drive(generator, blocks):
    """What the evaluator returns, given these blocks in its one pass."""
    try:
        step = next(generator)
        assert step.model
        for block in blocks:
            step.merge(step.work(block))
        next(generator)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("a second pass")


def audit(member, score, parameters=ALONE, *, design=None, size=1000, attackable=None, **run):
    result = Run(tuple(range(len(member))), score.size, dict(parameters), **run)
    store = Store(member, design, attackable)
    return drive(bounds(store, result), blocks_of(score, member, size))


def rows_of(rows, method, delta=None):
    return [row for row in rows if row["method"] == method and (delta is None or row["delta"] == delta)]


def fair(rng, models, examples):
    return rng.random((models, examples)) < 0.5


# --- the arithmetic --------------------------------------------------------------------------------


def naive_p_value(m, r, v, epsilon, delta):
    """Appendix D of Steinke et al. 2023, step by step."""
    q = 1 / (1 + math.exp(-epsilon))
    alpha = total = 0.0
    for i in range(1, v + 1):
        total += binom.pmf(v - i, r, q)
        alpha = max(alpha, total / i)
    return min(binom.sf(v - 1, r, q) + alpha * delta * 2 * m, 1)


@settings(max_examples=60, deadline=None)
@given(
    r=st.integers(1, 700),
    share=st.floats(0, 1),
    abstained=st.integers(0, 5000),
    epsilon=st.floats(0, 8),
    delta=st.sampled_from([0.0, 1e-6, 1e-4, 0.01]),
)
def test_the_p_value_is_that_of_the_paper(r, share, abstained, epsilon, delta):
    v = round(share * r)
    got = one_run_p_value(r + abstained, r, v, epsilon, delta)
    assert got == pytest.approx(naive_p_value(r + abstained, r, v, epsilon, delta), rel=1e-9, abs=1e-13)


def test_a_printed_bound():
    """Steinke et al. 2023, appendix D: 75 of 100 guesses right, 1,000 examples, δ = 1e-4, 95%."""
    assert one_run_bound(1000, 100, 75, 1e-4, 0.05) == pytest.approx(0.673, abs=5e-4)


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
@pytest.mark.parametrize("guesses", [1, 32, 512])
def test_the_bound_is_where_the_p_value_crosses_the_significance(guesses, delta):
    before = 0.0
    for correct in sorted({0, 1, guesses // 2, 3 * guesses // 4, guesses - 1, guesses}):
        bound = one_run_bound(2000, guesses, correct, delta, 0.01)
        if bound > 0:
            assert naive_p_value(2000, guesses, correct, bound - 1e-9, delta) < 0.01
        assert naive_p_value(2000, guesses, correct, bound + 2e-4, delta) >= 0.01
        assert bound >= before and (bound == 0 or correct > guesses / 2)
        before = bound


def test_revealing_a_few_examples_is_no_evidence_of_epsilon():
    """Who names each example with probability δ is (0, δ)-private, and right about the mδ that he names."""
    for m, delta in ((1000, 0.01), (5000, 0.002), (50_000, 1e-4)):
        named = round(m * delta)
        assert one_run_bound(m, named, named, delta, 0.05) == 0
        assert one_run_bound(m, named, named, 0.0, 0.05) > 0.1


@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.1])
def test_separation_is_clopper_pearson(delta):
    table = Separations(12, delta=delta, significance=0.05)
    for p, n in ((1, 1), (5, 12), (12, 3), (12, 12)):
        for tp in range(p + 1):
            for fp in range(n + 1):
                tpr = binomtest(tp, p).proportion_ci(0.95, method="exact")
                fpr = binomtest(fp, n).proportion_ci(0.95, method="exact")
                ratios = [(tpr.low - delta, fpr.high), (1 - fpr.high - delta, 1 - tpr.low)]
                expected = max([math.log(a / b) for a, b in ratios if a > 0 and b > 0], default=0)
                got = table.bound(np.array(tp), np.array(p), np.array(fp), np.array(n))
                assert got == pytest.approx(max(expected, 0), abs=1e-9)


# --- what is guessed -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data(), models=st.integers(1, 4), examples=st.integers(1, 40), size=st.integers(1, 50))
def test_extremes_are_those_of_a_sort(data, models, examples, size):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    score = rng.integers(0, data.draw(st.sampled_from([1, 3, 50])), (models, examples)).astype(float)
    member = fair(rng, models, examples)
    ids = np.sort(rng.choice(20, models, replace=False))
    reader = Extremes(ids, 4, 3)
    for block in data.draw(st.permutations(list(blocks_of(score, member, size, ids)))):
        reader.merge(reader.work(block))
    assert reader.scored.tolist() == [examples] * models
    for model, (high, low) in enumerate(reader.ranked()):
        order = sorted(range(examples), key=lambda e: (-score[model, e], e))
        assert high.tolist() == member[model, order[:4]].tolist()
        assert low.tolist() == member[model, order[::-1][:3]].tolist()


def test_extremes_hold_little():
    """Constant scores, where each could be an extreme: what is kept does not grow with the data."""
    rng = np.random.default_rng(0)
    member = fair(rng, 2, 20_000)
    reader = Extremes(np.arange(2), 16, 8)
    most = 0
    for block in blocks_of(np.zeros(member.shape), member, 500):
        reader.merge(reader.work(block))
        most = max(most, sum(len(rows.score) for rows in reader._kept))
    assert most <= 2 * 2 * 24 + 500
    for model, (high, low) in enumerate(reader.ranked()):
        assert high.tolist() == member[model, :16].tolist()
        assert low.tolist() == member[model, ::-1][:8].tolist()


def best_threshold(score, member, table):
    """The best bound of one example over its thresholds, by trying each."""
    found = -1.0  # of scores that are all the same: there is no threshold between them
    values = sorted(set(score.tolist()))
    for threshold in values[1:]:
        called = score >= threshold
        counts = (called & member).sum(), member.sum(), (called & ~member).sum(), (~member).sum()
        found = max(found, float(table.bound(*map(np.array, counts))))
    return found


@settings(max_examples=40, deadline=None)
@given(data=st.data(), models=st.integers(2, 10), examples=st.integers(1, 12), size=st.integers(1, 30))
def test_separation_chooses_the_best_example(data, models, examples, size):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    member = fair(rng, models, examples)
    score = rng.integers(0, 6, member.shape) + 2.0 * member
    choosing = np.arange(models) < models // 2
    table = Separations(models, delta=0.0, significance=0.5)
    reader = Separation(models, choosing, table)
    for block in data.draw(st.permutations(list(blocks_of(score, member, size)))):
        reader.merge(reader.work(block))
    reader.finish()
    usable = [
        e for e in range(examples) if all(len(set(member[side, e])) == 2 for side in (choosing, ~choosing))
    ]
    if not usable:
        assert reader.best is None
        return
    found = {}
    for e in usable:
        held = member[~choosing, e]
        errorless = held.sum(), held.sum(), 0, (~held).sum()
        possible = float(table.bound(*map(np.array, errorless)))
        found[e] = min(best_threshold(score[choosing, e], member[choosing, e], table), possible)
    assert reader.best.example in usable
    assert found[reader.best.example] == pytest.approx(max(found.values())) == reader.best.key[0]
    assert reader.best.score.tolist() == score[~choosing, reader.best.example].tolist()
    assert reader.best.member.tolist() == member[~choosing, reader.best.example].tolist()


@pytest.mark.parametrize("parameters", [ALONE, SHARED])
def test_blocks_and_their_order_do_not_matter(parameters):
    rng = np.random.default_rng(4)
    member = fair(rng, 12, 300)
    score = np.round(rng.normal(size=member.shape) + 2 * member, 1)
    run = Run(tuple(range(12)), score.size, dict(parameters))
    expected = audit(member, score, parameters, size=10**6)
    for size in (7, 120, 1000):
        blocks = list(blocks_of(score, member, size))
        rng.shuffle(blocks)
        assert drive(bounds(Store(member), run), blocks) == expected


# --- rows ------------------------------------------------------------------------------------------


def test_rows_of_an_attack_that_scores_each_model_by_itself():
    rng = np.random.default_rng(0)
    member = fair(rng, 24, 600)
    rows = audit(member, rng.normal(size=member.shape) + 9 * member)
    assert all(list(row) == list(COLUMNS) for row in rows)
    assert all(row["confidence"] == 0.95 and row["refused"] is None for row in rows)
    one_run = rows_of(rows, "one_run")
    assert [(row["model"], row["delta"]) for row in one_run] == [
        (None, 0.0), (None, DELTA), *((m, 0.0) for m in range(24)),
    ]  # fmt: skip
    assert one_run[0]["epsilon"] == max(row["epsilon"] for row in one_run[2:])
    assert {row["guesses"] for row in one_run} <= set(GUESSES)
    assert {row["example"] for row in one_run} == {None}
    separated = rows_of(rows, "clopper_pearson")
    assert [row["delta"] for row in separated] == [0.0, DELTA]
    assert {(row["model"], row["guesses"]) for row in separated} == {(None, 12)}
    assert separated[0]["epsilon"] > separated[1]["epsilon"] > 0
    for row in rows:
        assert row["guesses"] / 2 < row["correct"] <= row["guesses"]


def test_the_row_of_half_the_targets():
    """At half the significance at least half of the targets have a bound that large; more need not."""
    rng = np.random.default_rng(1)
    for models in (1, 2, 5, 8):
        member = fair(rng, models, 64)
        noise = np.linspace(0.3, 4, models)[:, None] * rng.normal(size=member.shape)
        score = member + noise
        (row,) = rows_of(audit(member, score), "one_run", DELTA)
        each = []
        for target in range(models):
            order = np.argsort(-score[target], kind="stable")
            high, low = member[target, order], ~member[target, order[::-1]]
            counts = (
                int(high[:32].sum()),
                int(high[:16].sum() + low[:16].sum()),
            )  # the two tests of 64 examples
            each.append(max(one_run_bound(64, 32, count, DELTA, 0.05 / 2 / 2) for count in counts))
        assert row["epsilon"] == pytest.approx(sorted(each)[models // 2], abs=2e-4)


def test_few_examples_are_all_guessed():
    rng = np.random.default_rng(2)
    member = fair(rng, 4, 9)
    _, *rows = rows_of(audit(member, member + rng.random(member.shape) / 2), "one_run", 0.0)
    right = [max(m, 9 - abs(5 - m)) for m in member.sum(axis=1).tolist()]  # 9 members, or 5 and 4 others
    assert [(row["guesses"], row["correct"]) for row in rows] == [(9, count) for count in right]
    assert [row["epsilon"] for row in rows] == [
        one_run_bound(9, 9, count, 0.0, 0.05 / 2 / 4) for count in right
    ]


# --- mechanisms whose ε is known -------------------------------------------------------------------


def randomised_response(rng, member, epsilon):
    """Each bit is told truly with probability e^ε / (1 + e^ε): ties everywhere."""
    return np.where(rng.random(member.shape) < 1 / (1 + math.exp(-epsilon)), member, ~member).astype(float)


def laplace(rng, member, epsilon):
    return member + rng.laplace(scale=1 / epsilon, size=member.shape)


def summed(rng, member, epsilon):
    """Correlated examples: eight of them share the score of their sum, which is what is told of them."""
    sums = member.reshape(len(member), -1, 8).sum(axis=2)
    return np.repeat(sums + rng.laplace(scale=1 / epsilon, size=sums.shape), 8, axis=1)


def calibrated(rng, member, epsilon):
    """Leave-one-out scores: each model's value less the mean of the other OUT models' for the example."""
    value = laplace(rng, member, epsilon)
    out = np.where(member, 0, value).sum(axis=0) - np.where(member, 0, value)
    return value - out / np.maximum((~member).sum(axis=0) - ~member, 1)


def failures(rng, mechanism, epsilon, *, audits, models, examples, method, parameters, delta=None):
    """How many audits are above the truth; and the mean over audits of the largest bound."""
    largest = []
    for _ in range(audits):
        member = fair(rng, models, examples)
        rows = rows_of(audit(member, mechanism(rng, member, epsilon), parameters, size=10**6), method, delta)
        largest.append(max((row["epsilon"] for row in rows if row["epsilon"] is not None), default=0.0))
    return sum(bound > epsilon for bound in largest), float(np.mean(largest))


def check_rate(failed, audits):
    assert binomtest(failed, audits, 0.05, alternative="greater").pvalue > 1e-4, f"{failed} of {audits}"


@pytest.mark.parametrize(
    ("mechanism", "epsilon", "parameters", "power"),
    [
        (randomised_response, 1.0, ALONE, 0.5),
        (laplace, 2.0, ALONE, 1.0),
        (summed, 1.0, ALONE, 0.0),
        (calibrated, 2.0, SHARED, 0.5),
        (randomised_response, 1e-9, SHARED, 0.0),
    ],
)
def test_one_run_is_not_above_the_truth(mechanism, epsilon, parameters, power):
    rng = np.random.default_rng(5)
    failed, mean = failures(
        rng, mechanism, epsilon, audits=400, models=4, examples=160, method="one_run", parameters=parameters
    )
    check_rate(failed, 400)
    assert mean >= power


@pytest.mark.parametrize(
    ("mechanism", "epsilon", "models", "examples"),
    [(laplace, 1e-9, 24, 400), (randomised_response, 2.0, 48, 4), (laplace, 1.0, 48, 4)],
)
def test_clopper_pearson_is_not_above_the_truth(mechanism, epsilon, models, examples):
    """Without any leak the best of 400 examples always looks good to the models that choose it."""
    rng = np.random.default_rng(6)
    shape = {"models": models, "examples": examples}
    failed, _ = failures(
        rng, mechanism, epsilon, audits=200, method="clopper_pearson", parameters=ALONE, **shape
    )
    check_rate(failed, 200)


def gaussian_epsilon(sigma, delta):
    """Balle & Wang 2018: the ε at which a Gaussian of this σ, sensitivity 1, has this δ."""

    def excess(epsilon):
        below = norm.logcdf(-1 / (2 * sigma) - epsilon * sigma) + epsilon
        return norm.cdf(1 / (2 * sigma) - epsilon * sigma) - math.exp(below) - delta

    return brentq(excess, 0, 50)


def test_a_gaussian_mechanism_at_its_delta():
    """Its ε grows without end as δ goes to 0: the bound for a δ is of that δ."""
    rng = np.random.default_rng(7)
    sigma = 2.0
    truth = gaussian_epsilon(sigma, DELTA)
    assert 1.9 < truth < 2.3
    largest = []
    for _ in range(200):
        member = fair(rng, 3, 256)
        rows = audit(member, member + rng.normal(scale=sigma, size=member.shape), size=10**6)
        largest.append(max(row["epsilon"] for row in rows if row["delta"] == DELTA))
    check_rate(sum(bound > truth for bound in largest), 200)
    assert np.mean(np.array(largest) > 0) > 0.02


def test_a_strong_leak_is_found():
    """64 models that betray everything: as much as so many trials can prove."""
    rng = np.random.default_rng(8)
    member = fair(rng, 64, 1000)
    rows = audit(member, rng.normal(size=member.shape) + 20 * member)
    best, half, *_ = rows_of(rows, "one_run")
    assert best["epsilon"] > 3.5 and best["correct"] == best["guesses"] == 512
    assert half["epsilon"] > 3.5
    assert rows_of(rows, "clopper_pearson", 0.0)[0]["epsilon"] > 1.3


def test_one_example_that_leaks_among_many():
    rng = np.random.default_rng(9)
    member = fair(rng, 64, 300)
    score = rng.normal(size=member.shape)
    score[:, 123] += 30 * member[:, 123]
    rows = rows_of(audit(member, score), "clopper_pearson", 0.0)
    assert rows[0]["example"] == 123 and rows[0]["epsilon"] > 1.3
    assert rows[0]["correct"] == rows[0]["guesses"] == 32


def test_constant_scores_prove_nothing():
    rng = np.random.default_rng(10)
    member = fair(rng, 8, 400)
    rows = audit(member, np.zeros(member.shape))
    assert {row["epsilon"] for row in rows if row["delta"]} == {0.0}
    assert max(row["epsilon"] for row in rows) < 0.2


def test_scores_that_tell_of_other_targets_prove_nothing():
    """Each target's scores are the other's membership: guesses of both are right, or of both wrong, at ε = 0.

    Added up over targets, there would be far more right guesses than binomial ones too often.
    """
    rng = np.random.default_rng(11)
    failed = 0
    for _ in range(400):
        member = fair(rng, 2, 32)
        rows = rows_of(audit(member, member[::-1].astype(float), SHARED, size=10**6), "one_run")
        failed += max(row["epsilon"] for row in rows) > 0
    check_rate(failed, 400)


# --- designs ---------------------------------------------------------------------------------------


def drawn(scheme, models=16, examples=300, keep_fraction=0.5):
    member = subsets.draw(scheme, models=models, examples=examples, keep_fraction=keep_fraction, seed=3)
    return member, {"scheme": scheme, "seed": 3, "keep_fraction": keep_fraction}


def refusal(rows, method):
    """Why a method gives no bound; then it has one row with nothing else in it."""
    found = rows_of(rows, method)
    if found[0]["refused"] is None:
        return None
    (row,) = found
    said = {"method", "confidence", "assumption", "refused"}
    assert {key for key, value in row.items() if value is not None} == said
    return row["refused"]


def leaking(member):
    return 5.0 * member + np.random.default_rng(1).normal(size=member.shape)


@pytest.mark.parametrize("scheme", ["balanced", "carlini"])
def test_fixed_counts_need_equal_counts(scheme):
    member, design = drawn(scheme)
    rows = audit(member, leaking(member), SHARED, design=design)
    assert "--equal-counts" in refusal(rows, "one_run") and "--design bernoulli" in refusal(rows, "one_run")
    rows = audit(member, leaking(member), SHARED, design=design, equal_counts=True)
    assert refusal(rows, "one_run") is None
    assert "shadow models" in rows[0]["assumption"] and rows[0]["epsilon"] > 1


@pytest.mark.parametrize("scheme", ["balanced", "carlini"])
@pytest.mark.parametrize("equal_counts", [False, True])
def test_fixed_counts_betray_nothing_to_who_reads_the_target_alone(scheme, equal_counts):
    member, design = drawn(scheme)
    rows = audit(member, leaking(member), ALONE, design=design, equal_counts=equal_counts)
    assert refusal(rows, "one_run") is None and rows[0]["epsilon"] > 1
    assert "no model but the target" in rows[0]["assumption"] and "shadow" not in rows[0]["assumption"]


@pytest.mark.parametrize("models", [2, 4])
def test_fixed_counts_keep_the_bounds_of_separate_scores_true(models):
    """With two models one holds what the other does not: nothing could depend more on each other."""
    rng, epsilon, failed = np.random.default_rng(15), 1.0, 0
    for seed in range(400):
        member = subsets.draw("balanced", models=models, examples=160, seed=seed)
        design = {"scheme": "balanced", "seed": seed, "keep_fraction": 0.5}
        rows = audit(member, randomised_response(rng, member, epsilon), ALONE, design=design, size=10**6)
        found = [row["epsilon"] for row in rows_of(rows, "one_run")]
        assert None not in found
        failed += max(found) > epsilon
    check_rate(failed, 400)


@pytest.mark.parametrize(
    ("scheme", "models", "keep"), [("bernoulli", 16, 0.3), ("balanced", 15, 0.5), ("balanced", 16, 0.25)]
)
def test_odds_that_are_not_even_are_refused(scheme, models, keep):
    member, design = drawn(scheme, models=models, keep_fraction=keep)
    rows = audit(member, leaking(member), design=design, equal_counts=True)
    assert "even odds" in refusal(rows, "one_run") and "--keep-fraction 0.5" in refusal(rows, "one_run")
    assert refusal(rows, "clopper_pearson") is None


def test_fits_over_folds_on_fixed_counts_are_refused():
    member, design = drawn("balanced")
    folded = {"folds": 4}
    rows = audit(member, leaking(member), folded, design=design, equal_counts=True)
    assert "folds" in refusal(rows, "one_run")
    rows = audit(member, leaking(member), folded, design=design)
    assert "folds" in refusal(rows, "one_run") and "--equal-counts" not in refusal(rows, "one_run")
    assert refusal(audit(*(drawn("bernoulli")[0], leaking(drawn("bernoulli")[0])), folded), "one_run") is None


def test_scores_that_models_share_are_no_trials():
    member, design = drawn("bernoulli")
    rows = audit(member, leaking(member), SHARED, design=design)
    assert "lirastore attack STORE loss" in refusal(rows, "clopper_pearson")
    assert refusal(rows, "one_run") is None


@pytest.mark.parametrize(
    "parameters",
    [{"queries": "noise", "separate": True}, {"population": "stored", "separate": True},
     {"population": "target-nonmembers", "separate": True}],
)  # fmt: skip
def test_what_scores_each_model_by_itself_is_told_by_its_stamp(parameters):
    member, design = drawn("bernoulli", models=24)
    rows = audit(member, leaking(member), parameters, design=design)
    assert refusal(rows, "clopper_pearson") is None
    unknown = {"test": "global", "function": "mine"}
    assert "as far as is known" in refusal(audit(member, leaking(member), unknown), "clopper_pearson")


def test_the_targets_own_non_members_as_population_are_refused():
    member, design = drawn("bernoulli")
    rows = audit(member, leaking(member), {"population": "target-nonmembers"}, design=design)
    assert "population" in refusal(rows, "one_run")
    rows = audit(member, leaking(member), {"population": "stored"}, design=design)
    assert refusal(rows, "one_run") is None


def test_a_selection_of_examples_is_refused_unless_it_was_planned():
    member, design = drawn("bernoulli")
    canaries = np.arange(300) % 3 == 0
    run = Run(tuple(range(16)), 16 * 100, dict(ALONE))
    kept = list(blocks_of(leaking(member)[:, canaries], member[:, canaries]))
    rows = drive(bounds(Store(member, design), run), kept)
    assert "1600 scores of 300 examples × 16 models" in refusal(rows, "one_run")
    rows = drive(bounds(Store(member, design, canaries), run), kept)
    assert refusal(rows, "one_run") is None and rows[0]["epsilon"] > 1


def test_too_few_models_for_one_example():
    for models in (1, 2, 3):
        member, design = drawn("bernoulli", models=models)
        rows = audit(member, leaking(member), design=design)
        assert "more models" in refusal(rows, "clopper_pearson")
        assert refusal(rows, "one_run") is None


def test_other_results_are_not_audited():
    member, _ = drawn("bernoulli")
    assert audit(member, leaking(member), kind="power") == []


def test_no_scores():
    member, _ = drawn("bernoulli")
    rows = drive(bounds(Store(member), Run(tuple(range(16)), 0, dict(ALONE))), [])
    assert refusal(rows, "one_run").startswith("0 scores") and "more models" in refusal(
        rows, "clopper_pearson"
    )


GIVEN = {"scheme": "given"}


def pairs(rng, models, examples):
    """The second half of the models are the opposites of the first: balanced, but no secret."""
    first = fair(rng, models // 2, examples)
    return np.concatenate([first, ~first])


def equal_sizes(rng, models, examples):
    return rng.random((models, examples)).argsort(axis=1) < examples // 2


def groups(rng, models, examples):
    """Examples 2i and 2i + 1 always go together."""
    return np.repeat(fair(rng, models, examples // 2), 2, axis=1)


def lopsided(rng, models, examples):
    return rng.random((models, examples)) < 0.6


def twins(rng, models, examples):
    member = fair(rng, models, examples)
    member[models - 1] = member[0]
    return member


BROKEN = {
    pairs: "models 0 and 16", equal_sizes: "examples the models hold", groups: "same models as another",
    lopsided: "of the memberships are true", twins: "models 0 and 31",
}  # fmt: skip


@pytest.mark.parametrize("make", BROKEN)
@pytest.mark.parametrize("scheme", ["given", "imported"])
def test_memberships_from_elsewhere_that_are_no_coins_are_refused(make, scheme):
    member = make(np.random.default_rng(12), 32, 400)
    rows = audit(member, leaking(member), design={"scheme": scheme}, equal_counts=True)
    for method in ("one_run", "clopper_pearson"):
        assert BROKEN[make] in refusal(rows, method) and "--design bernoulli" in refusal(rows, method)


def test_fixed_counts_from_elsewhere_that_are_not_half_are_refused():
    member, _ = drawn("balanced", keep_fraction=0.25)
    rows = audit(member, leaking(member), design=GIVEN, equal_counts=True)
    assert "4 of 16 models" in refusal(rows, "one_run")


def test_memberships_from_elsewhere_that_may_be_coins_are_taken_at_their_word():
    member, _ = drawn("bernoulli")
    rows = audit(member, leaking(member), design=GIVEN)
    assert {row["refused"] for row in rows} == {None}
    assert all("given or imported" in row["assumption"] for row in rows)
    balanced, _ = drawn("balanced")
    assert "--equal-counts" in refusal(audit(balanced, leaking(balanced), SHARED, design=GIVEN), "one_run")
    rows = audit(balanced, leaking(balanced), SHARED, design=GIVEN, equal_counts=True)
    assert refusal(rows, "one_run") is None and "given or imported" in rows[0]["assumption"]


def test_models_whose_masks_are_unknown_do_not_count():
    member, _ = drawn("bernoulli")
    member[5] = False  # as importers plan a model that is missing
    committed = [model for model in range(16) if model != 5]
    run = Run(tuple(committed), 15 * 300, dict(SHARED))
    kept = list(blocks_of(leaking(member[committed]), member[committed], models=committed))
    rows = drive(bounds(Store(member, {"scheme": "imported", "unknown_masks": [5]}), run), kept)
    assert [row["model"] for row in rows_of(rows, "one_run", 0.0)] == [None, *committed]
    assert refusal(drive(bounds(Store(member, {"scheme": "imported"}), run), kept), "one_run") is not None


def test_canaries_among_examples_that_are_always_in():
    rng = np.random.default_rng(13)
    canaries = np.arange(500) % 5 == 0
    member = np.where(canaries, fair(rng, 32, 500), True)
    run = Run(tuple(range(32)), 32 * 100, dict(ALONE))
    kept = list(blocks_of(leaking(member)[:, canaries], member[:, canaries]))
    rows = drive(bounds(Store(member, GIVEN, canaries), run), kept)
    assert {row["refused"] for row in rows} == {None} and rows[0]["epsilon"] > 1
    assert "memberships are true" in refusal(audit(member, leaking(member), design=GIVEN), "one_run")


@pytest.mark.parametrize(("models", "examples"), [(4, 60), (16, 500), (64, 300)])
def test_true_coins_are_rarely_doubted(models, examples):
    rng = np.random.default_rng(14)
    doubted = [contradiction(fair(rng, models, examples)) is not None for _ in range(100)]
    assert sum(doubted) <= 1  # five checks at 1e-4, some of them a few times that on so little data
    for seed in range(30):
        member = subsets.draw("balanced", models=models, examples=examples, seed=seed)
        assert contradiction(member) is None
