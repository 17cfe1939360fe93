"""Attacks with fewer shadow models and queries, over a store: one pass, what is skipped, what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_stores as stores
import numpy as np
import pytest

import lirastore
from lirastore import attacks, engine, results, subsets
from lirastore.attacks.power import power
from lirastore.engine import planning
from lirastore.errors import AttackError, InputError, MissingData
from lirastore.experiment import Store
from lirastore.store import LogitStore


def limited(
    store: LogitStore, *names: str, models: list[int], queries: Any = ("all",), **options: Any
) -> Any:
    return Store(store).attack(*names, models=models, queries=queries, progress=False, **options)


def test_every_combination_is_a_result_of_its_own(store: LogitStore) -> None:
    found = limited(store, "lira_online", "loss", models=[4, 6], queries=[1, "all", 2, "first"])
    assert [result.attack for result in found] == [
        f"{name}__k{models}_q{queries}"
        for models in (4, 6)
        for queries in (1, 2)
        for name in ("lira_online", "loss")
    ]
    for result in found:
        assert result.kind == "power"
        assert result.warnings == ()
        assert result.columns == ("model", "example", "score", "member")
        assert result.parts[0].startswith(f"power/{result.attack}/")
        assert result.equal_counts
        assert result.rows == 8 * 300
        assert result.arguments[0] == result.parameters["attack"]
    assert found[2].parameters["models"] == 4
    assert found[2].parameters["queries"] == 2
    assert results.verify_results(store.lira) == []


def test_all_of_them_read_the_data_once_and_share_first_passes(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "TILE_BYTES", 8 * 2 * 8 * 16)
    chunks: list[str] = []

    def total(block: attacks.Block) -> float:
        chunks.append(block.pass_suffix)
        return float(block.loo().mean_out.sum())

    first = attacks.Summary("total", ("scaled_logit",), total, lambda a, b: a + b, float)
    base = [
        attacks.Attack(
            name,
            lambda block: block.loo().mean_in.mean(axis=2) - block.summary(first),
            summaries=(first,),
            limitable=True,
        )
        for name in ("one", "other")
    ]
    chosen = engine.limited(store, base, [4, 6], [1, 2], engine.Options())
    found = engine.run(store, chosen, engine.Options(progress=False))
    assert {result.bytes_read for result in found} == {2 * 8 * 300 * 2 * 4}
    assert len(chunks) == 4 * 19  # of tiles of 16 examples
    assert set(chunks) == {f"/k{models}-q{queries}" for models in (4, 6) for queries in (1, 2)}


def test_scores_are_the_same_alone_and_together(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "TILE_BYTES", 8 * 2 * 8 * 16)
    together = limited(store, "lira_online_fixed", "watson", models=[4, 6], queries=[1, 2])
    for result in together:
        name, models, queries = result.arguments[0], int(result.arguments[2]), int(result.arguments[4])
        (alone,) = limited(store, name, models=[models], queries=[queries], force=True, threads=1)
        np.testing.assert_array_equal(stores.matrix(store, alone), stores.matrix(store, result))


def test_as_many_as_there_are_is_equal_counts(store: LogitStore) -> None:
    (whole,) = Store(store).attack("lira_online", equal_counts=True, progress=False)
    (most,) = limited(store, "lira_online", models=[6])
    np.testing.assert_array_equal(stores.matrix(store, most), stores.matrix(store, whole))


def test_up_to_date_by_seed_and_limits(store: LogitStore) -> None:
    (first,) = limited(store, "lira_online", models=[4])
    assert limited(store, "lira_online", models=[4]) == [first]
    (other,) = limited(store, "lira_online", models=[4], seed=1)
    assert other.run != first.run
    assert (stores.matrix(store, other) != stores.matrix(store, first)).any()


def test_numbers_that_the_store_does_not_allow_are_skipped(
    store: LogitStore, capsys: pytest.CaptureFixture[str]
) -> None:
    found = limited(store, "lira_online", models=[4, 8, 16])
    assert [result.attack for result in found] == ["lira_online__k4_q2"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("skipped 8, 16 shadow models: 6 is the most that every example has")
    assert line.endswith("commit more models")  # every example has as many
    with pytest.raises(MissingData, match="8 shadow models: 6 is the most"):
        limited(store, "lira_online", models=[8])


def test_designs_with_unequal_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    member = subsets.draw("bernoulli", models=16, examples=200, seed=2)
    made = stores.make(tmp_path / "a.lira", stores.Shape(models=16, examples=200), membership=member)
    n_in = member.sum(axis=0)
    beside = np.minimum(n_in, 16 - n_in) - 1
    with pytest.raises(MissingData, match=f"{2 * beside.min()} is the most.*--skip-unattackable"):
        limited(made, "lira_online", models=[12])
    found = limited(made, "lira_online", models=[4, 10, 12, 20], skip_unattackable=True)
    for result, models in zip(found, (4, 10, 12), strict=True):
        scored = ~np.isnan(stores.matrix(made, result)).any(axis=0)
        assert (scored == (beside >= models // 2)).all()
        assert any("were left out" in line for line in result.warnings) == (not scored.all())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"skipped 20 shadow models: {2 * beside.max()} is the most that any example has")


def test_examples_that_may_not_be_attacked_do_not_limit(tmp_path: Path) -> None:
    member = np.arange(8)[:, None] < np.where(np.arange(50) < 10, 1, 4)
    mask = np.arange(50) >= 10
    shape = stores.Shape(examples=50)
    made = stores.make(tmp_path / "a.lira", shape, membership=member, attackable=mask)
    (result,) = limited(made, "lira_online", models=[6])
    assert result.rows == 8 * 40


def test_what_cannot_be_meant_is_refused(store: LogitStore) -> None:
    with pytest.raises(AttackError, match="memorization cannot be limited"):
        limited(store, "memorization", models=[4])
    with pytest.raises(AttackError, match="queries 3: expected first, all, or a number from 1 to 2"):
        limited(store, "loss", models=[4], queries=[3])
    with pytest.raises(InputError, match="at least one number"):
        limited(store, "loss", models=[])
    with pytest.raises(InputError, match="without models"):
        Store(store).attack("loss", queries=[1])
    assert results.current(store.lira) == {}


def test_an_attack_of_a_user_that_is_limitable(store: LogitStore) -> None:
    mine = attacks.compose("mine", signal="scaled_logit", test="out-mean", queries="first")
    (result,) = engine.run(store, [power(mine, 2, 1)], engine.Options(progress=False))
    assert result.attack == "mine__k2_q1"
    assert lirastore.open(store.path).status().attacks[0].name == "mine__k2_q1"


def test_the_plan_of_many_is_not_the_sum_of_each(store: LogitStore) -> None:
    """Moments are held for one pair of limits at a time: more of them take scores and ids, no more."""
    few = engine.limited(store, [attacks.named("lira_online")], [4], [2], engine.Options())
    many = engine.limited(store, [attacks.named("lira_online")], [4, 6], [1, 2], engine.Options())
    plans = [engine.plan(store, chosen, engine.Options(threads=1)) for chosen in (few, many)]
    assert plans[1].projected - plans[0].projected <= 8 * 300 * (3 * 2 * 8 + 17)
