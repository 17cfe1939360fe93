"""What only whole processes show: kill -9, Ctrl-C, two at once, and how much memory it really takes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine_attacks
import engine_child
import engine_stores as stores
import numpy as np
import pytest

from lirastore import engine, results
from lirastore.attacks import Attack
from lirastore.engine import planning
from lirastore.store import LogitStore

# 8 models × 300 examples × 2 queries: tiles of 16 examples, blocks of about 32
SMALL = {"tile_bytes": 8 * 2 * 8 * 16, "part_rows": 256, "threads": 1}
CHILD = Path(engine_child.__file__)


def start(store: LogitStore, **given: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), str(store.path), json.dumps(given)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[dict[str, int], str]:
    """What the child measured, and its stderr."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1]), err


def part_files(store: LogitStore) -> dict[str, tuple[int, int]]:
    """Published parts of `mine`: name -> (inode, time of change)."""
    files = (store.lira / "results" / "scores" / "mine").rglob("part-*.parquet")
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def resume(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch, attack: Attack | None = None
) -> results.Result:
    """The same attack in this process, cut the same way."""
    monkeypatch.setattr(planning, "TILE_BYTES", SMALL["tile_bytes"])
    monkeypatch.setattr(planning, "PART_ROWS", SMALL["part_rows"])
    monkeypatch.setattr(planning, "MIN_BLOCK_ROWS", 1)
    (result,) = engine.run(store, [attack or engine_child.mine()], engine.Options(threads=1))
    return result


def check(store: LogitStore, result: results.Result) -> None:
    """The scores are right, every digest is, and the document is in place."""
    assert (stores.matrix(store, result) == stores.phi(store)[:, :, 0]).all()
    assert results.verify_results(store.lira) == []
    assert results.current(store.lira) == {"mine": result}


@pytest.mark.parametrize("kill_after", [0, 9, 18])
def test_a_killed_run_resumes(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kill_after: int
) -> None:
    process = start(store, **SMALL, kill_after=kill_after)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert results.current(store.lira) == {}
    before = part_files(store)
    result = resume(store, monkeypatch)
    check(store, result)
    after = part_files(store)
    assert {name: after[name] for name in before} == before
    message = f"resuming: {len(before)} of {len(result.parts)} parts"
    assert (message in capsys.readouterr().err) == bool(before)
    # every block lies in the one inner chunk that each model has, and reads all of it
    assert result.bytes_read == 8 * 300 * 8 * (len(after) - len(before))
    stores.age_runs(store)
    assert results.remove_old_runs(store.lira, older_than=0) == []
    assert not list(store.lira.rglob("*.partial"))
    assert results.verify_results(store.lira) == []


@pytest.mark.parametrize(
    "death", [{"kill_after": 5}, {"kill_target": 3}, {"kill_after": 18 + 7}, {"kill_after": 19 + 18}]
)
def test_a_run_that_is_killed_in_a_first_pass_by_target_resumes(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch, death: dict[str, int]
) -> None:
    process = start(store, **SMALL, attack="mine_by_target", **death)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    before = part_files(store)
    assert bool(before) == (death.get("kill_after", 0) > 19)
    assert {path.name for path in results.results_folder(store.lira).iterdir()} == {"scores"}
    check(store, resume(store, monkeypatch, engine_child.mine_by_target()))
    assert before.items() <= part_files(store).items()


