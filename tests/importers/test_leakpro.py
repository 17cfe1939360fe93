"""The traps of leakpro; what all layouts share is in test_more_layouts.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import foreign
import foreign_more
import numpy as np
import pytest
from foreign_more import HASH

from lirastore import importers
from lirastore.errors import SourceError
from lirastore.store import open_store

MODELS = 5  # four shadow models, then the target


@pytest.fixture
def drawn():
    return foreign_more.audited(models=MODELS)


@pytest.fixture
def truth(drawn):
    return drawn[0]


@pytest.fixture
def source(tmp_path, drawn):
    return foreign_more.leakpro(tmp_path / "leakpro_output", *drawn)


@pytest.fixture
def labels(tmp_path, truth):
    return foreign_more.labels(tmp_path / "y.npy", truth)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "imported.lira"


@pytest.fixture
def masks(tmp_path):
    """Writes masks to a file, `.npy` for an array, else JSON."""

    def write(values: Any, name: str = "masks") -> Path:
        path = tmp_path / (f"{name}.npy" if isinstance(values, np.ndarray) else f"{name}.json")
        if isinstance(values, np.ndarray):
            np.save(path, values)
        else:
            path.write_text(json.dumps(values))
        return path

    return write


def ingest(source: Path, store: Path, **options) -> importers.IngestReport:
    return importers.ingest(source, store, progress=False, **options)


def samples(truth: foreign.Truth, names: list[str]) -> dict[str, list[int]]:
    """What LeakPro's metadata would say: the samples that each model was trained on."""
    return {name: np.flatnonzero(row).tolist() for name, row in zip(names, truth.membership, strict=True)}


def cache_of(source: Path, name: str) -> Path:
    return next((source / "attack_cache").glob(f"{name}_*_logits.npy"))


# --- masks ----------------------------------------------------------------------------------------


def test_pickles_are_refused(source, store, labels, tmp_path):
    with pytest.raises(
        SourceError, match=r"metadata_\{i\}\.pkl.*never loaded; pass the masks with --membership"
    ):
        ingest(source, store, labels=labels)
    pickled = source / "attack_objects" / "shadow_model" / "metadata_0.pkl"
    renamed = shutil.copy(pickled, tmp_path / "masks.npy")
    for path in (pickled, renamed):
        with pytest.raises(SourceError, match="a pickle, which could run any code and is never loaded"):
            ingest(source, store, labels=labels, membership=path)
    np.save(tmp_path / "objects.npy", np.array([foreign_more.Mark(tmp_path / "loaded")], dtype=object))
    with pytest.raises(SourceError, match="an object array, which holds a pickle"):
        ingest(source, store, labels=labels, membership=tmp_path / "objects.npy")
    assert foreign_more.no_pickle_was_loaded(tmp_path)
    assert not store.exists()


@pytest.mark.parametrize("form", ["npy", "integers", "lists", "zeros and ones", "samples", "named", "sm_"])
def test_the_forms_of_masks(source, store, labels, truth, masks, form):
    names = ["0", "1", "2", "3", "target"]
    given = {
        "npy": truth.membership,
        "integers": truth.membership.astype(np.uint8),
        "lists": truth.membership.tolist(),
        "zeros and ones": truth.membership.astype(int).tolist(),
        "samples": samples(truth, names),
        "named": dict(zip(names, truth.membership.tolist(), strict=True)),
        "sm_": samples(truth, ["sm_0", "sm_1", "sm_2", "sm_3", "target"]),
    }[form]
    assert ingest(source, store, labels=labels, membership=masks(given)).warnings == ()
    foreign.assert_holds(open_store(store), truth)
    metadata = [commit.metadata for commit in open_store(store).commits().values()]
    assert [told["role"] for told in metadata] == ["shadow"] * 4 + ["target"]
    assert metadata[4]["source_id"] == f"target_{HASH}"


def test_the_target_may_come_first(source, store, labels, truth, masks):
    ingest(source, store, labels=labels, membership=masks(np.roll(truth.membership, 1, axis=0)))
    foreign.assert_holds(open_store(store), truth)


def test_masks_in_the_order_of_the_rows(source, store, tmp_path, drawn, masks):
    truth, order = drawn
    inrow = foreign.Truth(
        truth.logits[:, order], truth.membership[:, order], truth.labels[order], truth.images[order]
    )
    labels = foreign_more.labels(tmp_path / "in_rows.npy", inrow)
    ingest(source, store, labels=labels, membership=masks(inrow.membership))
    foreign.assert_holds(open_store(store), inrow)


