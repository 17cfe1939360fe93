"""metrics, roc, tpr_at_fpr and verdict against scikit-learn, scipy and the definitions."""

from __future__ import annotations

import duckdb
import naive
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve
from sql_stores import make_store, put_scores

from lirastore import catalog

DENORMAL, HUGE = 5e-324, 1.7e308


@pytest.fixture(scope="module")
def connection(empty):
    """A connection whose scores are a table, so that a test can put there what it likes."""
    with catalog.connect(empty) as made:
        made.execute("drop view stored.scores")
        columns = "attack varchar, model bigint, example bigint, score double, member boolean"
        made.execute(f"create table stored.scores ({columns})")
        yield made


def put(connection, **attacks):
    """attack -> (model, score, member), arrays of equal length."""
    connection.execute("truncate stored.scores")
    for name, (model, score, member) in attacks.items():
        rows = {
            "model": np.asarray(model, np.int64),
            "example": np.arange(len(score)),
            "score": np.asarray(score, np.float64),
            "member": np.asarray(member, bool),
        }
        connection.register("rows", {key: np.ascontiguousarray(value) for key, value in rows.items()})
        connection.execute(
            f"insert into stored.scores select '{name}', model, example, score, member from rows"
        )
        connection.unregister("rows")


def records(connection, sql):
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def fetch(connection, sql):
    (row,) = connection.execute(sql).fetchall()
    return row


def samples(kind, size=4000, seed=0):
    """(model, score, member) of a few kinds that go wrong easily."""
    rng = np.random.default_rng(seed)
    member = rng.random(size) < 0.4
    score = rng.normal(size=size) + member
    if kind == "ties":
        score = np.round(score)
    if kind == "extreme":
        special = [HUGE, -HUGE, DENORMAL, -DENORMAL, 0.0, -0.0, 1.0, np.nextafter(1, 2), 1e-300]
        score = np.where(rng.random(size) < 0.7, rng.choice(special, size=size), score)
    if kind == "constant":
        score = np.full(size, 3.25)
    if kind == "separated":
        score = np.where(member, 10 + rng.random(size), rng.random(size))
    return rng.integers(0, 4, size), score, member


NOBODY = (False, None)  # predicted, threshold
KINDS = ["plain", "ties", "extreme", "constant", "separated"]


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_equal_sklearn(connection, kind):
    model, score, member = samples(kind)
    put(connection, it=(model, score, member), other=samples("plain", seed=5))
    (row,) = records(connection, "from metrics where attack = 'it'")
    with np.errstate(all="ignore"):
        fpr, tpr, threshold = roc_curve(member, score, drop_intermediate=False)
        assert row["auc"] == pytest.approx(roc_auc_score(member, score), abs=1e-13)
    best = (tpr + 1 - fpr).argmax()
    assert row["balanced_accuracy"] == pytest.approx((tpr[best] + 1 - fpr[best]) / 2, abs=1e-15)
    assert row["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(member, score >= threshold[best])
    )
    assert (row["targets"], row["examples"]) == (4, len(score))
    for name, level in naive.NAMED.items():
        assert row[name] == tpr[fpr <= level].max()
    assert row["tpr_at_0fp"] == tpr[fpr == 0].max()


@pytest.mark.parametrize("kind", KINDS)
def test_exact_roc_equals_sklearn(connection, kind):
    model, score, member = samples(kind)
    put(connection, it=(model, score, member), other=samples("plain", seed=5))
    got = np.array(connection.execute("from roc_exact('it')").fetchall())
    with np.errstate(all="ignore"):
        expected = np.array(roc_curve(member, score, drop_intermediate=False)).T
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_thinned_roc_keeps_exact_points_ends_and_named_rates(connection, kind):
    it, other = samples(kind, 30_000), samples("plain", 30_000, seed=5)
    put(connection, it=it, other=other)
    exact = set(connection.execute("from roc_exact('it')").fetchall())
    thin = connection.execute("select fpr, tpr, threshold from roc where attack = 'it'").fetchall()
    assert set(thin) <= exact and len(set(thin)) == len(thin)
    assert thin == sorted(thin, key=lambda point: -point[2])
    assert thin[0] == (0, 0, np.inf) and thin[-1][:2] == (1, 1)
    if kind == "plain":
        assert 100 < len(thin) < 700
    for level in (*naive.NAMED.values(), 0):
        assert max(p for p in exact if p[0] <= level) == max(p for p in thin if p[0] <= level)


