"""The views and macros of an evaluation against naive versions; the published tables against the paper's."""

from __future__ import annotations

import re

import duckdb
import naive
import numpy as np
import pytest
from evaluation_tables import fill, put_scores, records, tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sql_stores import make_store
from sql_stores import put_scores as publish_scores

from lirastore import catalog
from lirastore.errors import QueryError

CLASSES = 10  # `make_store` labels example e with e % 10

BY_CLASS = [
    "attack", "preset", "label", "members", "nonmembers", "auc", "balanced_accuracy",
    "tpr_at_1pct", "tpr_at_0_1pct", "fpr_at_1pct", "fpr_at_0_1pct",
]  # fmt: skip
OVER_MODELS = [
    f"{name}_{what}"
    for name in ("auc", "balanced_accuracy", "tpr_at_1pct", "tpr_at_0_1pct")
    for what in ("mean", "std")
]
ACCURACY = ["balanced_accuracy", "balanced_accuracy_boot_lo", "balanced_accuracy_boot_hi"]
FINEST = ["tpr_at_0_001pct", "tpr_at_0_001pct_boot_lo", "tpr_at_0_001pct_boot_hi"]
MEASURED = ["tpr_at_0_1pct", "tpr_at_0_1pct_boot_lo", "tpr_at_0_1pct_boot_hi"]
COLUMNS = {
    "metrics_by_class": BY_CLASS,
    "metrics_over_models": ["attack", "preset", "targets", *OVER_MODELS],
    "calibrated(0.01)": [
        "attack", "fpr", "fpr_realised", "fpr_realised_min", "fpr_realised_max", "tpr_realised",
        "preset",
    ],
    "precision_at(0.01, 0.5)": ["attack", "fpr", "prior", "tpr", "fpr_realised", "precision", "preset"],
    "was_member(3, 17)": ["attack", "model", "example", "score", "p_value", "fpr", "member", "preset"],
    "stability": [
        "attack", "example", "label", "mean_percentile", "std_percentile", "targets", "preset",
    ],
    "influence": ["example", "other", "influence"],
    "epsilon_lower_bound": [
        "attack", "method", "model", "example", "guesses", "correct", "epsilon", "delta", "confidence",
        "assumption", "refused", "preset",
    ],
    "paper_table": [
        "row", "attack", "preset", *ACCURACY, *MEASURED, *FINEST,
        "published_balanced_accuracy", "published_tpr_at_0_1pct", "published_tpr_at_0_001pct", "data_set",
    ],
    "ablation_table": [
        "chain", "step", "adds", "attack", "preset", *MEASURED, "published_tpr_at_0_1pct", "data_set",
    ],
}  # fmt: skip
TYPES = {
    **dict.fromkeys(("attack", "preset", "row", "data_set", "chain", "adds"), "VARCHAR"),
    **dict.fromkeys(("method", "assumption", "refused"), "VARCHAR"),
    **dict.fromkeys(("label", "members", "nonmembers", "targets", "model", "example", "other"), "BIGINT"),
    **dict.fromkeys(("step", "guesses", "correct"), "BIGINT"),
    "member": "BOOLEAN",
}  # all others are DOUBLE
NEVER_EMPTY = {"paper_table", "ablation_table"}
OTHERS_FILL = {"influence", "epsilon_lower_bound"}


@pytest.fixture(scope="module")
def connection(empty):
    with tables(empty) as made:
        yield made


def dense(kind, *, models=6, examples=120, seed=0):
    """(model, example, score, member) of every model and example, scores that go wrong easily."""
    rng = np.random.default_rng(seed)
    model, example = (values.ravel() for values in np.indices((models, examples)))
    member = rng.random(len(model)) < 0.45
    score = rng.normal(size=len(model)) + member + 0.1 * (example % CLASSES)
    if kind == "ties":
        score = np.round(score)
    if kind == "extreme":
        special = [1.7e308, -1.7e308, 5e-324, -5e-324, 0.0, -0.0, 1.0, np.nextafter(1, 2)]
        score = np.where(rng.random(len(model)) < 0.7, rng.choice(special, size=len(model)), score)
    if kind == "constant":
        score = np.full(len(model), 3.25)
    return model, example, score, member


OTHER = dense("ties", seed=99)
KINDS = ["plain", "ties", "extreme", "constant"]


