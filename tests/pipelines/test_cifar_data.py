"""Reading CIFAR's files: as torchvision does, and what is said of those that are damaged, cut or absent."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from lirastore.errors import InputError, SourceError

datasets = pytest.importorskip("torchvision.datasets", reason="torchvision reads CIFAR")

import cifar_files  # noqa: E402

from lirastore.pipelines import cifar_data  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both toy sets."""
    root = tmp_path_factory.mktemp("data")
    for dataset in cifar_files.FOLDERS:
        cifar_files.write(root, dataset)
    return root


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A directory with a toy CIFAR-10 of the test's own, which it may damage."""
    cifar_files.write(tmp_path / "own", "CIFAR-10")
    return tmp_path / "own"


@pytest.fixture
def published(own: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, its checksums taken for the published ones."""
    folder, kind = own / cifar_files.FOLDERS["CIFAR-10"], datasets.CIFAR10
    for name in ("train_list", "test_list"):
        known = [[file, cifar_files.md5(folder / file)] for file, _ in getattr(kind, name)]
        monkeypatch.setattr(kind, name, known)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": cifar_files.md5(folder / "batches.meta")})
    return own


@pytest.mark.parametrize(("dataset", "kind"), [("CIFAR-10", "CIFAR10"), ("CIFAR-100", "CIFAR100")])
def test_both_sets_are_read_as_torchvision_reads_them(
    data: Path, dataset: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = cifar_data.load(dataset, data, download=False, unchecked=True)
    oracle = getattr(datasets, kind)
    monkeypatch.setattr(oracle, "_check_integrity", lambda self: True)
    folder = data / cifar_files.FOLDERS[dataset]
    monkeypatch.setattr(
        oracle, "meta", {**oracle.meta, "md5": cifar_files.md5(folder / oracle.meta["filename"])}
    )
    for split, training in zip(read, (True, False), strict=True):
        expected = oracle(data, train=training)
        np.testing.assert_array_equal(split.pictures, expected.data)
        np.testing.assert_array_equal(split.labels, expected.targets)
        assert split.pictures.dtype == np.uint8
    assert len(read[0]) == cifar_files.TRAIN * (5 if dataset == "CIFAR-10" else 1)
    assert len(read[1]) == cifar_files.TEST


def test_a_picture_is_what_was_written(data: Path) -> None:
    """Red, green and blue, rows and columns, are where they belong."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(cifar_files.TRAIN) % 10)
    first = cifar_data.load("CIFAR-10", data, download=False, unchecked=True)[0].first(cifar_files.TRAIN)
    np.testing.assert_array_equal(first.labels, labels)
    np.testing.assert_array_equal(first.pictures, cifar_files.pictures(rng, labels))


def test_files_with_the_published_checksums_need_no_leave(published: Path) -> None:
    train_split, _ = cifar_data.load("CIFAR-10", published, download=False, unchecked=False)
    assert len(train_split) == 5 * cifar_files.TRAIN


def test_a_damaged_file_is_named_with_both_checksums_and_not_unpickled(
    published: Path, tmp_path: Path
) -> None:
    folder = published / cifar_files.FOLDERS["CIFAR-10"]
    expected = cifar_files.md5(folder / "data_batch_3")
    trap = tmp_path / "trap"
    (folder / "data_batch_3").write_bytes(pickle.dumps(Trap(trap)))
    found = cifar_files.md5(folder / "data_batch_3")
    with pytest.raises(SourceError, match=r"--download.*--unchecked") as caught:
        cifar_data.load("CIFAR-10", published, download=False, unchecked=False)
    message = str(caught.value)
    assert f"data_batch_3 (md5 {found}, expected {expected})" in message
    assert "data_batch_2" not in message and not trap.exists()


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_damaged_list_of_names_is_named(published: Path) -> None:
    file = published / cifar_files.FOLDERS["CIFAR-10"] / "batches.meta"
    file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(SourceError, match=r"batches\.meta \(md5 "):
        cifar_data.load("CIFAR-10", published, download=False, unchecked=False)


def test_downloads_into_one_directory_take_turns(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards that start together: one writes, the others find what it wrote."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # threads that redirect it restore it in any order
    target, writing, written = tmp_path / "made" / "here", threading.Lock(), []

    def slow(self: Any) -> None:
        assert writing.acquire(blocking=False), "two downloads at once"
        if not self._check_integrity():
            folder = Path(self.root) / self.base_folder
            folder.mkdir()
            for file in (published / self.base_folder).iterdir():
                time.sleep(0.01)
                shutil.copy(file, folder)
            written.append(folder)
        writing.release()

    monkeypatch.setattr(datasets.CIFAR10, "download", slow)
    together = threading.Barrier(3)

    def shard(_: int) -> int:
        together.wait()
        return len(cifar_data.load("CIFAR-10", target, download=True, unchecked=False)[0])

    with ThreadPoolExecutor(3) as shards:
        assert list(shards.map(shard, range(3))) == [5 * cifar_files.TRAIN] * 3
    assert len(written) == 1


def test_a_download_needs_no_leave_to_write_what_is_there(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar_data.os, "access", lambda path, mode: False)
    assert len(cifar_data.load("CIFAR-10", published, download=True, unchecked=False)[1]) == cifar_files.TEST
    assert not (published / cifar_data.LOCK).exists()


@pytest.mark.parametrize("unchecked", [False, True])
@pytest.mark.parametrize("file", ["data_batch_4", "test_batch", "batches.meta"])
def test_an_absent_file_is_named(published: Path, file: str, unchecked: bool) -> None:
    (published / cifar_files.FOLDERS["CIFAR-10"] / file).unlink()
    with pytest.raises(SourceError, match=rf"lacks {file}\. .*--data.*--download"):
        cifar_data.load("CIFAR-10", published, download=False, unchecked=unchecked)


def test_a_download_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(datasets.CIFAR10, "download", unreachable)
    with pytest.raises(SourceError, match=r"lacks data_batch_1, .*the download failed .*no route to host"):
        cifar_data.load("CIFAR-10", tmp_path, download=True, unchecked=False)


@pytest.mark.parametrize("file", ["data_batch_2", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "another pickle"])
def test_an_unreadable_file_is_named_though_nothing_is_checked(own: Path, file: str, damage: str) -> None:
    path = own / cifar_files.FOLDERS["CIFAR-10"] / file
    whole = path.read_bytes()
    kinds = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"<html>404</html>",
        "another pickle": pickle.dumps([1, 2]),
    }
    path.write_bytes(kinds[damage])
    with pytest.raises(SourceError, match=f"{cifar_files.FOLDERS['CIFAR-10']}: {file} cannot be read"):
        cifar_data.load("CIFAR-10", own, download=False, unchecked=True)


@pytest.mark.parametrize(
    "change",
    [{b"labels": [10] * cifar_files.TEST}, {b"labels": [0]}, {b"data": np.zeros((cifar_files.TEST, 3072))}],
)
def test_files_of_something_else_are_refused(own: Path, change: dict[bytes, Any]) -> None:
    file = own / cifar_files.FOLDERS["CIFAR-10"] / "test_batch"
    entry = {b"data": np.zeros((cifar_files.TEST, 3072), np.uint8), b"labels": [0] * cifar_files.TEST}
    cifar_files.dump(file, entry | change)
    with pytest.raises(SourceError, match=r"test_batch .*expected uint8 \(n, 32, 32, 3\)"):
        cifar_data.load("CIFAR-10", own, download=False, unchecked=True)


def test_an_unknown_set_is_refused(data: Path) -> None:
    with pytest.raises(InputError, match="dataset = 'CIFAR-11': expected CIFAR-10 or CIFAR-100"):
        cifar_data.load("CIFAR-11", data, download=False, unchecked=True)
