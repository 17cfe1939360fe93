"""What is warned of beside an answer."""

from __future__ import annotations

import numpy as np
import pytest
from sql_stores import make_store, put_evaluation, put_influence, put_power, put_scores, write_model

from lirastore import catalog


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Models of 200 members and 200 others each: `old` was computed from 6 of them, `fresh` from all 7."""
    members = np.arange(7 * 400).reshape(7, 400) % 2 == 0
    made = make_store(tmp_path_factory.mktemp("notices") / "s.lira", members, committed=range(6))
    rng = np.random.default_rng(0)
    put_scores(made, "old", rng.normal(size=(6, 400)))
    write_model(made, 6)
    put_scores(made, "fresh", rng.normal(size=(7, 400)))
    return made


def warnings(made, sql):
    with catalog.query(made, sql) as answer:
        return list(answer.warnings)


def about(lines, text):
    return [line for line in lines if text in line]


def test_nothing_to_say(store, empty):
    for sql in (
        "models",
        "from membership where model = 3",
        "attacks",
        "select 1",
        "select 'metrics' as attack",
        "select 1 as metrics -- from metrics",
        "describe metrics",
        "with metrics as (from models), scores as (from metrics) from scores, metrics",
        "with recursive scores as (select 1 as i union all select i + 1 from scores where i < 3) from scores",
        "from stored.models as scores",
    ):
        assert warnings(store, sql) == []
        assert warnings(empty, sql) == []


def test_attacks_that_have_not_run(store, empty):
    (line,) = warnings(empty, "metrics")
    assert line.startswith("no attack has run yet") and "lirastore attack STORE --all" in line
    for sql in ("from most_exposed('lira_onlin', 3)", "from verdict(attack := 'lira_onlin', fpr := 0.1)"):
        (line,) = about(warnings(store, sql), "that have run are fresh, old")
        assert "lirastore attack STORE lira_onlin`" in line
    assert about(warnings(store, "memorization"), "STORE memorization`")
    assert not about(warnings(store, "from most_exposed('old', 3)"), "have run")


def test_stale_attacks(store):
    (line,) = warnings(store, "from scores limit 3")
    assert line.startswith("old is out of date") and "lirastore attack STORE old" in line
    assert warnings(store, "from scores where attack = 'old'") == [line]
    assert warnings(store, "from scores where attack = 'fresh'") == []
    assert about(warnings(store, "most_exposed('old', 3)"), "out of date") == [line]


@pytest.mark.parametrize(
    ("sql", "stale"),
    [
        ("select * from scores where 'fresh' = attack", False),
        ("select * from scores as s where s.attack in ('fresh')", False),
        ("select * from scores where attack in ('fresh', 'old')", True),
        ("select * from scores where attack <> 'fresh'", True),
        ("select * from scores where not attack = 'fresh'", True),
        ("select * from scores where attack not in ('fresh')", True),
        ("select 'fresh' as mine, count(*) from scores", True),
        ("select (select count(*) from scores)", True),
        ("with scores as (from scores where attack = 'fresh') from scores", False),
        ("with scores as (from scores) from scores", True),
        ("summarize scores", True),
        ("from memory.main.scores", True),
        ('from "SCORES"', True),
        ("pivot scores on member in (true) using count(*)", True),
        ("from verdict('fresh', 0.1)", False),
        ("from verdict('fresh', 0.1), roc_exact('old')", True),
        ("from verdict(fpr := 0.1, attack := 'fresh')", False),
        ("memorization", False),
    ],
)
def test_whom_a_statement_asks_for(store, sql, stale):
    assert bool(about(warnings(store, sql), "out of date")) == stale


def test_warnings_stay_when_the_answer_is_read(store):
    answer = catalog.query(store, "from metrics")
    said = answer.warnings
    answer.fetchall()
    assert answer.warnings == said and about(said, "old is out of date")


def test_a_long_statement_is_no_trouble(store):
    assert about(warnings(store, " union all ".join(["select attack from scores"] * 60)), "out of date")


def test_rates_that_are_too_fine(store):
    lines = warnings(store, "metrics")
    assert about(lines, "FPR") == [
        f"{level} FPR is finer than 1,200 to 1,400 non-members resolve: "
        "TPRs at it have no interval (fresh, old)"
        for level in ("0.01%", "0.001%")
    ]
    lines = about(warnings(store, "select * from metrics_by_model where attack = 'fresh'"), "FPR")
    assert len(lines) == 3 and lines[0].startswith("0.1% FPR is finer than 200 non-members of a single model")


@pytest.mark.parametrize(
    ("sql", "levels"),
    [
        ("from tpr_at_fpr(0.001)", []),
        ("from tpr_at_fpr(1e-3)", []),
        ("from tpr_at_fpr(0.0005)", ["0.05%"]),
        ("from TPR_AT_FPR( fpr := 5e-4 )", ["0.05%"]),
        ("tpr_at_fpr(0)", ["0%"]),
        ("from verdict('fresh', .0001)", ["0.01%"]),
        ("from verdict('fresh', 0.1)", []),
        ("from tpr_at_fpr(0.5) union all from tpr_at_fpr(0.0002)", ["0.02%"]),
        ("exposure", []),
        ("select attack, auc from metrics", []),
        ("select attack, tpr_at_0_1pct from metrics", []),
        ("select m.tpr_at_0_01pct_lo from metrics as m", ["0.01%"]),
        ("select count(*) from metrics", []),
        ("from tpr_at_fpr((select 0.0001))", []),
    ],
)
def test_rates_that_are_asked_for(store, sql, levels):
    lines = about(warnings(store, sql), "FPR")
    assert [line.split()[0] for line in lines] == levels


@pytest.mark.parametrize(
    "call", ["calibrated(0.00001)", "precision_at(1e-5, 0.5)", "verdict('fresh', 0.00001)"]
)
def test_what_has_no_intervals_is_not_said_to_lack_them(store, call):
    (line,) = about(warnings(store, f"from {call}"), "FPR")
    assert line.startswith("0.001% FPR is finer than 1,") and "interval" not in line
    assert "resolve: what is realised there is a count of few (fresh" in line


def test_only_scored_non_members_count(tmp_path):
    members = np.arange(4 * 1000).reshape(4, 1000) % 2 == 0
    made = make_store(tmp_path / "s.lira", members)
    keep = np.broadcast_to(np.arange(1000) < 100, members.shape)
    put_scores(made, "some", np.random.default_rng(0).normal(size=members.shape), keep=keep)
    (line,) = warnings(made, "select tpr_at_0_1pct from metrics")
    assert line.startswith("0.1% FPR is finer than 200 non-members resolve")


def test_the_warning_agrees_with_the_bounds(store):
    rows = catalog.query(store, "select attack, tpr_lo is null from tpr_at_fpr(0.00075)").fetchall()
    assert rows == [("fresh", False), ("old", True)]
    (line,) = about(warnings(store, "tpr_at_fpr(0.00075)"), "FPR")
    assert line.endswith("1,200 non-members resolve: TPRs at it have no interval (old)")


def test_few_models(tmp_path):
    members = np.arange(4 * 400).reshape(4, 400) % 2 == 0
    made = make_store(tmp_path / "s.lira", members, committed=range(3))
    scores = np.random.default_rng(0).normal(size=(3, 400))
    put_power(made, "one", 2, 1, scores)
    put_evaluation(made, put_power(made, "other", 2, 1, scores), auc=(0.4, 0.6))
    said = warnings(made, "power")
    assert about(said, "0.1% FPR is finer than 600 non-members resolve")[0].endswith(
        "(one__k2_q1, other__k2_q1)"
    )
    assert about(said, "no bootstrap intervals of one__k2_q1 have") and not about(said, "out of date")
    write_model(made, 3)
    (line,) = about(warnings(made, "from power where attack = 'one'"), "out of date")
    assert line.startswith("one__k2_q1 is out of date") and "attack STORE one --models …`" in line
    assert about(warnings(made, "metrics"), "no attack has run yet")
    assert not about(warnings(made, "select auc from power"), "FPR")


def test_intervals_that_have_not_been_computed(store, tmp_path):
    (line,) = about(warnings(store, "select auc_boot_lo from metrics"), "bootstrap")
    assert line.startswith("no bootstrap intervals of fresh, old have") and "attack STORE fresh old`" in line
    for sql in ("select auc from metrics", "metrics_by_model", "select tpr_at_1pct_lo from metrics"):
        assert not about(warnings(store, sql), "bootstrap")
    made = make_store(tmp_path / "s.lira", np.arange(8).reshape(2, 4) % 2 == 0)
    put_evaluation(made, put_scores(made, "one", np.zeros((2, 4))), auc=None)
    assert not about(warnings(made, "metrics"), "bootstrap")


def test_long_lists_of_attacks_are_cut(tmp_path):
    members = np.arange(4 * 400).reshape(4, 400) % 2 == 0
    made = make_store(tmp_path / "s.lira", members, committed=range(3))
    for n in range(11):
        put_scores(made, f"a{n:02}", np.zeros((3, 400)))
    put_power(made, "a03", 2, 1, np.zeros((3, 400)))
    names = [f"a{n:02}" for n in range(8)]
    for line in warnings(made, "select tpr_at_0_01pct, tpr_at_0_01pct_boot_lo from metrics"):
        assert f"{', '.join(names)} … (11 in all)" in line and "a08" not in line
    write_model(made, 3)
    few, many = sorted(about(warnings(made, "from metrics, power"), "out of date"), key=len)
    assert f"`lirastore attack STORE {' '.join(names)} …` brings them up to date" in many
    assert few.startswith("a03__k2_q1 is out of date") and "attack STORE a03 --models …` brings it" in few


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """Attacks of the paper's tables and others, none with intervals; watson's numerics are another code's."""
    members = np.arange(4 * 400).reshape(4, 400) % 2 == 0
    made = make_store(tmp_path_factory.mktemp("listed") / "s.lira", members, name="digits")
    for name, preset in (("loss", "paper"), ("mine", "paper"), ("watson", "tf-library")):
        put_scores(made, name, np.random.default_rng(0).normal(size=(4, 400)), preset=preset)
    return made