def put(connection, it, preset="paper"):
    """The attack `it` beside another one, which must not matter."""
    put_scores(connection, {"it": it, "other": OTHER}, {"it": preset})


def same(value, expected, **tolerance):
    """Equal, where NULL stands for NaN."""
    if expected is None or np.isnan(expected):
        return value is None
    return value == pytest.approx(expected, **tolerance)


# --- the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("which", ["empty", "attacked"])
def test_columns_and_types(request, which, name):
    with catalog.query(request.getfixturevalue(which), name) as answer:
        assert list(answer.columns) == COLUMNS[name]
        assert answer.types == tuple(TYPES.get(column, "DOUBLE") for column in answer.columns)
        if which == "empty" and name.startswith("was_member"):
            with pytest.raises(QueryError, match="expected a committed model: there is none yet"):
                answer.fetchall()
        else:
            full = name in NEVER_EMPTY or (which == "attacked" and name not in OTHERS_FILL)
            assert bool(answer.fetchall()) == full


@pytest.mark.parametrize("name", COLUMNS)
def test_the_files_state_their_columns(name):
    described = {item.name: item for item in catalog.describe()}
    assert [column for column, _ in described[name.partition("(")[0]].columns] == COLUMNS[name]


@pytest.mark.parametrize(
    ("positional", "named"),
    [
        ("calibrated(0.05)", "calibrated(fpr := 0.05)"),
        ("precision_at(0.05, 0.2)", "precision_at(prior := 0.2, fpr := 0.05)"),
        ("was_member(2, 31)", "was_member(example := 31, model := 2)"),
    ],
)
def test_macros_take_their_arguments_by_name(attacked, positional, named):
    one, other = (catalog.query(attacked, sql).fetchall() for sql in (positional, named))
    assert one == other and [row[0] for row in one] == ["alpha", "beta"]


@pytest.mark.parametrize("level", ["null", "-0.5", "1.01", "'nan'::double"])
@pytest.mark.parametrize(
    ("call", "name"),
    [("calibrated({})", "fpr"), ("precision_at({}, 0.5)", "fpr"), ("precision_at(0.5, {})", "prior")],
)
def test_rates_and_priors_are_numbers_from_0_to_1(connection, call, name, level):
    put(connection, dense("plain"))
    with pytest.raises(duckdb.InvalidInputException, match=f"{name} is .*expected a number from 0 to 1"):
        connection.execute(f"from {call.format(level)}").fetchall()


def test_a_filter_on_the_attack_reads_no_other(tmp_path, members, rng):
    made = make_store(tmp_path / "s.lira", members)
    publish_scores(made, "alpha", rng.normal(size=members.shape))
    beta = publish_scores(made, "beta", rng.normal(size=members.shape))
    with catalog.connect(made) as connection:
        for file in beta.files(made.lira)[1:]:  # the first one says which columns there are
            file.write_bytes(b"no longer parquet")
        for name in ("metrics_by_class", "metrics_over_models", "stability", "was_member(2, 31)"):
            assert connection.execute(f"from {name} where attack = 'alpha'").fetchall(), name
            with pytest.raises(duckdb.Error):
                connection.execute(f"from {name}").fetchall()


@pytest.mark.parametrize(
    "call",
    [
        "calibrated(0.1)", "precision_at(0.1, 0.5)", "was_member(3, 17)", "stability", "exposure", "roc",
        "tpr_at_fpr(0.1)", "most_exposed('beta', 3)",
    ],
)  # fmt: skip
def test_whose_numerics_it_was_is_in_every_row(attacked, call):
    found = set(catalog.query(attacked, f"select attack, preset from {call}").fetchall())
    presets = {("alpha", "paper"), ("beta", "carlini-code")}
    assert found == ({("beta", "carlini-code")} if "beta" in call else presets)


# --- classes and targets ---------------------------------------------------------------------------


