"""The writer: what it takes, in any order and form, what it refuses, and how much memory it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lirastore.errors import (
    AlreadyCommitted,
    IncompleteModel,
    InputError,
    LirastoreError,
    LostClaim,
    NonFiniteLogits,
    UnknownModel,
)
from lirastore.store import create
from lirastore.store import writer as writer_module
from lirastore.store.housekeeping import gc_store, status
from lirastore.store.spill import ModelSink
from lirastore.store.writer import ModelWriter

M, E, A, C = 4, 60, 2, 5


def new_store(path, *, augmentations=A, classes=C, dtype="float32", signals=(), examples=E):
    rng = np.random.default_rng(0)
    return create(
        path,
        labels=rng.integers(0, C, examples),
        membership=rng.random((M, examples)) < 0.5,
        augmentations=augmentations,
        classes=classes,
        dtype=dtype,
        signals=signals,
    )


@pytest.fixture
def store(fast_path):
    return new_store(fast_path / "s.lira")


def logits(seed=0, n=E, shape=(A, C), dtype=np.float32):
    return np.random.default_rng(seed).normal(0, 3, (n, *shape)).astype(dtype)


def scaled(values, labels):
    """φ in float64, the plain way."""
    values = values.astype(np.float64)
    own = values[np.arange(len(values)), :, labels]
    others = np.where(np.arange(values.shape[-1]) == labels[:, None, None], -np.inf, values)
    top = others.max(axis=-1)
    return own - top - np.log(np.exp(others - top[..., None]).sum(axis=-1))


def assert_stored(store, model, values):
    np.testing.assert_array_equal(store.read("logits", model, 0, len(values)), values)
    phi = store.read("scaled_logit", model, 0, len(values))
    np.testing.assert_allclose(phi, scaled(values, store.labels()), rtol=1e-5, atol=1e-5)


def assert_nothing_left(store):
    assert store.committed().size == 0
    assert status(store).attempts == []
    assert list((store.lira / "staging").iterdir()) == []


# --- what it takes ------------------------------------------------------------------------------------


def test_in_order(store):
    values = logits()
    with store.writer(2, metadata={"seed": 7}) as writer:
        assert store.committed().size == 0
        for start in range(0, E, 16):
            writer.write(values[start : start + 16], examples=slice(start, min(start + 16, E)))
        writer.metadata["test_accuracy"] = np.float32(0.5)
    assert_stored(store, 2, values)
    assert store.commits()[2].metadata == {"seed": 7, "test_accuracy": 0.5}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_and_any_sizes(memory, data):
    """Whatever the batches, the objects are byte for byte those of the plain order."""
    root = Path(tempfile.mkdtemp(dir=memory))
    store = new_store(root / "s.lira")
    ids = data.draw(st.permutations(range(E)) | st.just(list(range(E))))
    cuts = sorted(data.draw(st.lists(st.integers(0, E), max_size=6)))
    values = logits()
    with store.writer(0) as writer:
        for part in np.split(np.array(ids), cuts):
            writer.write(values[part], examples=part)
    with store.writer(1) as writer:
        writer.write(values, examples=slice(None))
    assert_stored(store, 0, values)
    first, second = (store.commits()[model].objects for model in (0, 1))
    assert [stored.sha256 for stored in first.values()] == [stored.sha256 for stored in second.values()]


def test_a_prefix_in_order_and_the_rest_shuffled_in_scratch(store, fast_path):
    values = logits()
    rest = np.random.default_rng(1).permutation(np.arange(20, E))
    with store.writer(0, scratch=fast_path) as writer:
        writer.write(values[:20], examples=range(20))
        for part in np.split(rest, 4):
            writer.write(values[part], examples=part.tolist())
        assert [path.name for path in fast_path.iterdir()] == ["s.lira"]  # temporary files have no names
    assert_stored(store, 0, values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.longdouble])
@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_floating_dtypes_are_cast_to_the_stores(fast_path, dtype, stored):
    store = new_store(fast_path / "s.lira", dtype=stored)
    values = logits(dtype=np.float64).astype(dtype)
    with store.writer(0) as writer:
        writer.write(values, examples=slice(0, E))
    assert_stored(store, 0, values.astype(stored))


def test_any_memory_layout(store):
    values = logits()
    wide = np.repeat(values, 2, axis=0)
    backwards = np.asfortranarray(values)[::-1]
    with store.writer(0) as writer:
        writer.write(wide[:20:2], examples=range(10))
        writer.write(backwards[: E - 10], examples=np.arange(E - 1, 9, -1, dtype=np.uint8))
    assert_stored(store, 0, values)


def test_a_single_augmentation_may_be_left_out(fast_path):
    store = new_store(
        fast_path / "s.lira", augmentations=1, signals=["token", ("share", ("model", "example"))]
    )
    values = logits(shape=(1, C))
    with store.writer(0) as writer:
        writer.write(values[:30, 0], examples=range(30), token=np.ones(30), share=np.ones(30))
        writer.write(values[30:], examples=range(30, E), token=np.ones((30, 1)), share=np.ones(30))
    assert_stored(store, 0, values)


def test_a_store_of_signals(fast_path):
    store = new_store(fast_path / "s.lira", classes=None, signals=["token"])
    phi, token = logits(0, shape=(A,)), logits(1, shape=(A,))
    with store.writer(0) as writer:
        writer.write(examples=range(E), scaled_logit=phi, token=token)
    np.testing.assert_array_equal(store.read("scaled_logit", 0, 0, E), phi)
    np.testing.assert_array_equal(store.read("token", 0, 0, E), token)


def test_the_callers_buffer_may_be_reused_at_once(store):
    values = logits()
    buffer = np.empty((10, A, C), np.float32)
    with store.writer(0) as writer:
        for start in range(0, E, 10):
            buffer[...] = values[start : start + 10]
            writer.write(buffer, examples=slice(start, start + 10))
            buffer[...] = np.nan
    assert_stored(store, 0, values)


def test_torch_tensors(store):
    torch = pytest.importorskip("torch")
    values = torch.from_numpy(logits())
    weight = torch.ones(1, requires_grad=True)
    with store.writer(0) as writer:
        writer.write(values[:20] * weight, examples=torch.arange(20))
        writer.write(values.permute(2, 0, 1)[:, 20:40].permute(1, 2, 0), examples=slice(20, 40))
        part = values[40:].to(torch.bfloat16)
        writer.write(part, examples=range(40, E))
        part.zero_()
    expected = torch.cat([values[:40], values[40:].to(torch.bfloat16).float()]).numpy()
    assert_stored(store, 0, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_tensors_on_a_gpu(store, dtype):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    values = torch.from_numpy(logits()).to("cuda", getattr(torch, dtype))
    with store.writer(0) as writer:
        for start in range(0, E, 10):
            batch = values[start : start + 10].clone()
            writer.write(batch, examples=slice(start, start + 10))
            batch.fill_(torch.nan)
    assert_stored(store, 0, values.float().cpu().numpy())


def test_bad_tensors(store):
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"torch\.int64"), store.writer(0) as writer:
        writer.write(torch.zeros((E, A, C), dtype=torch.int64), examples=slice(None))
    with pytest.raises(InputError, match="meta"), store.writer(0) as writer:
        writer.write(torch.zeros((E, A, C), device="meta"), examples=slice(None))
    assert_nothing_left(store)


def test_writing_overlaps_with_the_caller(store, monkeypatch):
    at_work = threading.Event()
    go_on = threading.Event()
    plain = ModelSink.write

    def slow(self, examples, blocks):
        at_work.set()
        assert go_on.wait(10)
        plain(self, examples, blocks)

    monkeypatch.setattr(ModelSink, "write", slow)
    values = logits()
    with store.writer(0) as writer:
        writer.write(values[:10], examples=range(10))
        assert at_work.wait(10)
        writer.write(values[10:], examples=range(10, E))  # returns while the first is still being written
        go_on.set()
    assert_stored(store, 0, values)


# --- what it refuses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "examples", "words"),
    [
        (
            logits(n=9),
            range(10),
            r"model 1, examples 0–9: logits has shape \(9, 2, 5\), expected \(10, 2, 5\)",
        ),
        (logits(n=9, shape=(C,)), range(9), "has shape"),
        (logits(n=10, shape=(A, C + 1)), range(10), "has shape"),
        (np.zeros((10, A, C), int), range(10), "model 1, examples 0–9: logits has dtype int64"),
        (np.zeros((10, A, C), complex), range(10), "dtype complex128"),
        (np.ma.masked_invalid(logits(n=10)), range(10), "masked"),
        (logits(n=10), range(55, 65), "model 1: examples 55–64: the store has examples 0 to 59"),
        (logits(n=10), slice(55, 65), "the store has examples"),
        (logits(n=10), slice(-10, None), "the store has examples"),
        (logits(n=2), [0, E], "examples 60: the store"),
        (logits(n=2), [-1, 0], "examples -1: the store"),
        (logits(n=2), [0.0, 1.0], "dtype float64"),
        (logits(n=2), [True, False], "dtype bool"),
        (logits(n=1), 5, "flat sequence"),
    ],
)
def test_bad_batches_are_refused_at_once(store, values, examples, words):
    """And they spoil nothing: the caller may go on."""
    good = logits()
    with store.writer(1) as writer:
        with pytest.raises(InputError, match=words):
            writer.write(values, examples=examples)
        writer.write(good, examples=slice(None))
    assert_stored(store, 1, good)


def test_arrays_that_miss_or_are_too_many(fast_path):
    store = new_store(fast_path / "s.lira", signals=["token"])
    token = logits(shape=(A,))
    with store.writer(0) as writer:
        with pytest.raises(InputError, match="token missing; expected exactly logits, token"):
            writer.write(logits(), examples=slice(None))
        with pytest.raises(InputError, match="scaled_logit not written in this store"):
            writer.write(logits(), examples=slice(None), token=token, scaled_logit=token)
        with pytest.raises(InputError, match="logits missing"):
            writer.write(examples=slice(None), token=token)
        writer.write(logits(), examples=slice(None), token=token)
    assert store.committed().tolist() == [0]


@pytest.mark.parametrize("again", [range(5, 8), [7, 6, 5]])
def test_an_example_written_twice(store, again):
    values = logits()
    with pytest.raises(IncompleteModel, match="examples 5–7 were written before"), store.writer(0) as writer:
        writer.write(values[:10], examples=range(10))
        writer.write(values[:3], examples=again)
    assert_nothing_left(store)


def test_an_example_twice_in_one_batch(store):
    with pytest.raises(IncompleteModel, match="examples 3 are twice"), store.writer(0) as writer:
        writer.write(logits(n=3), examples=[3, 4, 3])
    assert_nothing_left(store)


def test_examples_never_written(store):
    keep = np.setdiff1d(np.arange(E), [5, *range(20, 30)])
    words = r"model 0: 11 of 60 examples .* 5, 20–29;"
    with pytest.raises(IncompleteModel, match=words), store.writer(0) as writer:
        writer.write(logits()[keep], examples=keep)
    assert_nothing_left(store)


def test_nothing_written_at_all(store):
    with pytest.raises(IncompleteModel, match="0–59"), store.writer(0):
        pass
    assert_nothing_left(store)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65_520.0])
def test_what_is_not_finite_in_the_stores_dtype(fast_path, bad):
    store = new_store(fast_path / "s.lira", dtype="float16")
    values = logits()
    values[[17, 18, 40], 1, 3] = bad
    words = r"model 3: logits holds .* examples 17–18, 40; .* float16"
    with pytest.raises(NonFiniteLogits, match=words), store.writer(3) as writer:
        writer.write(values, examples=slice(None))
    assert_nothing_left(store)


@pytest.mark.parametrize(
    ("dtype", "bad", "told"), [("float16", 7e4, True), ("float16", np.nan, False), ("float32", np.inf, False)]
)
def test_float32_is_proposed_where_it_would_help(fast_path, dtype, bad, told):
    store = new_store(fast_path / "s.lira", dtype=dtype)
    values = logits()
    values[17, 1, 3] = bad
    with pytest.raises(NonFiniteLogits) as caught, store.writer(3) as writer:
        writer.write(values, examples=slice(None))
    assert ("--dtype float32, takes larger ones" in str(caught.value)) == told


def test_the_largest_float16_is_taken(fast_path):
    store = new_store(fast_path / "s.lira", dtype="float16")
    values = np.full((E, A, C), 65_504.0, np.float32)
    with store.writer(0) as writer:
        writer.write(values, examples=slice(None))
    assert_stored(store, 0, values)


def test_a_scaled_logit_that_overflows(store):
    values = logits()
    values[7] = np.finfo(np.float32).max * np.where(np.arange(C) == store.labels()[7], 1, -1)
    with (
        pytest.raises(NonFiniteLogits, match=r"scaled_logit holds .* examples 7;"),
        store.writer(0) as writer,
    ):
        writer.write(values, examples=slice(None))


def test_unknown_and_committed_models(store):
    for model in (-1, M):
        with pytest.raises(UnknownModel, match="0 to 3"):
            store.writer(model)
    with store.writer(0) as writer:
        writer.write(logits(), examples=slice(None))
    with pytest.raises(AlreadyCommitted, match="discard --models 0"):
        store.writer(0)


def test_models_whose_training_sets_are_unknown(fast_path):
    """Their rows of membership mean nothing: committed, they would count as trained on no example."""
    membership = np.ones((3, E), bool)
    membership[2] = False
    store = create(
        fast_path / "s.lira",
        labels=np.zeros(E, int),
        membership=membership,
        augmentations=A,
        classes=C,
        design={"scheme": "imported", "unknown_masks": [2]},
    )
    with pytest.raises(InputError, match=r"model 2: its training set was unknown .* into a new store"):
        store.writer(2)
    assert_nothing_left(store)
    with store.writer(1) as writer:
        writer.write(logits(), examples=slice(None))


def test_bad_settings(store, fast_path):
    with pytest.raises(InputError, match="queue_batches"):
        store.writer(0, queue_batches=0)
    with pytest.raises(InputError, match="no directory"):
        store.writer(0, scratch=fast_path / "absent")


def test_a_writer_is_used_once_and_within_its_block(store):
    writer = store.writer(0)
    with pytest.raises(InputError, match="before the block"):
        writer.write(logits(), examples=slice(None))
    with writer:
        writer.write(logits(), examples=slice(None))
    with pytest.raises(InputError, match="after the block"):
        writer.write(logits(), examples=slice(None))
    with pytest.raises(InputError, match="used once"), writer:
        pass


@pytest.mark.parametrize(
    "value", [float("nan"), np.float32("inf"), [1, float("nan")], object(), {1, 2}, b"x"]
)
def test_metadata_that_is_no_json_is_refused_when_it_is_put_in(store, value):
    with pytest.raises(InputError, match="model 0: metadata accuracy"):
        store.writer(0, metadata={"accuracy": value})
    with store.writer(0) as writer:
        with pytest.raises(InputError, match="model 0: metadata accuracy"):
            writer.metadata.update(accuracy=value)
        with pytest.raises(InputError, match="expected a string"):
            writer.metadata[3] = 1
        writer.metadata["nested"] = {"list": [np.int64(3), np.arange(2)]}
        writer.write(logits(), examples=slice(None))
    assert store.commits()[0].metadata == {"nested": {"list": [3, [0, 1]]}}


def test_metadata_spoilt_afterwards(store):
    with pytest.raises(InputError, match="metadata history"), store.writer(0) as writer:
        writer.metadata["history"] = []
        writer.metadata["history"].append(float("nan"))
        writer.write(logits(), examples=slice(None))
    assert_nothing_left(store)


# --- when something goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_exception_in_the_block_leaves_nothing(store, error):
    threads = threading.active_count()
    with pytest.raises(error), store.writer(0) as writer:
        writer.write(logits(), examples=slice(None))
        raise error
    assert_nothing_left(store)
    assert threading.active_count() == threads


def fail_in_thread(monkeypatch, error):
    def broken(self, examples, blocks):
        raise error

    monkeypatch.setattr(ModelSink, "write", broken)


def test_an_error_of_the_thread_reaches_the_next_write(store, monkeypatch):
    fail_in_thread(monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"), store.writer(0) as writer:
        for start in range(E):
            writer.write(logits(n=1), examples=[start])
            time.sleep(0.005)
        pytest.fail("no write raised")
    assert_nothing_left(store)


def test_an_error_of_the_thread_reaches_the_end_of_the_block(store, monkeypatch):
    fail_in_thread(monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"), store.writer(0) as writer:
        writer.write(logits(), examples=slice(None))
    assert_nothing_left(store)


def test_a_caller_that_ignores_the_error_does_not_commit(store, monkeypatch):
    values = logits()
    values[3] = np.nan
    with pytest.raises(NonFiniteLogits), store.writer(0) as writer:
        for start in range(0, E, 10):
            try:
                writer.write(values[start : start + 10], examples=range(start, start + 10))
            except LirastoreError:
                time.sleep(0.01)
    assert_nothing_left(store)


def test_a_full_queue_does_not_hang_when_the_thread_dies(fast_path, monkeypatch):
    monkeypatch.setattr(writer_module, "PIECE_BYTES", 1000)
    store = new_store(fast_path / "s.lira", examples=5000)

    def dies_late(self, examples, blocks):
        time.sleep(0.2)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ModelSink, "write", dies_late)
    with pytest.raises(OSError, match="Input/output"), store.writer(0, queue_batches=1) as writer:
        writer.write(logits(n=5000), examples=slice(None))
    assert_nothing_left(store)


def test_a_batch_interrupted_halfway_can_not_be_committed(fast_path, monkeypatch):
    """Even if the caller catches the interrupt: some examples were marked as written and never queued."""
    monkeypatch.setattr(writer_module, "PIECE_BYTES", 1000)
    store = new_store(fast_path / "s.lira", examples=500)
    real, calls = writer_module._copy, []

    def interrupted(batches, ids, part):
        calls.append(part)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(batches, ids, part)

    monkeypatch.setattr(writer_module, "_copy", interrupted)
    with pytest.raises(KeyboardInterrupt), store.writer(0) as writer, pytest.raises(KeyboardInterrupt):
        writer.write(logits(n=500), examples=slice(None))
    assert_nothing_left(store)


def test_a_writer_whose_attempt_was_collected_is_told(store):
    values = logits()
    with pytest.raises(LostClaim, match="removed"), store.writer(0) as writer:
        writer.write(values[:30], examples=range(30))
        assert len(gc_store(store, older_than=timedelta(0)).attempts) == 1
        writer.write(values[30:], examples=range(30, E))
    assert_nothing_left(store)


def test_an_interrupted_writer_lets_another_try(store):
    with pytest.raises(ZeroDivisionError), store.writer(0):
        raise ZeroDivisionError
    with store.writer(0) as writer:
        writer.write(logits(), examples=slice(None))
    assert_stored(store, 0, logits())


def test_the_heartbeat_shows_life(store, monkeypatch):
    monkeypatch.setattr("lirastore.store.attempt.HEARTBEAT_SECONDS", 0.01)
    with pytest.raises(ZeroDivisionError), store.writer(0) as writer:
        heartbeat = writer._stage._attempt.directory / "heartbeat"
        os.utime(heartbeat, (0, 0))
        deadline = time.monotonic() + 5
        while heartbeat.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        raise ZeroDivisionError


# --- memory -------------------------------------------------------------------------------------------

MEASURE = """
import json, sys, threading, time
from pathlib import Path
import numpy as np
from lirastore.store import open_store

