"""The exchange form: one archive of all models, or one per model."""

from __future__ import annotations

import dataclasses
import shutil
import struct
import zipfile
from pathlib import Path

import foreign
import numpy as np
import pytest

from lirastore import importers
from lirastore.errors import NonFiniteLogits, SourceError
from lirastore.importers import npyfile
from lirastore.importers.npzstream import from_confidence, from_loss, least_loss
from lirastore.store import open_store

PEERS = Path(__file__).parents[1] / "data" / "peers_m16_n300.npz"


@pytest.fixture
def truth():
    return foreign.experiment()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "all.npz"


def refused(source: Path, told: str, error: type[Exception] = SourceError, **options) -> None:
    """`ingest` raises SourceError with `told` in its message, and writes nothing."""
    with pytest.raises(error, match=told):
        importers.ingest(source, source.parent / "refused.lira", progress=False, **options)
    assert not [path for path in source.parent.iterdir() if path.name.startswith("refused")]


def ingested(source: Path, **options):
    path = source.parent / "imported.lira"
    report = importers.ingest(source, path, progress=False, **options)
    return open_store(path), report


# --- what it reads --------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_one_archive(target, truth, compressed):
    store, report = ingested(foreign.npz(target, truth, compressed=compressed))
    foreign.assert_holds(store, truth)
    assert report.format == "npz"
    assert store.info.augmentations == ("query0", "query1")
    assert store.info.name == "all"


@pytest.mark.parametrize("compressed", [False, True])
def test_slices_smaller_than_a_model(target, truth, compressed, monkeypatch):
    monkeypatch.setattr(npyfile, "SLICE_BYTES", 300)
    store, _ = ingested(foreign.npz(target, truth, compressed=compressed))
    foreign.assert_holds(store, truth)


def test_one_archive_per_model(tmp_path):
    truth = foreign.experiment(models=12, examples=20)
    store, _ = ingested(foreign.npz_directory(tmp_path / "models", truth))
    foreign.assert_holds(store, truth)


def test_without_an_augmentation_axis(target):
    truth = foreign.experiment(augmentations=1)
    store, _ = ingested(foreign.npz(target, truth, logits=truth.logits[:, :, 0]))
    foreign.assert_holds(store, truth)
    assert store.info.augmentations == ("identity",)


def test_another_tools_members_are_left_alone(tmp_path):
    source = tmp_path / PEERS.name
    shutil.copy(PEERS, source)
    store, report = ingested(source)
    with np.load(PEERS) as peers:
        np.testing.assert_array_equal(store.membership(), peers["membership"])
        for model in range(16):
            np.testing.assert_array_equal(store.read("logits", model, 0, 300), peers["logits"][model])
    assert "left alone: carlini_global_target0" in str(report)


def test_models_in_any_order_and_with_gaps(target, truth):
    order = [3, 0, 2]
    source = foreign.npz(
        target,
        truth,
        logits=truth.logits[order],
        membership=truth.membership[order],
        model=np.array(order),
        models=np.array(4),
        source_id=np.array(["c", "a", "b"]),
    )
    refused(source, "1 of 4 models are missing: 1")
    store, report = ingested(source, allow_missing=True)
    foreign.assert_holds(store, truth, [0, 2, 3])
    assert report.missing == (1,)
    assert {model: commit.metadata["source_id"] for model, commit in store.commits().items()} == {
        0: "a",
        2: "b",
        3: "c",
    }


def test_a_gap_in_a_directory(tmp_path, truth):
    source = foreign.npz_directory(tmp_path / "models", truth)
    (source / "model-1.npz").unlink()
    refused(source, "1 of 4 models are missing: 1")
    store, _ = ingested(source, allow_missing=True)
    foreign.assert_holds(store, truth, [0, 2, 3])


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4"])
@pytest.mark.parametrize("compressed", [False, True])
def test_other_floats(target, dtype, compressed):
    truth = foreign.experiment(dtype=np.dtype(dtype))
    store, _ = ingested(foreign.npz(target, truth, compressed=compressed))
    foreign.assert_holds(store, truth)


def test_masks_may_be_in_fortran_order(target, truth):
    store, _ = ingested(foreign.npz(target, truth, membership=np.asfortranarray(truth.membership)))
    foreign.assert_holds(store, truth)


def test_scaled_logits(target, truth):
    scaled = truth.scaled.astype(np.float32)
    store, _ = ingested(foreign.npz(target, truth, logits=None, scaled_logit=scaled))
    assert store.info.classes is None
    for model in range(truth.models):
        np.testing.assert_array_equal(store.read("scaled_logit", model, 0, 53), scaled[model])