def of_classes(example, score, member):
    """Per class: what metrics_by_class is to say, thresholds from all classes."""
    at = [naive.operating_point(score, member, fpr)[1] for fpr in (0.01, 0.001)]
    for label in range(CLASSES):
        s, m = score[example % CLASSES == label], member[example % CLASSES == label]
        if not len(s):
            continue
        both = m.any() and not m.all()
        yield {
            "label": label,
            "members": m.sum(),
            "nonmembers": (~m).sum(),
            "auc": naive.auc(s, m) if both else np.nan,
            "balanced_accuracy": naive.balanced_accuracy(s, m) if both else np.nan,
            **{
                f"{rate}_at_{name}": 0.0 if t is None else (s[side] >= t).mean()
                for rate, side in (("tpr", m), ("fpr", ~m))
                for name, t in zip(("1pct", "0_1pct"), at, strict=True)
                if side.any()
            },
        }


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_by_class(connection, kind):
    it = dense(kind, examples=300)
    put(connection, it, "carlini-code")
    got = records(connection, "from metrics_by_class where attack = 'it'")
    expected = list(of_classes(*it[1:]))
    assert len(got) == len(expected) == CLASSES
    for row, wanted in zip(got, expected, strict=True):
        assert row["preset"] == "carlini-code"
        for name, value in wanted.items():
            assert same(row[name], value, abs=1e-13), name


def test_classes_without_members_or_without_others(connection):
    model, example, score, member = dense("plain")
    member = np.where(example % CLASSES == 2, True, np.where(example % CLASSES == 5, False, member))
    put(connection, (model, example, score, member))
    rows = records(connection, "from metrics_by_class where attack = 'it'")
    for label, absent, counted in ((2, "fpr", "tpr"), (5, "tpr", "fpr")):
        row = rows[label]
        assert (row["auc"], row["balanced_accuracy"]) == (None, None)
        assert (row[f"{absent}_at_1pct"], row[f"{absent}_at_0_1pct"]) == (None, None)
        assert row[f"{counted}_at_1pct"] is not None
    assert rows[2]["nonmembers"] == rows[5]["members"] == 0


def test_class_rates_without_any_non_member_are_unknown(connection):
    model, example, score, _ = dense("plain")
    put(connection, (model, example, score, np.ones(len(score), bool)))
    rows = records(connection, "from metrics_by_class where attack = 'it'")
    assert {row["tpr_at_1pct"] for row in rows} == {None} and len(rows) == CLASSES


def test_the_classes_add_up_to_the_whole(connection):
    put(connection, dense("plain", examples=300))
    (one,) = records(connection, "from metrics where attack = 'it'")
    (sums,) = connection.execute(
        "select sum(tpr_at_1pct * members) / sum(members), sum(tpr_at_0_1pct * members) / sum(members) "
        "from metrics_by_class where attack = 'it'"
    ).fetchall()
    assert sums == pytest.approx((one["tpr_at_1pct"], one["tpr_at_0_1pct"]))


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_over_models(connection, kind):
    it = model, _, score, member = dense(kind)
    put(connection, it, "leakpro")
    (row,) = records(connection, "from metrics_over_models where attack = 'it'")
    assert (row["targets"], row["preset"]) == (6, "leakpro")
    values = {name: [] for name in ("auc", "balanced_accuracy", "tpr_at_1pct", "tpr_at_0_1pct")}
    for target in range(6):
        s, m = score[model == target], member[model == target]
        values["auc"].append(naive.auc(s, m))
        values["balanced_accuracy"].append(naive.balanced_accuracy(s, m))
        for name, fpr in (("tpr_at_1pct", 0.01), ("tpr_at_0_1pct", 0.001)):
            values[name].append(naive.operating_point(s, m, fpr)[0] / m.sum())
    for name, found in values.items():
        assert row[f"{name}_mean"] == pytest.approx(np.mean(found), abs=1e-13)
        assert row[f"{name}_std"] == pytest.approx(np.std(found, ddof=1), abs=1e-13)


def test_one_target_has_no_spread(connection):
    put(connection, dense("plain", models=1))
    (row,) = records(connection, "from metrics_over_models where attack = 'it'")
    assert row["targets"] == 1 and row["auc_std"] is None and row["auc_mean"] > 0.5


# --- calibrated thresholds -------------------------------------------------------------------------


def realised(model, score, member, fpr):
    """(pooled FPR, least and largest of a target, pooled TPR) with thresholds of the other models."""
    predicted, _ = naive.verdict(model, score, member, fpr)
    targets = [model == target for target in np.unique(model)]
    rates = [predicted[t & ~member].mean() for t in targets if (t & ~member).any()]
    pooled = [predicted[side].mean() if side.any() else np.nan for side in (~member, member)]
    return pooled[0], min(rates, default=np.nan), max(rates, default=np.nan), pooled[1]


