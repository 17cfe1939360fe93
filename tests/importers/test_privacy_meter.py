"""The traps of privacy-meter; what all layouts share is in test_more_layouts.py."""

from __future__ import annotations

import json
import os
import re
from contextlib import ExitStack
from pathlib import Path

import foreign
import foreign_more
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ingest import python, zeros

from lirastore import importers
from lirastore.errors import SourceError
from lirastore.importers.columns import Columns
from lirastore.importers.npyfile import Npy, open_npy
from lirastore.importers.source import BadValues
from lirastore.store import open_store, verify_store


@pytest.fixture
def truth():
    return foreign_more.paired(foreign.experiment(models=6, augmentations=1))


@pytest.fixture
def source(tmp_path, truth):
    return foreign_more.privacy_meter(tmp_path / "demo", truth)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "imported.lira"


def ingest(source: Path, store: Path, **options) -> importers.IngestReport:
    return importers.ingest(source, store, progress=False, **options)


def phi(store: Path, model: int, array: str = "scaled_logit") -> np.ndarray:
    opened = open_store(store)
    return opened.read(array, model, 0, opened.arrays[array].examples).reshape(-1)


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_was_rounded_to_0_or_1_is_clipped_and_counted(tmp_path, truth, store, dtype):
    signals = foreign_more.confidences(truth, dtype)
    signals[:4, 2] = [0, 1, 1, 0]
    signals[9, 5] = 1
    clipped = {model: int(np.isin(signals[:, model], (0, 1)).sum()) for model in range(6)}
    report = ingest(foreign_more.privacy_meter(tmp_path / "demo", truth, signals), store)
    assert report.clipped == {model: count for model, count in clipped.items() if count}
    assert re.search(rf"clipped {sum(clipped.values())} values of \d models", str(report))
    assert open_store(store).commits()[2].metadata["clipped"] == clipped[2]
    inner = np.clip(signals, np.nextafter(dtype(0), dtype(1)), np.nextafter(dtype(1), dtype(0)))
    p = inner.astype(np.longdouble)
    for model in range(6):
        expected = (np.log(p) - np.log1p(-p))[:, model].astype(np.float32)
        np.testing.assert_allclose(phi(store, model), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "error", "told"),
    [
        (1.5, BadValues, r"the confidence of example 17 is 1\.5, expected a number between 0 and 1"),
        (-3.0, BadValues, r"example 17 is -3\.0"),
    ],
)
def test_what_is_no_confidence_is_refused(tmp_path, truth, store, value, error, told):
    signals = foreign_more.confidences(truth)
    signals[17, 2] = value
    source = foreign_more.privacy_meter(tmp_path / "demo", truth, signals)
    with pytest.raises(error, match=rf"rmia_signals\.npy: model 2: .*{told}.*2 models are in"):
        ingest(source, store)
    assert open_store(store).committed().tolist() == [0, 1]


def test_labels_may_be_given(source, store, truth, tmp_path):
    ingest(source, store)
    assert (open_store(store).labels() == -1).all()
    assert open_store(store).info.augmentations == ("identity",)
    ingest(source, tmp_path / "labelled.lira", labels=foreign_more.labels(tmp_path / "y.npy", truth))
    np.testing.assert_array_equal(open_store(tmp_path / "labelled.lira").labels(), truth.labels)


# --- population -----------------------------------------------------------------------------------


def test_population_points_come_with_their_models(tmp_path, truth, store):
    population = np.random.default_rng(1).random((9, 6)).astype(np.float32)
    population[3, 4], population[8, 4] = 1, 0
    source = foreign_more.privacy_meter(tmp_path / "demo", truth, population=population)
    report = ingest(source, store)
    assert any(told.startswith("clipped 2 values of population points") for told in report.warnings)
    assert report.clipped == {}
    opened = open_store(store)
    assert opened.info.population == 9
    assert opened.commits()[4].metadata["clipped_population"] == 2
    for model in (0, 5):
        p = population[:, model].astype(np.float64)
        found = phi(store, model, "population_scaled_logit")
        np.testing.assert_allclose(found, np.log(p / (1 - p)), rtol=1e-5)
    assert verify_store(opened).ok
    path = source / "signals" / "rmia_signals_pop.npy"
    np.save(path, population * np.float32(0.5))
    with pytest.raises(SourceError, match="model 0 is in"):
        ingest(source, store)
    path.unlink()
    with pytest.raises(SourceError, match="its population points are 9, the source's None"):
        ingest(source, store)


