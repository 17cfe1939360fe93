"""Runs: scores, files, warnings, refusals."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine_attacks
import engine_stores as stores
import numpy as np
import pyarrow.parquet as pq
import pytest
from dask.callbacks import Callback

from lirastore import attacks, engine, results, subsets
from lirastore.attacks import Attack, Block, MinimumCounts, Summary
from lirastore.engine import planning
from lirastore.errors import (
    AttackError,
    DamagedStore,
    FormatVersionError,
    InputError,
    LirastoreError,
    MissingData,
    ModelNotCommitted,
    ResultError,
)
from lirastore.store import LogitStore, create, discard
from lirastore.store.fsio import entries


def run(store: LogitStore, *chosen: str | Attack, **options: Any) -> list[results.Result]:
    return engine.run(store, [attacks.resolve(attack) for attack in chosen], engine.Options(**options))


def small_tiles(monkeypatch: pytest.MonkeyPatch, bytes_: int = 8 * 2 * 8 * 16, rows: int = 512) -> None:
    """Tiles of 16 examples and blocks of 64, for stores of 8 models with 2 queries."""
    monkeypatch.setattr(planning, "TILE_BYTES", bytes_)
    monkeypatch.setattr(planning, "PART_ROWS", rows)
    monkeypatch.setattr(planning, "MIN_BLOCK_ROWS", 1)


# --- scores ----------------------------------------------------------------------------------------


def test_scores_are_those_of_the_definition(store: LogitStore) -> None:
    (result,) = run(store, "lira_online")
    np.testing.assert_allclose(stores.matrix(store, result), stores.naive_online(store), rtol=1e-9, atol=1e-9)
    assert results.current(store.lira) == {"lira_online": result}


def test_rows_are_sorted_and_say_who_is_a_member(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
    (result,) = run(store, "loss")
    assert len(result.parts) > 3
    columns = stores.table(store, result)
    order = np.lexsort((columns["model"], columns["example"]))
    assert (order == np.arange(result.rows)).all()
    assert (columns["member"] == store.membership()[columns["model"], columns["example"]]).all()
    firsts = [int(Path(part).stem.removeprefix("part-")) for part in result.parts]
    assert firsts == [columns["example"][rows] for rows in _part_starts(result)]


def _part_starts(result: results.Result) -> list[int]:
    sizes = [result.objects[part].rows for part in result.parts]
    return [0, *np.cumsum(sizes)[:-1].tolist()]


def test_columns_have_the_types_of_the_contract(store: LogitStore) -> None:
    (result,) = run(store, "loss")
    schema = pq.read_schema(result.files(store.lira)[0])
    assert dict(zip(schema.names, map(str, schema.types), strict=True)) == {
        "model": "int64",
        "example": "int64",
        "score": "double",
        "member": "bool",
    }


def test_row_groups_hold_whole_examples(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch, rows=10_000)
    monkeypatch.setattr(planning, "GROUP_ROWS", 300)
    (result,) = run(store, "loss", threads=1)
    footer = pq.read_metadata(result.files(store.lira)[0])
    assert footer.num_row_groups > 3
    spans = [footer.row_group(i).column(1).statistics for i in range(footer.num_row_groups)]
    assert all(before.max < after.min for before, after in itertools.pairwise(spans))


@pytest.mark.parametrize("name", ["lira_online", "lira_online_fixed", "lira_offline_fixed"])
def test_the_same_to_the_bit_whatever_memory_threads_and_blocks(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    small_tiles(monkeypatch, rows=1 << 20)
    (whole,) = run(store, name, threads=1)
    expected = stores.matrix(store, whole)
    assert len(whole.parts) == 1
    for rows, threads in ((128, 1), (300, 3), (700, 2)):
        monkeypatch.setattr(planning, "PART_ROWS", rows)
        (result,) = run(store, name, threads=threads, force=True)
        assert len(result.parts) > 1
        assert (stores.matrix(store, result) == expected).all()


def test_logits_and_scaled_logit_give_the_same_scores(store: LogitStore) -> None:
    (fast,) = run(store, "lira_online")
    first = stores.matrix(store, fast)
    (slow,) = run(store, "lira_online", source="logits")
    np.testing.assert_allclose(stores.matrix(store, slow), first, rtol=1e-4, atol=1e-4)
    assert slow.bytes_read == fast.bytes_read * 5


def test_one_dask_task_per_block(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
    plan = engine.plan(store, [attacks.named("lira_online")], engine.Options(threads=2))
    tasks: list[object] = []
    with Callback(pretask=lambda key, *_: tasks.append(key)):
        run(store, "lira_online", threads=2)
    assert len(tasks) == len(plan.blocks) > 3


def test_every_array_is_read_once_for_all_attacks(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
    read: list[tuple[str, int, int, int]] = []
    _spy_reads(monkeypatch, lambda *what: read.append(what))
    run(store, "lira_online", "loss", "watson", "memorization")
    assert len(set(read)) == len(read)
    for array in ("logits", "scaled_logit"):
        assert sum(stop - start for name, _, start, stop in read if name == array) == 8 * 300


def _spy_reads(monkeypatch: pytest.MonkeyPatch, note: Callable[..., object]) -> None:
    original = LogitStore.read

    def read(self: LogitStore, array: str, model: int, start: int, stop: int, **more: Any) -> Any:
        note(array, model, start, stop)
        return original(self, array, model, start, stop, **more)

    monkeypatch.setattr(LogitStore, "read", read)


def test_a_summary_of_membership_alone_reads_nothing(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    _spy_reads(monkeypatch, lambda *what: read.append(what))
    seen = Summary("members", (), lambda block: int(block.member.sum()), lambda a, b: a + b, float)
    attack = Attack(
        "share", lambda block: np.full(block.member.shape, block.summary(seen)), signals=(), summaries=(seen,)
    )
    (result,) = run(store, attack)
    assert (stores.matrix(store, result) == store.membership().sum()).all()
    assert read == []
    assert result.bytes_read == 0


def test_summaries_may_require_summaries(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
    values = stores.phi(store).astype(np.float64)
    total = Summary("total", ("scaled_logit",), _sum, lambda a, b: a + b, lambda s: s / values.size)
    spread = Summary(
        "spread",
        ("scaled_logit",),
        lambda block: float(((block.signal() - block.summary(total)) ** 2).sum()),
        lambda a, b: a + b,
        lambda s: s / values.size,
        requires=(total,),
    )
    attack = Attack(
        "z", lambda block: block.signal()[:, :, 0] / block.summary(spread), summaries=(spread, total)
    )
    (result,) = run(store, attack)
    np.testing.assert_allclose(stores.matrix(store, result), values[:, :, 0] / values.var(), rtol=1e-5)


def _sum(block: Block) -> float:
    return float(block.signal().sum(dtype=np.float64))


def test_memorization_is_a_result_of_examples(store: LogitStore) -> None:
    (result,) = run(store, "memorization")
    assert result.kind == "examples"
    assert result.parts[0].startswith("examples/memorization/")
    columns = stores.table(store, result)
    assert list(columns) == ["example", "p_correct_in", "p_correct_out", "memorization"]
    logits = np.stack([store.read("logits", model, 0, 300) for model in range(8)])
    correct = logits[:, :, 0].argmax(axis=2) == store.labels()
    expected = np.mean(correct, axis=0, where=store.membership())
    np.testing.assert_allclose(columns["p_correct_in"], expected)


def test_pairs_are_as_many_as_a_tile_has(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
    (result,) = run(store, engine_attacks.PAIRS)
    assert result.kind == "pairs"
    assert result.columns == ("example", "other", "influence")
    assert result.parts[0].startswith("pairs/nearest/")
    assert len(result.parts) > 3
    columns = stores.table(store, result)
    expected = np.sort([*range(0, 300, 3), *range(0, 300, 6)])
    assert columns["example"].tolist() == expected.tolist()
    assert (columns["other"] == expected - 1).all()
    assert (columns["influence"] == expected / 2).all()
    assert [str(values.dtype) for values in columns.values()] == ["int64", "int64", "float64"]
    assert results.verify_results(store.lira) == []
    assert run(store, Attack("none", lambda block: {"example": np.zeros(0, int)}, kind="pairs"))[0].rows == 0


def test_columns_may_not_change_between_tiles(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
    for other in ({"example": np.zeros(3)}, {"another": np.zeros(3, np.int64)}):
        said = [{"example": np.arange(2)}, other]
        attack = Attack("fickle", lambda block, said=said: said[bool(block.start)], kind="pairs")
        with pytest.raises(AttackError, match="the columns of fickle changed from example int64 to"):
            run(store, attack)
    assert nothing_published(store)


# --- many at once ------------------------------------------------------------------------------------


def test_what_else_runs_does_not_change_a_bit(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither other signals, wider ones, other arrays, nor the number of attacks."""
    small_tiles(monkeypatch, rows=700)
    alone = {}
    for name in ("lira_online_fixed", "lira_offline_fixed", "watson"):
        (result,) = run(store, name)
        alone[name] = stores.matrix(store, result)
    chosen = [
        engine_attacks.SHARE,
        engine_attacks.CLASSES,
        *map(attacks.named, [*alone, "memorization", "ye"]),
    ]
    for result in run(store, *chosen, force=True):
        if result.attack in alone:
            np.testing.assert_array_equal(stores.matrix(store, result), alone[result.attack])


