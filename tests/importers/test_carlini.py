"""The layout of tensorflow/privacy research/mi_lira_2021: every value, and every trap."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import foreign
import numpy as np
import pytest

from lirastore import importers
from lirastore.errors import InputError, NonFiniteLogits, SourceError
from lirastore.store import open_store


@pytest.fixture
def truth():
    return foreign.experiment()


@pytest.fixture
def source(tmp_path, truth):
    return foreign.carlini(tmp_path / "cifar10", truth)


def refused(source: Path, told: str, **options) -> None:
    """`ingest` raises SourceError with `told` in its message, and writes nothing."""
    store = source.parent / "refused.lira"
    with pytest.raises(SourceError, match=told):
        importers.ingest(source, store, progress=False, **options)
    assert not [path for path in source.parent.iterdir() if path.name.startswith("refused")]


def ingested(source: Path, **options):
    """(store, report) of an import into a fresh store."""
    path = source.parent / "imported.lira"
    report = importers.ingest(source, path, progress=False, **options)
    return open_store(path), report


# --- what it reads --------------------------------------------------------------------------------


def test_every_value_arrives(source, truth):
    store, report = ingested(source)
    foreign.assert_holds(store, truth)
    assert report.format == "carlini"
    assert report.ingested == (0, 1, 2, 3)
    assert report.warnings == ()
    assert store.info.augmentations == ("identity", "flip")
    assert store.info.classes == 5
    assert store.info.name == "cifar10"


def test_more_models_than_sort_as_text(tmp_path):
    truth = foreign.experiment(models=12, examples=20)
    store, _ = ingested(foreign.carlini(tmp_path / "log", truth))
    foreign.assert_holds(store, truth)


def test_metadata_tells_where_a_model_came_from(source, truth):
    store, _ = ingested(source)
    metadata = store.commits()[2].metadata
    assert metadata["source_id"] == "experiment-2_4"
    assert metadata["source_file"] == "experiment-2_4/logits/0000000020.npy"
    assert metadata["epoch"] == 20
    assert metadata["hparams"] == foreign.hparams(2, 4)
    assert metadata["seed"] == 1002


def test_experiments_numbered_by_seed(tmp_path, truth):
    store, _ = ingested(foreign.carlini(tmp_path / "log", truth, seeds=True))
    foreign.assert_holds(store, truth)


def test_the_fork_with_augmentations_in_its_names(tmp_path, truth):
    store, _ = ingested(foreign.carlini(tmp_path / "log", truth, fork=True))
    foreign.assert_holds(store, truth)


def test_the_latest_epoch_is_the_default_and_another_can_be_chosen(tmp_path, truth):
    source = foreign.carlini(tmp_path / "log", truth, epochs=(5, 10, 100))
    store, _ = ingested(source)
    foreign.assert_holds(store, truth)
    importers.ingest(source, tmp_path / "early.lira", epoch=10, progress=False)
    foreign.assert_holds(
        open_store(tmp_path / "early.lira"), truth.with_logits(truth.logits + np.float32(90))
    )


def test_latest_epochs_that_differ_are_refused(tmp_path, truth):
    source = foreign.carlini(tmp_path / "log", truth, epochs=(10, 15, 20))
    foreign.logits_of(source, 1).unlink()
    told = "epoch 15: models 1; epoch 20: models 0, 2, 3"
    refused(source, rf"latest epochs differ \({told}\).*choose one with --epoch 15 \(epoch=15\)")
    refused(source, told, allow_missing=True)
    store, _ = ingested(source, epoch=15)
    foreign.assert_holds(store, truth.with_logits(truth.logits + np.float32(5)))


def test_latest_epochs_that_differ_with_none_in_common(source, truth):
    old = foreign.logits_of(source, 1)
    old.rename(old.with_name("0000000015.npy"))
    refused(source, "none in common: complete the models.*--epoch 20 --allow-missing")
    store, _ = ingested(source, epoch=20, allow_missing=True)
    foreign.assert_holds(store, truth, [0, 2, 3])


@pytest.mark.parametrize(
    ("name", "padded"), [("30.npy", "0000000030.npy"), ("000030_2.npy", "0000000030_0002.npy")]
)
def test_epochs_padded_otherwise_are_not_passed_over(source, name, padded):
    path = foreign.logits_of(source, 1)
    shutil.copy(path, path.with_name(name))
    refused(source, f"{name}: expected the epoch with ten digits: rename it to {padded}")


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4", ">f8"])
def test_other_floats(tmp_path, dtype):
    truth = foreign.experiment(dtype=np.dtype(dtype))
    store, _ = ingested(foreign.carlini(tmp_path / "log", truth))
    assert store.info.dtype == ("float16" if dtype == "<f2" else "float32")
    foreign.assert_holds(store, truth)


def test_the_store_dtype_can_be_chosen(source, truth):
    store, _ = ingested(source, dtype="float16")
    assert store.info.dtype == "float16"
    foreign.assert_holds(store, truth)


def test_scores_alone_make_a_signal_only_store(tmp_path, truth):
    store, _ = ingested(foreign.carlini(tmp_path / "log", truth, kind="scores"))
    assert store.info.classes is None
    assert "logits" not in store.arrays
    for model in range(truth.models):
        scores = store.read("scaled_logit", model, 0, len(truth.labels))
        np.testing.assert_array_equal(scores, truth.scaled[model].astype(np.float32))


def test_scores_beside_logits_are_left_alone(source, truth):
    for model in range(truth.models):
        folder = foreign.run_of(source, model) / "scores"
        folder.mkdir()
        np.save(folder / "0000000020.npy", np.zeros((len(truth.labels), 2)))
    store, _ = ingested(source)
    foreign.assert_holds(store, truth)


@pytest.mark.parametrize(
    ("queries", "names"),
    [
        (1, ("identity",)),
        (2, ("identity", "flip")),
        (18, tuple(f"query{query}" for query in range(18))),
    ],
)
def test_queries_are_named_where_they_are_known(tmp_path, queries, names):
    truth = foreign.experiment(models=2, augmentations=queries)
    store, _ = ingested(foreign.carlini(tmp_path / "log", truth))
    foreign.assert_holds(store, truth)
    assert store.info.augmentations == names


def test_queries_of_tabular_data_are_not_called_flips(source, truth):
    np.save(source / "x_train.npy", np.zeros((len(truth.labels), 7)))
    store, report = ingested(source)
    assert store.info.augmentations == ("query0", "query1")
    assert store.preview([0]) is None
    assert report.warnings == ()


@pytest.mark.parametrize(
    "pixels",
    [
        lambda images: images,
        lambda images: images / 127.5 - 1,
        lambda images: (images / 255).astype(np.float32),
        lambda images: (images / np.float32(127.5) - 1).astype(">f4"),
    ],
)
def test_pictures_come_back_to_the_bit(source, truth, pixels):
    np.save(source / "x_train.npy", pixels(truth.images))
    store, report = ingested(source)
    np.testing.assert_array_equal(store.preview(np.arange(len(truth.labels))), truth.images)
    assert report.warnings == ()


@pytest.mark.parametrize(
    "spoil", [lambda x: x * 3, lambda x: x.astype(int), lambda x: np.where(x == x.max(), np.nan, x)]
)
def test_what_makes_no_pictures_is_told(source, truth, spoil):
    np.save(source / "x_train.npy", spoil(truth.images / 127.5 - 1))
    store, report = ingested(source)
    assert store.preview([0]) is None
    assert "no pictures for the report" in str(report)


def test_pictures_that_take_too_much_disk_are_left_out_and_told(source, monkeypatch):
    monkeypatch.setattr("lirastore.importers.pictures._MOST_BYTES", 1000)
    store, report = ingested(source)
    assert store.preview([0]) is None
    assert "of more than 0 MiB as pictures" in str(report)


def test_inputs_and_hyperparameters_are_not_needed(source, truth):
    (source / "x_train.npy").unlink()
    (foreign.run_of(source, 1) / "hparams.json").unlink()
    store, _ = ingested(source)
    foreign.assert_holds(store, truth)
    assert store.preview([0]) is None


def test_other_things_in_the_directory_are_left_alone(source, truth):
    (source / "experiment.log").write_text("not a directory")
    (source / "tb").mkdir()
    (foreign.run_of(source, 0) / "logits" / "0000000020.npy.tmp").write_bytes(b"\x93NUMPY")
    store, _ = ingested(source)
    foreign.assert_holds(store, truth)


def test_copied_outputs_are_told(source):
    shutil.copy(foreign.logits_of(source, 1), foreign.logits_of(source, 3))
    _, report = ingested(source)
    assert "models 1, 3 have the same outputs" in str(report)


# --- missing models -------------------------------------------------------------------------------


def test_a_missing_model_is_an_error_by_default(source):
    shutil.rmtree(foreign.run_of(source, 2))
    refused(source, r"1 of 4 models are missing: 2 \(no such directories\).*--allow-missing")


def test_a_missing_model_never_shifts_rows(source, truth):
    shutil.rmtree(foreign.run_of(source, 1))
    store, report = ingested(source, allow_missing=True)
    foreign.assert_holds(store, truth, [0, 2, 3])
    assert store.info.models == 4
    assert report.missing == (1,)
    assert store.info.design["unknown_masks"] == [1]
    assert not store.membership([1]).any()


def test_the_last_model_may_be_the_missing_one(source, truth):
    shutil.rmtree(foreign.run_of(source, 3))
    refused(source, "missing: 3")
    store, _ = ingested(source, allow_missing=True)
    assert store.info.models == 4
    foreign.assert_holds(store, truth, [0, 1, 2])


def test_a_run_without_outputs_is_missing_but_its_mask_is_known(source, truth):
    kept = foreign.logits_of(source, 1).rename(source.parent / "kept.npy")
    refused(source, "missing: 1.*logits has no outputs; its epochs: none")
    store, _ = ingested(source, allow_missing=True)
    foreign.assert_holds(store, truth, [0, 2, 3])
    np.testing.assert_array_equal(store.membership([1])[0], truth.membership[1])
    kept.rename(foreign.logits_of(source, 1))
    store, report = ingested(source)
    assert report.ingested == (1,)
    foreign.assert_holds(store, truth)


def test_a_run_that_died_at_once_is_missing(source, truth):
    run = foreign.run_of(source, 1)
    shutil.rmtree(run)
    run.mkdir()
    refused(source, "missing: 1")
    store, _ = ingested(source, allow_missing=True)
    foreign.assert_holds(store, truth, [0, 2, 3])
    assert store.info.design["unknown_masks"] == [1]


def test_a_model_that_was_unknown_cannot_be_written(source, truth):
    shutil.rmtree(foreign.run_of(source, 1))
    store, _ = ingested(source, allow_missing=True)
    with pytest.raises(InputError, match=r"model 1: its training set was unknown .* into a new store"):
        store.writer(1)
    foreign.assert_holds(store, truth, [0, 2, 3])


def test_a_model_that_was_unknown_and_trained_on_nothing_cannot_be_added(source, truth):
    aside = foreign.run_of(source, 1).rename(source.parent / "aside")
    ingested(source, allow_missing=True)
    aside.rename(source / "experiment-1_4")
    np.save(source / "experiment-1_4" / "keep.npy", np.zeros(53, bool))
    with pytest.raises(SourceError, match=r"model 1 was missing when this store was made.*new store"):
        ingested(source)


def test_a_model_that_was_unknown_cannot_be_added_later(source):
    aside = foreign.run_of(source, 1).rename(source.parent / "aside")
    ingested(source, allow_missing=True)
    aside.rename(source / "experiment-1_4")
    with pytest.raises(SourceError, match=r"model 1 was missing when this store was made.*new store"):
        ingested(source)


def test_seeds_with_a_gap(tmp_path, truth):
    source = foreign.carlini(tmp_path / "log", truth, seeds=True)
    shutil.rmtree(source / "experiment-0")
    refused(source, "missing: 0")
    store, _ = ingested(source, allow_missing=True)
    foreign.assert_holds(store, truth, [1, 2, 3])


def test_an_epoch_that_a_model_lacks(tmp_path, truth):
    source = foreign.carlini(tmp_path / "log", truth, epochs=(10, 20))
    foreign.logits_of(source, 2, 10).unlink()
    refused(source, r"missing: 2 .*no outputs at epoch 10; its epochs: 20", epoch=10)
    refused(source, "missing: 0, 1, 2, 3", epoch=11)
    refused(source, "no model has outputs at epoch 11", epoch=11, allow_missing=True)


# --- what it refuses, before the first write ------------------------------------------------------


def rewrite(change):
    def spoil(path: Path) -> None:
        np.save(path, change(np.load(path)))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (rewrite(lambda z: z[:-1]), r"shape \(52, 1, 2, 5\), but .*experiment-0_4.* has \(53, 1, 2, 5\)"),
        (rewrite(lambda z: z[:, :, :1]), r"shape \(53, 1, 1, 5\), but"),
        (rewrite(lambda z: z[..., :4]), r"shape \(53, 1, 2, 4\), but"),
        (rewrite(lambda z: z[:, 0]), r"shape \(53, 2, 5\), expected \(examples, 1, augmentations, classes\)"),
        (rewrite(lambda z: z.astype(int)), "type int64, expected float32"),
        (rewrite(lambda z: z.astype(complex)), "type complex128, expected float32"),
        (rewrite(lambda z: z > 0), "type bool, expected float32"),
        (rewrite(np.asfortranarray), "Fortran order.*np.ascontiguousarray"),
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "cut short: 2241 bytes.*which is 2248"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0" * 4), "too long"),
        (lambda path: path.write_bytes(b""), "not a readable .npy array"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff\xffxx"), "not a readable .npy array"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f"), "a header of 2147483647 bytes"),
        (lambda path: path.write_text("logits"), "not a readable .npy array"),
    ],
)
def test_bad_logits(source, spoil, told):
    spoil(foreign.logits_of(source, 3))
    refused(source, rf"experiment-3_4/logits/0000000020.npy: .*{told}")


class Exploding:
    """A pickle of this creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "name", ["experiment-2_4/logits/0000000020.npy", "experiment-2_4/keep.npy", "y_train.npy", "x_train.npy"]
)
def test_pickles_are_never_loaded(source, tmp_path, name):
    np.save(source / name, np.array([Exploding(tmp_path / "exploded")], dtype=object), allow_pickle=True)
    refused(source, f"{name}: an object array, which holds a pickle")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.ones(52, bool), r"bool \(52,\), expected bool \(53,\)"),
        (np.ones(54, bool), r"bool \(54,\), expected bool \(53,\)"),
        (np.ones(53, int), r"int64 \(53,\), expected bool"),
        (np.ones((1, 53), bool), r"bool \(1, 53\), expected bool"),
    ],
)
def test_bad_masks(source, mask, told):
    np.save(foreign.run_of(source, 1) / "keep.npy", mask)
    refused(source, f"experiment-1_4/keep.npy: {told}")