def check_calibrated(connection, it, fpr):
    model, _, score, member = it
    (row,) = records(connection, f"from calibrated({fpr}) where attack = 'it'")
    assert row["fpr"] == fpr
    expected = realised(model, score, member, fpr)
    for name, value in zip(COLUMNS["calibrated(0.01)"][2:-1], expected, strict=True):
        assert same(row[name], value, abs=1e-15), name
    for prior in (0.0, 0.3):
        (at,) = records(connection, f"from precision_at({fpr}, {prior}) where attack = 'it'")
        assert (at["fpr"], at["prior"], at["fpr_realised"]) == (fpr, prior, row["fpr_realised"])
        assert at["tpr"] == row["tpr_realised"]
        called = prior * expected[3], (1 - prior) * expected[0]
        assert same(at["precision"], called[0] / sum(called) if sum(called) > 0 else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.3, 1.0])
def test_calibrated_and_precision(connection, kind, fpr):
    model, example, score, member = dense(kind)
    score = np.where(model == 3, score + 5, score)  # one target above the others: its FPR is far off
    it = model, example, score, member
    put(connection, it)
    check_calibrated(connection, it, fpr)


def test_a_target_whose_bound_is_above_all_other_scores(connection):
    """Model 0's non-members score highest of all: nothing else is above where the others' thresholds lie."""
    model = np.repeat([0, 1, 2], 40)
    member = np.tile(np.arange(40) % 2 == 0, 3)
    score = np.where(model == 0, np.where(member, -50, 100), np.arange(120) % 7)
    it = model, np.tile(np.arange(40), 3), score.astype(float), member
    put(connection, it)
    for fpr in (0.0, 0.1, 0.5, 0.6):
        check_calibrated(connection, it, fpr)


def test_a_prior_of_1_in_10_000_needs_a_tiny_fpr(connection):
    """π·TPR / (π·TPR + (1 − π)·FPR), the arithmetic of a base rate, by hand."""
    put(connection, dense("plain", examples=2000))
    (row,) = records(connection, "from precision_at(0.01, 0.0001) where attack = 'it'")
    assert row["precision"] == pytest.approx(
        0.0001 * row["tpr"] / (0.0001 * row["tpr"] + 0.9999 * row["fpr_realised"])
    )
    assert row["precision"] < 0.01


small = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 5), st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1e300]), st.booleans()
    ),
    min_size=2,
    max_size=24,
    unique_by=lambda row: row[:2],
)
quietly = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quietly
@given(rows=small, fpr=st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0]))
def test_calibrated_on_small_data(connection, rows, fpr):
    it = tuple(np.array(column) for column in zip(*rows, strict=True))
    put(connection, it)
    check_calibrated(connection, it, fpr)


# --- single examples -------------------------------------------------------------------------------


def was_member(it, target, which):
    """(score, p-value, FPR, member) by their definitions; None where there is nothing to compare with."""
    model, example, score, member = it
    here = (model == target) & (example == which)
    if not here.any():
        return None
    ((s, truth),) = zip(score[here], member[here], strict=True)
    out = score[(example == which) & (model != target) & ~member]
    others = score[(model != target) & ~member]
    p_value = (1 + (out >= s).sum()) / (1 + len(out)) if len(out) else None
    return s, p_value, (others >= s).mean() if len(others) else None, truth