def test_many_attacks_share_the_columns_that_are_equal_and_flush_earlier(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tiles(monkeypatch, rows=10_000)
    for constant, value in (("GROUP_ROWS", 1000), ("BUFFERED_ROWS", 2000), ("LEAST_GROUP_ROWS", 300)):
        monkeypatch.setattr(planning, constant, value)
    names = ["loss", "watson", "ye", "lira_online", "lira_offline", "sablayrolles", "lira_online_fixed"]
    groups = {}
    for count in (1, 4, 7):
        found = run(store, *names[:count], force=True, threads=1)
        footer = pq.read_metadata(found[0].files(store.lira)[0])
        groups[count] = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    tile = 16 * 8
    assert groups == {
        1: [7 * tile, 7 * tile, 2400 - 14 * tile],
        4: [3 * tile] * 5 + [2400 - 15 * tile],
        7: [2 * tile] * 9 + [2400 - 18 * tile],
    }
    plans = [
        engine.plan(store, [attacks.named(name) for name in names[:n]], engine.Options()) for n in (6, 7)
    ]
    assert 0 < plans[1].projected - plans[0].projected < 2 * 64 * 2400


def test_limits_are_named_after_and_nothing_else_is(store: LogitStore) -> None:
    mine = Attack("mine__k4_q1", lambda block: block.signal()[:, :, 0])
    with pytest.raises(AttackError, match=r"mine__k4_q1.*choose another name"):
        run(store, mine)


# --- up to date, forced, stale -----------------------------------------------------------------------


def test_up_to_date_attacks_are_left_alone(store: LogitStore, capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = run(store, "loss")
    (again,) = run(store, "loss")
    assert again == first
    assert "up to date: loss" in capsys.readouterr().err


def test_functions_of_users_are_never_up_to_date(store: LogitStore) -> None:
    """Nothing tells them apart by what they close over, or by what the modules that they import now do."""

    def make(alpha: float) -> Attack:
        @attacks.attack("scaled_by_a_closure")
        def mine(block: Block) -> Any:
            return alpha * block.signal()[:, :, 0].astype(np.float64)

        return mine

    for alpha in (0.0, 1.0, 1.0):
        before = results.current(store.lira).get("scaled_by_a_closure")
        (result,) = run(store, make(alpha))
        assert (stores.matrix(store, result) == alpha * stores.phi(store)[:, :, 0]).all()
        assert before is None or before.run != result.run
        assert "source_sha256" in result.parameters


def test_a_file_follows_the_modules_that_it_imports(
    store: LogitStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "idea.py").write_text("def idea(block):\n    import weights\n    return weights.of(block)\n")
    for weight in (1, 2):
        monkeypatch.delitem(sys.modules, "weights", raising=False)
        source = f"def of(block):\n    return {weight} * block.signal()[:, :, 0]  # {'again' * weight}\n"
        (tmp_path / "weights.py").write_text(source)
        (result,) = run(store, f"{tmp_path}/idea.py:idea")
        assert (stores.matrix(store, result) == weight * stores.phi(store)[:, :, 0]).all()


def test_what_is_going_to_happen_is_said(store: LogitStore, capsys: pytest.CaptureFixture[str]) -> None:
    run(store, "loss")
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("loss: 8 models", "1 block ", "reads", "memory"):
        assert part in line
    run(store, "loss", force=True, progress=False)
    assert capsys.readouterr().err == ""


def test_another_preset_or_other_counts_are_said_to_be_replaced(
    store: LogitStore, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(name: str, **options: Any) -> str:
        attack = attacks.named(name, preset=options.get("preset", "paper"))
        engine.run(store, [attack], engine.Options(progress=False, **options))
        return capsys.readouterr().err

    assert said("lira_online") == ""
    line = said("lira_online", preset="carlini-code")
    assert line == "lira_online: replaces the result with preset paper; another --name keeps both\n"
    assert said("lira_online", preset="carlini-code", force=True) == ""
    assert "with preset carlini-code and all shadow models;" in said("lira_online", equal_counts=True)
    assert "with equal counts;" in said("lira_online")
    assert said("lira_online", seed=1) == ""


def test_force_computes_again_in_a_run_of_its_own(store: LogitStore) -> None:
    (first,) = run(store, "loss")
    (again,) = run(store, "loss", force=True)
    assert again.run != first.run
    assert all(file.exists() for file in first.files(store.lira))
    assert (stores.matrix(store, again) == stores.matrix(store, first)).all()


@pytest.mark.parametrize("change", [{"seed": 1}, {"equal_counts": True}, {"source": "logits"}])
def test_other_options_are_another_computation(store: LogitStore, change: dict[str, Any]) -> None:
    (first,) = run(store, "lira_online")
    (other,) = run(store, "lira_online", **change)
    assert other.run != first.run


def test_a_lost_part_is_computed_again(store: LogitStore) -> None:
    (first,) = run(store, "loss")
    first.files(store.lira)[0].unlink()
    (again,) = run(store, "loss")
    assert again.objects == first.objects
    assert results.verify_results(store.lira) == []


def test_results_of_other_models_are_stale(tmp_path: Path) -> None:
    shape = stores.Shape(models=8)
    store = stores.make_partly(tmp_path / "a.lira", shape, models=6)
    run(store, "loss")
    assert results.stale(store) == []
    stores.fill(store, 6)
    assert results.stale(store) == ["loss"]
    (again,) = run(store, "loss")
    assert again.models == (0, 1, 2, 3, 4, 5, 6)
    assert results.stale(store) == []


# --- refusals ------------------------------------------------------------------------------------------


def test_a_store_without_models(tmp_path: Path) -> None:
    store = stores.make_partly(tmp_path / "a.lira", stores.Shape(), models=0)
    with pytest.raises(MissingData, match="no committed model"):
        run(store, "loss")


def test_an_attack_asked_for_twice(store: LogitStore) -> None:
    with pytest.raises(InputError, match="loss"):
        run(store, "loss", "loss")


def test_examples_with_too_few_models_are_named(tmp_path: Path) -> None:
    member = np.arange(8)[:, None] < np.array([4, 1, 4, 7, 4, 8])
    store = stores.make(tmp_path / "a.lira", stores.Shape(examples=6), membership=member)
    with pytest.raises(MissingData, match=r"examples 1, 3, 5 have fewer"):
        run(store, "lira_online")
    (result,) = run(store, "lira_online", skip_unattackable=True)
    scored = ~np.isnan(stores.matrix(store, result)).any(axis=0)
    assert scored.tolist() == [True, False, True, False, True, False]


def test_examples_marked_unattackable_are_never_scored(tmp_path: Path) -> None:
    mask = np.arange(300) % 3 != 0
    store = stores.make(tmp_path / "a.lira", attackable=mask)
    (result,) = run(store, "lira_online")
    assert (~np.isnan(stores.matrix(store, result)).any(axis=0) == mask).all()
    assert result.rows == 8 * 200


def test_no_example_left(tmp_path: Path) -> None:
    store = stores.make(tmp_path / "a.lira", stores.Shape(models=2, examples=10))
    with pytest.raises(MissingData, match="no example of 10"):
        run(store, "lira_online", skip_unattackable=True)


def nothing_published(store: LogitStore) -> bool:
    remains = list(results.results_folder(store.lira).rglob("*.partial"))
    return not results.current(store.lira) and not remains


def test_a_damaged_chunk_ends_the_run(store: LogitStore) -> None:
    path = next(file for file in (store.path / "scaled_logit" / "c" / "3").rglob("*") if file.is_file())
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedStore, match=r"model 3"):
        run(store, "lira_online", "loss")
    assert nothing_published(store)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_the_writer_refuses_are_damage(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    original = LogitStore.read

    def read(self: LogitStore, array: str, model: int, start: int, stop: int, **more: Any) -> Any:
        values = original(self, array, model, start, stop, **more)
        if model == 5:
            values[17, 0, 0] = value
        return values

    monkeypatch.setattr(LogitStore, "read", read)
    with pytest.raises(DamagedStore, match=r"logits of model 5 is NaN or infinite at examples 17;"):
        run(store, "lira_online", source="logits")
    assert nothing_published(store)


def test_large_finite_logits_are_no_damage(tmp_path: Path) -> None:
    member = np.arange(4)[:, None] < np.full(6, 2)
    store = create(
        tmp_path / "a.lira", labels=np.zeros(6, int), membership=member, augmentations=1, classes=2
    )
    for model in range(4):
        with store.writer(model) as writer:
            writer.write(np.full((6, 1, 2), 3e38, np.float32), examples=slice(0, 6))
    (result,) = run(store, "loss", source="logits")
    assert any("constant" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda block: 1 / 0, r"failed on examples 0 to 299: ZeroDivisionError"),
        (lambda block: np.zeros(3), r"shape \(3,\)"),
        (lambda block: np.full(block.member.shape, np.nan), r"NaN or infinite"),
        (lambda block: {"a": 1}, r"returned dict"),
    ],
)
def test_malformed_attacks_are_named(
    store: LogitStore, function: Callable[[Block], Any], message: str
) -> None:
    with pytest.raises(AttackError, match=message) as caught:
        run(store, Attack("mine", function))
    assert "'mine'" in str(caught.value)
    assert nothing_published(store)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([1.0], "expected columns"),
        ({}, "expected columns"),
        ({"a": np.zeros(2)}, "shape"),
        ({"a": "x"}, "dtype"),
        ({"a": np.zeros(300), "b": np.full(300, np.nan)}, "NaN or infinity in column 'b'"),
    ],
)
def test_malformed_example_columns_are_named(store: LogitStore, columns: object, message: str) -> None:
    with pytest.raises(AttackError, match=message):
        run(store, Attack("mine", lambda block: columns, kind="examples"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([1.0], "of kind 'pairs' returned list; expected columns"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, r"'b' of shape \(3,\).*expected numbers of shape \(2,\)"),
        ({"a": np.float64(1)}, r"shape \(\)"),
        ({"a": np.array(["x"])}, "dtype"),
        ({"a": np.array([np.inf])}, "NaN or infinity"),
    ],
)
def test_malformed_pairs_are_named(store: LogitStore, columns: object, message: str) -> None:
    with pytest.raises(AttackError, match=message):
        run(store, Attack("mine", lambda block: columns, kind="pairs"))


