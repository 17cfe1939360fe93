"""What all layouts share: recognition, resuming, comparing, sharing the work, bounded memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import foreign
import numpy as np
import pytest

import lirastore
from lirastore import importers
from lirastore.errors import InputError, NotAStore, SourceError
from lirastore.importers.source import data_set_name
from lirastore.store import open_store


@pytest.fixture
def truth():
    return foreign.experiment()


@pytest.fixture
def source(tmp_path, truth):
    return foreign.carlini(tmp_path / "log", truth)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "imported.lira"


def ingest(source: Path, store: Path, **options) -> importers.IngestReport:
    return importers.ingest(source, store, progress=False, **options)


def python(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A process of its own that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- recognition ----------------------------------------------------------------------------------


def test_layouts_are_recognised(tmp_path, source, truth):
    assert importers.detect(source) == "carlini"
    assert importers.detect(foreign.npz(tmp_path / "all.npz", truth)) == "npz"
    assert importers.detect(foreign.npz_directory(tmp_path / "models", truth)) == "npz"


@pytest.mark.parametrize("kind", ["empty directory", "text", "npy"])
def test_what_is_not_recognised_is_told_with_the_candidates(tmp_path, kind, store):
    path = tmp_path / "something"
    if kind == "empty directory":
        path.mkdir()
    else:
        path.write_bytes(b"PX" if kind == "text" else b"\x93NUMPY")
    with pytest.raises(SourceError, match=r"not recognised.*carlini: a directory of.*npz: a \.npz file"):
        ingest(path, store)
    assert not store.exists()


def test_what_could_be_two_layouts_must_be_chosen(source, truth, store):
    for path in foreign.npz_directory(source.parent / "models", truth).iterdir():
        path.rename(source / path.name)
    with pytest.raises(SourceError, match=r"could be carlini or npz.*--format carlini"):
        ingest(source, store)
    ingest(source, store, format="npz")
    foreign.assert_holds(open_store(store), truth)


def test_a_format_that_does_not_fit_is_refused(source, tmp_path, truth, store):
    with pytest.raises(SourceError, match=r"expected a \.npz file, or a directory of model-\*\.npz"):
        ingest(source, store, format="npz")
    with pytest.raises(SourceError, match="expected a directory of experiment-"):
        ingest(foreign.npz_directory(tmp_path / "models", truth), store, format="carlini")
    with pytest.raises(SourceError, match="a file, expected a directory of experiment-"):
        ingest(foreign.npz(tmp_path / "all.npz", truth), store, format="carlini")
    assert not store.exists()


def test_unknown_formats_and_absent_sources(source, store):
    with pytest.raises(InputError, match=r"unknown format 'tfrecord': expected auto, carlini, .*, npz"):
        ingest(source, store, format="tfrecord")
    for options in ({}, {"format": "carlini"}):
        with pytest.raises(SourceError, match="no such file or directory"):
            ingest(source / "absent", store, **options)


# --- resuming -------------------------------------------------------------------------------------

KILLED_WHILE_READING = """
import os, signal, sys
import lirastore
from lirastore import importers
from lirastore.importers import npyfile
from lirastore.importers.npyfile import Npy

npyfile.SLICE_BYTES = 300
read, left = Npy.read, int(sys.argv[3])