def check_was_member(connection, it, target, which):
    rows = records(connection, f"from was_member({target}, {which}) where attack = 'it'")
    expected = was_member(it, target, which)
    if expected is None:
        assert rows == []
        return
    (row,) = rows
    assert (row["model"], row["example"], row["score"], row["member"]) == (
        target, which, expected[0], expected[3],
    )  # fmt: skip
    assert same(row["p_value"], expected[1], rel=1e-15)
    assert same(row["fpr"], expected[2], rel=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_was_member(connection, kind):
    it = dense(kind)
    put(connection, it)
    for target, which in ((0, 0), (3, 77), (5, 119), (2, 3), (6, 3), (2, 120)):  # the last two: not scored
        check_was_member(connection, it, target, which)


UNKNOWN = [
    ("8, 3", "model is 8, expected a committed model: 8 from 0 to 7, which view models lists"),
    ("-1, 3", "model is -1, expected a committed model"),
    ("null, 3", "model is NULL, expected a committed model"),
    ("(select 8), 3", "model is 8, expected a committed model"),
    ("3, 300", "example is 300, expected a row of the store's arrays: 0 to 299, which view examples lists"),
    ("3, -1", "example is -1, expected a row"),
    ("3, null", "example is NULL, expected a row"),
]
WHEREVER = [
    "select count(*) from was_member({})",
    "from was_member({}) where attack = 'alpha' limit 1",
    "select p_value from was_member({}) where fpr < 0.1",
    "from was_member({}) where not member",
    "from was_member({}) where model = 3 and example = 17 and attack = 'alpha' and preset = 'paper'",
    "from was_member({}) where score > 5 and fpr < 0.1 and p_value between 1 and 2",
    "select w.* from range(2), lateral (from was_member({})) as w",
]


@pytest.mark.parametrize(
    ("call", "says", "sql"),
    [
        *((call, says, "from was_member({})") for call, says in UNKNOWN),
        *((*UNKNOWN[which], sql) for which in (0, 4) for sql in WHEREVER),
    ],
)
def test_unknown_models_and_examples_are_errors(attacked, call, says, sql):
    with pytest.raises(QueryError) as caught:
        catalog.query(attacked, sql.format(call)).fetchall()
    assert says in str(caught.value)


def test_a_model_that_is_not_committed_is_an_error(tmp_path, members, rng):
    made = make_store(tmp_path / "s.lira", members, committed=(1, 4))
    publish_scores(made, "it", rng.normal(size=(2, members.shape[1])))
    assert len(catalog.query(made, "was_member(4, 0)").fetchall()) == 1
    with pytest.raises(QueryError, match="model is 2, expected a committed model: 2 from 1 to 4"):
        catalog.query(made, "was_member(2, 0)").fetchall()


@quietly
@given(rows=small, target=st.integers(0, 3), which=st.integers(0, 5))
def test_was_member_on_small_data(connection, rows, target, which):
    it = tuple(np.array(column) for column in zip(*rows, strict=True))
    put(connection, it)
    check_was_member(connection, it, target, which)


def test_was_member_where_nothing_can_be_compared(connection):
    """Example 0 was in every other model, so there is no p-value; with no non-member at all no FPR either."""
    model, example = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 0, 0, 1, 1, 1])
    score, member = np.arange(6.0), np.array([0, 1, 1, 0, 1, 0], bool)
    put(connection, (model, example, score, member))
    (row,) = records(connection, "from was_member(0, 0) where attack = 'it'")
    assert row["p_value"] is None and row["fpr"] == 1.0 and row["member"] is False
    put(connection, (model, example, score, np.ones(6, bool)))
    (row,) = records(connection, "from was_member(0, 0) where attack = 'it'")
    assert row["p_value"] is None and row["fpr"] is None and row["member"] is True


def test_p_values_are_valid_under_exchangeability(connection):
    """Of targets that are OUT like the others at most the share α may have p ≤ α, met at multiples of 1/n."""
    rng = np.random.default_rng(3)
    models, examples = 8, 250
    model, example = (values.ravel() for values in np.indices((models, examples)))
    score = np.round(rng.normal(size=models * examples), 1) + rng.normal(size=examples)[example]
    put(connection, (model, example, score, np.zeros(models * examples, bool)))
    p = np.array(
        connection.execute(
            "select p.p_value from range(250) as e(example), "
            "lateral (from was_member(2, e.example)) as p where p.attack = 'it'"
        ).fetchall()
    ).ravel()
    assert len(p) == examples and p.min() == 1 / models
    for k in range(1, models + 1):
        assert (p <= k / models).mean() <= k / models + 3 * np.sqrt(0.25 / examples)
    assert (p <= 0.5).mean() > 0.35  # and not just large


def test_the_fpr_is_what_a_threshold_at_the_score_would_cost(connection):
    """Whoever calls a member who scores at least as much has this FPR on the other models."""
    it = model, _, score, member = dense("plain")
    put(connection, it)
    for target, which in ((1, 5), (4, 60)):
        (row,) = records(connection, f"from was_member({target}, {which}) where attack = 'it'")
        called = (model != target) & ~member & (score >= row["score"])
        assert row["fpr"] == called.sum() / ((model != target) & ~member).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_stability(connection, kind):
    model, example, score, member = it = dense(kind)
    put(connection, it)
    rows = records(connection, "from stability where attack = 'it' order by example")
    percentile = np.empty(len(score))
    for target in range(6):
        own = model == target
        percentile[own] = (rankdata(score[own]) - 0.5) / own.sum()
    assert [row["example"] for row in rows] == list(range(120))
    for row in rows:
        held = percentile[(example == row["example"]) & member]
        assert (row["targets"], row["label"]) == (len(held), row["example"] % CLASSES)
        assert same(row["mean_percentile"], held.mean() if len(held) else None, abs=1e-14)
        assert same(row["std_percentile"], held.std(ddof=1) if len(held) > 1 else None, abs=1e-14)


