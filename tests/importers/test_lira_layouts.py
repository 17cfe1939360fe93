"""The traps of lira-pytorch and lira-analysis; what all layouts share is in test_more_layouts.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import foreign
import foreign_more
import numpy as np
import pytest

from lirastore import importers, subsets
from lirastore.datasets import dataset_key
from lirastore.errors import SourceError
from lirastore.store import open_store


@pytest.fixture
def truth():
    return foreign.experiment()


@pytest.fixture
def labels(tmp_path, truth):
    return foreign_more.labels(tmp_path / "y.npy", truth)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "imported.lira"


@pytest.fixture
def savedir(tmp_path, truth):
    return foreign_more.lira_pytorch(tmp_path / "cifar10", truth)


@pytest.fixture
def run(tmp_path, truth):
    return foreign_more.lira_analysis(tmp_path / "seed1", truth)


def ingest(source: Path, store: Path, **options) -> importers.IngestReport:
    return importers.ingest(source, store, progress=False, **options)


def assert_holds_scores(store: Path, truth: foreign.Truth) -> None:
    opened = open_store(store)
    assert opened.info.classes is None
    for model in range(truth.models):
        found = opened.read("scaled_logit", model, 0, len(truth.labels))
        np.testing.assert_array_equal(found, truth.scaled[model].astype(np.float32))
    np.testing.assert_array_equal(opened.membership(), truth.membership)


def test_the_data_set_may_be_told_by_a_directory_above(tmp_path, store, labels, truth):
    source = foreign_more.lira_analysis(tmp_path / "experiments" / "cifar10" / "resnet18" / "seed1", truth)
    ingest(source, store, labels=labels)
    assert open_store(store).info.name == "cifar10/resnet18/seed1"
    assert dataset_key(open_store(store).info.name) == "cifar10"


# --- lira-pytorch ---------------------------------------------------------------------------------


def test_its_queries_are_not_the_same_for_all_models(savedir, store, labels):
    report = ingest(savedir, store, labels=labels)
    assert any("query q is not the same transform across models" in told for told in report.warnings)
    assert open_store(store).info.augmentations == ("query0", "query1")


def test_numbers_are_sorted_as_numbers(tmp_path, store):
    truth = foreign.experiment(models=12)
    source = foreign_more.lira_pytorch(tmp_path / "cifar10", truth)
    ingest(source, store, labels=foreign_more.labels(tmp_path / "y.npy", truth))
    foreign.assert_holds(open_store(store), truth)
    assert [commit.metadata["source_id"] for commit in open_store(store).commits().values()][9:] == [
        "9",
        "10",
        "11",
    ]


def test_numbers_may_be_padded_but_not_repeated(savedir, store, labels, truth):
    for model in range(4):
        (savedir / str(model)).rename(savedir / f"{model:03d}")
    ingest(savedir, store, labels=labels)
    foreign.assert_holds(open_store(store), truth)
    shutil.copytree(savedir / "002", savedir / "2")
    with pytest.raises(SourceError, match=r"002 and 2 are both model 2|2 and 002 are both model 2"):
        ingest(savedir, store, labels=labels)


def test_a_directory_without_outputs_has_its_mask_and_one_that_is_gone_has_not(savedir, store, labels, truth):
    for kind in ("logits", "scores"):
        (savedir / "1" / f"{kind}.npy").unlink()
    shutil.rmtree(savedir / "2")
    with pytest.raises(SourceError, match="2 of 4 models are missing: 1, 2;"):
        ingest(savedir, store, labels=labels)
    ingest(savedir, store, labels=labels, allow_missing=True)
    opened = open_store(store)
    foreign.assert_holds(opened, truth, [0, 3])
    np.testing.assert_array_equal(opened.membership([1])[0], truth.membership[1])
    assert not opened.membership([2]).any()
    assert opened.info.design["unknown_masks"] == [2]


@pytest.mark.parametrize("keep_fraction", [0.5, 0.25])
def test_missing_models_at_the_end_are_known_by_the_masks(tmp_path, store, keep_fraction):
    truth = foreign.experiment(models=16)
    truth.membership[:] = subsets.draw("carlini", models=16, examples=53, keep_fraction=keep_fraction)
    source = foreign_more.lira_pytorch(tmp_path / "cifar10", truth)
    labels = foreign_more.labels(tmp_path / "y.npy", truth)
    for model in (13, 14, 15):
        shutil.rmtree(source / str(model))
    with pytest.raises(SourceError, match=r"3 of 16 models are missing: 13, 14, 15 \(.*--n_shadows 16\)"):
        ingest(source, store, labels=labels)
    assert ingest(source, store, labels=labels, allow_missing=True).models == 16
    foreign.assert_holds(open_store(store), truth, list(range(13)))


def test_masks_of_another_origin_say_nothing_of_models_at_the_end(savedir, store, labels):
    random = np.random.default_rng(0)
    for model in range(4):
        np.save(savedir / str(model) / "keep.npy", random.random(53) < 0.5)
    shutil.rmtree(savedir / "3")
    assert ingest(savedir, store, labels=labels).models == 3


def test_scores_only_need_no_labels(tmp_path, truth, store):
    source = foreign_more.lira_pytorch(tmp_path / "cifar10", truth, kinds=("scores",))
    ingest(source, store)
    assert_holds_scores(store, truth)
    assert (open_store(store).labels() == -1).all()


def test_scores_with_labels_have_labels(tmp_path, truth, store, labels):
    source = foreign_more.lira_pytorch(tmp_path / "cifar10", truth, kinds=("scores",))
    ingest(source, store, labels=labels)
    np.testing.assert_array_equal(open_store(store).labels(), truth.labels)


def test_some_models_with_logits_and_some_with_scores_are_refused(savedir, store, labels):
    (savedir / "1" / "logits.npy").unlink()
    with pytest.raises(SourceError, match="models 1 have scores but no logits"):
        ingest(savedir, store, labels=labels)


def test_outputs_of_before_there_were_queries(tmp_path, store, labels):
    truth = foreign.experiment(augmentations=1)
    source = foreign_more.lira_pytorch(tmp_path / "cifar10", truth, kinds=())
    for model in range(4):
        np.save(source / str(model) / "logits.npy", truth.logits[model, :, 0])
    ingest(source, store, labels=labels)
    foreign.assert_holds(open_store(store), truth)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda keep: np.flatnonzero(keep), r"keep\.npy: int64 \(\d+,\), expected bool \(53,\)"),
        (lambda keep: keep[:-1], r"keep\.npy: bool \(52,\), expected bool \(53,\)"),
        (None, r"keep\.npy: no such file, though the layout needs it"),
    ],
)
def test_a_mask_that_is_none_is_refused(savedir, store, labels, change, told):
    path = savedir / "1" / "keep.npy"
    keep = np.load(path)
    path.unlink()
    if change is not None:
        np.save(path, change(keep))
    with pytest.raises(SourceError, match=told):
        ingest(savedir, store, labels=labels)


def test_other_directories_are_left_alone(savedir, store, labels, truth):
    (savedir / "2024").mkdir()
    (savedir / "2024" / "notes.txt").touch()
    ingest(savedir, store, labels=labels)
    foreign.assert_holds(open_store(store), truth)


def test_a_seed_for_a_name_is_refused(savedir, store, labels):
    (savedir / "3").rename(savedir / "812345678")
    with pytest.raises(SourceError, match="model 812345678; row m of the store is model m"):
        ingest(savedir, store, labels=labels)


@pytest.mark.parametrize("bad", [-1, 5])
def test_labels_out_of_range_are_refused(savedir, store, tmp_path, truth, bad):
    truth.labels[7] = bad
    with pytest.raises(SourceError, match=rf"label {bad} of example 7 is out of range"):
        ingest(savedir, store, labels=foreign_more.labels(tmp_path / "bad.npy", truth))


# --- lira-analysis --------------------------------------------------------------------------------


def test_its_models_are_sorted_as_numbers(tmp_path, store):
    truth = foreign.experiment(models=12)
    source = foreign_more.lira_analysis(tmp_path / "seed1", truth)
    ingest(source, store, labels=foreign_more.labels(tmp_path / "y.npy", truth))
    foreign.assert_holds(open_store(store), truth)


@pytest.mark.parametrize("lost", [0, 3])
def test_rows_are_not_shifted_as_by_the_tool(run, store, labels, truth, lost):
    shutil.rmtree(run / f"model_{lost}")
    with pytest.raises(SourceError, match=f"1 of 4 models are missing: {lost};"):
        ingest(run, store, labels=labels)
    ingest(run, store, labels=labels, allow_missing=True)
    foreign.assert_holds(open_store(store), truth, [model for model in range(4) if model != lost])
    np.testing.assert_array_equal(open_store(store).membership(range(4)), truth.membership)


def test_it_is_recognised_without_any_model(run):
    for model in range(4):
        shutil.rmtree(run / f"model_{model}")
    assert importers.detect(run) == "lira-analysis"
    with pytest.raises(SourceError, match=r"no model_\{i\} has outputs"):
        ingest(run, run.parent / "never.lira")


def test_logits_without_the_axis_of_one(run, store, labels, truth):
    for model in range(4):
        np.save(run / f"model_{model}" / "logits" / "logits.npy", truth.logits[model])
    ingest(run, store, labels=labels)
    foreign.assert_holds(open_store(store), truth)


def test_its_scores_only_need_no_labels(tmp_path, truth, store):
    source = foreign_more.lira_analysis(tmp_path / "seed1", truth, kinds=("scores",))
    ingest(source, store)
    assert_holds_scores(store, truth)


def test_masks_of_a_leave_one_out_run_serve_where_the_others_are_gone(run, store, labels, truth):
    (run / "keep_indices.npy").unlink()
    ingest(run, store, labels=labels)
    foreign.assert_holds(open_store(store), truth)


def test_masks_that_differ_are_refused(run, store, labels, truth):
    np.save(run / "membership_labels.npy", ~truth.membership)
    with pytest.raises(SourceError, match=r"membership_labels\.npy: differs from keep_indices\.npy"):
        ingest(run, store, labels=labels)
    np.save(run / "membership_labels.npy", ~truth.membership[:3])  # of a run with three of the models
    ingest(run, store, labels=labels)
    foreign.assert_holds(open_store(store), truth)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda keep: keep[:3], "masks of 3 models, expected model_0 to model_2"),
        (lambda keep: keep[:, :52], r"bool \(4, 52\), expected bool \(models, 53\)"),
        (lambda keep: keep.T, r"bool \(53, 4\), expected bool \(models, 53\)"),
        (lambda keep: keep.astype(np.uint8), r"uint8 \(4, 53\), expected bool \(4, 53\)"),
        (lambda keep: keep[0], r"bool \(53,\), expected bool \(models, 53\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(run, store, labels, truth, change, told):
    (run / "membership_labels.npy").unlink()
    np.save(run / "keep_indices.npy", change(truth.membership))
    with pytest.raises(SourceError, match=told):
        ingest(run, store, labels=labels)
    assert not store.exists()


def test_without_masks_it_is_refused(run, store, labels):
    for name in ("keep_indices.npy", "membership_labels.npy"):
        (run / name).unlink()
    with pytest.raises(SourceError, match=r"neither keep_indices\.npy nor membership_labels\.npy"):
        ingest(run, store, labels=labels)


@pytest.mark.parametrize(("queries", "shift"), [(18, 1), (50, 2)])
def test_its_augmentations_have_names(tmp_path, store, queries, shift):
    """Against its own loops over a picture: one pixel that is set shows by how much each query moves it."""
    truth = foreign.experiment(models=2, augmentations=queries, examples=5)
    source = foreign_more.lira_analysis(tmp_path / "seed1", truth)
    ingest(source, store, labels=foreign_more.labels(tmp_path / "y.npy", truth))
    names = open_store(store).info.augmentations
    picture = np.zeros((9, 9))
    picture[4, 4] = 1
    moved = []
    for flip in (False, True):
        padded = np.pad(picture, shift)
        for dx in range(2 * shift + 1):
            for dy in range(2 * shift + 1):
                down, right = (int(at) - 4 for at in np.argwhere(padded[dy : dy + 9, dx : dx + 9])[0])
                name = f"shift({f'{down:+d}' if down else 0},{f'{right:+d}' if right else 0})"
                moved.append(("flip " if flip else "") + name)
    expected = [name.replace("shift(0,0)", "identity").replace("flip identity", "flip") for name in moved]
    assert list(names) == expected