def test_unlabelled_signals(target, truth):
    scaled = truth.scaled.astype(np.float32)
    labels = np.full(53, -1)
    store, _ = ingested(foreign.npz(target, truth, logits=None, scaled_logit=scaled, label=labels))
    np.testing.assert_array_equal(store.labels(), labels)


@pytest.mark.parametrize("kind", ["confidence", "loss"])
def test_confidences_and_losses_become_scaled_logits(target, truth, kind):
    loss = np.logaddexp(0, -truth.scaled)
    values = (loss if kind == "loss" else np.exp(-loss))[..., 0]
    store, report = ingested(foreign.npz(target, truth, logits=None, **{kind: values}))
    for model in range(truth.models):
        found = store.read("scaled_logit", model, 0, 53)[:, 0]
        np.testing.assert_allclose(found, truth.scaled[model, :, 0], rtol=1e-6, atol=1e-6)
    assert report.clipped == {}


def test_certainties_are_clipped_counted_and_told(target, truth):
    confidence = np.full((4, 53), 0.5, dtype=np.float32)
    confidence[1, :3] = 1
    confidence[1, 3] = 0
    confidence[3, 7] = 1
    store, report = ingested(foreign.npz(target, truth, logits=None, confidence=confidence))
    assert report.clipped == {1: 4, 3: 1}
    assert "clipped 5 values of 2 models: confidences of exactly 0 or 1" in str(report)
    assert store.commits()[1].metadata["clipped"] == 4
    assert "clipped" not in store.commits()[0].metadata
    found = store.read("scaled_logit", 1, 0, 53)[:, 0]
    np.testing.assert_allclose(found[:5], [16.635532] * 3 + [-103.27893, 0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_conversions_are_monotone_up_to_the_ends(dtype):
    eps = np.finfo(dtype).eps
    p = np.array([0, np.finfo(dtype).tiny, eps, 0.25, 0.5, 1 - eps, 1 - eps / 2, 1], dtype=dtype)
    scaled, clipped = from_confidence(p)
    assert clipped == 2
    assert (np.diff(scaled) >= 0).all() and np.isfinite(scaled).all()
    smallest = np.nextafter(dtype(0), dtype(1))
    losses = np.array([0, smallest, eps / 4, eps / 2, eps, 1e-3, 0.7, 20, 6e4], dtype=dtype)
    scaled, clipped = from_loss(losses, float(smallest))
    assert clipped == 1
    assert (np.diff(scaled) <= 0).all() and np.isfinite(scaled).all()
    assert scaled[-1] == -float(losses[-1])
    np.testing.assert_allclose(from_confidence(np.exp(-losses[5:7].astype(float)))[0], scaled[5:7], rtol=1e-9)


@pytest.mark.parametrize(
    ("loss", "scaled"), [(5.148200222412013e-131, 300), (5e-324, 744.4400719), (1e3, -1e3)]
)
def test_losses_are_exact_however_small(loss, scaled):
    found, clipped = from_loss(np.array([loss]), 1.0)
    np.testing.assert_allclose(found, [scaled], rtol=1e-9)
    assert clipped == 0


@pytest.mark.parametrize("layout", ["all.npz", "models"])
@pytest.mark.parametrize(("smallest", "taken"), [(1e-3, 2**-24), (1e-30, float(np.float32(1e-30)))])
def test_a_loss_of_zero_is_taken_as_no_more_than_any_other(tmp_path, truth, layout, smallest, taken):
    loss = np.full((4, 53), 0.5, dtype=np.float32)
    loss[1, :3] = 0
    loss[3, 9] = smallest
    if layout == "models":
        source = foreign.npz_directory(tmp_path / layout, truth)
        for model in range(4):
            members = {"loss": loss[model], "membership": truth.membership[model], "label": truth.labels}
            np.savez(source / f"model-{model}.npz", **members)
    else:
        source = foreign.npz(tmp_path / layout, truth, logits=None, loss=loss)
    store, report = ingested(source)
    assert report.clipped == {1: 3}
    metadata = store.commits()[1].metadata
    assert (metadata["clipped"], metadata["clipped_to"]) == (3, taken)
    np.testing.assert_allclose(store.read("scaled_logit", 1, 0, 3)[:, 0], -np.log(taken), rtol=1e-6)
    found = store.read("scaled_logit", 3, 9, 10)[0, 0]
    np.testing.assert_allclose(found, -np.log(np.expm1(smallest)), rtol=1e-6)


def test_the_smallest_loss_passes_over_what_is_none(target, truth):
    foreign.npz(target, truth, loss=np.array([np.nan, -1, 0, np.inf, 1e-20, 2]))
    assert least_loss([npyfile.open_npz(target)["loss"]]) == 1e-20


# --- what it refuses, before the first write ------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"membership": None}, "no member 'membership'; it has label, logits"),
        ({"label": None}, "no member 'label'"),
        ({"logits": None}, "exactly one of logits, scaled_logit, confidence, loss, it has none"),
        ({"loss": np.ones((4, 53))}, "exactly one of .* it has logits, loss"),
        ({"membership": np.ones((3, 53), bool)}, r"logits.npy\]: shape \(4, 53, 2, 5\), expected \(models"),
        ({"membership": np.ones((4, 52), bool)}, r"bool \(4, 52\), expected bool \(4, 53\)"),
        ({"membership": np.ones((4, 53), int)}, r"int64 \(4, 53\), expected bool"),
        ({"membership": np.array(True)}, "expected .models, examples."),
        ({"label": np.arange(53)}, r"label 5 of example 5 is out of range \(48 such\)"),
        ({"label": np.arange(52) % 5}, r"labels have the shape \(52,\)"),
        ({"logits": np.ones((4, 53, 2, 1), np.float32)}, r"classes \(2 or more\)"),
        ({"logits": np.ones((4, 53), np.float32)}, r"classes \(2 or more\)"),
        ({"logits": np.ones((4, 53, 2, 5), int)}, "type int64, expected float32"),
        ({"logits": np.asfortranarray(np.random.default_rng(0).random((4, 53, 2, 5)))}, "Fortran order"),
        ({"augmentation": np.array(["a", "b", "c"])}, r"expected text \(2,\)"),
        ({"augmentation": np.array(["a", "a"])}, "expected names that differ"),
        ({"model": np.array([0, 1, 1, 2])}, "each must stand once; they are 0, 1, 1, 2"),
        ({"model": np.array([0, 1, -1, 2])}, "0 or more"),
        ({"model": np.array([0, 1, 2, 10**12])}, "number them from 0"),
        ({"models": np.array(2)}, "2, but there is a model 3"),
        ({"planned_membership": np.zeros((4, 53), bool)}, "differs from planned_membership"),
        ({"metadata": np.array(["{}", "{}", '{"a": NaN}', "{}"])}, "metadata.*NaN is no JSON value"),
        ({"metadata": np.array(["{}", "{}", "[]", "{}"])}, "expected a JSON object"),
        ({"preview": np.zeros((53, 4, 4, 3))}, "preview.*expected uint8"),
        ({"attackable": np.zeros(53)}, r"attackable.*expected bool \(53,\)"),
        ({"signal.mine": np.zeros((4, 53, 3))}, r"signal.mine.npy\]: shape"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bad_members(target, truth, members, told):
    refused(foreign.npz(target, truth, **members), told, allow_missing=True)


def test_pickles_are_never_loaded(target, tmp_path, truth):
    class Exploding:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    for name in ("logits", "label", "membership", "augmentation", "left_alone"):
        bomb = np.array([Exploding()], dtype=object)
        refused(foreign.npz(target, truth, **{name: bomb}), f"{name}.npy.: an object array")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("where", [0.3, 0.5, 0.9])
def test_damage_is_found_before_the_first_write(target, truth, compressed, where):
    foreign.npz(target, truth, compressed=compressed)
    with zipfile.ZipFile(target) as archive:
        info = archive.getinfo("logits.npy")
    data = bytearray(target.read_bytes())
    data[info.header_offset + 60 + int(where * (info.compress_size - 60))] ^= 0x10
    target.write_bytes(bytes(data))
    refused(target, r"logits.npy\]: damaged")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["label", "membership", "preview", "attackable", "signal.mine"])
def test_damage_of_any_member_is_found_before_the_first_write(target, truth, name, compressed):
    random = np.random.default_rng(0)
    foreign.npz(
        target,
        truth,
        compressed=compressed,
        preview=truth.images,
        attackable=random.random(53) < 0.5,
        **{"signal.mine": random.random((4, 53))},
    )
    with zipfile.ZipFile(target) as archive:
        info = archive.getinfo(f"{name}.npy")
    data = bytearray(target.read_bytes())
    start = info.header_offset + 30 + len(info.filename) + 20  # the member: after a header with 20 of zip64
    data[start + info.compress_size - 20] ^= 1
    target.write_bytes(bytes(data))
    refused(target, rf"{name}.npy\]: (damaged|not a readable)")


@pytest.mark.parametrize("compressed", [False, True])
def test_checksums_are_compared_whatever_zipfile_does(target, truth, compressed):
    """zipfile compares them only of members that it reads from beginning to end."""
    members = npyfile.open_npz(foreign.npz(target, truth, compressed=compressed))
    for member in (members["label"], members["logits"]):
        other = dataclasses.replace(member, crc=member.crc ^ 1)
        with pytest.raises(SourceError, match="its CRC-32 is"):
            other.load()
        with pytest.raises(SourceError, match="its CRC-32 is"):
            other.checksums(1, lambda nbytes: None)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -30])
