"""The bootstrap against resampling for real: rows repeated, sorted anew, one replicate after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binom, chisquare, norm
from scored_stores import blocks_of, scores

from lirastore.evaluation import OPERATING_POINTS, bootstrap, survey, windows
from lirastore.evaluation.bootstrap import METRICS, replicates
from lirastore.evaluation.points import allowed
from lirastore.evaluation.products import add_product, padded, tiles, untiled
from lirastore.evaluation.resampling import Resamples, weights
from lirastore.evaluation.survey import count_edges

KINDS = [
    "plain", "null", "hard", "ties", "two", "constant", "atom", "skewed", "separated", "extreme",
]  # fmt: skip
TPRS = slice(2, None)
BINNED = slice(0, 2)  # AUC and balanced accuracy


def resamples(count, seed=0, budget=10**9):
    return Resamples(count, seed, budget=budget, threads=1)


def drive(evaluator, blocks):
    """What an evaluator returns, and how many passes it took."""
    passes = 0
    while True:
        try:
            step = next(evaluator)
        except StopIteration as ended:
            return ended.value, passes
        passes += 1
        for block in blocks:
            step.merge(step.work(block))


def boot(score, member, count, *, size=1000, **options):
    """(metrics, 1 + count) and the passes that it took."""
    drawing = resamples(count, **options)
    (_, values), passes = drive(
        replicates(len(score), score.size, drawing), list(blocks_of(score, member, size))
    )
    return values, passes


def naive_metrics(score, member):
    """AUC, balanced accuracy and TPRs of some scores, one step per distinct score."""
    members, others = member.sum(), (~member).sum()
    if not members or not others:
        return np.full(len(METRICS), np.nan)
    order = np.argsort(-score)
    last = np.append(np.flatnonzero(score[order][1:] != score[order][:-1]), len(score) - 1)
    tpr, fpr = np.cumsum(member[order])[last] / members, np.cumsum(~member[order])[last] / others
    area = np.trapezoid(np.append(0, tpr), np.append(0, fpr))
    at = [max(tpr[fpr <= rate], default=0) for rate in OPERATING_POINTS.values()]
    return np.array([area, (1 + (tpr - fpr).max()) / 2, *at])


def naive(score, member, count, seed=0):
    """(metrics, 1 + count) by drawing the examples and computing everything anew."""
    drawn = []
    for replicate in range(count + 1):
        rows = np.repeat(np.arange(len(score)), weights(len(score), replicate, seed))
        drawn.append(naive_metrics(score[rows].ravel(), member[rows].ravel()))
    return np.array(drawn).T


def ends(values):
    """(metrics, 2): the interval of each metric."""
    return np.nanquantile(values[:, 1:], [0.025, 0.975], axis=1).T


# --- against resampling ---------------------------------------------------------------------------


@pytest.mark.parametrize(("examples", "models"), [(300, 8), (60, 40)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_tpr_is_that_of_the_resampled_scores(kind, examples, models):
    score, member = scores(kind, examples, models)
    values, passes = boot(score, member, 100, size=701)
    assert passes == 3
    assert np.array_equal(values[TPRS], naive(score, member, 100)[TPRS])


@pytest.mark.parametrize("kind", ["plain", "null", "hard", "atom", "skewed", "extreme"])
def test_auc_and_balanced_accuracy_are_close_to_those_of_the_resampled_scores(kind):
    """The ends of their intervals are off by less than a fifth of the spread that they show, by chance."""
    score, member = scores(kind, 500, 16, seed=1)
    values, expected = boot(score, member, 150)[0][BINNED], naive(score, member, 150)[BINNED]
    spread = expected[:, 1:].std(axis=1)
    error = (values - expected) / spread[:, None]
    assert (np.abs(error[:, 1:].mean(axis=1)) < 0.06).all()  # no bias: it would be that of the ends
    assert (error.std(axis=1) < 0.15).all()
    assert (np.abs(ends(values) - ends(expected)) < 0.2 * spread[:, None]).all()
    assert (np.abs(values[:, 0] - expected[:, 0]) < [3e-4, 2e-3]).all()


@pytest.mark.parametrize("kind", ["ties", "two", "constant"])
def test_with_few_distinct_scores_everything_is_exact(kind):
    score, member = scores(kind, 200, 10)
    assert boot(score, member, 60)[0] == pytest.approx(naive(score, member, 60), abs=1e-13)


def test_separated_scores_have_nothing_to_vary():
    score, member = scores("separated", 100, 10)
    values, _ = boot(score, member, 50)
    assert values == pytest.approx(np.ones_like(values), abs=1e-4)
    assert (values[TPRS] == 1).all()


small = hnp.arrays(np.float64, (7, 5), elements=st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0, 1e300]))
some = hnp.arrays(np.bool_, (7, 5))


@settings(max_examples=60, deadline=None)
@given(score=small, member=some, size=st.integers(1, 40), seed=st.integers(0, 3))
def test_small_data(score, member, size, seed):
    values, _ = boot(score, member, 12, size=size, seed=seed)
    assert np.allclose(values, naive(score, member, 12, seed), rtol=0, atol=1e-13, equal_nan=True)


@pytest.mark.parametrize("kind", ["plain", "hard", "two", "atom"])
def test_what_the_survey_does_not_hold_is_found_all_the_same(kind, monkeypatch):
    """Of scores that are too many to hold, only a few at random and the highest ones are at hand."""
    score, member = scores(kind, 400, 20)
    monkeypatch.setattr(survey, "_SAMPLE", 500)
    monkeypatch.setattr(survey, "_TOP", 60)
    values, _ = boot(score, member, 80)
    assert np.array_equal(values[TPRS], naive(score, member, 80)[TPRS])
    assert values[BINNED] == pytest.approx(naive(score, member, 80)[BINNED], abs=0.02)


@pytest.mark.parametrize("kind", ["plain", "hard", "ties"])
def test_a_window_that_is_too_narrow_is_widened(kind, monkeypatch):
    score, member = scores(kind, 300, 8)
    expected, _ = boot(score, member, 40)
    monkeypatch.setattr(bootstrap, "_DEVIATIONS", 0.01)
    values, passes = boot(score, member, 40)
    assert passes > 4
    assert np.array_equal(values, expected)


def test_the_sample_is_drawn_evenly(monkeypatch):
    """As many as were asked for, of all models and from everywhere."""
    monkeypatch.setattr(survey, "_SAMPLE", 4000)
    score, member = scores("plain", 1000, 64)
    looked = survey.Survey(len(score), score.size)
    chosen = np.concatenate([block.start + looked._choose(block) for block in blocks_of(score, member, 3001)])
    assert len(chosen) == pytest.approx(4000, abs=250)
    for counts in (np.bincount(chosen % 64), np.bincount(chosen // 6400)):
        assert chisquare(counts).pvalue > 1e-4


def test_windows_hold_a_small_part_of_many_scores():
    score, member = scores("plain", 3000, 30)
    looked = survey.Survey(len(score), score.size)
    for block in blocks_of(score, member, 30_000):
        looked._merge(looked._work(block))
    looked.finish()
    for rate, most in ((0.1, 0.25), (0.01, 0.08), (0.0, 0.03)):
        lo, hi = looked.window(rate, 5.0)
        within = (score[~member] >= lo) & (score[~member] <= hi)
        assert within.sum() < most * (~member).sum()


# --- what it depends on ---------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [500, 10**6])
@pytest.mark.parametrize("kind", ["plain", "ties"])
def test_blocks_and_memory_change_nothing(kind, sample, monkeypatch):
    monkeypatch.setattr(survey, "_SAMPLE", sample)
    score, member = scores(kind, 300, 8)
    expected, _ = boot(score, member, 200)
    for options in ({"size": 37}, {"size": 5000}, {"budget": 1}, {"budget": 300 * 100, "size": 77}):
        values, passes = boot(score, member, 200, **options)
        assert np.array_equal(values, expected)
        assert passes == (3 if "budget" not in options else 2 + len(range(0, 201, passes_at_once(options))))


def passes_at_once(options):
    return max(64, options["budget"] // 300)


def test_scores_are_found_again_under_any_numbers_of_examples():
    """What counts is which scores there are of each example: some of the store's may have none."""
    score, member = scores("plain", 100, 6)
    expected, _ = boot(score, member, 50)
    spread = [
        type(block)(block.start, 7 * block.example + 3, block.score, block.member)
        for block in blocks_of(score, member, 90)
    ]
    (_, values), _ = drive(replicates(1000, score.size, resamples(50)), spread)
    assert np.array_equal(values, expected)