def test_masks_that_are_not_the_targets_are_refused(source, store, labels, truth, masks):
    random = np.random.default_rng(0)
    with pytest.raises(SourceError, match="the target's mask is not that of the target in the cache"):
        ingest(source, store, labels=labels, membership=masks(random.random((5, 40)) < 0.5))
    wrong = samples(truth, ["0", "1", "2", "target", "3"])
    with pytest.raises(SourceError, match="the target's mask is not that of the target in the cache"):
        ingest(source, store, labels=labels, membership=masks(wrong))
    assert not store.exists()


def test_masks_without_the_target_leave_it_out(source, store, labels, truth, masks):
    report = ingest(source, store, labels=labels, membership=masks(truth.membership[:4]))
    assert any(f"target_{HASH} is left out" in told for told in report.warnings)
    foreign.assert_holds(open_store(store), truth.with_logits(truth.logits[:4]))
    named = samples(truth, ["0", "1", "2", "3", "target"])
    del named["target"]
    report = ingest(source, store, labels=labels, membership=masks(named))
    assert report.skipped == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda mask: mask[:3], "3 rows, but there is sm_3: row i is shadow model i"),
        (lambda mask: mask[:, :39], "39 truth values for target, expected 40.* or more than 39"),
        (lambda mask: mask.astype(float), r"float64 \(5, 40\), expected bool"),
        (lambda mask: mask + 1, r"int64 \(5, 40\), expected bool"),
        (lambda mask: mask[0], r"bool \(40,\), expected bool"),
        (lambda _: [], "expected a list of equally long lists"),
        (lambda _: {}, "it is empty"),
        (lambda _: 7, "expected a list of equally long lists"),
        (lambda _: [[True, False], [True]], "expected a list of equally long lists"),
        (lambda _: {"zero": [1]}, "'zero', expected the number of a shadow model, or 'target'"),
        (lambda _: {"0": [1], "sm_0": [2]}, "tells of model 0 twice"),
        (lambda _: {"0": [3, 3]}, "a sample stands there twice"),
        (lambda _: {"0": [-3]}, "expected indices of samples, of 0 or more"),
        (lambda _: {"0": [0.5]}, "expected a list of truth values, or of the samples"),
        (lambda _: {"0": [1, 2], "target": [3]}, "nothing of sm_1, sm_2, sm_3, whose logits are there"),
    ],
)
def test_masks_that_do_not_fit_are_refused(source, store, labels, truth, masks, change, told):
    with pytest.raises(SourceError, match=told):
        ingest(source, store, labels=labels, membership=masks(change(truth.membership * True)))
    assert not store.exists()


def test_masks_that_are_not_there(source, store, labels, tmp_path):
    with pytest.raises(SourceError, match=r"expected a file of masks, a \.npy or JSON; there is none"):
        ingest(source, store, labels=labels, membership=tmp_path / "gone.json")


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["npy", "json"])
def test_a_missing_model_is_named(source, store, labels, truth, masks, form):
    given = truth.membership if form == "npy" else samples(truth, ["0", "1", "2", "3", "target"])
    for name in ("sm_0", "sm_3") if form == "json" else ("sm_0",):
        cache_of(source, name).unlink()
    absent = (
        "2 of 5 models are missing: 0, 3 .*sm_0, sm_3" if form == "json" else "1 of 5 .*missing: 0 .*sm_0"
    )
    with pytest.raises(SourceError, match=absent):
        ingest(source, store, labels=labels, membership=masks(given))
    ingest(source, store, labels=labels, membership=masks(given), allow_missing=True)
    foreign.assert_holds(open_store(store), truth, [1, 2, 4] if form == "json" else [1, 2, 3, 4])


def test_numbers_that_do_not_begin_with_0_need_names(source, store, labels, truth, masks):
    """After a retraining the tool goes on counting."""
    for path in sorted((source / "attack_cache").glob("sm_*")):
        number, rest = path.name.removeprefix("sm_").split("_", 1)
        path.rename(path.with_name(f"sm_{int(number) + 9}_{rest}"))
    with pytest.raises(SourceError, match="5 rows, but there is sm_12"):
        ingest(source, store, labels=labels, membership=masks(truth.membership))
    named = samples(truth, ["9", "10", "11", "12", "target"])
    ingest(source, store, labels=labels, membership=masks(named))
    foreign.assert_holds(open_store(store), truth)
    assert open_store(store).commits()[1].metadata["source_id"].startswith("sm_10_")


def test_outputs_of_another_split_are_refused(source, store, labels, truth, masks):
    path = cache_of(source, "sm_1")
    for kind in ("logits", "indices"):
        name = path.name.replace("_logits", f"_{kind}")
        shutil.copy(path.with_name(name), path.with_name(f"sm_7_{'ab' * 32}_{kind}.npy"))
    with pytest.raises(SourceError, match="outputs of several splits of the data"):
        ingest(source, store, labels=labels, membership=masks(truth.membership))