def dying_read(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(*arguments)

Npy.read = dying_read
importers.ingest(sys.argv[1], sys.argv[2], progress=False)
"""


@pytest.mark.parametrize("reads", [0, 3, 12, 17, 29])
@pytest.mark.parametrize("layout", ["carlini", "npz"])
def test_a_killed_import_resumes(tmp_path, truth, store, reads, layout):
    if layout == "carlini":
        source = foreign.carlini(tmp_path / "log", truth)
        (source / "x_train.npy").unlink()  # its reads come before the store
    else:
        source = foreign.npz(tmp_path / "all.npz", truth, compressed=True)
    process = python(KILLED_WHILE_READING, source, store, reads)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, stderr
    before = open_store(store).committed().tolist()
    assert before == list(range(len(before)))
    assert len(before) < truth.models
    report = ingest(source, store)
    assert list(report.skipped) == before
    assert list(report.ingested) == list(range(len(before), truth.models))
    foreign.assert_holds(open_store(store), truth)


def test_importing_again_changes_nothing(source, store, truth):
    ingest(source, store)
    digest = open_store(store).set_digest()
    report = ingest(source, store)
    assert report.ingested == ()
    assert report.skipped == (0, 1, 2, 3)
    assert open_store(store).set_digest() == digest


def test_processes_share_the_work(source, store, truth):
    code = (
        "import sys; from lirastore import importers; print(importers.ingest(*sys.argv[1:], progress=False))"
    )
    processes = [python(code, source, store) for _ in range(3)]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    foreign.assert_holds(open_store(store), truth)


def test_a_retrained_model_is_found_out(source, store, truth):
    ingest(source, store)
    path = foreign.logits_of(source, 2)
    np.save(path, np.load(path) + np.float32(1))
    told = r"model 2 is in .* \(its contents have changed, it is still named 'experiment-2_4'; .*--models 2"
    with pytest.raises(SourceError, match=told):
        ingest(source, store)


def test_a_later_epoch_is_found_out(source, store):
    ingest(source, store)
    for model in range(4):
        path = foreign.logits_of(source, model)
        np.save(path.with_name("0000000030.npy"), np.load(path) * np.float32(1.1))
    with pytest.raises(SourceError, match="model 0 is in"):
        ingest(source, store)
    assert ingest(source, store, epoch=20).skipped == (0, 1, 2, 3)


def test_a_retrained_model_in_an_archive_is_found_out(tmp_path, store, truth):
    ingest(foreign.npz(tmp_path / "all.npz", truth), store)
    truth.logits[3, 52, 1, 4] += 1
    with pytest.raises(SourceError, match=r"models that differ: 3"):
        ingest(foreign.npz(tmp_path / "all.npz", truth), store)


def test_a_model_written_by_somebody_else_is_found_out(source, store, truth):
    shutil.move(foreign.run_of(source, 1), source.parent / "aside")
    (source / "experiment-1_4").mkdir()
    np.save(source / "experiment-1_4" / "keep.npy", truth.membership[1])
    ingest(source, store, allow_missing=True)
    with open_store(store).writer(1) as writer:
        writer.write(truth.logits[1], examples=slice(0, 53))
    shutil.rmtree(source / "experiment-1_4")
    shutil.move(source.parent / "aside", source / "experiment-1_4")
    with pytest.raises(SourceError, match=r"model 1 is in .*source_id None, now 'experiment-1_4'"):
        ingest(source, store)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"models": 6}, "its models are 4, the source's 6"),
        ({"examples": 54}, "its examples are 53, the source's 54"),
        ({"augmentations": 1}, r"its augmentations are \('identity', 'flip'\), the source's \('identity',\)"),
        ({"classes": 7}, "its classes are 5, the source's 7"),
    ],
)
def test_another_experiment_is_refused(source, store, tmp_path, change, told):
    ingest(source, store)
    other = foreign.carlini(tmp_path / "other", foreign.experiment(**change))
    before = foreign.files_under(store)
    with pytest.raises(
        SourceError, match=f"another experiment than the source: {told}; import into a new store"
    ):
        ingest(other, store)
    assert foreign.files_under(store) == before


def test_other_labels_or_masks_are_refused(source, store, truth):
    ingest(source, store)
    labels = truth.labels.copy()
    labels[[7, 8]] = labels[[8, 7]]
    np.save(source / "y_train.npy", labels)
    with pytest.raises(SourceError, match="example 7 has label 2, in the source 3"):
        ingest(source, store)
    np.save(source / "y_train.npy", truth.labels)
    np.save(foreign.run_of(source, 3) / "keep.npy", ~truth.membership[3])
    with pytest.raises(SourceError, match=r"example 0 is .* model 3's training set"):
        ingest(source, store)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("exp/cifar10", "cifar10"),
        ("exp/CIFAR-100", "CIFAR-100"),
        ("experiments/cifar10/resnet18/seed1", "cifar10/resnet18/seed1"),
        ("cifar10/out", "cifar10/out"),
        ("wikitext103/a/b/c/seed1", "seed1"),
        ("cifar10/cifar100/seed1", "seed1"),
        ("cifar10/cifar100", "cifar100"),
        ("mnist/run", "run"),
    ],
)
def test_the_data_set_is_called_after_the_directories(path, name):
    assert data_set_name(Path("/far/off") / path) == name


def test_the_data_set_is_found_from_a_relative_path_and_through_a_link(tmp_path, monkeypatch):
    place = tmp_path / "cifar100" / "wrn" / "seed1"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    (tmp_path / "link").symlink_to(place)
    assert data_set_name(Path()) == data_set_name(tmp_path / "link") == "cifar100/wrn/seed1"


def test_a_name_is_given_to_a_new_store_and_must_be_that_of_an_old_one(source, store):
    ingest(source, store, name="CIFAR-100")
    assert open_store(store).info.name == "CIFAR-100"
    ingest(source, store)
    ingest(source, store, name="CIFAR-100")
    for other in ("cifar10", ""):
        with pytest.raises(SourceError, match=f"the data set 'CIFAR-100', but name '{other}' was given"):
            ingest(source, store, name=other)
    again = lirastore.ingest(store.with_name("other.lira"), source, name="mine", progress=False)
    assert again.info.name == "mine"


def test_another_dtype_is_refused(source, store):
    ingest(source, store)
    assert ingest(source, store, dtype="float32").skipped == (0, 1, 2, 3)
    with pytest.raises(SourceError, match="holds float32, but dtype float16 was asked for"):
        ingest(source, store, dtype="float16")


def test_a_lost_model_of_the_source_stays_in_the_store(source, store, truth):
    ingest(source, store)
    shutil.rmtree(foreign.run_of(source, 1))
    with pytest.raises(SourceError, match="missing: 1"):
        ingest(source, store)
    assert ingest(source, store, allow_missing=True).missing == (1,)
    foreign.assert_holds(open_store(store), truth)


def test_something_else_at_the_stores_place(source, tmp_path):
    (tmp_path / "occupied").mkdir()
    with pytest.raises(NotAStore):
        ingest(source, tmp_path / "occupied")


def test_places_where_no_store_can_be(source, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for place, told in (
        ("file/x.lira", r"x.lira: \S+file is a file, expected a directory"),
        ("link", r"link is a symbolic link to \S+gone, which does not exist"),
        ("link/x.lira", r"x.lira: \S+link is a symbolic link to"),
    ):
        with pytest.raises(InputError, match=told):
            ingest(source, tmp_path / place)


def test_a_bad_dtype_writes_nothing(source, store):
    with pytest.raises(InputError, match="dtype"):
        ingest(source, store, dtype="int8")
    assert not store.exists()


# --- memory ---------------------------------------------------------------------------------------

MEASURED = """
import re, sys
from pathlib import Path
import numpy, tqdm, zarr
import lirastore
from lirastore import importers
from lirastore.importers import npzexport, run
from lirastore.importers.source import data_set_name
from lirastore.store import open_store

def peak():  # of this program: ru_maxrss would begin with that of the process it was forked from
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

before = peak()
report = importers.ingest(*sys.argv[1:], progress=False)
assert report.ingested == (0, 1), report
imported = peak()
importers.export(open_store(sys.argv[2]), sys.argv[2] + ".npz")
print(imported - before, peak() - before)
"""


def zeros(path: Path, shape: tuple[int, ...]) -> None:
    """A sparse .npy of float32 zeros."""
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * int(np.prod(shape)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures with Linux's /proc")
@pytest.mark.parametrize("layout", ["carlini", "npz", "compressed npz"])
def test_memory_does_not_grow_with_the_source(tmp_path, store, layout):
    examples = 24_000
    truth = foreign.experiment(models=2, examples=examples, augmentations=1, classes=2)
    shape = (examples, 1, 18, 50)  # 86 MB a model
    if layout == "carlini":
        source = foreign.carlini(tmp_path / "log", truth)
        zeros(source / "x_train.npy", (examples, 32, 32, 3))  # 295 MB, and 74 MB of pictures
        for model in range(2):
            zeros(foreign.logits_of(source, model), shape)
    else:
        source = tmp_path / "all.npz"
        logits = np.broadcast_to(np.float32(0), (2, examples, 18, 50))
        pictures = np.broadcast_to(np.uint8(7), (examples, 32, 32, 3))
        foreign.npz(source, truth, logits=logits, preview=pictures, compressed=layout == "compressed npz")
    process = python(MEASURED, source, store)
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    imported, exported = map(int, stdout.split())
    assert imported < 64 * 2**20
    assert exported < 64 * 2**20