def test_errors_of_the_library_pass_through(store: LogitStore) -> None:
    with pytest.raises(MissingData, match="declare it"):
        run(store, Attack("mine", lambda block: block.signal("loss")))


# --- warnings --------------------------------------------------------------------------------------------


def test_a_saturated_signal_is_warned_of(tmp_path: Path) -> None:
    member = np.arange(4)[:, None] < np.full(100, 2)
    store = create(
        tmp_path / "a.lira", labels=np.zeros(100, int), membership=member, augmentations=1, classes=None
    )
    for model in range(4):
        values = np.random.default_rng(model).standard_normal((100, 1)).astype(np.float32)
        values[: 10 + model] = 103.6
        with store.writer(model) as writer:
            writer.write(examples=slice(0, 100), scaled_logit=values)
    (result,) = run(store, "loss")
    assert not any("saturated" in warning for warning in result.warnings if "scaled_logit" in warning)
    (online,) = run(store, Attack("raw", lambda block: block.signal()[:, :, 0]))
    assert any("saturated" in warning and "103.6" in warning for warning in online.warnings)


def test_lopsided_columns_and_small_balanced_designs_are_warned_of(tmp_path: Path) -> None:
    member = np.arange(24)[:, None] < np.array([12, 12, 2, 12])
    store = stores.make(tmp_path / "a.lira", stores.Shape(models=24, examples=4), membership=member)
    (result,) = run(store, "watson")
    assert any("1 examples have fewer than a tenth" in warning for warning in result.warnings)
    store = stores.make(tmp_path / "b.lira")
    (result,) = run(store, "lira_online")
    assert any("--equal-counts" in warning for warning in result.warnings)
    (result,) = run(store, "lira_online", equal_counts=True)
    assert result.warnings == ()


