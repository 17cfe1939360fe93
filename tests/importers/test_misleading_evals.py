"""The traps of misleading-evals; what all layouts share is in test_more_layouts.py."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import foreign
import foreign_more
import numpy as np
import pytest

from lirastore import importers
from lirastore.errors import MissingDependency, SourceError
from lirastore.importers.torchfile import open_tensor
from lirastore.store import open_store

torch = pytest.importorskip("torch")


@pytest.fixture
def drawn():
    return foreign_more.canary_experiment()


@pytest.fixture
def source(tmp_path, drawn):
    return foreign_more.misleading_evals(tmp_path / "label_noise", *drawn)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "imported.lira"


def ingest(source: Path, store: Path, **options) -> importers.IngestReport:
    return importers.ingest(source, store, progress=False, **options)


def test_only_canaries_can_be_attacked(source, store, drawn):
    _, canaries = drawn
    assert ingest(source, store).warnings == ()
    opened = open_store(store)
    assert np.flatnonzero(opened.attackable()).tolist() == sorted(canaries.tolist())
    assert opened.membership()[:, ~opened.attackable()].all()
    metadata = opened.commits()[3].metadata
    assert (metadata["train_accuracy"], metadata["test_accuracy"]) == (0.99, 0.53)
    assert metadata["metrics"]["train_accuracy_canaries_in"] is None  # NaN in the file


def test_its_augmentations_have_names(source, store):
    """Against its own loops over a picture."""
    ingest(source, store)
    picture = np.zeros((11, 11))
    picture[5, 5] = 1
    expected = []
    for flip in (False, True):
        for shift_y in (0, -4, 4):
            for shift_x in (0, -4, 4):
                cut = np.pad(picture, 4)[shift_y + 4 :, shift_x + 4 :][:11, :11]
                down, right = (int(at) - 5 for at in np.argwhere(cut)[0])
                name = f"shift({f'{down:+d}' if down else 0},{f'{right:+d}' if right else 0})"
                expected.append(name + " flip" * flip)
    expected[0], expected[9] = "identity", "flip"
    assert list(open_store(store).info.augmentations) == expected


def test_examples_that_vary_without_being_canaries_are_warned_of(tmp_path, store, drawn):
    truth, canaries = drawn
    truth.membership[1, np.setdiff1d(np.arange(53), canaries)[:5]] = False
    source = foreign_more.misleading_evals(tmp_path / "validate", truth, canaries)
    report = ingest(source, store)
    assert any(told.startswith("5 examples that are no canaries") for told in report.warnings)


def test_runs_with_a_suffix(tmp_path, store, drawn):
    truth, canaries = drawn
    source = foreign_more.misleading_evals(tmp_path / "clean", truth, canaries, suffix="train_0")
    ingest(source, store)
    foreign.assert_holds(open_store(store), truth)
    assert open_store(store).info.name == "clean"
    beside = foreign_more.misleading_evals(tmp_path / "cifar100" / "clean", truth, canaries)
    ingest(beside, store.with_name("told.lira"))
    assert open_store(store.with_name("told.lira")).info.name == "cifar100/clean"
    other = truth.with_logits(truth.logits + np.float32(1))
    foreign_more.misleading_evals(source, other, canaries, suffix="train_1")
    with pytest.raises(SourceError, match="shadow_train_0, shadow_train_1 are runs of their own"):
        ingest(source, store)
    ingest(source / "shadow_train_1", store.with_name("other.lira"))
    foreign.assert_holds(open_store(store.with_name("other.lira")), other)


def test_another_layout_in_a_directory_called_shadow(tmp_path):
    assert importers.detect(foreign_more.lira_pytorch(tmp_path / "shadow_0", foreign.experiment())) == (
        "lira-pytorch"
    )


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (
            "shadow_membership_mask",
            lambda mask: mask.T,
            r"\(4, 53\), expected \(examples, models\), \(53, models\)",
        ),
        ("shadow_membership_mask", lambda mask: mask.int(), r"int32 \(53, 4\), expected bool"),
        ("shadow_membership_mask", lambda mask: mask[:, :3], "is of 3 models, expected 0 to 2"),
        ("shadow_membership_mask", lambda mask: mask[:52], r"shape \(52, 4\)"),
        ("attack_ys", lambda ys: ys[:52], r"labels have the shape \(52,\)"),
        ("attack_ys", lambda ys: ys.double(), "labels are float64"),
        ("attack_ys", lambda ys: ys + 1, "label 5 of example 4 is out of range"),
        ("canary_indices", lambda indices: indices + 40, "0 to 52, at least one; it has 11"),
        ("canary_indices", lambda indices: indices[[0, 0]], "expected distinct indices"),
        ("canary_indices", lambda indices: indices[:0], "it has 0"),
        ("canary_indices", lambda indices: indices > 0, r"bool \(11,\), expected int64"),
    ],
)
def test_files_that_do_not_fit_are_refused(source, store, name, change, told):
    path = source / f"{name}.pt"
    torch.save(change(torch.load(path, weights_only=True)).contiguous(), path)
    with pytest.raises(SourceError, match=told):
        ingest(source, store)
    assert not store.exists()


@pytest.mark.parametrize("name", ["attack_ys", "shadow_membership_mask", "canary_indices"])
def test_files_that_are_gone_are_named(source, store, name):
    (source / f"{name}.pt").unlink()
    with pytest.raises(SourceError, match=f"{name}\\.pt"):
        ingest(source, store)


def test_one_canary_without_an_axis(source, store):
    torch.save(torch.tensor(7), source / "canary_indices.pt")
    ingest(source, store)
    assert np.flatnonzero(open_store(store).attackable()).tolist() == [7]


def test_outputs_with_and_without_a_defence_must_be_chosen(source, store):
    for model in range(4):
        path = source / "shadow" / str(model) / "predictions_train.pt"
        shutil.copy(path, path.with_name("predictions_train_traintime.pt"))
        path.rename(path.with_name("predictions_train_testtime.pt"))
    with pytest.raises(SourceError, match=r"predictions_train_testtime\.pt, predictions_train_traintime\.pt"):
        ingest(source, store)


# --- .pt files ------------------------------------------------------------------------------------


def test_pickles_in_the_place_of_tensors_are_refused(source, store, tmp_path):
    path = source / "shadow" / "2" / "predictions_train.pt"
    values = torch.load(path, weights_only=True)
    for spoiled in (foreign_more.Mark(tmp_path / "loaded"), [values, foreign_more.Mark(tmp_path / "loaded")]):
        torch.save(spoiled, path)
        with pytest.raises(
            SourceError, match=r"2/predictions_train\.pt: holds (0 tensors|more than a tensor)"
        ):
            ingest(source, store)
    foreign_more.trap(path)
    with pytest.raises(SourceError, match=r"not a \.pt file as torch\.save has written it"):
        ingest(source, store)
    assert foreign_more.no_pickle_was_loaded(tmp_path)


def test_a_tensor_is_read_where_it_lies(tmp_path):
    """Views into a larger storage, transposed ones, and every type that numpy has."""
    path = tmp_path / "x.pt"
    whole = torch.arange(60).reshape(6, 10)
    for tensor in (
        whole,
        whole[2:4],
        whole.T,
        whole[3],
        torch.tensor(5),
        whole.to(torch.float16),
        whole % 2 == 0,
        torch.nn.Parameter(whole.double()),
        torch.zeros(0, 3),
    ):
        torch.save(tensor, path)
        read = open_tensor(path)
        np.testing.assert_array_equal(read.load(), tensor.detach().numpy())
        assert read.dtype == tensor.detach().numpy().dtype


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        (lambda: {"a": torch.zeros(3)}, "holds a dict, expected one dense tensor"),
        (lambda: [torch.zeros(3), torch.ones(3)], "holds 2 tensors"),
        (lambda: torch.zeros(3, dtype=torch.bfloat16), r"torch\.bfloat16, which numpy lacks"),
        (lambda: torch.zeros(4, 6)[:, ::2], "a view with gaps"),
        (lambda: torch.eye(3).to_sparse(), "holds 2 tensors|expected one dense tensor"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(tmp_path, saved, told):
    torch.save(saved(), tmp_path / "x.pt")
    with pytest.raises(SourceError, match=told):
        open_tensor(tmp_path / "x.pt")


def test_damaged_and_old_files_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(torch.zeros(1000), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SourceError, match="cut short"):
        open_tensor(path)
    torch.save(torch.zeros(3), path, _use_new_zipfile_serialization=False)
    with pytest.raises(SourceError, match=r"since torch 1\.6"):
        open_tensor(path)
    path.unlink()
    with pytest.raises(SourceError, match="no such file"):
        open_tensor(path)
    path.mkdir()
    with pytest.raises(SourceError, match="a directory"):
        open_tensor(path)


def test_without_torch_it_says_so(source, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match="pip install torch"):
        ingest(source, store)
