"""The contract of the views and macros: names, columns, types, and what they say of a store."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pytest
from sql_stores import (
    make_store,
    put_evaluation,
    put_influence,
    put_memorization,
    put_power,
    put_scores,
    write_model,
)
from test_evaluation_views import COLUMNS as EVALUATION_COLUMNS

from lirastore import catalog, results, store
from lirastore.errors import ResultError

POINTS = (
    "tpr_at_10pct",
    "tpr_at_1pct",
    "tpr_at_0_1pct",
    "tpr_at_0_01pct",
    "tpr_at_0_001pct",
    "tpr_at_0fp",
)
BOOT = ("_boot_lo", "_boot_hi")
RATES = [f"{name}{end}" for name in POINTS for end in ("", "_lo", "_hi")]
METRICS = [
    *(f"{name}{end}" for name in ("auc", "balanced_accuracy") for end in ("", *BOOT)),
    *(f"{name}{end}" for name in POINTS for end in ("", "_lo", "_hi", *BOOT)),
]
EXPOSURE = ["example", "label", "attack", "mean_score_in", "mean_score_out", "detected", "preset"]
COLUMNS = {
    "models": ["model", "committed_at", "train_accuracy", "test_accuracy", "examples_in", "seed", "source_id",
               "pipeline", "recipe", "seconds", "device", "metadata"],
    "loss_curves": ["model", "epoch", "loss"],
    "examples": ["example", "label", "attackable"],
    "membership": ["model", "example", "member"],
    "scores": ["attack", "model", "example", "score", "member"],
    "attacks": ["attack", "preset", "models", "stale", "seconds", "bytes_read", "parameters"],
    "metrics": ["attack", "preset", "targets", "examples", *METRICS],
    "metrics_by_model": ["attack", "preset", "model", "examples", "auc", "balanced_accuracy", *RATES],
    "power": ["attack", "preset", "models", "queries", "auc", "balanced_accuracy", "tpr_at_1pct",
              "tpr_at_0_1pct", "tpr_at_0_1pct_boot_lo", "tpr_at_0_1pct_boot_hi"],
    "roc": ["attack", "fpr", "tpr", "threshold", "preset"],
    "exposure": EXPOSURE,
    "memorization": ["example", "label", "p_correct_in", "p_correct_out", "memorization"],
    "most_exposed('alpha', 10)": EXPOSURE,
    "tpr_at_fpr(0.001)": ["attack", "fpr", "tpr", "tpr_lo", "tpr_hi", "threshold", "preset"],
    "roc_exact('alpha')": ["fpr", "tpr", "threshold"],
    "verdict('alpha', 0.1)": ["model", "example", "member", "predicted", "score", "threshold"],
}  # fmt: skip
TYPES = {
    "attack": "VARCHAR", "attackable": "BOOLEAN", "bytes_read": "BIGINT", "committed_at": "TIMESTAMP",
    "device": "VARCHAR", "epoch": "BIGINT", "example": "BIGINT", "examples": "BIGINT",
    "examples_in": "BIGINT", "label": "BIGINT", "pipeline": "VARCHAR", "recipe": "VARCHAR",
    "member": "BOOLEAN", "metadata": "JSON", "model": "BIGINT", "models": "BIGINT", "parameters": "JSON",
    "predicted": "BOOLEAN",
    "preset": "VARCHAR", "queries": "BIGINT", "seed": "BIGINT",
    "source_id": "VARCHAR", "stale": "BOOLEAN", "targets": "BIGINT",
}  # fmt: skip  # all others are DOUBLE


def ask(made, sql):
    return catalog.query(made, sql).fetchall()


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("which", ["empty", "attacked"])
def test_columns_and_types(request, which, name):
    with catalog.query(request.getfixturevalue(which), name) as answer:
        assert list(answer.columns) == COLUMNS[name]
        assert answer.types == tuple(TYPES.get(column, "DOUBLE") for column in answer.columns)
        assert bool(answer.fetchall()) == (which == "attacked" or name == "examples")


def test_the_files_state_their_columns(attacked):
    described = {item.name: item for item in catalog.describe()}
    assert list(described) == sorted(described, key=lambda name: (described[name].kind != "view", name))
    for call, columns in (COLUMNS | EVALUATION_COLUMNS).items():
        item = described.pop(call.partition("(")[0])
        assert [name for name, _ in item.columns] == columns
        assert item.comment.partition("\n")[0].endswith(".")
        assert item.kind == ("macro" if "(" in call else "view")
    assert not described


def test_listing():
    stream = io.StringIO()
    catalog.write_listing(stream)
    lines = stream.getvalue().splitlines()
    start = next(
        n for n, line in enumerate(lines) if line.startswith("most_exposed(attack, n)  The n examples")
    )
    assert lines[start + 1].split() == ["example", "the", "example"]
    for item in catalog.describe():
        summary, *more = item.comment.splitlines()
        assert f"{item.signature}  {summary}" in lines
        assert {f"  {text}" for text in more if text} <= set(lines)
    assert max(map(len, lines)) < 140


def test_models_and_their_metadata(attacked, members):
    rows = ask(attacked, "select * exclude (committed_at, metadata) from models order by model")
    assert rows[0] == (0, 0.75, None, members[0].sum(), 41, "17", "mine", "fast", 2.5, "abacus")
    assert rows[1] == (1, None, None, members[1].sum(), *[None] * 6)
    ((text, when),) = ask(attacked, "select metadata, committed_at from models where model = 0")
    assert json.loads(text)["epochs"] == [1, 2] and json.loads(text)["test_accuracy"] == "high"
    assert abs(datetime.now(UTC).replace(tzinfo=None) - when) < timedelta(hours=1)


@pytest.mark.parametrize("examples", [1, 7, 8, 9, 65])
def test_membership_is_the_stored_one(tmp_path, examples, rng):
    members = rng.random((5, examples)) < 0.5
    made = make_store(tmp_path / "s.lira", members, committed=[4, 1, 2])
    rows = ask(made, "from membership order by model, example")
    assert rows == [(m, e, bool(members[m, e])) for m in (1, 2, 4) for e in range(examples)]
    assert ask(made, "select examples_in from models order by model") == [
        (members[m].sum(),) for m in (1, 2, 4)
    ]


def test_examples(tmp_path, members):
    attackable = np.arange(members.shape[1]) % 3 == 0
    made = make_store(tmp_path / "s.lira", members, committed=(), attackable=attackable)
    assert ask(made, "from examples order by example") == [
        (e, e % 10, bool(attackable[e])) for e in range(members.shape[1])
    ]


def test_scores_of_two_attacks_do_not_mix_and_a_new_run_replaces_the_old(tmp_path, members, rng):
    made = make_store(tmp_path / "s.lira", members)
    one, two, three = (rng.normal(size=members.shape) for _ in range(3))
    put_scores(made, "one", one)
    put_scores(made, "two", two)
    with catalog.connect(made) as before:
        put_scores(made, "one", three)
        for connection, first in ((before, one), (catalog.connect(made), three)):
            for name, scores in (("one", first), ("two", two)):
                sql = "select * exclude (attack) from scores where attack = ? order by model, example"
                got = connection.execute(sql, [name]).fetchall()
                assert got == [
                    (m, e, scores[m, e], members[m, e])
                    for m in range(len(members))
                    for e in range(members.shape[1])
                ]


def test_attacks(attacked):
    rows = ask(attacked, "select * exclude (parameters) from attacks order by attack")
    assert rows == [
        ("alpha", "paper", 8, False, 0.5, 1234),
        ("beta", "carlini-code", 8, False, 0.5, 1234),
        ("memorization", "paper", 8, False, 0.5, 1234),
    ]
    (parameters,) = ask(
        attacked,
        "select parameters ->> '$.signal', parameters ->> '$.seed' from attacks where attack = 'beta'",
    )
    assert parameters == ("scaled_logit", "5")


def test_results_of_fewer_models_are_stale(tmp_path, members, rng):
    made = make_store(tmp_path / "s.lira", members, committed=range(6))
    put_scores(made, "old", rng.normal(size=(6, members.shape[1])))
    write_model(made, 7)
    put_scores(made, "new", rng.normal(size=(7, members.shape[1])))
    assert ask(made, "select attack, models, stale from attacks order by attack") == [
        ("new", 7, False),
        ("old", 6, True),
    ]


def test_power(tmp_path, members, rng):
    made = make_store(tmp_path / "s.lira", members)
    put_scores(made, "one", rng.normal(size=members.shape))
    few, many = rng.normal(size=members.shape), rng.normal(size=members.shape) + members
    put_power(made, "one", 16, 2, many, preset="leakpro")
    result = put_power(made, "one", 4, 1, few)
    put_evaluation(made, result, tpr_at_0_1pct=(0.01, 0.02), tpr_at_1pct=(0.1, 0.2))
    rows = ask(made, "select * exclude (auc, balanced_accuracy, tpr_at_1pct, tpr_at_0_1pct) from power")
    assert rows == [("one", "leakpro", 16, 2, None, None), ("one", "paper", 4, 1, 0.01, 0.02)]
    assert ask(made, "select attack from metrics") == ask(made, "select attack from attacks") == [("one",)]
    assert ask(made, "select count(*) from scores") == [(members.size,)]
    (asked,) = ask(
        made, "select auc, balanced_accuracy, tpr_at_1pct, tpr_at_0_1pct from power where models = 4"
    )
    put_scores(made, "one", few)
    assert ask(made, "select auc, balanced_accuracy, tpr_at_1pct, tpr_at_0_1pct from metrics") == [asked]


def test_bootstrap_intervals_are_those_of_the_current_run(tmp_path, members, rng):
    made = make_store(tmp_path / "s.lira", members)
    first, _ = (put_scores(made, name, rng.normal(size=members.shape)) for name in ("one", "two"))
    put_evaluation(made, first, auc=(0.4, 0.6), tpr_at_10pct=None)
    shown = "select attack, auc_boot_lo, auc_boot_hi, tpr_at_10pct_boot_lo from metrics"
    assert ask(made, shown) == [("one", 0.4, 0.6, None), ("two", None, None, None)]
    put_scores(made, "one", rng.normal(size=members.shape))
    assert ask(made, shown) == [("one", None, None, None), ("two", None, None, None)]


@pytest.mark.parametrize("text", [b"", b"[]", b'{"format": 1}', b"\xff"])
def test_an_unreadable_evaluation_is_named(tmp_path, members, rng, text):
    made = make_store(tmp_path / "s.lira", members)
    result = put_power(made, "one", 4, 2, rng.normal(size=members.shape))
    put_evaluation(made, result, auc=(0.4, 0.6))
    results.evaluation_file(made.lira, result.attack, result.run).write_bytes(text)
    with pytest.raises(ResultError, match=f"{result.run}.json.*attack STORE one --models 4 --queries 2`"):
        ask(made, "models")


def test_influence_and_info(tmp_path, members):
    made = make_store(tmp_path / "s.lira", members, name="CIFAR-10")
    put_influence(made, [(3, 5, 0.5), (3, 9, 0.25)])
    assert ask(made, "from influence order by other") == [(3, 5, 0.5), (3, 9, 0.25)]
    assert ask(made, "from stored.info") == [("CIFAR-10", "cifar10")]
    assert ask(made, "select attack, models from attacks") == [("influence", len(members))]


def exposure(made, members, attack):
    """Of each example, from the scores and the threshold of tpr_at_fpr."""
    scores = np.full(members.shape, np.nan)
    for model, example, score in ask(
        made, f"select model, example, score from scores where attack = '{attack}'"
    ):
        scores[model, example] = score
    level = catalog.OPERATING_POINTS[catalog.HEADLINE]
    ((threshold,),) = ask(made, f"select threshold from tpr_at_fpr({level}) where attack = '{attack}'")
    for example in range(members.shape[1]):
        held, of = members[:, example], scores[:, example]
        yield (
            example,
            of[held].mean() if held.any() else None,
            of[~held].mean() if not held.all() else None,
            (of[held] >= threshold).mean() if held.any() else None,
        )


def test_exposure(attacked, members):
    for attack in ("alpha", "beta"):
        rows = ask(
            attacked,
            "select example, mean_score_in, mean_score_out, detected, label "
            f"from exposure where attack = '{attack}' order by example",
        )
        assert len(rows) == members.shape[1]
        for row, expected in zip(rows, exposure(attacked, members, attack), strict=True):
            assert row[:4] == pytest.approx(expected)
            assert row[4] == row[0] % 10


def test_exposure_of_one_sided_examples_and_without_a_threshold(tmp_path):
    members = np.array([[1, 0, 1, 0], [1, 0, 0, 1]], bool)  # example 0 is in both models, 1 in none
    made = make_store(tmp_path / "s.lira", members)
    put_scores(made, "flat", np.ones((2, 4)))
    assert ask(made, "select * exclude (label, attack, preset) from exposure order by example") == [
        (0, 1, None, 0), (1, None, 1, None), (2, 1, 1, 0), (3, 1, 1, 0),
    ]  # fmt: skip
    assert [row[0] for row in ask(made, "select example from most_exposed('flat', 9)")] == [2, 3, 0, 1]


def test_most_exposed(attacked):
    for attack in ("alpha", "beta"):
        rows = ask(attacked, f"from most_exposed('{attack}', 7)")
        order = "detected desc nulls last, mean_score_in - mean_score_out desc nulls last, example"
        assert rows == ask(attacked, f"from exposure where attack = '{attack}' order by {order} limit 7")
        assert len(rows) == 7 and {row[2] for row in rows} == {attack}


def test_macros_take_their_arguments_by_name(attacked):
    for positional, named in (
        ("most_exposed('beta', 3)", "most_exposed(attack := 'beta', n := 3)"),
        ("roc_exact('beta')", "roc_exact(attack := 'beta')"),
        ("tpr_at_fpr(0.05)", "tpr_at_fpr(fpr := 0.05)"),
        ("verdict('beta', 0.05)", "verdict(attack := 'beta', fpr := 0.05)"),
    ):
        rows = ask(attacked, positional)
        assert rows and sorted(rows, key=str) == sorted(ask(attacked, named), key=str)
    assert len(ask(attacked, "verdict('beta', 0.05)")) == 8 * 300
    assert ask(attacked, "roc_exact('alpha')") != ask(attacked, "roc_exact('beta')")


def test_examples_left_out_by_an_attack(tmp_path, members, rng):
    made = make_store(tmp_path / "s.lira", members)
    keep = np.broadcast_to(np.arange(members.shape[1]) % 2 == 0, members.shape)
    put_scores(made, "some", rng.normal(size=members.shape), keep=keep)
    assert ask(made, "select targets, examples from metrics") == [(8, 150)]
    assert ask(made, "select count(*), count(distinct example) from exposure") == [(150, 150)]


def test_memorization(attacked):
    rows = ask(attacked, "from memorization order by example")
    assert len(rows) == 300 and rows[-1] == (299, 9, 1.0, 0.5, 0.5)
    assert ask(attacked, "select count(*) from scores where attack = 'memorization'") == [(0,)]


def test_an_ordinary_connection_joins_what_the_caller_brings(attacked):
    with catalog.connect(attacked) as connection:
        connection.execute("create table mine as select 3 as model, 'good' as verdict")
        assert connection.execute("select verdict from models join mine using (model)").fetchall() == [
            ("good",)
        ]


@pytest.mark.parametrize("name", ["it's [a] *?.lira", "model=3", "ünï code.lira"])
def test_any_path_will_do(tmp_path, members, rng, name):
    made = make_store(tmp_path / name / "s.lira", members)
    scores = rng.normal(size=members.shape)
    put_scores(made, "one", scores)
    assert ask(made, "select score from scores where model = 5 and example = 70") == [(scores[5, 70],)]
    with catalog.connect(made) as connection:
        assert connection.execute("select count(distinct model) from scores").fetchall() == [(8,)]


def test_a_relative_path_is_that_of_the_moment(tmp_path, members, rng, monkeypatch):
    put_scores(make_store(tmp_path / "s.lira", members), "one", rng.normal(size=members.shape))
    monkeypatch.chdir(tmp_path)
    with catalog.connect(store.open_store("s.lira")) as connection:
        monkeypatch.chdir("/")
        assert connection.execute("select count(*) from scores").fetchall() == [(members.size,)]


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path, members, rng):
    """A store with one attack of six parts, and these files."""
    made = make_store(tmp_path / "s.lira", members)
    result = put_scores(made, "one", rng.normal(size=members.shape))
    return made, result.files(made.lira)


@pytest.mark.parametrize("part", [0, 3])
@pytest.mark.parametrize("way", ["missing", "shorter", "header", "pages"])
def test_a_damaged_part_is_named(damaged, way, part):
    made, files = damaged
    data = files[part].read_bytes()
    if way == "missing":
        files[part].unlink()
    elif way == "shorter":
        files[part].write_bytes(data[:-9])
    elif way == "header":
        files[part].write_bytes(b"\0" * len(data))
    else:  # within the compressed values
        files[part].write_bytes(data[:100] + b"\xff" * (len(data) // 2) + data[100 + len(data) // 2 :])
    with pytest.raises(ResultError, match=files[part].name) as caught:
        ask(made, "select sum(score), sum(model), sum(example), bool_or(member) from scores")
    assert str(caught.value).count("lirastore attack") == 1 and "--force" in str(caught.value)


def test_a_part_that_goes_while_it_is_asked_is_named(damaged):
    made, files = damaged
    with (
        pytest.raises(ResultError, match=files[4].name),
        catalog.query(made, "select sum(score) from scores") as answer,
    ):
        files[4].unlink()
        answer.fetchall()


def test_memorization_of_another_kind_is_no_memorization(tmp_path, members, rng):
    made = make_store(tmp_path / "s.lira", members)
    put_scores(made, "memorization", rng.normal(size=members.shape))
    assert ask(made, "memorization") == []
    assert ask(made, "select attack from metrics") == [("memorization",)]
    put_memorization(made, np.ones(members.shape[1]), np.zeros(members.shape[1]))
    assert len(ask(made, "memorization")) == members.shape[1]


def test_the_connection_is_closed_if_it_cannot_be_filled(damaged, monkeypatch):
    made, files = damaged
    files[0].unlink()
    opened = []
    real = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda *a, **k: opened.append(real(*a, **k)) or opened[-1])
    for call in (lambda: catalog.connect(made), lambda: catalog.query(made, "models")):
        with pytest.raises(ResultError):
            call()
        with pytest.raises(duckdb.ConnectionException):
            opened[-1].execute("select 1")


def test_loss_curves_are_those_that_were_recorded(attacked):
    """And models whose jobs recorded none, or no numbers, have none."""
    assert ask(attacked, "from loss_curves") == [(0, 1, 2.5), (0, 2, 1.0)]
