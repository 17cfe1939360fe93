"""What attacks may know before the first block: facts of the store, matrices, signals per class."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_attacks
import engine_stores as stores
import numpy as np
import pytest

from lirastore import attacks, engine, results
from lirastore.attacks import Attack, Block, Facts, PerTarget, Sizes, Summary
from lirastore.engine import planning
from lirastore.engine.matrix import MatrixFile
from lirastore.errors import AttackError, DamagedStore, MissingData, MissingDependency
from lirastore.store import LogitStore


def run(store: LogitStore, *chosen: Attack, **options: Any) -> list[results.Result]:
    return engine.run(store, chosen, engine.Options(progress=False, **options))


def scores(store: LogitStore, attack: Attack, **options: Any) -> np.ndarray[Any, Any]:
    return stores.matrix(store, run(store, attack, force=True, **options)[0])


def small_tiles(monkeypatch: pytest.MonkeyPatch, rows: int = 512) -> None:
    monkeypatch.setattr(planning, "TILE_BYTES", 8 * 2 * 8 * 16)
    monkeypatch.setattr(planning, "PART_ROWS", rows)
    monkeypatch.setattr(planning, "MIN_BLOCK_ROWS", 1)


# --- matrices ---------------------------------------------------------------------------------------


def test_a_target_is_finished_with_all_its_examples(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tiles(monkeypatch)
    shared = replace(engine_attacks.SHARE, function=lambda block: block.summary(engine_attacks.SHARES))
    (result,) = run(store, shared, threads=2)
    assert len(result.parts) > 3
    np.testing.assert_array_equal(stores.matrix(store, result), engine_attacks.shares(store))
    assert result.bytes_read == engine.plan(store, [shared], engine.Options(threads=2)).bytes_to_read


def test_the_same_to_the_bit_whatever_memory_threads_and_blocks(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tiles(monkeypatch, rows=1 << 20)
    whole = scores(store, engine_attacks.SHARE, threads=1)
    for rows, threads in ((128, 1), (300, 3), (700, 2)):
        monkeypatch.setattr(planning, "PART_ROWS", rows)
        np.testing.assert_array_equal(scores(store, engine_attacks.SHARE, threads=threads), whole)


def test_targets_know_their_membership_and_what_came_before(store: LogitStore) -> None:
    seen: dict[int, Any] = {}

    def finish(row: attacks.TargetRow) -> Any:
        seen[row.target] = (row.member.copy(), row.attack_mask, row.known["means"][row.target])
        return row.values

    first = PerTarget(
        "kept", ("scaled_logit",), lambda block: block.signal()[:, :, 1].astype(np.float64), finish,
        requires=(engine_attacks.MEANS,),
    )  # fmt: skip
    found = scores(store, Attack("kept", lambda block: block.summary(first), summaries=(first,)))
    phi = stores.phi(store)
    np.testing.assert_array_equal(found, phi[:, :, 1])
    assert sorted(seen) == list(range(8))
    for target, (member, mask, mean) in seen.items():
        assert (member == store.membership()[target]).all()
        assert mask is None
        assert mean == pytest.approx(phi[target, :, 0].mean(dtype=np.float64))


def test_a_matrix_may_be_read_by_first_passes_too(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
    largest = Summary(
        "largest-share",
        (),
        lambda block: block.summary(engine_attacks.SHARES).max(axis=1),
        np.maximum,
        lambda most: most,
        requires=(engine_attacks.SHARES,),
    )
    attack = Attack(
        "below",
        lambda block: block.summary(engine_attacks.SHARES) - block.summary(largest)[:, None],
        summaries=(largest, engine_attacks.SHARES),
    )
    shares = engine_attacks.shares(store)
    np.testing.assert_array_equal(scores(store, attack), shares - shares.max(axis=1)[:, None])


def test_nothing_is_left_of_a_matrix(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no name from the start, so that a process that is killed leaves nothing either."""
    folder = results.results_folder(store.lira)
    found: list[set[str]] = []

    def look(block: Block) -> Any:
        found.append({path.name for path in folder.iterdir()})
        handles = [os.path.realpath(handle) for handle in Path("/proc/self/fd").iterdir()]
        assert [handle for handle in handles if str(folder) in handle and "deleted" in handle]
        return block.summary(engine_attacks.SHARES)

    scores(store, replace(engine_attacks.SHARE, function=look))
    assert found == [{"scores"}]
    handles = [os.path.realpath(handle) for handle in Path("/proc/self/fd").iterdir()]
    assert not [handle for handle in handles if str(folder) in handle]


