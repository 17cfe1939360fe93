"""The plan: blocks and tiles, the arrays that are read, and the memory that is promised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import engine_stores as stores
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lirastore import attacks, engine
from lirastore.engine.grid import Grid, cut, make_grid
from lirastore.engine.planning import BASE_BYTES
from lirastore.engine.reading import bytes_read
from lirastore.errors import InputError, MemoryBudgetError, MissingData
from lirastore.store import LogitStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LogitStore:
    shape = stores.Shape(models=6, examples=40_000, queries=1, classes=10)
    return stores.make(tmp_path_factory.mktemp("plan") / "a.lira", shape)


grids = st.builds(
    make_grid, st.integers(1, 5000), st.integers(1, 900), st.lists(st.integers(1, 900), max_size=3)
)


@given(grids, st.integers(1, 200), st.integers(1, 900))
def test_blocks_cover_the_examples_and_are_whole_tiles(grid: Grid, count: int, chunk: int) -> None:
    blocks = cut(grid, count, chunk)
    assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks[:-1])]
    assert blocks[-1][1] == grid.examples
    tiles = list(grid.tiles(0, grid.examples))
    assert [tile for block in blocks for tile in grid.tiles(*block)] == tiles
    assert max(stop - start for start, stop in tiles) == grid.largest


@given(grids)
def test_the_smallest_blocks_are_tiles(grid: Grid) -> None:
    blocks = cut(grid, 4 * grid.examples)
    assert max(stop - start for start, stop in blocks) <= grid.largest


@given(st.integers(1, 5000), st.integers(1, 900), st.lists(st.integers(1, 900), max_size=3))
def test_tiles_start_anew_with_every_long_chunk(examples: int, tile: int, chunks: list[int]) -> None:
    grid = make_grid(examples, tile, chunks)
    starts = [start for start, _ in grid.tiles(0, examples)]
    assert grid.largest <= tile
    assert all(set(range(0, examples, chunk)) <= set(starts) for chunk in chunks if chunk > tile)
    if chunks and max(chunks) <= tile:
        assert all(start % max(chunks) == 0 for start in starts)


def test_large_blocks_end_where_inner_chunks_end() -> None:
    blocks = cut(make_grid(100_000, 300, [1000, 17_000]), 9, 1000)
    assert all(start % 1000 == 0 for start, _ in blocks)


def test_bytes_read_counts_whole_inner_chunks(store: LogitStore) -> None:
    spec = store.arrays["logits"]
    assert spec.chunk < spec.examples
    assert bytes_read(spec, [(0, spec.examples)]) == spec.examples * 40
    cut = spec.chunk + 1
    assert bytes_read(spec, [(0, cut), (cut, spec.examples)]) == (2 * spec.examples - spec.chunk) * 40


def test_the_plan_states_what_it_does(store: LogitStore) -> None:
    plan = engine.plan(store, [attacks.named("lira_online")], engine.Options(threads=2, memory=1 << 30))
    assert "6 models × 40000 examples from scaled_logit" in str(plan)
    assert "of 1.0 GiB" in str(plan)
    assert plan.projected <= plan.budget
    assert plan.bytes_to_read == 6 * 40_000 * 4 + plan.bytes_reread


def test_small_work_is_not_cut_and_large_bytes_are(store: LogitStore, tmp_path: Path) -> None:
    attack, options = attacks.named("lira_online"), engine.Options(threads=4)
    assert len(engine.plan(stores.make(tmp_path / "a.lira"), [attack], options).blocks) == 1
    by_rows = engine.plan(store, [attack], options)
    assert len(by_rows.blocks) == 4
    few_rows = stores.make(tmp_path / "b.lira", stores.Shape(models=4, examples=3000, queries=4, classes=400))
    assert len(engine.plan(few_rows, [attack], options).blocks) == 1
    assert len(engine.plan(few_rows, [attack], replace(options, source="logits")).blocks) == 3


def test_tiles_depend_neither_on_memory_nor_on_threads(store: LogitStore) -> None:
    attack = attacks.named("lira_online")
    ample = engine.plan(store, [attack], engine.Options(threads=1))
    tight = engine.plan(
        store,
        [attack],
        engine.Options(threads=3, memory=stores.least_budget(store, "lira_online", threads=3)),
    )
    assert tight.grid == ample.grid
    assert len(tight.blocks) > len(ample.blocks)


def test_a_budget_too_small_names_the_smallest_that_works(store: LogitStore) -> None:
    attack, least = attacks.named("lira_online"), stores.least_budget(store, "lira_online", threads=2)
    assert least > BASE_BYTES
    plan = engine.plan(store, [attack], engine.Options(memory=least, threads=2))
    assert plan.projected <= least
    with pytest.raises(MemoryBudgetError):
        engine.plan(store, [attack], engine.Options(memory=least - 1, threads=2))


def test_threads_are_given_up_before_the_budget_is(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lirastore.engine.planning._cores", lambda: 8)
    least = stores.least_budget(store, "lira_online", threads=1)
    plan = engine.plan(store, [attacks.named("lira_online")], engine.Options(memory=least))
    assert plan.threads == 1


@pytest.mark.parametrize("options", [engine.Options(memory=0), engine.Options(threads=0)])
def test_nonsense_is_refused(store: LogitStore, options: engine.Options) -> None:
    with pytest.raises(InputError, match="expected at least 1"):
        engine.plan(store, [attacks.named("loss")], options)


def test_each_array_is_read_once_for_all_attacks(store: LogitStore) -> None:
    names = ("lira_online", "loss", "memorization", "watson")
    plan = engine.plan(store, [attacks.named(name) for name in names], engine.Options())
    assert [reading.array.name for reading in plan.readings] == ["logits", "scaled_logit"]


def test_source_is_preferred_where_it_serves(store: LogitStore) -> None:
    options = engine.Options(source="logits")
    plan = engine.plan(store, [attacks.named("lira_online")], options)
    assert [reading.array.name for reading in plan.readings] == ["logits"]


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    store = stores.make_signal_only(tmp_path / "a.lira")
    with pytest.raises(MissingData, match="'logits'"):
        engine.plan(store, [attacks.named("lira_online")], engine.Options(source="logits"))


def test_first_passes_are_planned(store: LogitStore) -> None:
    plan = engine.plan(store, [attacks.named("lira_online_fixed")], engine.Options())
    assert len(plan.passes) == 2
    assert plan.bytes_to_read == 2 * (6 * 40_000 * 4) + plan.bytes_reread


def test_feasible_names_what_is_missing(tmp_path: Path) -> None:
    store = stores.make_signal_only(tmp_path / "a.lira")
    named = [attacks.named("loss"), attacks.named("memorization")]
    able, refused = engine.feasible(store, named)
    assert [attack.name for attack in able] == ["loss"]
    assert "logits" in str(refused["memorization"])


@given(grids)
def test_tiles_are_counted(grid: Grid) -> None:
    tiles = list(grid.tiles(0, grid.examples))
    assert [grid.index(start) for start, _ in tiles] == list(range(len(tiles)))
    assert grid.index(grid.examples) == len(tiles) == grid.tiles_in_all


def test_tiles_hang_on_the_store_and_not_on_what_is_read(tmp_path: Path) -> None:
    shape = stores.Shape(models=4, examples=6000, queries=4, classes=400)
    made = stores.make_partly(tmp_path / "a.lira", shape, models=0, signals=("merlin",))
    names = (["loss"], ["lira_online_fixed", "memorization"], ["ye", "loss", "lira_offline", "watson"])
    grids = {
        engine.plan(made, [attacks.named(name) for name in some], engine.Options(), models=4).grid
        for some in names
    }
    assert len(grids) == 1


def test_the_models_are_those_of_the_run_that_asks(store: LogitStore) -> None:
    attack = attacks.named("lira_online")
    plan = engine.plan(store, [attack], engine.Options(), models=3)
    assert plan.models == 3
    assert plan.bytes_to_read == 3 * 40_000 * 4 + plan.bytes_reread


def test_feasible_heeds_the_options(tmp_path: Path) -> None:
    member = np.arange(8)[:, None] < np.array([4, 1, 4, 3, 4, 4])
    made = stores.make(tmp_path / "a.lira", stores.Shape(examples=6), membership=member)
    online = [attacks.named("lira_online")]
    assert not engine.feasible(made, online)[0]
    assert engine.feasible(made, online, engine.Options(skip_unattackable=True))[0] == online
    equal = engine.Options(skip_unattackable=True, equal_counts=True)
    assert engine.feasible(made, online, equal)[0] == online
    narrow = np.arange(5)[:, None] < np.full(6, 2)
    made = stores.make(tmp_path / "b.lira", stores.Shape(models=5, examples=6), membership=narrow)
    offline = [attacks.named("lira_offline")]
    assert engine.feasible(made, offline)[0] == offline
    assert "lira_offline" in engine.feasible(made, offline, engine.Options(equal_counts=True))[1]
    only_signals = stores.make_signal_only(tmp_path / "c.lira")
    refused = engine.feasible(only_signals, offline, engine.Options(source="logits"))[1]
    assert "'logits'" in str(refused["lira_offline"])


def test_a_pooled_variance_without_degrees_of_freedom_is_not_feasible(tmp_path: Path) -> None:
    member = np.array([[True, True], [True, True], [False, False], [False, False]])
    made = stores.make(tmp_path / "a.lira", stores.Shape(models=4, examples=2), membership=member)
    named = [attacks.named("loss"), attacks.named("lira_online_fixed")]
    able, refused = engine.feasible(made, named)
    assert [attack.name for attack in able] == ["loss"]
    assert "degrees of freedom" in str(refused["lira_online_fixed"])
    with pytest.raises(MissingData, match="degrees of freedom"):
        engine.run(made, named, engine.Options())
    assert not list((made.lira / "results").rglob("*.parquet"))
    assert not (made.lira / "results" / "scores" / "loss").exists()


def test_feasible_counts_models(tmp_path: Path) -> None:
    store = stores.make(tmp_path / "a.lira", replace(stores.Shape(), models=2, examples=20))
    able, refused = engine.feasible(store, [attacks.named("loss"), attacks.named("lira_online")])
    assert [attack.name for attack in able] == ["loss"]
    assert "--skip-unattackable" in str(refused["lira_online"])