def test_an_absent_mask(source):
    (foreign.run_of(source, 1) / "keep.npy").unlink()
    refused(source, "experiment-1_4/keep.npy: no such file")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.arange(53) % 6, r"label 5 of example 5 is out of range \(8 such\): expected 0 to 4"),
        (np.arange(53) % 5 - 1, "label -1 of example 0 is out of range"),
        (np.arange(52) % 5, r"labels have the shape \(52,\), expected \(53,\)"),
        (np.arange(53) % 5.0, "labels are float64"),
        (np.arange(53)[:, None] % 5, r"shape \(53, 1\)"),
    ],
)
def test_bad_labels(source, labels, told):
    np.save(source / "y_train.npy", labels)
    refused(source, f"y_train.npy: .*{told}")


def test_absent_labels(source):
    (source / "y_train.npy").unlink()
    refused(source, "y_train.npy: no such file")


def test_inputs_of_another_data_set(source, truth):
    np.save(source / "x_train.npy", truth.images[:-1])
    refused(source, r"x_train.npy: shape \(52, 4, 4, 3\), expected 53 examples first")


@pytest.mark.parametrize("twin", ["experiment-03_4", "experiment-3"])
def test_two_directories_of_one_experiment(source, twin):
    shutil.copytree(foreign.run_of(source, 3), source / twin)
    refused(source, "are both experiment 3")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("experiment-4_4", "experiment 4 of 4: expected 0 to 3"),
        ("experiment-4_16", "experiments of different sizes"),
        ("experiment-9", "experiments of different sizes"),
        ("experiment-3_4.bak", "expected a name like experiment-3_16"),
        ("experiment-3_4 (copy)", "expected a name like experiment-3_16"),
        ("experiments", "expected a name like experiment-3_16"),
    ],
)
def test_directories_that_do_not_belong(source, name, told):
    shutil.copytree(foreign.run_of(source, 3), source / name)
    refused(source, told)