def test_a_cut_archive(target, truth, keep):
    data = foreign.npz(target, truth).read_bytes()
    target.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    refused(target, "not a .npz archive, or cut short", format="npz")


def member(shape: tuple[int, ...], data: bytes) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("shape", "data", "told"),
    [
        ((4, 53, 2, 5), bytes(40), "cut short"),
        ((4, 5, 2, 5), bytes(1 << 20), "too long"),
        ((10**9, 10**9), bytes(40), "cut short"),
        ((-4, 53, 2, 5), bytes(40), "not a readable .npy|gives the shape"),
    ],
)
def test_sizes_are_checked_against_headers(target, truth, shape, data, told):
    foreign.npz(target, truth, logits=None)
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("logits.npy", member(shape, data))
    refused(target, told)


def test_foreign_members(target, truth):
    foreign.npz(target, truth)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("model.pkl", b"cos\nsystem\n")
    refused(target, r"model.pkl\]: expected only .npy members")


def test_compression_of_another_kind(target, truth):
    foreign.npz(target, truth, label=None)
    with zipfile.ZipFile(target, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("label.npy", b"")
    refused(target, "unsupported compression")


def test_a_repeated_member(target, truth):
    foreign.npz(target, truth)
    with zipfile.ZipFile(target, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("label.npy", b"")
    refused(target, "label.npy more than once")


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        (
            {"logits": np.ones((52, 2, 5), np.float32)},
            "model-2.npz: holds logits of 52 examples, 2 augmentations, 5 classes, but model-0.npz holds "
            "logits of 53 examples, 2",
        ),
        (
            {"logits": None, "loss": np.ones((53, 2))},
            "model-2.npz: holds loss of 53 examples, 2 augmentations, b",
        ),
        ({"label": np.zeros(53, int)}, "label differs from the one in model-0.npz"),
        ({"membership": np.ones((1, 53), bool)}, r"model-2.npz\[membership.npy\]"),
    ],
)
def test_archives_that_do_not_agree(tmp_path, truth, spoiled, told):
    source = foreign.npz_directory(tmp_path / "models", truth)
    usual = {"logits": truth.logits[2], "membership": truth.membership[2], "label": truth.labels}
    members = {name: value for name, value in {**usual, **spoiled}.items() if value is not None}
    np.savez(source / "model-2.npz", **members)
    refused(source, told)