def test_tables_warn_of_their_own_attacks(listed):
    said = warnings(listed, "paper_table")
    assert [line for line in said if "mine" in line] == []
    assert about(said, "FPR") == [
        f"{level} FPR is finer than 800 non-members resolve: TPRs at it have no interval (loss, watson)"
        for level in ("0.1%", "0.001%")
    ]
    assert about(said, "no bootstrap intervals of loss, watson have")
    said = warnings(listed, "ablation_table")
    assert [line for line in said if "mine" in line or "watson" in line] == []
    assert [line.split()[0] for line in about(said, "FPR is")] == ["0.1%"]


def test_empty_rows_of_the_tables(listed, empty):
    (line,) = about(warnings(listed, "paper_table"), "empty")
    assert line == (
        "19 rows are empty because shokri, morgan, merlin, modified_entropy, sablayrolles, long, watson, ye "
        "… (19 in all) have not run: `lirastore attack STORE shokri morgan merlin modified_entropy "
        "sablayrolles long watson ye …` (or --all) fills what the store has the data for"
    )
    (line,) = about(warnings(listed, "ablation_table"), "empty")
    assert line.startswith("10 rows are empty because ablation_global_phi, ")
    (line,) = about(warnings(listed, "from paper_table where attack = 'ye'"), "empty")
    assert line.startswith("1 row is empty because ye has not run: `lirastore attack STORE ye` (or --all)")
    assert not about(warnings(listed, "from paper_table where attack = 'loss'"), "empty")
    said = warnings(empty, "paper_table")
    assert about(said, "20 rows are empty") and not about(said, "no attack has run yet")
    assert about(warnings(empty, "from paper_table, metrics"), "no attack has run yet")