def test_a_renamed_directory_is_found_out(source):
    run = foreign.run_of(source, 1)
    shutil.rmtree(foreign.run_of(source, 2))
    run.rename(source / "experiment-2_4")
    refused(
        source,
        "hparams.json: tells of expid 1, but its directory is that of experiment 2",
        allow_missing=True,
    )


def test_random_seeds_have_no_rows(tmp_path, truth):
    source = foreign.carlini(tmp_path / "log", truth, seeds=True)
    (source / "experiment-3").rename(source / "experiment-912345678")
    refused(source, "named by a random seed.*rename the 4 directories", allow_missing=True)


def test_logits_of_some_and_scores_of_others(source, truth):
    run = foreign.run_of(source, 2)
    shutil.rmtree(run / "logits")
    (run / "scores").mkdir()
    np.save(run / "scores" / "0000000020.npy", truth.scaled[2])
    refused(source, "experiment-2_4 have scores but no logits")


def test_two_files_of_one_epoch(source):
    path = foreign.logits_of(source, 2)
    shutil.copy(path, path.with_name("0000000020_0002.npy"))
    refused(source, "are both of epoch 20")


def test_a_forks_name_that_tells_another_number_of_queries(tmp_path, truth):
    source = foreign.carlini(tmp_path / "log", truth, fork=True)
    folder = foreign.run_of(source, 1) / "logits"
    (folder / "0000000020_0002.npy").rename(folder / "0000000020_0018.npy")
    refused(source, "its name says 18 augmentations, its shape 2")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"lr": NaN}', "NaN is no JSON value"),
        ('{"lr": -Infinity}', "-Infinity is no JSON value"),
        ('{"lr": 0.1', "not valid JSON"),
        ("[1, 2]", "expected a JSON object"),
    ],
)
def test_bad_hyperparameters(source, text, told):
    (foreign.run_of(source, 1) / "hparams.json").write_text(text)
    refused(source, f"experiment-1_4/hparams.json: {told}")