def test_metrics_by_model_are_the_metrics_of_each_model(connection):
    model, score, member = samples("ties")
    put(connection, it=(model, score, member), other=samples("plain", seed=5))
    rows = records(connection, "from metrics_by_model where attack = 'it' order by model")
    assert [row["model"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        own = model == row["model"]
        assert row["examples"] == own.sum()
        assert row["auc"] == pytest.approx(roc_auc_score(member[own], score[own]), abs=1e-13)
        for name, level in naive.NAMED.items():
            assert row[name] == naive.operating_point(score[own], member[own], level)[0] / member[own].sum()


def test_intervals_are_clopper_pearson_and_null_where_the_rate_is_too_fine(connection):
    model, score, member = samples("plain")
    put(connection, it=(model, score, member))
    (row,) = records(connection, "from metrics")
    p, n = int(member.sum()), int((~member).sum())
    for name, level in naive.NAMED.items():
        if n * level < 1:
            assert row[f"{name}_lo"] is None and row[f"{name}_hi"] is None and row[name] is not None
            continue
        interval = binomtest(round(row[name] * p), p).proportion_ci(method="exact")
        assert (row[f"{name}_lo"], row[f"{name}_hi"]) == pytest.approx(tuple(interval), rel=1e-12)
    assert row["tpr_at_0fp_lo"] is not None
    assert [name for name in naive.NAMED if row[f"{name}_lo"] is None] == [
        "tpr_at_0_01pct",
        "tpr_at_0_001pct",
    ]


def test_interval_functions_at_the_ends(connection):
    sql = "select clopper_pearson_lo(k, n), clopper_pearson_hi(k, n) from (values {}) as t(k, n)"
    cases = [(0, 10), (10, 10), (3, 10), (0, 1), (1, 1), (2, 7_000_000), (6_999_999, 7_000_000)]
    got = connection.execute(sql.format(", ".join(map(str, cases)))).fetchall()
    for (k, n), bounds in zip(cases, got, strict=True):
        interval = binomtest(k, n).proportion_ci(method="exact")
        assert bounds == pytest.approx(tuple(interval), rel=1e-9)
    assert got[0][0] == 0 and got[1][1] == 1
    nothing = connection.execute(sql.format("(0, 0), (null, 3), (3, null), (4, 3), (-1, 3)")).fetchall()
    assert nothing == [(None, None)] * 5


def test_a_rate_that_the_counts_meet_exactly_counts(connection):
    """fp / n is compared, not fp with fpr × n, which rounds to the wrong side for some of these."""
    for n in (1000, 3000, 7000, 25_000):
        score = np.concatenate([np.arange(n, 0, -1), np.arange(n, 0, -1) + 0.5])
        member = np.arange(2 * n) >= n
        put(connection, it=(np.zeros(2 * n), score, member), other=samples("plain"))
        for fp in (1, 3, 7, 29, 57, 58, 113, 999):
            level = fp / n
            got = connection.execute(
                f"select tpr, fpr from tpr_at_fpr({level!r}) where attack = 'it'"
            ).fetchall()
            assert got == [((fp + 1) / n, level)]
        (row,) = connection.execute(
            "select tpr_at_0_1pct, tpr_at_0_1pct_lo from metrics where attack = 'it'"
        ).fetchall()
        assert row[0] == (n // 1000 + 1) / n and row[1] is not None


def test_every_metric_has_its_own_bootstrap_columns(connection):
    put(connection, it=samples("ties"), other=samples("plain"))
    metrics = ("auc", "balanced_accuracy", *catalog.OPERATING_POINTS)
    values = ", ".join(f"('it', '{name}', {n}, {n + 0.5})" for n, name in enumerate(metrics))
    connection.execute(f"insert into stored.intervals values {values}")
    it, other = records(connection, "from metrics order by attack")
    connection.execute("truncate stored.intervals")
    for n, name in enumerate(metrics):
        assert (it[f"{name}_boot_lo"], it[f"{name}_boot_hi"]) == (n, n + 0.5)
        assert other[f"{name}_boot_lo"] is None and other[f"{name}_boot_hi"] is None


def test_decimal_and_double_rates_are_the_same(connection):
    put(connection, it=samples("ties"))
    for level in ("0.001", "0.1", "0.05", "0.3"):
        one, other = (
            connection.execute(f"from tpr_at_fpr({text})").fetchall() for text in (level, f"{level}e0")
        )
        assert one == other


def test_tpr_at_fpr_of_all_attacks(connection):
    attacks = {name: samples(kind, 500, seed=2) for name, kind in zip("abcde", KINDS, strict=True)}
    put(connection, **attacks)
    for level in (0, 0.001, 0.01, 0.2, 0.999, 1):
        rows = {row["attack"]: row for row in records(connection, f"from tpr_at_fpr({level})")}
        assert list(rows) == list(attacks)
        for name, (_, score, member) in attacks.items():
            tp, threshold = naive.operating_point(score, member, level)
            assert (rows[name]["tpr"], rows[name]["threshold"]) == (tp / member.sum(), threshold)
            assert rows[name]["fpr"] == level
            assert (rows[name]["tpr_lo"] is None) == ((~member).sum() * level < 1)


@pytest.mark.parametrize("level", ["null", "-0.5", "1.01", "'nan'::double", "-1e-300"])
@pytest.mark.parametrize("call", ["tpr_at_fpr({})", "verdict('it', {})"])
def test_a_rate_is_a_number_from_0_to_1(connection, call, level):
    put(connection, it=samples("plain", 50))
    with pytest.raises(duckdb.InvalidInputException, match="expected a number from 0 to 1"):
        connection.execute(f"from {call.format(level)}").fetchall()


@pytest.mark.parametrize("kind", KINDS)
def test_operating_points_are_the_same_everywhere(connection, kind):
    """The columns of metrics, the points of roc and the list in Python: each says the same rates."""
    put(connection, it=samples(kind, 30_000), other=samples("plain", 500))
    points = catalog.OPERATING_POINTS
    assert points == naive.NAMED | {"tpr_at_0fp": 0}
    for view, ends in (("metrics", ("_boot_lo", "_boot_hi")), ("metrics_by_model", ())):
        columns = records(connection, f"describe {view}")
        named = [row["column_name"] for row in columns if row["column_name"].startswith("tpr")]
        assert named == [f"{column}{end}" for column in points for end in ("", "_lo", "_hi", *ends)]
    for column, level in points.items():
        tpr, low = fetch(connection, f"select {column}, {column}_lo from metrics where attack = 'it'")
        exact = fetch(connection, f"select tpr, tpr_lo from tpr_at_fpr({level}) where attack = 'it'")
        assert (tpr, None if level == 0 else low) == exact
        assert fetch(connection, f"select max(tpr) from roc where attack = 'it' and fpr <= {level}") == (tpr,)


def test_no_threshold_qualifies(connection):
    put(connection, it=samples("constant"))
    assert connection.execute("select tpr, threshold from tpr_at_fpr(0.5)").fetchall() == [(0, None)]
    assert connection.execute("select tpr_at_0fp, tpr_at_10pct from metrics").fetchall() == [(0, 0)]
    assert connection.execute("select distinct predicted, threshold from verdict('it', 0.5)").fetchall() == [
        NOBODY
    ]


@pytest.mark.parametrize("everybody", [True, False])
def test_only_members_or_only_others(connection, everybody):
    model, score, _ = samples("plain", 50)
    put(connection, it=(model, score, np.full(50, everybody)))
    (row,) = records(connection, "select * exclude (attack, preset, targets, examples) from metrics")
    assert set(row.values()) == {None}
    assert connection.execute("from roc").fetchall() == []
    assert connection.execute("from roc_exact('it')").fetchall() == []
    if everybody:
        assert connection.execute(
            "select distinct predicted, threshold from verdict('it', 0.1)"
        ).fetchall() == [NOBODY]


rows = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0, 1e300]), st.booleans()),
    min_size=2,
    max_size=40,
).filter(lambda rows: 0 < sum(member for *_, member in rows) < len(rows))
levels = st.sampled_from([0.0, 0.001, 0.1, 1 / 3, 0.5, 0.9, 1.0])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows, other=rows, level=levels)
def test_small_data_against_the_definitions(connection, rows, other, level):
    model, score, member = (np.array(column) for column in zip(*rows, strict=True))
    put(connection, it=(model, score, member), other=zip(*other, strict=True))
    (row,) = records(connection, "from metrics where attack = 'it'")
    assert row["auc"] == pytest.approx(naive.auc(score, member), abs=1e-14)
    assert row["balanced_accuracy"] == pytest.approx(naive.balanced_accuracy(score, member), abs=1e-15)
    tp, threshold = naive.operating_point(score, member, level)
    got = records(connection, f"from tpr_at_fpr({level}) where attack = 'it'")
    assert (got[0]["tpr"], got[0]["threshold"]) == (tp / member.sum(), threshold)
    check_verdict(connection, model, score, member, level)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0, 0.001, 0.01, 0.1, 0.5, 1])
