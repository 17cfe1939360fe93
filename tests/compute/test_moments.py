"""Leave-one-out moments against their definition, target by target, on hostile data and designs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lirastore.errors import InputError
from lirastore.moments import Loo, PooledSums, degrees_of_freedom, downdate, equal_others, loo
from lirastore.moments.counts import model_order

# --- the definition ------------------------------------------------------------------------------


class Naive:
    """The same numbers, one target, example and augmentation at a time, in extended precision."""

    def __init__(
        self, values, member, *, centre="mean", equal_counts=False, seed=0, start=0, models=None, most=None
    ):
        count, examples, _ = values.shape
        ids = np.arange(count) if models is None else models
        self.n_in, self.n_out = (np.zeros((count, examples), int) for _ in range(2))
        self.mean_in, self.mean_out, self.var_in, self.var_out = (
            np.full(values.shape, np.nan) for _ in range(4)
        )
        for target in range(count):
            for example in range(examples):
                key = model_order(ids, np.array([start + example]), seed)[:, 0]
                order = [model for model in np.argsort(key) if model != target]
                sides = [[m for m in order if member[m, example] == side] for side in (True, False)]
                if equal_counts:
                    count_each = min(len(side) for side in sides)
                    if equal_counts == "fixed":
                        n_in = int(member[:, example].sum())
                        count_each = max(min(n_in, count - n_in) - 1, 0)
                    sides = [side[: count_each if most is None else min(most, count_each)] for side in sides]
                self.n_in[target, example], self.n_out[target, example] = map(len, sides)
                for rows, mean, var in zip(
                    sides, (self.mean_in, self.mean_out), (self.var_in, self.var_out), strict=True
                ):
                    if rows:
                        x = values[rows, example].astype(np.longdouble)
                        mean[target, example] = np.median(x, axis=0) if centre == "median" else x.mean(axis=0)
                        var[target, example] = np.square(x - x.mean(axis=0)).mean(axis=0)


def made(values, member, *, equal_counts=False, seed=0, start=0, models=None, most=None, **options) -> Loo:
    """The moments beside the models that the options choose."""
    if not equal_counts:
        return Loo(values, member, **options)
    ids = np.arange(len(member)) if models is None else models
    examples = start + np.arange(member.shape[1])
    others = equal_others(member, models=ids, examples=examples, seed=seed, counts=equal_counts, most=most)
    return Loo(values, member, others=others, **options)


def assert_moments(values, member, **options) -> Loo:
    found, naive = made(values, member, **options), Naive(values, member, **options)
    assert np.array_equal(found.n_in, naive.n_in)
    assert np.array_equal(found.n_out, naive.n_out)
    if options.get("equal_counts"):
        assert np.array_equal(found.n_in, found.n_out)
    for side in ("in", "out"):
        mean, expected_mean = getattr(found, f"mean_{side}"), getattr(naive, f"mean_{side}")
        var, expected_var = getattr(found, f"var_{side}"), getattr(naive, f"var_{side}")
        assert mean.dtype == var.dtype == np.float64
        assert np.array_equal(var == 0, expected_var == 0)
        np.testing.assert_allclose(var, expected_var, rtol=1e-9, atol=0)
        # A mean near zero is a difference of larger values: its error is relative to them.
        scale = np.maximum(np.abs(expected_mean), np.sqrt(expected_var))
        assert np.array_equal(np.isnan(mean), np.isnan(expected_mean))
        assert np.nanmax(np.abs(mean - expected_mean) / np.where(scale > 0, scale, 1), initial=0) <= 1e-9
    return found


# --- data ----------------------------------------------------------------------------------------


def hostile_column(kind: str, models: int, generator: np.random.Generator) -> np.ndarray:
    noise = generator.standard_normal(models)
    match kind:
        case "noise":
            return noise
        case "constant":
            return np.full(models, generator.choice([0.1, 16.118095, -1e4, 103.6]))
        case "offset":
            return 1e6 + noise
        case "outlier 1e4" | "outlier 1e6":
            noise[generator.integers(models)] = float(kind.split()[1]) * generator.choice([-1, 1])
            return noise
        case "two outliers":
            noise[generator.integers(models, size=2)] = 1e5
            return noise
        case "one differs":
            return np.where(np.arange(models) == generator.integers(models), 1e6 + 0.0625, 1e6)
        case "ends":
            return generator.choice([-1e4, 1e4], models)
        case "ties":
            return generator.integers(-1, 2, models) / 3
        case "float16":
            return noise.astype(np.float16).astype(float)
        case "scales":
            return noise * 10.0 ** generator.integers(-6, 7, models)
    raise AssertionError(kind)


KINDS = [
    "noise", "constant", "offset", "outlier 1e4", "outlier 1e6", "two outliers", "one differs", "ends",
    "ties", "float16", "scales",
]  # fmt: skip


def hostile_values(kinds: list[str], models: int, augmentations: int, seed: int) -> np.ndarray:
    """(M, e, A) float32: each example of a kind, each augmentation with draws of its own."""
    generator = np.random.default_rng(seed)
    columns = [[hostile_column(kind, models, generator) for _ in range(augmentations)] for kind in kinds]
    return np.asarray(columns, np.float32).transpose(2, 0, 1)


@st.composite
def tiles(draw, most_models=9):
    models = draw(st.integers(1, most_models))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    seed = draw(st.integers(0, 2**32 - 1))
    values = hostile_values(kinds, models, draw(st.integers(1, 3)), seed)
    share = draw(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]))
    member = np.random.default_rng(seed + 1).random((models, len(kinds))) < share
    return values, member


OPTIONS = [
    {},
    {"centre": "median"},
    {"equal_counts": True, "seed": 3},
    {"equal_counts": "fixed", "seed": 4},
    {"equal_counts": True, "centre": "median", "seed": 8, "start": 1000},
    {"equal_counts": True, "seed": 5, "most": 2},
    {"equal_counts": "fixed", "seed": 6, "most": 1},
]


def balanced(models: int, examples: int, generator: np.random.Generator) -> np.ndarray:
    ranks = generator.random((models, examples)).argsort(axis=0)
    return ranks < models // 2


# --- tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@settings(max_examples=120, deadline=None)
@given(tile=tiles())
def test_small_hostile_tiles(options, tile):
    assert_moments(*tile, **options)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("design", ["balanced", "bernoulli", "few in"])
def test_every_kind_of_column_with_many_models(options, design):
    generator = np.random.default_rng(5)
    values = hostile_values(KINDS * 2, 33, 2, seed=4)
    shape = values.shape[:2]
    member = balanced(*shape, generator) if design == "balanced" else generator.random(shape) < 0.5
    if design == "few in":
        member &= generator.random(shape) < 0.2
    assert_moments(values, member, **options)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_floating_dtype(dtype):
    values = hostile_values(["noise", "ties", "constant"], 12, 2, seed=1).astype(dtype)
    member = np.random.default_rng(0).random((12, 3)) < 0.5
    for options in OPTIONS:
        assert_moments(values, member, **options)


def test_constant_columns_have_a_variance_of_exactly_zero():
    values = np.full((20, 6, 1), 0.1, np.float32)
    values[:10, 3:] = np.float32(16.118095)
    member = np.zeros((20, 6), bool)
    member[:10] = True
    found = made(values, member)
    assert not found.var_in.any()
    assert not found.var_out.any()
    assert set(np.unique(found.mean_in)) == {float(np.float32(0.1)), float(np.float32(16.118095))}
    assert set(np.unique(found.mean_out)) == {float(np.float32(0.1))}


def test_the_target_that_alone_is_different_leaves_exactly_nothing():
    values = np.full((16, 1, 1), 0.1, np.float32)
    values[3] = 1e6
    member = np.ones((16, 1), bool)
    member[8:] = False
    found = made(values, member)
    assert found.var_in[3, 0, 0] == 0
    assert found.mean_in[3, 0, 0] == np.float32(0.1)
    assert (found.var_in[[0, 9], 0, 0] > 1e9).all()


def test_counts_without_the_target():
    member = np.array([[True, False], [True, False], [False, False]])
    found = made(np.zeros((3, 2, 1), np.float32), member)
    assert found.n_in.tolist() == [[1, 0], [1, 0], [2, 0]]
    assert found.n_out.tolist() == [[1, 2], [1, 2], [0, 2]]
    assert np.isnan(found.mean_in[:, 1]).all()
    assert np.isnan(found.mean_out[2, 0])
    assert np.isnan(found.var_out[2, 0])


def test_the_cut_into_tiles_and_chunks_changes_no_bit(monkeypatch):
    generator = np.random.default_rng(2)
    values = hostile_values(KINDS, 24, 1, seed=9)
    member = generator.random(values.shape[:2]) < 0.5
    for options in OPTIONS:
        whole = made(values, member, **options)
        for module in (loo, downdate):
            monkeypatch.setattr(module, "CHUNK", 48)
        chunked = made(values, member, **options)
        first = options.get("start", 0)
        for name in ("mean_in", "mean_out", "var_in", "var_out"):
            expected = getattr(whole, name)
            assert np.array_equal(getattr(chunked, name), expected, equal_nan=True)
            for start, stop in ((0, 1), (1, 4), (4, 6), (6, 11)):
                tile = made(
                    values[:, start:stop], member[:, start:stop], **options | {"start": first + start}
                )
                assert np.array_equal(getattr(tile, name), expected[:, start:stop], equal_nan=True)
        monkeypatch.undo()


def test_the_first_query_of_many():
    values = hostile_values(["noise"] * 5, 8, 3, seed=1)
    member = np.random.default_rng(0).random((8, 5)) < 0.5
    first = made(values[:, :, :1], member)
    assert np.array_equal(first.mean_in[:, :, 0], made(values, member).mean_in[:, :, 0], equal_nan=True)


def test_an_empty_tile():
    found = made(np.zeros((4, 0, 2), np.float32), np.zeros((4, 0), bool), equal_counts=True, centre="median")
    assert found.mean_in.shape == found.var_out.shape == (4, 0, 2)
    assert found.n_in.shape == (4, 0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.zeros((3, 2, 1)), np.zeros((3, 3), bool)), {}, "expected"),
        ((np.zeros((3, 2)), np.zeros((3, 2), bool)), {}, "expected"),
        ((np.zeros((3, 2, 1)), np.zeros((3, 2))), {}, "float64"),
        ((np.zeros((3, 2, 1)), np.zeros((3, 2), bool)), {"centre": "mode"}, "'mode'"),
    ],
)
def test_what_is_refused(arguments, options, message):
    with pytest.raises(InputError, match=message):
        Loo(*arguments, **options)


# --- equal counts --------------------------------------------------------------------------------


def test_the_order_of_models_is_pinned():
    """These keys are part of what makes published scores reproducible: they must never change."""
    keys = model_order(np.array([0, 1, 255]), np.array([0, 49_999]), seed=0)
    assert keys.dtype == np.uint64
    assert [[hex(key) for key in row] for row in keys] == PINNED
    assert not np.array_equal(keys, model_order(np.array([0, 1, 255]), np.array([0, 49_999]), seed=1))


PINNED = [
    ["0xe4eaa854c5a00000", "0xddc03d3e83500000"],
    ["0xb56bb00501900001", "0x22473e33d2500001"],
    ["0x85399c32d45000ff", "0x4a0ed6ad8f4000ff"],
]


def test_the_order_depends_on_ids_only():
    models, examples = np.array([7, 2, 30, 11]), np.array([5, 900, 3])
    keys = model_order(models, examples, seed=4)
    wide = model_order(np.arange(40), np.arange(1000), seed=4)
    assert np.array_equal(keys, wide[np.ix_(models, examples)])


def test_every_model_is_dropped_as_often_as_any_other():
    keys = model_order(np.arange(16), np.arange(40_000), seed=2)
    for rank in (0, 15):
        share = np.bincount(keys.argsort(axis=0)[rank], minlength=16) / 40_000
        np.testing.assert_allclose(share, 1 / 16, atol=5 * np.sqrt(1 / 16 / 40_000))


def test_equal_counts_do_not_tell_members_apart_where_nothing_does():
    """The null experiment of a balanced design: all others push the AUC below ½, equal counts do not."""
    generator = np.random.default_rng(11)
    member = balanced(8, 20_000, generator)
    values = generator.standard_normal((8, 20_000, 1)).astype(np.float32)

    def auc(**options) -> float:
        moments = made(values, member, **options)
        density = [
            -np.log(np.sqrt(var) + 1e-30) - (values - mean) ** 2 / (2 * var)
            for mean, var in ((moments.mean_in, moments.var_in), (moments.mean_out, moments.var_out))
        ]
        score = (density[0] - density[1])[:, :, 0]
        ranks = score.ravel().argsort().argsort()
        inside = member.ravel()
        wins = ranks[inside].sum() - inside.sum() * (inside.sum() - 1) / 2
        return wins / inside.sum() / (~inside).sum()

    assert auc() < 0.45
    assert abs(auc(equal_counts=True) - 0.5) < 0.01


# --- the pooled variance -------------------------------------------------------------------------


def naive_pooled(values, member, **options):
    """Σ SS / Σ k over examples, and the degrees of freedom, from the definition."""
    naive = Naive(values, member, **options)
    pooled = []
    for n, var in ((naive.n_in, naive.var_in), (naive.n_out, naive.var_out)):
        squares = np.where(n[:, :, None] > 0, var * n[:, :, None], 0).astype(np.longdouble).sum(axis=1)
        with np.errstate(invalid="ignore"):
            pooled += [squares / n.sum(axis=1)[:, None], np.maximum(n - 1, 0).sum(axis=1)]
    return pooled


@pytest.mark.parametrize("options", [{}, {"equal_counts": True}, {"centre": "median"}], ids=str)
@settings(max_examples=60, deadline=None)
@given(tile=tiles())
def test_pooled_variance(options, tile):
    values, member = tile
    found = PooledSums.of(made(values, member, **options)).variance()
    var_in, degrees_in, var_out, degrees_out = naive_pooled(values, member, **options)
    np.testing.assert_allclose(found.var_in, var_in.astype(float), rtol=1e-9, atol=0)
    np.testing.assert_allclose(found.var_out, var_out.astype(float), rtol=1e-9, atol=0)
    assert np.array_equal(found.degrees_in, degrees_in)
    assert np.array_equal(found.degrees_out, degrees_out)
    use = np.arange(member.shape[1]) % 3 != 1
    for marked in (None, use):
        sums = PooledSums.of(made(values, member, **options), marked)
        known = degrees_of_freedom(member, marked, equal_counts=options.get("equal_counts", False))
        assert np.array_equal(known, (sums.degrees_in, sums.degrees_out))


def test_pooled_sums_merge_and_leave_examples_out():
    values = hostile_values(KINDS, 9, 2, seed=3)
    member = np.random.default_rng(4).random((9, len(KINDS))) < 0.5
    whole = PooledSums.of(made(values, member)).variance()
    parts = [
        PooledSums.of(made(values[:, part], member[:, part]))
        for part in (slice(0, 4), slice(4, 5), slice(5, None))
    ]
    merged = (parts[0] + parts[1] + parts[2]).variance()
    np.testing.assert_allclose(merged.var_in, whole.var_in, rtol=1e-12)
    np.testing.assert_allclose(merged.var_out, whole.var_out, rtol=1e-12)
    assert np.array_equal(merged.degrees_out, whole.degrees_out)
    use = np.arange(len(KINDS)) < 4
    np.testing.assert_allclose(
        PooledSums.of(made(values, member), use).variance().var_in, parts[0].variance().var_in, rtol=1e-12
    )


def test_the_pooled_variance_is_the_total_with_a_correction_per_target():
    """σ²_t = (Σ_j SS_j − Σ_{j: t on that side} k_j/(k_j − 1)·(x_tj − μ_j)²) / (Σ_j k_j − #{such j})."""
    generator = np.random.default_rng(6)
    values = generator.standard_normal((10, 200, 1)).astype(np.float32)
    member = balanced(10, 200, generator)
    found = PooledSums.of(made(values, member)).variance()
    x = np.where(member, values[:, :, 0].astype(float), np.nan)
    mean, count = np.nanmean(x, axis=0), member.sum(axis=0)
    total = np.nansum((x - mean) ** 2)
    removed = np.nansum(count / (count - 1) * (x - mean) ** 2, axis=1)
    expected = (total - removed) / (count.sum() - member.sum(axis=1))
    np.testing.assert_allclose(found.var_in[:, 0], expected, rtol=1e-12)