def test_weights():
    drawn = np.array([weights(5000, replicate, 3) for replicate in range(40)])
    assert (drawn[0] == 1).all() and (drawn.sum(axis=1) == 5000).all()
    assert len({tuple(row) for row in drawn}) == 40
    assert (drawn[1] != weights(5000, 1, 4)).any()
    assert np.bincount(drawn[1:].ravel(), minlength=4)[:4] / drawn[1:].size == pytest.approx(
        [0.368, 0.368, 0.184, 0.061], abs=0.01
    )
    some = list(Resamples(130, 3, budget=1, threads=2).chunks(500))
    assert [chunk.shape for chunk in some] == [(500, 64), (500, 64), (500, 3)]
    together = np.hstack(some)
    assert all(np.array_equal(together[:, n], weights(500, n, 3)) for n in (0, 1, 63, 64, 130))


# --- no interval ----------------------------------------------------------------------------------


def intervals(score, member, count=100):
    found, _ = drive(
        bootstrap.bootstrap(len(score), score.size, resamples(count)), list(blocks_of(score, member))
    )
    assert list(found) == list(METRICS)
    return found


def test_a_rate_that_is_too_fine_has_none():
    score, member = scores("plain", 200, 10)
    member[:, 0] = False
    member[0, 0] = member[~member].size > 1000  # 1,000 non-members or a few more
    found = intervals(score, member)
    assert [name for name, ends in found.items() if ends is None] == ["tpr_at_0_01pct", "tpr_at_0_001pct"]
    for name, (lo, hi) in ((name, ends) for name, ends in found.items() if ends):
        assert 0 <= lo < hi <= 1, name