@pytest.mark.parametrize(
    ("chunk", "finish", "message"),
    [
        (lambda block: np.zeros(3), lambda row: row.values, r"`chunk` of the first pass 'odd'.*\(3,\)"),
        (lambda block: block.member, lambda row: row.values, r"`chunk`.*returned bool"),
        (lambda block: np.zeros(block.member.shape), lambda row: 1.0, r"`finish`.*expected float64 of shape"),
    ],
)
def test_malformed_values_are_named(
    store: LogitStore, chunk: Callable[[Block], Any], finish: Callable[[Any], Any], message: str
) -> None:
    first = PerTarget("odd", ("scaled_logit",), chunk, finish)
    attack = Attack("odd", lambda block: block.summary(first), summaries=(first,))
    with pytest.raises(AttackError, match=message):
        run(store, attack)
    assert results.current(store.lira) == {}


def test_an_error_while_targets_are_finished_ends_the_run(store: LogitStore) -> None:
    done = []

    def finish(row: attacks.TargetRow) -> Any:
        if row.target == 2:
            raise ZeroDivisionError
        done.append(row.target)
        return row.values

    first = PerTarget("odd", ("scaled_logit",), lambda block: np.zeros(block.member.shape), finish)
    with pytest.raises(ZeroDivisionError):
        run(store, Attack("odd", lambda block: block.summary(first), summaries=(first,)), threads=1)
    assert results.current(store.lira) == {}


def test_the_plan_counts_the_files(store: LogitStore) -> None:
    plan = engine.plan(store, [engine_attacks.SHARE], engine.Options())
    assert plan.scratch == 8 * 300 * 8
    assert "19 KiB of temporary files" in str(plan)
    assert len(plan.passes) == 3


def test_a_matrix_is_written_by_parts_and_read_by_others(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 50))
    with MatrixFile(tmp_path, 3, 50) as matrix:
        for start in (20, 0, 37):
            stop = {0: 20, 20: 37, 37: 50}[start]
            matrix.write(start, values[:, start:stop])
        assert list(tmp_path.iterdir()) == []
        np.testing.assert_array_equal(matrix.read(11, 43), values[:, 11:43])
        matrix.put(1, matrix.row(1) * 2)
        part = matrix.part(10, 40)
        np.testing.assert_array_equal(part.read(15, 20)[1], values[1, 15:20] * 2)
        np.testing.assert_array_equal(matrix.row(2), values[2])
    with MatrixFile(tmp_path, 3, 50) as matrix, pytest.raises(OSError, match="shorter"):
        matrix.read(0, 1)


# --- signals per class ------------------------------------------------------------------------------