def test_damaged_parts_of_a_killed_run_are_not_kept(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(store, **SMALL, kill_after=12).communicate(timeout=120)
    short, altered, sound, *_ = sorted((store.lira / "results" / "scores" / "mine").rglob("part-*.parquet"))
    short.write_bytes(short.read_bytes()[:100])
    flip_bit(altered)
    kept = sound.stat().st_ino
    check(store, resume(store, monkeypatch))
    assert sound.stat().st_ino == kept


def flip_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 4
    file.write_bytes(data)


def test_a_damaged_part_whose_document_is_lost_is_not_adopted(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resume(store, monkeypatch)
    flip_bit(first.files(store.lira)[1])
    (line,) = results.verify_results(store.lira)
    assert f"lirastore attack {store.path} mine --force" in line
    (store.lira / "results" / "current" / "mine.json").unlink()
    again = resume(store, monkeypatch)
    check(store, again)
    assert again.objects == first.objects


def test_gc_leaves_a_living_run_alone(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its only part takes longer than gc waits: nothing but the heartbeat shows that it lives."""
    monkeypatch.setattr(results, "RUN_SECONDS", 1.0)
    process = start(store, threads=1, tile_bytes=4 * SMALL["tile_bytes"], delay=0.5, beat=0.1)
    removed: list[str] = []
    while process.poll() is None:
        removed += results.remove_old_runs(store.lira, older_than=0)
        time.sleep(0.01)
    finish(process)
    assert removed == []
    assert results.verify_results(store.lira) == []
    assert list(results.current(store.lira)) == ["mine"]


def test_gc_beside_many_short_runs(store: LogitStore) -> None:
    """Files come, are renamed and go while it looks at them."""
    processes = [start(store, **SMALL, delay=0.01, force=True) for _ in range(2)]
    while any(process.poll() is None for process in processes):
        assert results.remove_old_runs(store.lira, older_than=0) == []
        time.sleep(0.001)
    for process in processes:
        finish(process)
    assert results.verify_results(store.lira) == []


def test_an_interrupt_stops_at_once_and_the_run_resumes(
    store: LogitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(store, **SMALL, delay=0.2)
    deadline = time.monotonic() + 60
    while not part_files(store) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert err.rstrip().endswith("KeyboardInterrupt")
    before = part_files(store)
    assert before
    assert not list(store.lira.rglob("*.partial"))
    result = resume(store, monkeypatch)
    assert len(before) <= len(result.parts) // 2  # it did not go on to the end
    check(store, result)
    assert before.items() <= part_files(store).items()


def test_two_at_once_do_not_disturb_each_other(store: LogitStore) -> None:
    processes = [start(store, **SMALL, delay=0.02, force=True) for _ in range(2)]
    for process in processes:
        finish(process)
    check(store, results.current(store.lira)["mine"])


# --- memory ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> LogitStore:
    """768 MB of logits: 16 models × 30,000 examples × 4 queries × 100 classes."""
    shape = stores.Shape(models=16, examples=30_000, queries=4, classes=100)
    return stores.make(tmp_path_factory.mktemp("large") / "a.lira", shape)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> LogitStore:
    """128 models × 4,000 examples × 18 queries × 2 classes."""
    shape = stores.Shape(models=128, examples=4000, queries=18, classes=2)
    return stores.make(tmp_path_factory.mktemp("wide") / "a.lira", shape)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> LogitStore:
    """128 models × 640 examples × 72 queries × 2 classes."""
    shape = stores.Shape(models=128, examples=640, queries=72, classes=2)
    return stores.make(tmp_path_factory.mktemp("deep") / "a.lira", shape)


@pytest.mark.parametrize("preset", ["paper", "carlini-code"])
def test_first_passes_over_many_tiles_stay_within_it_too(deep: LogitStore, preset: str) -> None:
    """Of paper, the states of 640 tiles take 105 MB together; the first pass holds a few dozen of them."""
    options = {"attack": "lira_online_fixed", "preset": preset, "tile_bytes": 1, "part_rows": 1 << 12}
    found, _ = finish(start(deep, **options, threads=2, progress=False, force=True))
    assert found["blocks"] > 10
    assert found["peak"] <= found["projected"] < 256 << 20


@pytest.mark.parametrize(("threads", "attack"), [(1, "lira_online"), (2, "lira_online_fixed")])
def test_memory_stays_within_what_the_plan_projects(large: LogitStore, threads: int, attack: str) -> None:
    budget = stores.least_budget(large, attack, threads=threads, source="logits") + threads * (1 << 20)
    assert 3 * budget < 16 * 30_000 * 4 * 100 * 4
    options = {"attack": attack, "threads": threads, "source": "logits", "force": True, "progress": False}
    found, _ = finish(start(large, **options, memory=budget))
    assert found["blocks"] > 4
    assert found["peak"] <= found["projected"] <= budget
    tight = stores.matrix(large, results.current(large.lira)[attack])
    ample, _ = finish(start(large, **options))
    assert ample["peak"] <= ample["projected"]
    assert ample["blocks"] < found["blocks"]
    assert np.array_equal(stores.matrix(large, results.current(large.lira)[attack]), tight)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (engine_attacks.MATRICES, engine_attacks.shares_by_rank),
        (engine_attacks.CLASSES, engine_attacks.spreads),
    ],
)
def test_matrices_and_signals_per_class_stay_within_it_too(
    large: LogitStore, attack: Attack, expected: Callable[[LogitStore], np.ndarray[Any, Any]]
) -> None:
    """32 matrices have 123 MB, the logits of 100 classes 192 MB: more than what is left of the budget."""
    budget = stores.least_budget(large, attack, threads=1) + (8 << 20)
    assert budget < planning.BASE_BYTES + (100 << 20)
    options = {"attack": attack.name, "threads": 1, "progress": False, "force": True}
    found, _ = finish(start(large, **options, memory=budget))
    assert found["blocks"] > 2
    assert found["peak"] <= found["projected"] <= budget
    scores = stores.matrix(large, results.current(large.lira)[attack.name])
    np.testing.assert_allclose(scores, expected(large), rtol=1e-14)


@pytest.mark.parametrize(
    "given",
    [
        {"attack": "loss,sablayrolles,watson,ye,lira_online,lira_online_fixed,lira_offline,memorization"},
        {"attack": "lira_online_fixed", "models": [8, 32]},
    ],
)
def test_many_attacks_stay_within_it_too(wide: LogitStore, given: dict[str, Any]) -> None:
    found, _ = finish(start(wide, **given, threads=2, progress=False, force=True))
    assert found["peak"] <= found["projected"] < 512 << 20