@pytest.mark.parametrize("nonmembers", [999, 1000])
def test_the_finest_rate_is_that_of_the_views(nonmembers):
    member = np.arange(1100).reshape(110, 10) >= nonmembers
    found = intervals(np.random.default_rng(0).normal(size=member.shape), member)
    assert (found["tpr_at_0_1pct"] is None) == (nonmembers < 1000)


@pytest.mark.parametrize("everybody", [True, False])
def test_only_members_or_only_others(everybody):
    score, member = scores("plain", 50, 4)
    assert set(intervals(score, np.full_like(member, everybody)).values()) == {None}


def test_too_little_to_resample():
    assert set(intervals(*scores("plain", 1, 200)).values()) == {None}
    (_, values), passes = drive(replicates(10, 0, resamples(5)), [])
    assert passes == 0 and np.isnan(values).all()
    member = np.zeros((20, 4), bool)
    member[3] = True  # a third of the replicates have no member
    assert set(intervals(np.random.default_rng(0).normal(size=(20, 4)), member).values()) == {None}


def test_a_constant_score_says_so():
    found = intervals(*scores("constant", 100, 200))
    assert found["auc"] == [0.5, 0.5] and found["tpr_at_0_1pct"] == [0, 0] == found["tpr_at_0fp"]


# --- coverage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("hardness", [0.0, 1.5])
def test_intervals_cover_the_truth(hardness):
    """Of experiments whose true TPR at 1% FPR is known, with examples that differ in hardness or not."""
    rng, drawing = np.random.default_rng(0), resamples(300)
    scale = np.sqrt(1 + hardness**2)
    truth = norm.cdf(1.5 / scale - norm.isf(0.01))
    covered, experiments = 0, 100
    for _ in range(experiments):
        member = rng.random((250, 8)) < 0.5
        score = hardness * rng.normal(size=(250, 1)) + rng.normal(size=member.shape) + 1.5 * member
        evaluator = bootstrap.bootstrap(250, score.size, drawing)
        found, _ = drive(evaluator, list(blocks_of(score, member, 10_000)))
        lo, hi = found["tpr_at_1pct"]
        covered += lo <= truth <= hi
    # binomial error of 100 experiments, one in a thousand on either side
    assert binom.ppf(0.001, experiments, 0.95) <= covered <= binom.ppf(0.999, experiments, 0.95)


# --- the pieces -----------------------------------------------------------------------------------


numbers = st.sampled_from([-1e300, -1.0, -5e-324, -0.0, 0.0, 1.0, 1.5, 1e300])


@given(edges=st.lists(numbers, max_size=15, unique=True), values=st.lists(numbers, max_size=30))
def test_counting_edges(edges, values):
    known = np.array(sorted(edges))
    full = np.pad(known, (0, 15 - len(known)), constant_values=np.inf)
    for strict, side in ((False, "right"), (True, "left")):
        found = count_edges(full, np.array(values), strict=strict)
        assert np.array_equal(found, np.searchsorted(known, values, side=side))


@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 64, 64), (65, 70, 200), (130, 8, 1001)])
def test_products_are_exact(shape):
    inner, rows, columns = shape
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 300, (inner, rows)), rng.integers(0, 9, (inner, columns))
    total = tiles(rows, columns)
    for _ in range(2):
        add_product(total, padded(left), padded(right))
    assert np.array_equal(untiled(total, rows, columns), 2 * left.T @ right)


@given(fpr=st.sampled_from([0.0, 1e-5, 1e-4, 0.001, 0.01, 0.1, 0.3]), n=st.integers(1, 10**7))
def test_how_many_false_positives_a_rate_allows(fpr, n):
    (most,) = allowed(fpr, np.array([float(n)]))
    assert most / n <= fpr < (most + 1) / n


def test_a_replicate_of_heavy_ties_by_hand():
    """Example 0: members at 2 and 1, a non-member at 1. Example 1: a member at 1, non-members at 2 and 0."""
    score = np.array([[2.0, 1.0, 1.0], [1.0, 2.0, 0.0]])
    member = np.array([[True, True, False], [True, False, False]])
    looked = survey.Survey(2, 6)
    (block,) = blocks_of(score, member)
    looked._merge(looked._work(block))
    looked.finish()
    near = windows.Windows(looked, [0.5, 0.0], 5.0)
    near._merge(near._work(block))
    near.finish()
    drawn = np.array([[1, 2, 0], [1, 0, 2]], np.uint8)
    members, nonmembers, bounds = near.thresholds(drawn)
    assert members.tolist() == [3, 4, 2] and nonmembers.tolist() == [3, 2, 4]
    assert bounds.tolist() == [[1.0, 1.0, 0.0], [2.0, 1.0, 2.0]]