def test_leaving_examples_out_by_their_counts_is_warned_of(tmp_path: Path) -> None:
    member = np.arange(40)[:, None] < np.array([20, 1, 18, 20])
    mask = np.array([True, True, True, False])
    shape = stores.Shape(models=40, examples=4)
    store = stores.make(tmp_path / "a.lira", shape, membership=member, attackable=mask)
    (result,) = run(store, "lira_online", skip_unattackable=True)
    assert [line.partition(";")[0] for line in result.warnings] == [
        "1 examples with too few models were left out: 1"
    ]
    (result,) = run(store, "lira_offline", skip_unattackable=True)
    assert not any("left out" in line for line in result.warnings)


# --- result documents ------------------------------------------------------------------------------------


def test_documents_survive_the_way_through_json(store: LogitStore) -> None:
    (result,) = run(store, "loss")
    assert results.parse(result.to_json(), "loss.json") == result


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", ResultError),
        (b"[]", ResultError),
        (b"{}", ResultError),
        (b'{"format": 1}', ResultError),
        (b'{"format": 2}', FormatVersionError),
    ],
)
def test_documents_that_cannot_be_read(store: LogitStore, text: bytes, error: type[LirastoreError]) -> None:
    (result,) = run(store, "loss")
    path = store.lira / "results" / "current" / "loss.json"
    path.write_bytes(text)
    with pytest.raises(error, match=r"loss\.json"):
        results.current(store.lira)
    assert len(results.verify_results(store.lira)) == 1
    if error is ResultError:  # the remedy that the message names
        assert run(store, "loss")[0].objects == result.objects
    path.write_bytes(json.dumps({**json.loads(result.to_json()), "added_later": 1}).encode())
    assert results.current(store.lira) == {"loss": result}