def test_stability_tells_steady_examples_from_others(connection):
    """Example 0 tops every target, example 1 every second one."""
    model, example = (values.ravel() for values in np.indices((8, 100)))
    score = np.where(example == 0, 1e3, np.where((example == 1) & (model % 2 == 0), 500.0, example / 100))
    put(connection, (model, example, score, np.ones(800, bool)))
    first, second = records(connection, "from stability where attack = 'it' and example < 2 order by example")
    assert (first["mean_percentile"], first["std_percentile"]) == pytest.approx((0.995, 0))
    assert second["std_percentile"] > 0.4


def test_influence(connection):
    fill(connection, "influence", [(3, 7, 0.5), (3, 9, -0.25)])
    assert records(connection, "from influence order by other") == [
        {"example": 3, "other": 7, "influence": 0.5},
        {"example": 3, "other": 9, "influence": -0.25},
    ]


# --- the paper's tables ----------------------------------------------------------------------------

# TPR at 0.001% FPR, at 0.1% FPR, balanced accuracy, each CIFAR-10 / CIFAR-100 / WikiText-103, in percent.
TALK = """
Yeom et al.         | loss             | 0.0/0.0/0.00  | 0.0/0.0/0.1  | 59.4/78.0/50.0
Shokri et al.       | shokri           | 0.0/0.0/–     | 0.3/1.6/–    | 59.6/74.5/–
Jayaraman et al.    | morgan           | 0.0/0.0/–     | 0.0/0.0/–    | 59.4/76.9/–
Song & Mittal       | modified_entropy | 0.0/0.0/–     | 0.1/1.4/–    | 59.5/77.3/–
Sablayrolles et al. | sablayrolles     | 0.1/0.8/0.01  | 1.7/7.4/1.0  | 56.3/69.1/65.7
Long et al.         | long             | 0.0/0.0/–     | 2.2/4.7/–    | 53.5/54.5/–
Watson et al.       | watson           | 0.1/0.9/0.02  | 1.3/5.4/1.1  | 59.1/70.1/65.4
Ye et al.           | ye               | –             | –            | 60.3/76.9/65.5
LiRA                | lira_online      | 2.2/11.2/0.09 | 8.4/27.6/1.4 | 63.8/82.6/65.6
"""
NEWER = [
    "rmia", "rmia_offline", "quantile", "ye_population", "lira_offline", "lira_online_fixed",
    "lira_offline_fixed", "lira_online_full", "lira_online_shrunk", "lira_offline_shrunk",
]  # fmt: skip
CHAINS = {
    "no per-example threshold": "LOSS 0.0% → logit scaling 0.1% → multiple queries 0.1%",
    "OUT only": "LOSS 0.0% → per-example thresholds (OUT) 1.3% → logit scaling 4.7% → "
    "Gaussian likelihood 4.7% → multiple queries 7.1%",
    "IN and OUT": "LOSS 0.0% → per-example thresholds (IN & OUT) 1.7% → logit scaling 1.9% → "
    "Gaussian likelihood 5.6% → multiple queries 8.4%",
}
STEPS = {
    "no per-example threshold": ["global_loss", "global_phi", "global_phi_all"],
    "OUT only": ["global_loss", "out_loss", "out_phi", "out_gauss", "out_gauss_all"],
    "IN and OUT": ["global_loss", "inout_loss", "inout_phi", "inout_gauss", "inout_gauss_all"],
}
DATA_SETS = ["cifar10", "cifar100", "wikitext103"]


def percent(text):
    """The printed fraction of a percentage, exactly as a decimal literal has it."""
    digits = text.strip()
    return None if digits == "–" else float(f"{digits}e-2")


def talk(data_set):
    for line in TALK.strip().splitlines():
        row, attack, *cells = (cell.strip() for cell in line.split("|"))
        values = [cell.split("/")[DATA_SETS.index(data_set)] if "/" in cell else cell for cell in cells]
        yield row, attack, *map(percent, values)