def test_signals_per_class(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
    np.testing.assert_array_equal(scores(store, engine_attacks.CLASSES), engine_attacks.spreads(store))


def test_blocks_know_which_signals_are_per_class(store: LogitStore) -> None:
    seen: list[tuple[Any, ...]] = []

    def look(block: Block) -> Any:
        seen.append((block.per_class, block.signal("first_logits").shape, block.signal().shape))
        assert block.signal("first_logits", queries="first").shape[2] == 5
        return block.signal()[:, :, 0]

    run(store, Attack("looking", look, signals=("first_logits", "scaled_logit")))
    assert seen == [(frozenset({"first_logits"}), (8, 300, 5), (8, 300, 2))]


def test_a_stored_array_of_that_name_is_per_query(tmp_path: Path) -> None:
    made = stores.make_signal_only(tmp_path / "a.lira", signals=("first_logits",))
    seen: list[Any] = []

    def look(block: Block) -> Any:
        seen.append((block.per_class, block.signal("first_logits").shape))
        return block.signal("first_logits")[:, :, 0]

    run(made, Attack("looking", look, signals=("first_logits",)))
    assert seen == [(frozenset(), (6, 50, 1))]


# --- facts --------------------------------------------------------------------------------------------


def facts_seen(store: LogitStore, **options: Any) -> Facts:
    seen: list[Facts] = []

    def note(attack: Attack, facts: Facts) -> Attack:
        seen.append(facts)
        return attack

    run(store, Attack("noting", lambda block: block.signal()[:, :, 0], for_store=note), **options)
    return seen[0]


def test_facts_of_a_store(store: LogitStore) -> None:
    facts = facts_seen(store, seed=5)
    assert facts.arrays == {"logits", "scaled_logit"}
    assert facts.models.tolist() == list(range(8))
    assert facts.augmentations == store.info.augmentations
    assert facts.seed == 5
    largest = int(np.bincount(store.labels()).max())
    assert facts.sizes == Sizes(models=8, examples=300, queries=2, classes=5, largest_class=largest)
    assert facts.population is None
    assert facts.features is None


def test_facts_of_a_store_without_logits(tmp_path: Path) -> None:
    facts = facts_seen(stores.make_signal_only(tmp_path / "a.lira"))
    assert facts.sizes.classes == 0
    assert facts.arrays == {"scaled_logit"}


def test_population_and_features_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features, points = rng.normal(size=(300, 3)).astype(np.float32), rng.normal(size=(8, 40)).astype("f4")
    made = stores.make_partly(
        tmp_path / "a.lira", stores.Shape(), models=0, features=features, population=40, name="CIFAR-10"
    )
    for model in range(8):
        stores.fill(made, model, population=points[model])
    facts = facts_seen(made)
    assert facts.name == "CIFAR-10"
    assert facts.arrays == {"logits", "scaled_logit"}
    assert facts.population is not None
    assert facts.features is not None
    np.testing.assert_array_equal(facts.population(), points)
    assert facts.population().dtype == np.float32
    np.testing.assert_array_equal(facts.features(20, 50), features[20:50])
    with pytest.raises(MissingData, match="population_scaled_logit"):
        run(made, Attack("odd", lambda block: 0, signals=("population_scaled_logit",)))
    data = next(file for file in (made.path / "population_scaled_logit/c/3").rglob("*") if file.is_file())
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(DamagedStore, match="model 3"):
        facts.population()


def chosen_for(store: LogitStore) -> Attack:
    def choose(attack: Attack, facts: Facts) -> Attack:
        query = facts.sizes.queries - 1
        return replace(
            attack,
            function=lambda block: block.signal()[:, :, query],
            signals=("scaled_logit",),
            parameters={"query": query, "population": facts.population is not None},
        )

    return Attack(
        "chosen", lambda block: 1 / 0, signals=("none",), described=True, parameters={}, for_store=choose
    )


def test_an_attack_is_run_and_stamped_as_the_store_can_give_it(
    store: LogitStore, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = chosen_for(store)
    able, refused = engine.feasible(store, [attack])
    assert (able, refused) == ([attack], {})
    (result,) = run(store, attack)
    np.testing.assert_array_equal(stores.matrix(store, result), stores.phi(store)[:, :, 1])
    assert result.parameters == {"query": 1, "population": False}
    engine.run(store, [attack])
    assert "up to date: chosen" in capsys.readouterr().err
    assert [read.array.name for read in engine.plan(store, [attack], engine.Options()).readings] == [
        "scaled_logit"
    ]


@pytest.mark.parametrize("error", [MissingData, MissingDependency])
def test_an_attack_that_the_store_cannot_give_is_refused(store: LogitStore, error: type[Exception]) -> None:
    def refuse(attack: Attack, facts: Facts) -> Attack:
        raise error("store the noise queries; see the README")

    attack = Attack("refused", lambda block: 0, for_store=refuse)
    able, refused = engine.feasible(store, [attack, attacks.named("loss")])
    assert [one.name for one in able] == ["loss"]
    assert str(refused["refused"]) == "store the noise queries; see the README"
    with pytest.raises(error, match="store the noise queries"):
        run(store, attack)


# --- memory of states ---------------------------------------------------------------------------------


def test_what_a_summary_says_of_its_states_is_planned(store: LogitStore) -> None:
    def plan(state_bytes: Any) -> int:
        first = replace(engine_attacks.MEANS, state_bytes=state_bytes)
        attack = Attack("planned", lambda block: block.summary(first), summaries=(first,))
        return engine.plan(store, [attack], engine.Options(threads=1)).projected

    seen: list[Sizes] = []

    def much(sizes: Sizes) -> int:
        seen.append(sizes)
        return 50 << 20

    assert plan(much) - plan(lambda sizes: 0) == 50 << 20
    assert plan(None) > plan(lambda sizes: 0)
    assert seen[0].models == 8
