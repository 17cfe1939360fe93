"""What the layouts that are one module each have in common; their own traps are in files of their own."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import foreign
import foreign_more
import numpy as np
import pytest
from click.testing import CliRunner
from foreign import Truth
from test_ingest import KILLED_WHILE_READING, python

import lirastore
from lirastore import importers
from lirastore.cli import cli
from lirastore.errors import NonFiniteLogits, SourceError
from lirastore.importers.source import Options
from lirastore.store import LogitStore, open_store

torch = pytest.importorskip("torch")


@dataclass
class Case:
    """A layout: a way to write it, options of `ingest`, and where a model's outputs are."""

    name: str
    source: Path
    truth: Truth
    options: dict[str, Any]
    outputs: Callable[[int], Path]
    reads: int  # of a slice, before which one or two models are complete (of confidences none)
    confidences: bool = False

    def ingest(self, store: Path, **options: Any) -> importers.IngestReport:
        return importers.ingest(self.source, store, progress=False, **{**self.options, **options})

    def assert_holds(self, store: LogitStore, models: list[int] | None = None) -> None:
        if not self.confidences:
            foreign.assert_holds(store, self.truth, models)
            return
        models = list(range(self.truth.models)) if models is None else models
        assert store.committed().tolist() == models
        assert store.info.classes is None
        np.testing.assert_array_equal(store.membership(models), self.truth.membership[models])
        p = foreign_more.confidences(self.truth).astype(np.float64)
        for model in models:
            found = store.read("scaled_logit", model, 0, len(self.truth.labels))[:, 0]
            np.testing.assert_allclose(found, np.log(p[:, model] / (1 - p[:, model])), rtol=1e-6)

    def change(self, model: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Rewrites the outputs of one model."""
        path = self.outputs(model)
        if path.suffix == ".pt":
            values = torch.load(path, weights_only=True).numpy()
            torch.save(torch.from_numpy(change(values)), path)
            return
        values = np.load(path)
        if self.confidences:
            values[:, model] = change(values[:, model])
        else:
            values = change(values)
        np.save(path, values)

    def lose(self, model: int) -> Callable[[], None]:
        """Takes the outputs of one model away; what is returned puts them back."""
        path = self.outputs(model)
        if self.confidences:
            whole = np.load(path)
            np.save(path, whole[:, :model])
            return lambda: np.save(path, whole)
        for scores in (path.with_name("scores.npy"), path.parents[1] / "scores" / "scores.npy"):
            scores.unlink(missing_ok=True)
        aside = path.with_suffix(".aside")
        path.rename(aside)

        def restore() -> None:
            aside.rename(path)

        return restore


def lira_pytorch(root: Path) -> Case:
    truth = foreign.experiment()
    source = foreign_more.lira_pytorch(root / "cifar10", truth)
    options = {"labels": foreign_more.labels(root / "y.npy", truth)}
    return Case("lira-pytorch", source, truth, options, lambda m: source / str(m) / "logits.npy", 20)


def lira_analysis(root: Path) -> Case:
    truth = foreign.experiment()
    source = foreign_more.lira_analysis(root / "resnet18" / "seed1", truth)
    options = {"labels": foreign_more.labels(root / "y.npy", truth)}
    return Case(
        "lira-analysis", source, truth, options, lambda m: source / f"model_{m}" / "logits" / "logits.npy", 20
    )


def misleading_evals(root: Path) -> Case:
    truth, canaries = foreign_more.canary_experiment()
    source = foreign_more.misleading_evals(root / "label_noise", truth, canaries)
    return Case(
        "misleading-evals",
        source,
        truth,
        {},
        lambda m: source / "shadow" / str(m) / "predictions_train.pt",
        120,
    )


def privacy_meter(root: Path) -> Case:
    truth = foreign_more.paired(foreign.experiment(augmentations=1))
    source = foreign_more.privacy_meter(root / "demo", truth)
    return Case(
        "privacy-meter",
        source,
        truth,
        {},
        lambda m: source / "signals" / "rmia_signals.npy",
        19,  # 17 are samples of it
        confidences=True,
    )


def leakpro(root: Path) -> Case:
    truth, order = foreign_more.audited(models=4)
    source = foreign_more.leakpro(root / "leakpro_output", truth, order)
    np.save(root / "masks.npy", truth.membership)
    options = {"labels": foreign_more.labels(root / "y.npy", truth), "membership": root / "masks.npy"}

    def outputs(model: int) -> Path:
        name = "target_*" if model == 3 else f"sm_{model}_*"
        return next((source / "attack_cache").glob(f"{name}_logits.npy"))

    return Case("leakpro", source, truth, options, outputs, 8)


LAYOUTS = {
    "lira-pytorch": lira_pytorch,
    "lira-analysis": lira_analysis,
    "misleading-evals": misleading_evals,
    "privacy-meter": privacy_meter,
    "leakpro": leakpro,
}


def only(*names: str) -> pytest.MarkDecorator:
    """For tests of some of the layouts."""
    return pytest.mark.parametrize("case", names, indirect=True)


@pytest.fixture(params=LAYOUTS)
def case(request, tmp_path):
    return LAYOUTS[request.param](tmp_path)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "imported.lira"


def test_every_layout_has_its_case():
    assert {"carlini", "npz", *LAYOUTS} == set(importers.FORMATS)


def test_all_of_it_arrives_and_is_compared_the_next_time(case, store):
    assert importers.detect(case.source) == case.name
    report = case.ingest(store)
    assert (report.format, report.ingested, report.missing) == (case.name, (0, 1, 2, 3), ())
    opened = open_store(store)
    case.assert_holds(opened)
    assert opened.info.design == {"scheme": "imported", "format": case.name}
    assert opened.commits()[2].metadata["source_format"] == case.name
    report = case.ingest(store)
    assert (report.ingested, report.skipped) == ((), (0, 1, 2, 3))
    case.change(2, lambda values: (values * 0.5).astype(values.dtype))
    with pytest.raises(SourceError, match=r"model 2 is in .*its contents have changed.*discard.* --models 2"):
        case.ingest(store)
    assert foreign_more.no_pickle_was_loaded(case.source.parent)


def test_the_order_of_a_listing_is_of_no_account(case, monkeypatch):
    def scanned() -> list[tuple[int, str, str]]:
        options = Options(**case.options)
        models = importers.importer(case.name).scan(case.source, options).models
        return [(model.model, model.source_id, model.fingerprint) for model in models]

    before, real = scanned(), Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(real(path), reverse=True)))
    assert scanned() == before
    assert [number for number, *_ in before] == [0, 1, 2, 3]


def test_a_missing_model_is_named_and_shifts_no_row(case, store):
    restore = case.lose(1)
    gone = [1, 2, 3] if case.confidences else [1]
    numbers = ", ".join(map(str, gone))
    with pytest.raises(SourceError, match=rf"{len(gone)} of 4 models are missing: {numbers}\b"):
        case.ingest(store)
    assert not store.exists()
    report = case.ingest(store, allow_missing=True)
    assert report.missing == tuple(gone)
    case.assert_holds(open_store(store), [model for model in range(4) if model not in gone])
    np.testing.assert_array_equal(open_store(store).membership(range(4)), case.truth.membership)
    if not case.confidences:  # there the file of all models has changed
        restore()
        assert case.ingest(store).ingested == tuple(gone)
        case.assert_holds(open_store(store))


def test_a_killed_import_resumes(case, store):
    options = ", ".join(f"{name}={str(value)!r}" for name, value in case.options.items())
    code = KILLED_WHILE_READING.replace("progress=False)", f"progress=False, {options})")
    process = python(code, case.source, store, case.reads)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, stderr
    before = open_store(store).committed().tolist()
    assert len(before) in ((0,) if case.confidences else (1, 2))
    report = case.ingest(store)
    assert list(report.skipped) == before
    case.assert_holds(open_store(store))


def test_a_model_with_a_nan_is_not_committed(case, store):
    def spoil(values: np.ndarray) -> np.ndarray:
        values[17] = np.nan
        return values

    case.change(2, spoil)
    with pytest.raises(NonFiniteLogits, match=r"model 2.* 2 models are in") as failed:
        case.ingest(store)
    assert str(case.outputs(2)) in str(failed.value)
    case.assert_holds(open_store(store), [0, 1])


@only("lira-pytorch", "lira-analysis", "misleading-evals", "leakpro")
def test_float16_stays_float16(case, store):
    for model in range(4):
        case.change(model, lambda values: values.astype(np.float16))
    case.ingest(store)
    assert open_store(store).info.dtype == "float16"
    case.truth.logits[:] = case.truth.logits.astype(np.float16)
    case.assert_holds(open_store(store))


@only("lira-pytorch", "lira-analysis", "misleading-evals", "leakpro")
def test_models_of_different_shapes_are_refused(case, store):
    case.change(1, lambda values: values[:-1].copy())
    with pytest.raises(SourceError, match=r"shape \(|expected int64 \(39,\)"):
        case.ingest(store)
    assert not store.exists()


def test_whole_numbers_are_no_outputs(case, store):
    for model in range(4):
        case.change(model, lambda values: values.astype(np.int32))
    if case.confidences:
        np.save(case.outputs(0), np.load(case.outputs(0)).astype(np.int32))
    with pytest.raises(SourceError, match=r"int32.*expected float32"):
        case.ingest(store)


@only("lira-pytorch", "lira-analysis", "misleading-evals", "leakpro")
def test_a_copied_model_is_warned_of(case, store):
    shutil.copy(case.outputs(0), case.outputs(1))
    report = case.ingest(store)
    assert any("models 0, 1 have the same outputs" in warning for warning in report.warnings)


def test_a_file_is_none_of_them(case, store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="a file, expected a directory"):
        importers.ingest(tmp_path / "file", store, format=case.name, progress=False)


def test_an_empty_directory_is_none_of_them(case, store, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=re.escape(str(tmp_path / "empty"))):
        importers.ingest(tmp_path / "empty", store, format=case.name, **case.options, progress=False)


def test_an_option_without_use_is_an_error(case, store, tmp_path):
    for option in {"epoch", "labels", "membership"} - importers.importer(case.name).TAKES:
        value = 3 if option == "epoch" else tmp_path / "some.npy"
        with pytest.raises(SourceError, match=rf"{case.name} .*--{option} .*leave it out"):
            case.ingest(store, **{option: value})
    assert not store.exists()


@only("lira-pytorch", "lira-analysis", "privacy-meter", "leakpro")
def test_labels_of_another_length_are_refused(case, store, tmp_path):
    np.save(tmp_path / "short.npy", case.truth.labels[:-1])
    with pytest.raises(SourceError, match=r"short\.npy: labels have the shape"):
        case.ingest(store, labels=tmp_path / "short.npy")


@only("lira-pytorch", "lira-analysis", "leakpro")
def test_logits_need_labels(case, store):
    with pytest.raises(SourceError, match=r"does not store the labels.*--labels"):
        case.ingest(store, labels=None)


def test_the_command_and_the_facade_take_the_files(tmp_path):
    case = leakpro(tmp_path)
    files = [f"--{name}={path}" for name, path in case.options.items()]
    stores = [tmp_path / name for name in ("command.lira", "facade.lira")]
    done = CliRunner().invoke(cli, ["ingest", str(stores[0]), str(case.source), "--quiet", *files])
    assert (done.exit_code, done.stdout) == (0, f"{stores[0]}\n"), done.output
    lirastore.ingest(stores[1], case.source, progress=False, **case.options)
    for path in stores:
        case.assert_holds(open_store(path))


def test_the_command_lists_every_layout():
    listed = CliRunner().invoke(cli, ["ingest", "--help"]).stdout
    assert all(re.search(rf"^ +{name}  ", listed, re.MULTILINE) for name in importers.FORMATS)