@pytest.mark.parametrize("data_set", DATA_SETS)
def test_published_results(connection, data_set):
    put_scores(connection, {})
    fill(connection, "info", [("any", data_set)])
    rows = records(connection, "from paper_table")
    got = [
        (
            row["row"], row["attack"], row["published_tpr_at_0_001pct"], row["published_tpr_at_0_1pct"],
            row["published_balanced_accuracy"],
        )
        for row in rows
        if row["data_set"] is not None
    ]  # fmt: skip
    assert got == list(talk(data_set))
    assert {row["data_set"] for row in rows} == {data_set, None}


def test_rows_of_the_paper_table(connection):
    put_scores(connection, {})
    fill(connection, "info", [("digits", None)])
    rows = records(connection, "from paper_table")
    order = [attack for _, attack, *_ in talk("cifar10")]
    order.insert(order.index("morgan") + 1, "merlin")
    assert [row["attack"] for row in rows] == order + NEWER
    assert len({row["row"] for row in rows}) == len(rows)
    for row in rows:
        assert row.pop("row") and row.pop("attack")
        assert set(row.values()) == {None}


def test_the_paper_table_shows_what_was_measured(connection):
    put_scores(
        connection, {"loss": OTHER, "lira_online": dense("plain"), "mine": OTHER}, named={"mine": None}
    )
    fill(connection, "info", [("CIFAR-10", "cifar10")])
    intervals = [
        ("lira_online", "tpr_at_0_1pct", 0.01, 0.4), ("lira_online", "tpr_at_0_001pct", 0, 0.2),
        ("lira_online", "balanced_accuracy", 0.5, 0.6), ("loss", "auc", 0.4, 0.6),
    ]  # fmt: skip
    fill(connection, "intervals", intervals)
    rows = {row["attack"]: row for row in records(connection, "from paper_table")}
    assert "mine" not in rows and len(rows) == 20
    for attack in ("loss", "lira_online"):
        (metric,) = records(connection, f"from metrics where attack = '{attack}'")
        for name in ("preset", *ACCURACY, *MEASURED, *FINEST):
            assert rows[attack][name] == metric[name], name
    for columns, ends in ((MEASURED, [0.01, 0.4]), (FINEST, [0, 0.2]), (ACCURACY, [0.5, 0.6])):
        assert [rows["lira_online"][name] for name in columns[1:]] == ends
    assert rows["loss"]["tpr_at_0_1pct_boot_lo"] is None
    assert rows["lira_online"]["published_tpr_at_0_1pct"] == 0.084
    assert rows["watson"]["balanced_accuracy"] is None and rows["watson"]["preset"] is None


def test_other_numerics_have_rows_of_their_own(connection):
    """The talk's LiRA is not that of another code; results under a name of the user's own are told apart."""
    attacks = {name: dense("plain", seed=n) for n, name in enumerate(("lira_online", "loss", "b", "a", "c"))}
    put_scores(
        connection,
        attacks,
        {"lira_online": "leakpro", "a": "tf-library", "b": "carlini-code", "c": "leakpro"},
        {"a": "watson", "b": "lira_online", "c": None},
    )
    fill(connection, "info", [("CIFAR-10", "cifar10")])
    rows = records(connection, "from paper_table")
    (first,) = (row for row in rows[:20] if row["attack"] == "lira_online")
    assert (first["row"], first["preset"], first["tpr_at_0_1pct"]) == ("LiRA", None, None)
    assert first["published_tpr_at_0_1pct"] == 0.084
    assert [row["preset"] for row in rows[:20] if row["preset"]] == ["paper"]
    assert [(row["row"], row["attack"], row["preset"]) for row in rows[20:]] == [
        ("Watson et al. (tf-library)", "a", "tf-library"),
        ("LiRA (carlini-code)", "b", "carlini-code"),
        ("LiRA (leakpro)", "lira_online", "leakpro"),
    ]
    for row in rows[20:]:
        (metric,) = records(connection, f"from metrics where attack = '{row['attack']}'")
        assert all(row[name] == metric[name] for name in (*ACCURACY, *MEASURED, *FINEST))
        assert {row[name] for name in row if name.startswith("published")} == {row["data_set"]} == {None}