def test_the_cache_alone_is_enough(source, store, labels, truth, masks):
    shutil.rmtree(source / "attack_objects")
    cache = source / "attack_cache"
    assert importers.detect(cache) == "leakpro"
    ingest(cache, store, labels=labels, membership=masks(truth.membership))
    foreign.assert_holds(open_store(store), truth)


# --- rows -----------------------------------------------------------------------------------------


def test_every_file_has_an_order_of_its_own(tmp_path, store, labels, drawn, masks):
    truth, order = drawn
    random = np.random.default_rng(8)
    orders = {number: random.permutation(40) for number in range(4)} | {"target": order}
    source = foreign_more.leakpro(tmp_path / "output", truth, orders)
    ingest(source, store, labels=labels, membership=masks(truth.membership))
    foreign.assert_holds(open_store(store), truth)
    np.save(str(cache_of(source, "sm_2")).replace("_logits", "_indices"), orders[1])
    with pytest.raises(SourceError, match=r"model 2 is in .*its contents have changed"):
        ingest(source, store, labels=labels, membership=masks(truth.membership))


@pytest.mark.parametrize("whole", [False, True])
def test_audited_samples_of_a_larger_data_set(tmp_path, store, drawn, masks, whole):
    """Samples 3, 10, 17, … of it were audited; shadow models were trained on others, too."""
    truth, order = drawn
    source = foreign_more.leakpro(tmp_path / "output", truth, order)
    for path in (source / "attack_cache").glob("*_indices.npy"):
        np.save(path, 7 * np.load(path) + 3)
    y, mask = truth.labels, truth.membership
    if whole:
        y, mask = np.full(300, 2), np.ones((MODELS, 300), dtype=bool)
        y[3:280:7], mask[:, 3:280:7] = truth.labels, truth.membership
    np.save(tmp_path / "y.npy", y)
    ingest(source, store, labels=tmp_path / "y.npy", membership=masks(mask))
    foreign.assert_holds(open_store(store), truth)
    named = {
        name: [7 * sample + 3 for sample in trained] + ([] if name == "target" else [0, 299])
        for name, trained in samples(truth, ["0", "1", "2", "3", "target"]).items()
    }
    report = ingest(source, store, labels=tmp_path / "y.npy", membership=masks(named))
    assert report.skipped == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda indices: indices[:-1], r"int64 \(39,\), expected int64 \(40,\)"),
        (lambda indices: indices * 1.0, r"float64 \(40,\), expected int64 \(40,\)"),
        (lambda indices: indices // 2, "expected indices of 0 or more that differ"),
        (lambda indices: indices - 1, "expected indices of 0 or more that differ"),
        (lambda indices: indices + 1, "evaluated on other samples than"),
    ],
)
def test_indices_that_do_not_fit_are_refused(source, store, labels, truth, masks, change, told):
    path = Path(str(cache_of(source, "sm_1")).replace("_logits", "_indices"))
    np.save(path, change(np.load(path)))
    with pytest.raises(SourceError, match=told):
        ingest(source, store, labels=labels, membership=masks(truth.membership))
    assert not store.exists()


def test_outputs_without_indices_are_refused(source, store, labels, truth, masks):
    for path in (source / "attack_cache").glob("*_indices.npy"):
        path.unlink()
    with pytest.raises(SourceError, match=r"_indices\.npy: no such file, so nobody knows which sample"):
        ingest(source, store, labels=labels, membership=masks(truth.membership))


@pytest.mark.parametrize("axis", [False, True])
def test_one_output_for_two_classes(tmp_path, store, masks, axis):
    """sigmoid(z) is the probability of class 1: φ is z for it, −z for class 0."""
    truth, order = foreign_more.audited(models=MODELS)
    source = foreign_more.leakpro(tmp_path / "output", truth, order)
    z = np.random.default_rng(2).normal(0, 3, (MODELS, 40)).astype(np.float32)
    for path in (source / "attack_cache").glob("*_logits.npy"):
        model = 4 if path.name.startswith("target") else int(path.name.split("_")[1])
        np.save(path, z[model, order][:, None] if axis else z[model, order])
    np.save(tmp_path / "y.npy", truth.labels % 2)
    ingest(source, store, labels=tmp_path / "y.npy", membership=masks(truth.membership))
    opened = open_store(store)
    assert opened.info.classes == 2
    for model in range(MODELS):
        phi = opened.read("scaled_logit", model, 0, 40)[:, 0]
        np.testing.assert_allclose(phi, np.where(truth.labels % 2 == 1, z[model], -z[model]), rtol=1e-6)


def test_outputs_of_another_form_are_refused(source, store, labels, truth, masks):
    path = cache_of(source, "sm_1")
    np.save(path, np.load(path)[:, None])
    with pytest.raises(SourceError, match=r"shape \(40, 1, 5\), expected \(N, C\) or \(N, 1\) or \(N\)"):
        ingest(source, store, labels=labels, membership=masks(truth.membership))