def test_verification_finds_every_kind_of_damage(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
    (result,) = run(store, "loss")
    assert results.verify_results(store.lira) == []
    absent, short, altered = result.files(store.lira)[:3]
    absent.unlink()
    short.write_bytes(short.read_bytes()[:-1])
    data = bytearray(altered.read_bytes())
    data[50] ^= 1
    altered.write_bytes(data)
    found = results.verify_results(store.lira)
    assert [line.partition(": ")[0] for line in found] == list(result.parts[:3])
    for line, problem in zip(found, ("absent", "bytes, expected", "sha256"), strict=True):
        assert problem in line


def test_old_runs_go_by_age(store: LogitStore) -> None:
    (first,) = run(store, "loss")
    (second,) = run(store, "loss", force=True)
    assert results.remove_old_runs(store.lira) == []
    assert results.remove_old_runs(store.lira, older_than=0) == []
    stores.age_runs(store)
    assert results.remove_old_runs(store.lira, older_than=7200) == []
    assert results.remove_old_runs(store.lira, older_than=0) == [f"scores/loss/{first.run}"]
    assert not first.files(store.lira)[0].exists()
    assert results.verify_results(store.lira) == []
    assert results.current(store.lira)["loss"] == second


def test_what_vanishes_under_gc_is_tolerated(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run(store, "loss")
    run(store, "loss", force=True)
    stores.age_runs(store)
    monkeypatch.setattr(results, "entries", lambda folder: [*entries(folder), folder / ".gone.partial"])
    assert len(results.remove_old_runs(store.lira)) == 0
    assert len(results.remove_old_runs(store.lira, older_than=0)) == 1


def test_parts_removed_meanwhile_publish_nothing(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)

    def meddle(block: Block) -> Any:
        if block.stop == store.info.examples:
            next(store.lira.rglob("part-*.parquet")).unlink()
        return block.signal()[:, :, 0]

    with pytest.raises(ResultError, match="run it again"):
        run(store, Attack("mine", meddle), threads=1)
    assert nothing_published(store)


def test_gc_without_results(store: LogitStore) -> None:
    assert results.remove_old_runs(store.lira, older_than=0) == []


def test_minimum_counts_of_a_decorated_attack_are_heeded(tmp_path: Path) -> None:
    store = stores.make(tmp_path / "a.lira", stores.Shape(models=4, examples=10))
    attack = Attack("mine", lambda block: block.signal()[:, :, 0], minimum=MinimumCounts(3, 3))
    with pytest.raises(MissingData, match="3 IN and 3 OUT"):
        run(store, attack)


def test_bytes_read_are_those_of_the_plan(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
    chosen = [attacks.named("lira_online_fixed"), attacks.named("memorization")]
    plan = engine.plan(store, chosen, engine.Options(threads=2))
    found = engine.run(store, chosen, engine.Options(threads=2))
    assert {result.bytes_read for result in found} == {plan.bytes_to_read}
    assert plan.bytes_reread > 0


@pytest.mark.parametrize("rewritten", [False, True])
def test_a_model_withdrawn_meanwhile_publishes_nothing(tmp_path: Path, rewritten: bool) -> None:
    store = stores.make(tmp_path / "s.lira")

    def meddle(block: Block) -> Any:
        if 3 in store.committed() and block.start == 0:
            discard(store, [3])
            if rewritten:
                stores.fill(store, 3, seed=9)
        return block.signal()[:, :, 0]

    meddling = Attack(name="meddling", function=meddle)
    with pytest.raises(ModelNotCommitted, match=r"models 3 of .*run it again"):
        engine.run(store, [meddling], engine.Options(progress=False))
    assert results.current(store.lira) == {}


def test_a_model_added_meanwhile_is_not_part_of_it(tmp_path: Path) -> None:
    store = stores.make_partly(tmp_path / "s.lira", stores.Shape(), models=7)

    def add(block: Block) -> Any:
        if 7 not in store.committed():
            stores.fill(store, 7)
        return block.signal()[:, :, 0]

    (result,) = engine.run(store, [Attack(name="adding", function=add)], engine.Options(progress=False))
    assert result.models == tuple(range(7))
    assert results.stale(store) == ["adding"]


@pytest.mark.parametrize(
    ("design", "committed", "expected"),
    [("balanced", 7, "fixed"), ("balanced", 6, "fixed"), ("bernoulli", 7, True)],
)
def test_equal_counts_follow_the_design(
    tmp_path: Path, design: str, committed: int, expected: object
) -> None:
    member = subsets.draw(design, models=7, examples=300, seed=1)
    store = stores.make_partly(
        tmp_path / "s.lira", stores.Shape(models=7), models=committed, membership=member
    )
    seen = set()

    def look(block: Block) -> Any:
        seen.add(block.equal_counts)
        return block.signal()[:, :, 0]

    for equal in (True, False):
        engine.run(
            store, [Attack(name="looking", function=look)], engine.Options(equal_counts=equal, progress=False)
        )
    assert seen == {expected, False}


def test_what_is_for_few_models_takes_equal_counts_unasked(tmp_path: Path) -> None:
    made = stores.make(tmp_path / "a.lira", stores.Shape(models=8, examples=120))
    (unasked,) = engine.run(made, [attacks.named("lira_online_shrunk")])
    found = stores.matrix(made, unasked)
    (asked,) = engine.run(made, [attacks.named("lira_online_shrunk")], engine.Options(equal_counts=True))
    assert unasked.equal_counts
    assert asked == unasked  # up to date: nothing was computed again
    assert np.array_equal(found, stores.matrix(made, asked))
    assert not unasked.warnings


@pytest.mark.parametrize("first", ["lira_online", "lira_online_shrunk"])
def test_equal_counts_of_one_attack_are_not_those_of_another(tmp_path: Path, first: str) -> None:
    """Whichever is asked first; rmia and ye read the models beside the target, too."""
    names = ["lira_online", "lira_online_shrunk", "ye", "rmia", "long"]
    made = stores.make(tmp_path / "a.lira", stores.Shape(models=8, examples=120))
    alone = {}
    for name in names:
        (result,) = engine.run(made, [attacks.named(name)], engine.Options(force=True))
        alone[name] = stores.matrix(made, result)
    ordered = sorted(names, key=lambda name: name != first)
    together = engine.run(made, [attacks.named(name) for name in ordered], engine.Options(force=True))
    for result in together:
        assert np.array_equal(stores.matrix(made, result), alone[result.attack]), result.attack


def test_a_target_without_non_members_keeps_nothing_else_from_running(tmp_path: Path) -> None:
    member = subsets.draw("balanced", models=8, examples=120, seed=0)
    member[3] = True
    member[3, 5] = False
    made = stores.make(tmp_path / "a.lira", stores.Shape(models=8, examples=120), membership=member)
    able, refused = engine.feasible(made, attacks.registered().values())
    assert {"rmia", "rmia_offline", "ye_population"} <= refused.keys()
    assert "1 non-members" in str(refused["rmia"])
    assert {attack.name for attack in able} >= {"lira_online", "loss", "watson"}
