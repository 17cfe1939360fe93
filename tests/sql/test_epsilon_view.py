"""View epsilon_lower_bound: what the evaluation of real stores' runs says in SQL."""

from __future__ import annotations

import numpy as np
import pytest
from sql_stores import make_store, put_scores

from lirastore import catalog, evaluation, results

BERNOULLI = {"scheme": "bernoulli", "seed": 0, "keep_fraction": 0.5}
BALANCED = {"scheme": "balanced", "seed": 0, "keep_fraction": 0.5}
ALONE = {"signal": "loss", "test": "global", "queries": "first", "separate": True}
SHARED = {"signal": "scaled_logit", "test": "gaussian-in-out", "queries": "all"}


def evaluated(made):
    evaluation.evaluate(made, list(results.current(made.lira).values()), progress=False, threads=1)
    with catalog.query(made, "epsilon_lower_bound") as answer:
        names = answer.columns
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def whole(rows, **same):
    """The rows that are of no single target."""
    return [row for row in rows if row["model"] is None and same.items() <= row.items()]


@pytest.fixture
def members(rng):
    return rng.random((32, 400)) < 0.5


def test_bounds_of_two_attacks(tmp_path, members, rng):
    made = make_store(tmp_path / "s.lira", members, design=BERNOULLI)
    put_scores(made, "loss", rng.normal(size=members.shape) + 6 * members, parameters=ALONE)
    put_scores(made, "lira_online", rng.normal(size=members.shape), parameters=SHARED)
    rows = evaluated(made)
    assert {row["attack"] for row in rows} == {"loss", "lira_online"}
    (best, half) = whole(rows, attack="loss", method="one_run")
    assert best["epsilon"] > 2 and half["epsilon"] > 2 and (best["delta"], half["delta"]) == (0, 1e-5)
    targets = [row for row in rows if row["attack"] == "loss" and row["model"] is not None]
    assert [row["model"] for row in targets] == list(range(32))
    assert max(row["epsilon"] for row in targets) == best["epsilon"]
    separated = whole(rows, attack="loss", method="clopper_pearson")
    assert len(separated) == 2 and 0 <= separated[0]["example"] < 400 and separated[0]["epsilon"] > 0.3
    (refused,) = whole(rows, attack="lira_online", method="clopper_pearson")
    assert refused["epsilon"] is None and "STORE loss" in refused["refused"]
    assert max(row["epsilon"] for row in whole(rows, attack="lira_online", method="one_run")) < 1
    assert not any("no bounds" in line for line in catalog.query(made, "epsilon_lower_bound").warnings)
    assert {row["preset"] for row in rows} == {"paper"}
    assert {row["confidence"] for row in rows} == {0.95} and all(row["assumption"] for row in rows)


def test_a_design_that_is_refused_and_the_remedy(tmp_path, rng):
    members = rng.random((16, 200)).argsort(axis=0) < 8
    made = make_store(tmp_path / "s.lira", members, design=BALANCED)
    scores = rng.normal(size=members.shape) + 6 * members
    put_scores(made, "lira_online", scores, parameters=SHARED)
    (row,) = whole(evaluated(made), method="one_run")
    assert row["epsilon"] is None and "--equal-counts" in row["refused"]
    put_scores(made, "lira_online", scores, parameters=SHARED, equal_counts=True)
    best, half = whole(evaluated(made), method="one_run")
    assert best["epsilon"] > 1 and half["epsilon"] > 1 and best["refused"] is None


def test_a_new_run_has_none_until_it_is_evaluated(tmp_path, members, rng):
    made = make_store(tmp_path / "s.lira", members, design=BERNOULLI)
    put_scores(made, "loss", rng.normal(size=members.shape) + 6 * members, parameters=ALONE)
    assert whole(evaluated(made), method="one_run")[0]["epsilon"] > 2
    put_scores(made, "loss", rng.normal(size=members.shape), parameters=ALONE)
    with catalog.query(made, "epsilon_lower_bound") as answer:
        assert any("no bounds of loss" in line for line in answer.warnings) and answer.fetchall() == []
    assert max(row["epsilon"] for row in evaluated(made)) < 1


def test_the_bounds_do_not_depend_on_how_the_scores_are_read(tmp_path, members, rng):
    """Parts of ten examples, read by two threads, and one part."""
    scores = np.round(rng.normal(size=members.shape) + 3 * members, 1)
    found = []
    for name, examples_per_part in (("one", 10), ("two", 1000)):
        made = make_store(tmp_path / f"{name}.lira", members, design=BERNOULLI)
        put_scores(made, "loss", scores, examples_per_part=examples_per_part, parameters=ALONE)
        evaluation.evaluate(made, list(results.current(made.lira).values()), progress=False, threads=2)
        found.append(catalog.query(made, "epsilon_lower_bound").fetchall())
    assert found[0] == found[1] and len(found[0]) == 36