def test_hyperparameters_may_be_any_json(source, truth):
    path = foreign.run_of(source, 1) / "hparams.json"
    path.write_text(json.dumps({"expid": 1, "patience": None, "name": "Ünïcode"}), encoding="utf-8")
    store, _ = ingested(source)
    assert store.commits()[1].metadata["hparams"]["name"] == "Ünïcode"


# --- what it finds while streaming ----------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_that_is_not_finite_is_not_committed(source, truth, value):
    path = foreign.logits_of(source, 2)
    logits = np.load(path)
    logits[40, 0, 1, 3] = value
    np.save(path, logits)
    with pytest.raises(NonFiniteLogits, match=r"experiment-2_4/logits.*2 models are in .*, which resumes$"):
        ingested(source)
    store = open_store(source.parent / "imported.lira")
    foreign.assert_holds(store, truth, [0, 1])
    np.save(path, truth.logits[2][:, None])
    store, report = ingested(source)
    assert report.skipped == (0, 1)
    assert report.ingested == (2, 3)
    foreign.assert_holds(store, truth)


def test_a_float64_that_overflows_is_not_finite(tmp_path):
    truth = foreign.experiment(dtype=np.float64)
    truth.logits[1, 3, 0, 0] = 1e300
    with pytest.raises(NonFiniteLogits, match="experiment-1_4"):
        ingested(foreign.carlini(tmp_path / "log", truth))