def test_verdict_calibrates_on_the_other_models(connection, kind, level):
    model, score, member = samples(kind, 1500)
    score = np.where(model == 3, score + 5, score)  # one target whose scores mostly stand above the others'
    put(connection, it=(model, score, member), other=samples("plain", seed=5))
    check_verdict(connection, model, score, member, level)


def check_verdict(connection, model, score, member, level):
    predicted, threshold = naive.verdict(model, score, member, level)
    got = records(connection, f"from verdict('it', {level}) order by example")
    assert list(got[0]) == ["model", "example", "member", "predicted", "score", "threshold"]
    assert [row["model"] for row in got] == model.tolist()
    assert [row["member"] for row in got] == member.tolist()
    thresholds = np.array([np.nan if row["threshold"] is None else row["threshold"] for row in got])
    assert np.array_equal(thresholds, threshold, equal_nan=True)
    assert [row["predicted"] for row in got] == predicted.tolist()


def test_verdict_of_a_single_model_has_nothing_to_calibrate_on(connection):
    _, score, member = samples("plain", 50)
    put(connection, it=(np.zeros(50), score, member))
    assert connection.execute("select distinct predicted, threshold from verdict('it', 0.1)").fetchall() == [
        NOBODY
    ]


def test_a_filter_on_the_attack_reads_no_other(tmp_path, members, rng):
    store = make_store(tmp_path / "s.lira", members)
    put_scores(store, "alpha", rng.normal(size=members.shape))
    beta = put_scores(store, "beta", rng.normal(size=members.shape))
    with catalog.connect(store) as connection:
        for file in beta.files(store.lira)[1:]:  # the first one says which columns there are
            file.write_bytes(b"no longer parquet")
        for view in ("scores", "metrics", "metrics_by_model", "roc", "exposure", "tpr_at_fpr(0.01)"):
            assert connection.execute(f"from {view} where attack = 'alpha'").fetchall(), view
            with pytest.raises(duckdb.Error):
                connection.execute(f"from {view}").fetchall()
        for call in ("roc_exact('alpha')", "verdict('alpha', 0.1)", "most_exposed('alpha', 3)"):
            assert connection.execute(f"from {call}").fetchall(), call