def test_tables_without_published_values(listed, tmp_path):
    (line,) = about(warnings(listed, "paper_table"), "published")
    assert line == (
        "no published values: they are for CIFAR-10, CIFAR-100 and WikiText-103, and the store's data set is "
        "called 'digits'"
    )
    assert not about(warnings(listed, "select row, balanced_accuracy from paper_table"), "published")
    members = np.arange(8).reshape(2, 4) % 2 == 0
    for name, paper, ablation in (
        ("CIFAR-10", "", ""),
        ("cifar100", "", "they are for CIFAR-10, and the store's data set is called 'cifar100'"),
        ("Purchase-100", "CIFAR-100 and WikiText-103", "for CIFAR-10, and"),
        ("", "the store's data set has no name", "the store's data set has no name"),
    ):
        made = make_store(tmp_path / f"{name}.lira", members, name=name)
        for table, says in (("paper_table", paper), ("ablation_table", ablation)):
            lines = about(warnings(made, table), "no published values")
            assert len(lines) == bool(says) and says in "".join(lines)


def test_bounds_that_have_not_been_computed(store, empty):
    (line,) = about(warnings(store, "epsilon_lower_bound"), "bounds")
    assert line == (
        "there are no bounds of fresh, old: run `lirastore attack STORE --all`: bounds are computed with the "
        "intervals"
    )
    (line,) = about(warnings(store, "from epsilon_lower_bound where attack = 'fresh'"), "bounds")
    assert "no bounds of fresh:" in line
    assert not about(warnings(empty, "epsilon_lower_bound"), "bounds")


def test_influence(store, tmp_path):
    assert about(warnings(store, "influence"), "STORE influence`")
    made = make_store(tmp_path / "s.lira", np.arange(8).reshape(2, 4) % 2 == 0)
    put_influence(made, [(0, 1, 0.5)])
    assert warnings(made, "influence") == []
