"""What is warned of beside an answer."""

from __future__ import annotations

import numpy as np
import pytest
from sql_stores import make_store, put_scores, write_model

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


def about(lines, text):
    return [line for line in lines if text in line]


def test_nothing_to_say(store, empty):
    for sql in ("models", "from membership where model = 3", "attacks", "select 1"):
        assert catalog.warnings(store, sql) == []
        assert catalog.warnings(empty, sql) == []


def test_attacks_that_have_not_run(store, empty):
    (line,) = catalog.warnings(empty, "metrics")
    assert line.startswith("no attack has run yet") and "lirastore attack STORE --all" in line
    for sql in ("from most_exposed('lira_onlin', 3)", "from verdict(attack := 'lira_onlin', fpr := 0.1)"):
        (line,) = about(catalog.warnings(store, sql), "that have run are fresh, old")
        assert "lirastore attack STORE lira_onlin`" in line
    assert about(catalog.warnings(store, "memorization"), "STORE memorization`")
    assert not about(catalog.warnings(store, "from most_exposed('old', 3)"), "have run")


def test_stale_attacks(store):
    (line,) = catalog.warnings(store, "from scores limit 3")
    assert line.startswith("old is out of date") and "lirastore attack STORE old" in line
    assert catalog.warnings(store, "from scores where attack = 'old'") == [line]
    assert catalog.warnings(store, "from scores where attack = 'fresh'") == []
    assert about(catalog.warnings(store, "most_exposed('old', 3)"), "out of date") == [line]


def test_rates_that_are_too_fine(store):
    lines = catalog.warnings(store, "metrics")
    assert about(lines, "FPR") == [
        f"{level} FPR is finer than 1,200 to 1,400 non-members resolve: "
        "TPRs at it have no interval (fresh, old)"
        for level in ("0.01%", "0.001%")
    ]
    lines = about(catalog.warnings(store, "select * from metrics_by_model where attack = 'fresh'"), "FPR")
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
    ],
)
def test_rates_that_are_asked_for(store, sql, levels):
    lines = about(catalog.warnings(store, sql), "FPR")
    assert [line.split()[0] for line in lines] == levels


def test_the_warning_agrees_with_the_bounds(store):
    rows = catalog.query(store, "select attack, tpr_lo is null from tpr_at_fpr(0.00075)").fetchall()
    assert rows == [("fresh", False), ("old", True)]
    (line,) = about(catalog.warnings(store, "tpr_at_fpr(0.00075)"), "FPR")
    assert line.endswith("1,200 non-members resolve: TPRs at it have no interval (old)")