def test_what_a_result_is_follows_from_its_name_or_its_parameters(tmp_path, members):
    from lirastore.attacks import presets

    made = make_store(tmp_path / "s.lira", members)
    lira = dict(presets.attacks("leakpro")["lira_online"].parameters)
    for name, preset, parameters in (
        ("lira_online", "leakpro", lira),
        ("theirs", "leakpro", lira | {"separate": True}),
        ("rmia", "paper", {"preset": "paper", "a": 0.7}),  # what the store gave is stamped too
        ("another", "leakpro", lira | {"queries": "all"}),
        ("mine", "paper", {"function": "mine"}),
        ("old", "of-the-past", lira),
    ):
        publish_scores(made, name, 0, preset=preset, parameters=parameters)
    named = dict(catalog.query(made, "select attack, named from stored.attacks").fetchall())
    assert named == {
        "lira_online": "lira_online", "theirs": "lira_online", "rmia": "rmia",
        "another": None, "mine": None, "old": None,
    }  # fmt: skip


def test_published_ablation(connection):
    put_scores(connection, {})
    fill(connection, "info", [("CIFAR-10", "cifar10")])
    rows = records(connection, "from ablation_table")
    expected = [
        (chain, number, adds, f"ablation_{attack}", percent(tpr))
        for chain, text in CHAINS.items()
        for number, (step, attack) in enumerate(zip(text.split(" → "), STEPS[chain], strict=True), 1)
        for adds, tpr in re.findall(r"(.*) ([\d.]+)%", step)
    ]
    names = ("chain", "step", "adds", "attack", "published_tpr_at_0_1pct")
    assert [tuple(row[name] for name in names) for row in rows] == expected
    assert {row["data_set"] for row in rows} == {"cifar10"}
    fill(connection, "info", [("CIFAR-100", "cifar100")])
    rows = records(connection, "from ablation_table")
    assert {(row["published_tpr_at_0_1pct"], row["data_set"]) for row in rows} == {(None, None)}


def test_the_ablation_shows_what_was_measured(connection):
    """`watson` stands in for `ablation_out_loss`, which it computes; `loss` does not if its twin has run."""
    attacks = {
        "watson": dense("plain"), "loss": OTHER, "ablation_global_loss": dense("ties"),
        "ablation_out_phi": dense("plain", seed=4),
    }  # fmt: skip
    put_scores(connection, attacks)
    fill(connection, "info", [("digits", None)])
    fill(connection, "intervals", [("watson", "tpr_at_0_1pct", 0.01, 0.4)])
    rows = records(connection, "from ablation_table")
    assert len(rows) == 13
    measured = {(row["chain"], row["step"]): row for row in rows if row["tpr_at_0_1pct"] is not None}
    assert {key: row["attack"] for key, row in measured.items()} == {
        ("no per-example threshold", 1): "ablation_global_loss",
        ("OUT only", 1): "ablation_global_loss",
        ("IN and OUT", 1): "ablation_global_loss",
        ("OUT only", 2): "watson",
        ("OUT only", 3): "ablation_out_phi",
    }
    for row in measured.values():
        (metric,) = records(connection, f"from metrics where attack = '{row['attack']}'")
        assert all(row[name] == metric[name] for name in ("preset", *MEASURED))
    assert measured["OUT only", 2]["tpr_at_0_1pct_boot_hi"] == 0.4
    put_scores(connection, attacks, {"watson": "tf-library"})
    (row,) = records(connection, "from ablation_table where chain = 'OUT only' and step = 2")
    assert (row["attack"], row["preset"], row["tpr_at_0_1pct"]) == ("ablation_out_loss", None, None)


def test_every_attack_of_the_tables_exists():
    """The tables' names are those that `lirastore attack` knows, and twins are one computation."""
    from lirastore.attacks import presets

    known = {attack.name: attack for attack in presets.attacks("paper").values()}
    with_steps = {f"ablation_{step}" for steps in STEPS.values() for step in steps}
    assert len(with_steps) == 11
    assert with_steps | {attack for _, attack, *_ in talk("cifar10")} | {"merlin", *NEWER} <= known.keys()
    for own, named in (
        ("global_loss", "loss"), ("out_loss", "watson"), ("inout_loss", "sablayrolles"),
        ("out_gauss_all", "lira_offline"), ("inout_gauss_all", "lira_online"),
    ):  # fmt: skip
        assert dict(known[f"ablation_{own}"].parameters) == dict(known[named].parameters)