def test_two_archives_of_one_model(tmp_path, truth):
    source = foreign.npz_directory(tmp_path / "models", truth)
    shutil.copy(source / "model-2.npz", source / "model-002.npz")
    refused(source, "are both model 2")


def test_epochs_are_not_for_this_form(target, truth):
    refused(foreign.npz(target, truth), "no epochs", epoch=3)


# --- what it finds while streaming ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "error", "told"),
    [
        (
            "confidence",
            1.5,
            SourceError,
            "confidence of example 40 is 1.5, expected a number between 0 and 1",
        ),
        ("confidence", -0.1, SourceError, "confidence of example 40 is -0.1"),
        ("confidence", np.nan, NonFiniteLogits, "confidence of example 40 is nan"),
        ("loss", -1e-3, SourceError, "loss of example 40 is -0.001, expected a number of 0 or more"),
        ("loss", np.inf, NonFiniteLogits, "loss of example 40 is inf"),
        ("scaled_logit", np.inf, NonFiniteLogits, "scaled_logit holds NaN or infinity for examples 40"),
    ],
)
def test_a_value_that_cannot_be(target, truth, kind, value, error, told):
    values = np.full((4, 53), 0.5)
    values[2, 40] = value
    whole = (
        rf"^\S+all.npz\[{kind}.npy\]: model 2: (the )?{told}.*; nothing of this model was "
        r"committed\. 2 models are in \S+: correct this model's outputs and ingest again, which resumes$"
    )
    with pytest.raises(error, match=whole):
        ingested(foreign.npz(target, truth, logits=None, **{kind: values}))
    assert open_store(target.parent / "imported.lira").committed().tolist() == [0, 1]


def test_logits_beyond_float16_are_told_of_float32(target, truth):
    truth.logits[2, 40, 0, 1] = 7e4
    with pytest.raises(NonFiniteLogits, match=r"largest is 65504 \(a store made with dtype float32, --dtype"):
        ingested(foreign.npz(target, truth), dtype="float16")