def test_a_population_point_that_is_no_confidence_is_named(tmp_path, truth, store):
    population = np.full((9, 6), 0.5, dtype=np.float32)
    population[7, 1] = 2
    source = foreign_more.privacy_meter(tmp_path / "demo", truth, population=population)
    with pytest.raises(BadValues, match=r"model 1: the confidence of population point 7 is 2\.0"):
        ingest(source, store)
    assert open_store(store).committed().tolist() == [0]


def test_a_population_of_other_models_is_refused(tmp_path, truth, store):
    population = np.full((9, 4), 0.5, dtype=np.float32)
    source = foreign_more.privacy_meter(tmp_path / "demo", truth, population=population)
    with pytest.raises(SourceError, match=r"rmia_signals_pop\.npy: shape \(9, 4\), expected \(points, 6\)"):
        ingest(source, store)


# --- which examples, which models -----------------------------------------------------------------


@pytest.mark.parametrize("rows", [52, 10, 54])
def test_rows_that_nobody_recorded_are_refused(tmp_path, truth, store, rows):
    signals = np.full((rows, 6), 0.5, dtype=np.float32)
    source = foreign_more.privacy_meter(tmp_path / "demo", truth, signals)
    with pytest.raises(SourceError, match=rf"shape \({rows}, 6\), expected \(53, 6\).*audit\.data_size"):
        ingest(source, store)
    assert not store.exists()


def test_models_that_were_not_evaluated_are_missing(tmp_path, truth, store):
    signals = foreign_more.confidences(truth)[:, :4]
    source = foreign_more.privacy_meter(tmp_path / "demo", truth, signals)
    with pytest.raises(SourceError, match=r"2 of 6 models are missing: 4, 5 \(no columns in \S+rmia_signals"):
        ingest(source, store)
    assert ingest(source, store, allow_missing=True).missing == (4, 5)
    opened = open_store(store)
    assert opened.committed().tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(opened.membership(range(6)), truth.membership)
    assert "unknown_masks" not in opened.info.design


def test_more_signals_than_models_are_refused(tmp_path, truth, store):
    signals = np.full((53, 8), 0.5, dtype=np.float32)
    source = foreign_more.privacy_meter(tmp_path / "demo", truth, signals)
    with pytest.raises(SourceError, match="has 6 models: the signals are of other models"):
        ingest(source, store)


def test_a_training_begun_later_and_not_finished_is_found_out(source, store, truth):
    np.save(source / "models" / "memberships.npy", np.repeat(truth.membership, 2, axis=0))
    with pytest.raises(SourceError, match=r"tells of 6 models, models/memberships\.npy of 12"):
        ingest(source, store)
    np.save(source / "models" / "memberships.npy", truth.membership)
    metadata = source / "models" / "models_metadata.json"
    told = json.loads(metadata.read_text())
    told["3"]["num_train"] = 5
    metadata.write_text(json.dumps(told))
    with pytest.raises(SourceError, match=r"model 3 was trained on 5 examples, but .* has 2[67] for it"):
        ingest(source, store)
    metadata.write_text("[]")
    assert any("models_metadata.json: left alone" in told for told in ingest(source, store).warnings)
    metadata.unlink()
    assert ingest(source, store).skipped == (0, 1, 2, 3, 4, 5)


def test_signals_older_than_the_models_are_warned_of(source, store):
    path = source / "signals" / "rmia_signals.npy"
    assert ingest(source, store).warnings == ()
    before = path.stat().st_mtime - 3600
    os.utime(path, (before, before))
    assert any("is older than the models" in told for told in ingest(source, store).warnings)


def test_signals_of_two_algorithms_are_of_one_kind(tmp_path, truth, store):
    source = foreign_more.privacy_meter(tmp_path / "demo", truth, algorithm="loss")
    ingest(source, store)
    np.save(source / "signals" / "rmia_signals.npy", foreign_more.confidences(truth))
    report = ingest(source, store.with_name("both.lira"))
    assert any("loss_signals.npy: left alone" in told for told in report.warnings)
    metadata = open_store(store.with_name("both.lira")).commits()[0].metadata
    assert metadata["source_file"] == "signals/rmia_signals.npy"