path, order = Path(sys.argv[1]), sys.argv[2]
store = open_store(path)
E, A, C = store.info.examples, len(store.info.augmentations), store.info.classes
whole = np.zeros((E, A, C), np.float32) if order == "whole" else None
ids = np.random.default_rng(0).permutation(E) if order == "shuffled" else np.arange(E)

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")

def peak():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024

if whole is not None:
    whole += 1.0
reset_peak()
before = resident()
with store.writer(0) as writer:
    if whole is not None:
        writer.write(whole, examples=slice(None))
    else:
        for start in range(0, E, 250):
            part = ids[start : start + 250]
            writer.write(np.full((len(part), A, C), 2.0, np.float32), examples=part)
print(json.dumps(peak() - before))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("order", ["in order", "shuffled", "whole"])
def test_memory_is_bounded_whatever_the_model(tmp_path, order):
    """A model of 200 MB goes through 16 MiB of queue; the rest is pieces and inner chunks at work."""
    examples, augmentations = 25_000, 20
    store = create(
        tmp_path / "s.lira",
        labels=np.zeros(examples, int),
        membership=np.ones((2, examples), bool),
        augmentations=augmentations,
        classes=100,
    )
    assert store.arrays["logits"].example_bytes * examples == 200_000_000
    command = [sys.executable, "-c", MEASURE, str(store.path), order]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert measured < 40_000_000
    assert store.committed().tolist() == [0]


def test_imports_no_more_than_a_training_job_has(store):
    """numpy, and the checksum library; torch only if the caller has it, zarr not at all."""
    code = f"""
import sys
import numpy as np
from lirastore.store import open_store
store = open_store({str(store.path)!r})
with store.writer(0) as writer:
    writer.write(np.ones(({E}, {A}, {C}), np.float32), examples=slice(None))
heavy = {{"torch", "zarr", "dask", "xarray", "duckdb", "scipy", "pyarrow", "numcodecs"}} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_writer_is_what_the_store_says(store):
    assert isinstance(store.writer(0), ModelWriter)
