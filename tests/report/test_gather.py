"""What is pulled from the store, against naive versions: merged attacks, classes, examples, outputs."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pytest
from report_stores import EXAMPLES, MODELS, commit, make_store

import lirastore
from lirastore.catalog import HEADLINE
from lirastore.report import exposure, gather, numbers
from lirastore.report.classes import resampled
from lirastore.report.content import AttackRow, Calibrated, Curve, Rate, ReportData


@pytest.fixture(scope="module")
def found(varied: lirastore.Store) -> ReportData:
    return gather.gather(varied.logits)


@pytest.fixture(scope="module")
def sql(varied: lirastore.Store) -> Iterator[duckdb.DuckDBPyConnection]:
    with varied.connect() as connection:
        yield connection


# --- attacks ------------------------------------------------------------------------------------


def row(attack: str, preset: str = "paper") -> AttackRow:
    return AttackRow(attack, preset, 4, 9, 18, Rate(0.6), Rate(0.6), {HEADLINE: Rate(0.1)})


def curve(attack: str, last: float = -1.0) -> Curve:
    rates = np.array([0.0, 0.5, 1.0])
    return Curve(attack, rates, rates, np.array([np.inf, 0.0, last]))


def test_attacks_with_the_same_curve_are_one_under_the_published_name() -> None:
    rows = [row("ablation_a"), row("b"), row("a"), row("c", "leakpro"), row("d"), row("e")]
    curves = {one.attack: curve(one.attack, -2.0 if one.attack == "d" else -1.0) for one in rows[:-1]}
    merged = numbers.merged(rows, curves)
    assert [(one.attack, one.aliases) for one in merged] == [
        ("a", ("b", "ablation_a")),
        ("c", ()),  # the same numbers in another code's numerics are another statement
        ("d", ()),
        ("e", ()),  # without a curve there is nothing to compare
    ]


def test_the_strongest_and_the_papers_attacks_are_drawn_at_first() -> None:
    names = [f"own_{rank}" for rank in range(5)] + ["loss", "own_5", "lira_online", "own_6"]
    drawn = [one.attack for one in numbers.with_main([row(name) for name in names]) if one.main]
    assert drawn == ["own_0", "own_1", "own_2", "loss", "lira_online"]
    many = numbers.with_main([row(f"x_{rank}") for rank in range(3)] + [row("watson")] * 20)
    assert sum(one.main for one in many) >= numbers.DRAWN


def test_aliases_of_the_store_are_found(found: ReportData) -> None:
    by_name = {one.attack: one for one in found.attacks}
    assert by_name["loss"].aliases == ("ablation_global_loss",)
    assert "ablation_global_loss" not in by_name
    assert [one.attack for one in found.curves] == [one.attack for one in found.attacks]


def test_only_one_attack_is_known_meanwhile(varied: lirastore.Store) -> None:
    def asked(connection: duckdb.DuckDBPyConnection) -> list[object]:
        return connection.execute("select distinct s.attack from scores as s order by all").fetchall()

    with varied.connect() as connection:
        everything = asked(connection)
        with pytest.raises(ZeroDivisionError), numbers.only(connection, "loss"):
            assert asked(connection) == [("loss",)]
            raise ZeroDivisionError
        assert asked(connection) == everything


def test_precision_is_bayes_rule() -> None:
    calibrated = Calibrated(0.2, 0.01, 0.0, 0.03)
    assert calibrated.precision(0.1) == pytest.approx(0.1 * 0.2 / (0.1 * 0.2 + 0.9 * 0.01))
    assert Calibrated(0.0, 0.0, 0.0, 0.0).precision(0.5) is None


def test_calibration_is_that_of_the_view(sql: duckdb.DuckDBPyConnection, found: ReportData) -> None:
    assert found.calibrated is not None and found.lead is not None
    (expected,) = sql.execute(
        f"select tpr, precision from precision_at(0.001, 0.1) where attack = '{found.lead.attack}'"
    ).fetchall()
    assert (found.calibrated.tpr, found.calibrated.precision(0.1)) == pytest.approx(expected)


# --- classes ------------------------------------------------------------------------------------


def test_a_class_has_the_rates_of_the_view_and_an_interval_around_them(
    sql: duckdb.DuckDBPyConnection, found: ReportData
) -> None:
    for attack, rows in list(found.classes.items())[:3]:
        view = sql.execute(
            "select label, members, nonmembers, auc, tpr_at_0_1pct, fpr_at_0_1pct from metrics_by_class "
            f"where attack = '{attack}' order by label"
        ).fetchall()
        shown = [(one.label, one.members, one.non_members, one.auc, one.rate.value, one.fpr) for one in rows]
        assert shown == view
        assert all(one.rate.low <= one.rate.value <= one.rate.high for one in rows)
    assert set(found.spreads) == set(found.classes)


def test_examples_are_resampled_as_if_one_by_one() -> None:
    rng = np.random.default_rng(3)
    held = rng.integers(0, 9, 400)
    detected = rng.binomial(held, rng.beta(0.3, 1, 400))
    low, high = resampled(detected, held)
    chosen = rng.integers(0, 400, (4000, 400))
    naive = np.percentile(detected[chosen].sum(axis=1) / held[chosen].sum(axis=1), [2.5, 97.5])
    assert (low, high) == pytest.approx(tuple(naive), rel=0.03)
    assert resampled(np.zeros(3, int), np.zeros(3, int)) == (None, None)
    assert resampled(np.zeros(3, int), np.full(3, 2)) == (0, 0)


# --- examples -----------------------------------------------------------------------------------


def test_examples_are_seen_as_the_scores_say(sql: duckdb.DuckDBPyConnection, found: ReportData) -> None:
    examples = found.examples
    assert examples is not None
    assert sorted(examples.ids.tolist()) == list(range(EXAMPLES))
    for seen in (examples.seen[0], examples.seen[-1]):
        scores = sql.execute(f"select example, score, member from scores where attack = '{seen.attack}'").df()
        (threshold,) = sql.execute(
            f"select threshold from tpr_at_fpr(0.001) where attack = '{seen.attack}'"
        ).fetchall()[0]
        by_example = dict(list(scores.groupby("example")))
        for place, example in enumerate(examples.ids.tolist()):
            mine = by_example[example]
            inside = mine[mine.member].score
            assert seen.score_in[place] == pytest.approx(inside.mean())
            assert seen.score_out[place] == pytest.approx(mine[~mine.member].score.mean())
            assert seen.held[place] == len(inside)
            caught = 0 if threshold is None else int((inside >= threshold).sum())
            assert seen.detected[place] == caught


def test_the_most_exposed_come_first(sql: duckdb.DuckDBPyConnection, found: ReportData) -> None:
    assert found.examples is not None and found.lead is not None
    ranked = sql.execute(f"select example from most_exposed('{found.lead.attack}', 60)").fetchall()
    assert [example for (example,) in ranked] == found.examples.ids.tolist()
    lead = found.examples.seen[0]
    share = lead.detected / lead.held
    assert lead.attack == found.lead.attack
    assert (found.examples.often, found.examples.never) == ((share >= 0.5).sum(), (share == 0).sum())


def test_examples_that_no_attack_may_score_are_left_out(tmp_path_factory: pytest.TempPathFactory) -> None:
    attackable = np.arange(EXAMPLES) % 3 == 0
    store = make_store(tmp_path_factory.mktemp("few") / "s.lira", attackable=attackable)
    commit(store, range(MODELS))
    store.attack("loss", progress=False)
    examples = gather.gather(store.logits).examples
    assert examples is not None
    assert sorted(examples.ids.tolist()) == np.flatnonzero(attackable).tolist()
    assert (examples.total, examples.never) == (attackable.sum(), (examples.seen[0].detected == 0).sum())


def test_memorization_and_stability_are_those_of_the_views(
    sql: duckdb.DuckDBPyConnection, found: ReportData
) -> None:
    examples = found.examples
    assert examples is not None and found.lead is not None
    assert examples.correct is not None and examples.percentile is not None
    memory = sql.execute("select p_correct_in, p_correct_out from memorization order by example").fetchall()
    stability = sql.execute(
        f"select mean_percentile, std_percentile from stability where attack = '{found.lead.attack}' "
        "order by example"
    ).fetchall()
    assert examples.correct.tolist() == [list(memory[example]) for example in examples.ids]
    assert examples.percentile == pytest.approx(np.array(stability)[examples.ids])


@pytest.mark.parametrize("block", [1, 40, 1 << 20])
def test_outputs_are_sketched_block_by_block(
    varied: lirastore.Store, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(exposure, "_BLOCK", block)
    examples = np.array([59, 3, 17, 3, 0])
    found = exposure.sketch(varied.logits, list(range(16)), examples)
    phi = np.asarray(varied.dataset["scaled_logit"].values[:, :, 0], np.float64)
    for place, example in enumerate(examples):
        values, member = phi[:, example], varied.membership[:, example]
        assert (found.low[place], found.high[place]) == (values.min(), values.max())
        for side, chosen in enumerate((values[member], values[~member])):
            assert found.mean[place, side] == pytest.approx(chosen.mean())
            assert found.std[place, side] == pytest.approx(chosen.std())
            bins = np.histogram(chosen, bins=exposure.BINS, range=(values.min(), values.max()))[0]
            assert found.counts[place, side].tolist() == bins.tolist()


def test_one_side_may_be_empty(varied: lirastore.Store) -> None:
    example = 5
    inside = np.flatnonzero(varied.membership[:, example]).tolist()
    found = exposure.sketch(varied.logits, inside, np.array([example]))
    assert np.isnan(found.mean[0]).tolist() == [False, True]
    assert found.counts[0].sum(axis=1).tolist() == [len(inside), 0]
    nothing = exposure.sketch(varied.logits, [], np.array([example]))
    assert not nothing.counts.any()


def test_attacks_in_depth_are_as_many_as_can_be_sorted(
    varied: lirastore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "SORTED", 1)
    few = gather.gather(varied.logits)
    assert len(few.classes) == len(few.spreads) == gather.AT_LEAST
    assert list(few.classes) == [one.attack for one in few.attacks if one.main][: gather.AT_LEAST]