def test_range_signals_are_refused(tmp_path, truth, store):
    signals = np.repeat(foreign_more.confidences(truth), 3, axis=0)
    source = foreign_more.privacy_meter(tmp_path / "demo", truth, signals, algorithm="rmia_ramia")
    with pytest.raises(SourceError, match=r"no \*_signals\.npy; the range signals \(RaMIA\)"):
        ingest(source, store)


@pytest.mark.parametrize("name", ["models/memberships.npy", "signals/rmia_signals.npy"])
def test_files_that_are_gone_are_named(source, store, name):
    (source / name).unlink()
    with pytest.raises(SourceError, match=r"memberships\.npy: no such file|signals: no \*_signals\.npy"):
        ingest(source, store)


@pytest.mark.parametrize("change", [lambda mask: mask.astype(int), lambda mask: mask[0]])
def test_memberships_that_are_none_are_refused(source, store, truth, change):
    np.save(source / "models" / "memberships.npy", change(truth.membership))
    with pytest.raises(SourceError, match=r"memberships\.npy: (int64|bool) .*expected bool"):
        ingest(source, store)


# --- columns --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 9)),
    dtype=st.sampled_from(["<f4", ">f4", "<f2", "<f8"]),
    order=st.sampled_from("CF"),
    slice_bytes=st.integers(8, 400),
)
def test_columns_are_those_of_the_array(tmp_path_factory, shape, dtype, order, slice_bytes):
    path = tmp_path_factory.mktemp("columns") / "x.npy"
    values = np.random.default_rng(0).random(shape).astype(dtype, order=order)
    np.save(path, values)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as resources:
        patch.setattr("lirastore.importers.npyfile.SLICE_BYTES", slice_bytes)
        columns = Columns(open_npy(path), resources, path.parent)
        for model in [*range(shape[1]), 0]:
            parts = list(columns.read(model))
            assert [start for start, _ in parts] == list(np.cumsum([0, *(len(p) for _, p in parts[:-1])]))
            np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), values[:, model])
        prints = columns.fingerprints()
    assert len(prints) == shape[1]
    assert os.listdir(path.parent) == ["x.npy"]  # noqa: PTH208
    assert (len(set(prints)) == shape[1]) == (len(np.unique(values, axis=1).T) == shape[1])


def test_the_file_is_read_once_however_many_models_there_are(tmp_path, monkeypatch):
    """Bytes read of a (E, M) file: all of it once, and what fingerprints sample."""
    path, shape = tmp_path / "x.npy", (20_000, 64)
    np.save(path, np.zeros(shape, dtype=np.float32))
    read, whole = [], Npy.read

    def counted(self, file, start, stop, row):
        values = whole(self, file, start, stop, row)
        read.append(values.nbytes)
        return values

    monkeypatch.setattr(Npy, "read", counted)
    with ExitStack() as resources:
        columns = Columns(open_npy(path), resources, tmp_path)
        for model in range(64):
            for _ in columns.read(model):
                pass
    assert sum(read) == 4 * 20_000 * 64
    assert max(read) <= 4 << 20


MEASURED = """
import re, sys
from pathlib import Path
import numpy, tqdm, zarr
from lirastore import importers
from lirastore.importers import privacy_meter, run

def peak():  # of this program: ru_maxrss would begin with that of the process it was forked from
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

committed = run._check_committed  # most models are passed over, as if they were there: it is quicker
run._check_committed = lambda store, models: committed(store, models) | set(range(4, 400))
before = peak()
report = importers.ingest(*sys.argv[1:], progress=False)
assert len(report.ingested) == 4, report
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures with Linux's /proc")
def test_memory_does_not_grow_with_the_file(tmp_path, store):
    examples, models = 100_000, 400  # 160 MB
    source = tmp_path / "demo"
    (source / "models").mkdir(parents=True)
    (source / "signals").mkdir()
    np.save(source / "models" / "memberships.npy", np.zeros((models, examples), dtype=bool))
    zeros(source / "signals" / "rmia_signals.npy", (examples, models))
    process = python(MEASURED, source, store)
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    masks = models * examples
    assert int(stdout) < 48 * 2**20 + 3 * masks  # the source's, the store's, and where they differ
