"""Creation: what stands on disk, that it appears whole or not at all, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from format1 import commit, random_model

from lirastore import __version__
from lirastore.errors import (
    FormatVersionError,
    InputError,
    NotAStore,
    StoreExists,
    UnsupportedFilesystem,
)
from lirastore.store import create, fsio, open_store
from lirastore.store.integrity import store_damage

M, E, C = 3, 11, 5
LABELS = np.arange(E) % C
MASK = np.random.default_rng(0).random((M, E)) < 0.5


def make(path: Path, **changes: object):
    given = {"labels": LABELS, "membership": MASK, "augmentations": ["identity", "flip"], "classes": C}
    return create(path, **(given | changes))


def test_what_was_planned_is_what_is_opened(tmp_path):
    preview = np.random.default_rng(1).integers(0, 255, (E, 4, 6, 3), dtype=np.uint8)
    attackable = np.arange(E) % 2 == 0
    design = {"scheme": "balanced", "seed": 3, "keep_fraction": 0.5}
    made = make(
        tmp_path / "s.lira",
        name="toy",
        dtype="float16",
        design=design,
        preview=preview,
        attackable=attackable,
        signals=["token_logprob", ("share", ("model", "example"))],
    )
    for store in (made, open_store(str(tmp_path / "s.lira"))):
        info = store.info
        assert (info.format, info.models, info.examples, info.classes) == (1, M, E, C)
        assert (info.augmentations, info.dtype, info.name) == (("identity", "flip"), "float16", "toy")
        assert (info.design, info.claim, info.library_version) == (design, "link", __version__)
        assert list(store.arrays) == ["logits", "scaled_logit", "token_logprob", "share"]
        assert store.committed().tolist() == []
        np.testing.assert_array_equal(store.labels(), LABELS)
        np.testing.assert_array_equal(store.membership(range(M)), MASK)
        np.testing.assert_array_equal(store.attackable(), attackable)
        np.testing.assert_array_equal(store.preview([9, 2]), preview[[9, 2]])
        assert list(store_damage(store)) == []


def test_optional_arrays_are_none_when_absent(tmp_path):
    store = make(tmp_path / "s.lira")
    assert store.attackable() is None
    assert store.preview([0]) is None
    assert store.membership().shape == (0, E)


def test_a_number_of_augmentations_names_them(tmp_path):
    assert make(tmp_path / "a", augmentations=1).info.augmentations == ("identity",)
    assert make(tmp_path / "b", augmentations=3).info.augmentations == ("query0", "query1", "query2")


def test_a_signal_only_store(tmp_path):
    store = make(tmp_path / "s", classes=None, labels=np.full(E, -1), augmentations=1)
    assert list(store.arrays) == ["scaled_logit"]
    assert store.info.classes is None
    assert not (tmp_path / "s" / "logits").exists()


def test_xarray_opens_it_without_a_warning_before_and_after_a_commit(tmp_path):
    store = make(tmp_path / "s", preview=np.zeros((E, 2, 2, 1), np.uint8), signals=["token_logprob"])
    values = random_model(store, 0)
    for committed in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = xarray.open_zarr(store.path, consolidated=False).load()
        assert found.logits.dims == ("model", "example", "augmentation", "class")
        assert found.augmentation.values.tolist() == ["identity", "flip"]
        assert found.model.values.tolist() == list(range(M))
        np.testing.assert_array_equal(found.membership, MASK)
        np.testing.assert_array_equal(found.label, LABELS)
        for name, array in values.items():
            np.testing.assert_array_equal(found[name][1], array if committed else np.nan)
            assert np.isnan(found[name][[0, 2]]).all()
        if not committed:
            commit(store, 1, values)


def test_any_zarr_client_sees_a_group_and_its_child(tmp_path):
    make(tmp_path / "s")
    group = zarr.open_group(tmp_path / "s", mode="r")
    assert group.attrs["lirastore"]["format"] == 1
    assert isinstance(group["_lirastore"], zarr.Group)
    assert {path.name for path in (tmp_path / "s" / "_lirastore").iterdir()} == {
        "zarr.json",
        "staging",
        "commits",
        "results",
    }


def test_every_array_is_stored_uncompressed_with_crc32c(tmp_path):
    make(
        tmp_path / "s", preview=np.zeros((E, 2, 2, 1), np.uint8), attackable=np.ones(E, bool), signals=["aux"]
    )
    for document in sorted((tmp_path / "s").glob("[a-z]*/zarr.json")):
        codecs = json.loads(document.read_text())["codecs"]
        if codecs[0]["name"] == "sharding_indexed":
            inner = codecs[0]["configuration"]
            assert [codec["name"] for codec in inner["codecs"]] == ["bytes", "crc32c"]
            assert inner["index_location"] == "end"
        else:
            assert codecs[1:] == [{"name": "crc32c"}]


def test_an_array_that_equals_its_fill_is_written_all_the_same(tmp_path):
    """zarr leaves such chunks out by default; then their absence could not be told from their loss."""
    store = make(tmp_path / "s", membership=np.zeros((M, E), bool), labels=np.zeros(E, int))
    assert not store.membership(range(M)).any()
    assert sorted(p.name for p in (tmp_path / "s" / "membership" / "c").iterdir()) == ["0", "1", "2"]


def test_the_fingerprint_tells_data_sets_apart(tmp_path):
    picture = np.zeros((E, 2, 2, 1), np.uint8)
    prints = [
        make(tmp_path / str(i), **changes).info.fingerprint
        for i, changes in enumerate(
            [
                {},
                {"labels": LABELS[::-1].copy()},
                {"preview": picture},
                {"preview": picture.reshape(E, 1, 4, 1)},
                {"preview": picture + 1},
            ]
        )
    ]
    assert len(set(prints)) == len(prints)
    same = make(tmp_path / "same", labels=LABELS.astype(np.uint8), membership=~MASK).info.fingerprint
    assert same == prints[0]


class Reader:
    """What `create` needs of pictures, and nothing else; remembers what was asked of it."""

    def __init__(self, values, spoil=lambda block: block):
        self._values, self._spoil = values, spoil
        self.shape, self.dtype, self.asked = values.shape, values.dtype, []

    def __getitem__(self, rows: slice):
        self.asked.append((rows.start, rows.stop))
        return self._spoil(self._values[rows])


def test_pictures_are_read_once_in_order_and_in_slices(tmp_path, monkeypatch):
    for module in ("layout", "create"):
        monkeypatch.setattr(sys.modules[f"lirastore.store.{module}"], "MAX_PIECE_BYTES", 4 * 12)
    pictures = np.random.default_rng(1).integers(0, 255, (E, 2, 2, 3), dtype=np.uint8)
    reader = Reader(pictures)
    store = make(tmp_path / "s", preview=reader)
    assert reader.asked == [(0, 4), (4, 8), (8, 11)]
    np.testing.assert_array_equal(store.preview(range(E)), pictures)
    assert list(store_damage(store)) == []
    assert store.info.fingerprint == make(tmp_path / "t", preview=pictures).info.fingerprint


@pytest.mark.parametrize("spoil", [lambda block: block[1:], lambda block: block.astype(float)])
def test_a_reader_of_pictures_that_gives_something_else(tmp_path, spoil):
    reader = Reader(np.zeros((E, 2, 2, 3), np.uint8), spoil)
    with pytest.raises(
        InputError, match=r"preview: rows 0 to 10 are .*, expected uint8 of shape \(11, 2, 2, 3\)"
    ):
        make(tmp_path / "s", preview=reader)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("within", ["t", "_lirastore/t", "_lirastore/results/deep/t", "link"])
def test_no_store_within_a_store(tmp_path, within):
    outer = make(tmp_path / "s")
    (tmp_path / "link").symlink_to(outer.path)
    before = sorted(outer.path.rglob("*"))
    target = tmp_path / "link" / "t" if within == "link" else outer.path / within
    with pytest.raises(
        InputError, match=r"is within the store .*/s, .*: choose a path beside that store, such as"
    ):
        make(target)
    assert sorted(outer.path.rglob("*")) == before


# --- atomic ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["store", "file", "empty", "dangling"])
def test_nothing_that_exists_is_replaced(tmp_path, kind):
    path = tmp_path / "s"
    if kind == "store":
        make(path)
    elif kind == "file":
        path.write_text("mine")
    elif kind == "empty":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(StoreExists, match="choose another path"):
        make(path)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_of_two_creators_one_wins_and_the_other_is_told(tmp_path, monkeypatch):
    path = tmp_path / "s"
    flush = fsio.fsync_dir

    def other_is_faster(directory: Path) -> None:
        flush(directory)
        if not path.exists():
            monkeypatch.setattr(fsio, "fsync_dir", flush)
            make(path, name="other")

    monkeypatch.setattr(fsio, "fsync_dir", other_is_faster)
    with pytest.raises(StoreExists):
        make(path, name="mine")
    assert open_store(path).info.name == "other"
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_rename_onto_a_store_that_appeared_last_is_refused(tmp_path):
    from lirastore.store.create import _publish

    make(tmp_path / "s", name="theirs")
    (tmp_path / "p.partial").mkdir()
    (tmp_path / "p.partial" / "x").touch()
    with pytest.raises(StoreExists), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os.path, "lexists", lambda path: False)
        _publish(tmp_path / "p.partial", tmp_path / "s")
    assert open_store(tmp_path / "s").info.name == "theirs"


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fsio, "fsync_file", full)
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_killed_before_the_rename_there_is_no_store_and_a_rerun_makes_it(tmp_path):
    program = textwrap.dedent(
        """
        import os, signal, sys, numpy as np
        from lirastore.store import create, fsio
        fsio.fsync_file = lambda path: os.kill(os.getpid(), signal.SIGKILL)
        plan = {"labels": np.zeros(4, int), "membership": np.ones((2, 4), bool)}
        create(sys.argv[1], **plan, augmentations=1, classes=2)
        """
    )
    path = tmp_path / "s.lira"
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -9
    assert not path.exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("s.lira.")
    assert left.name.endswith(".partial")
    make(path)
    assert open_store(path).info.models == M


def test_directories_on_the_way_are_made(tmp_path):
    assert make(tmp_path / "a" / "b" / "s").path == tmp_path / "a" / "b" / "s"


def test_a_filesystem_without_hard_links_is_claimed_by_rename(tmp_path, monkeypatch):
    def refused(self: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    assert make(tmp_path / "s").info.claim == "rename"


def test_a_filesystem_with_neither_is_refused_with_the_reason(tmp_path, monkeypatch):
    def refused(directory: Path) -> str:
        raise UnsupportedFilesystem(f"{directory}: no way")

    monkeypatch.setattr(fsio, "probe_claim_method", refused)
    with pytest.raises(UnsupportedFilesystem, match="no way"):
        make(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": LABELS.astype(float)}, "labels: float64 of shape"),
        ({"labels": LABELS[None]}, r"labels: int64 of shape \(1, 11\)"),
        ({"labels": 5}, r"labels: int64 of shape \(\)"),
        ({"labels": None}, "labels: object"),
        ({"labels": [[1], [2, 3]]}, "labels: list from which numpy can make no array"),
        ({"labels": np.zeros(0, int), "membership": np.zeros((3, 0), bool)}, "labels"),
        ({"labels": LABELS > 2}, "labels: bool"),
        ({"labels": LABELS + 1}, r"labels: example 4 has 5, expected 0 to 4 \(2 such\)"),
        ({"labels": LABELS - 1}, "labels: example 0 has -1"),
        ({"labels": np.full(E, -2), "classes": None}, "labels: example 0 has -2"),
        ({"labels": np.full(E, 2**63, np.uint64), "classes": None}, "labels: example 0"),
        ({"classes": 1}, "classes 1: expected an integer of at least 2"),
        ({"classes": True}, "classes True"),
        ({"classes": 2.5}, r"classes 2\.5"),
        ({"classes": "ten"}, "classes 'ten'"),
        ({"classes": [10]}, r"classes \[10\]"),
        ({"membership": True}, r"membership: bool of shape \(\)"),
        ({"membership": [[True], [True, False]]}, "membership: list"),
        ({"membership": MASK.astype(int)}, "membership: int64"),
        ({"membership": MASK[:, 1:]}, r"shape \(3, 10\), expected bool of shape \(models, 11\)"),
        ({"membership": MASK[0]}, "membership"),
        ({"membership": MASK[:0]}, "membership"),
        ({"augmentations": []}, "augmentations"),
        ({"augmentations": 0}, "augmentations 0: expected at least 1"),
        ({"augmentations": True}, "augmentations True"),
        ({"augmentations": None}, "augmentations None"),
        ({"augmentations": 2.5}, r"augmentations 2\.5"),
        ({"augmentations": [["flip"]]}, "augmentations"),
        ({"augmentations": "flip"}, "augmentations 'flip'"),
        ({"augmentations": ["a", ""]}, "not empty"),
        ({"augmentations": ["a", "a"]}, "unique"),
        ({"augmentations": ["a", 1]}, "augmentations"),
        ({"dtype": "float64"}, "dtype 'float64': expected float32 or float16"),
        ({"dtype": ["float32"]}, "dtype"),
        ({"dtype": np.dtype("float32")}, "dtype"),
        ({"design": 5}, "design 5"),
        ({"name": 3}, "name 3"),
        ({"design": {"seed": float("nan")}}, "design"),
        ({"design": {"seed": np.int64(3)}}, "design"),
        ({"preview": np.zeros((E, 2, 2), np.uint8)}, "grey pictures have one channel"),
        ({"preview": np.zeros((E, 2, 2, 3))}, "preview: float64"),
        ({"preview": np.zeros((E - 1, 2, 2, 3), np.uint8)}, "preview"),
        ({"preview": np.zeros((E, 0, 2, 3), np.uint8)}, "preview"),
        ({"preview": 5}, r"preview: int64 of shape \(\)"),
        ({"attackable": 5}, "attackable: int64"),
        ({"attackable": np.zeros(E)}, "attackable: float64"),
        ({"attackable": np.zeros(E - 1, bool)}, "attackable"),
        ({"signals": ["logits"]}, "taken by the format"),
        ({"signals": ["a", "a"]}, "named twice"),
        ({"signals": [("a", ("example",))]}, "dims"),
        ({"signals": "token_logprob"}, "signals 'token_logprob': expected a list"),
        ({"signals": [5]}, "signal 5: expected a name"),
        ({"signals": [("a", "model")]}, "signal"),
        ({"signals": 5}, "signals 5"),
    ],
)
def test_inputs_that_do_not_fit_are_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path / "s", **changes)
    assert list(tmp_path.iterdir()) == []


def test_no_store_there(tmp_path):
    with pytest.raises(NotAStore, match="does not exist"):
        open_store(tmp_path / "none")
    with pytest.raises(NotAStore, match=r"it has no zarr\.json"):
        open_store(tmp_path)
    zarr.create_group(tmp_path / "g")
    with pytest.raises(NotAStore, match="no lirastore store"):
        open_store(tmp_path / "g")


def test_a_newer_format_is_refused(tmp_path):
    make(tmp_path / "s")
    document = json.loads((tmp_path / "s" / "zarr.json").read_text())
    document["attributes"]["lirastore"]["format"] = 2
    (tmp_path / "s" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(FormatVersionError, match=r"format 2.*upgrade"):
        open_store(tmp_path / "s")


def test_creating_and_opening_need_numpy_zarr_and_crc32c_only(tmp_path):
    program = textwrap.dedent(
        """
        import importlib.abc, sys
        class Block(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {"dask", "xarray", "duckdb", "scipy", "pyarrow", "tqdm", "click"}:
                    raise ImportError(f"{name} is not installed here")
        sys.meta_path.insert(0, Block())
        import numpy as np
        from lirastore.store import create, open_store
        assert "zarr" not in sys.modules
        plan = {"labels": np.zeros(4, int), "membership": np.ones((2, 4), bool)}
        create(sys.argv[1], **plan, augmentations=1, classes=2)
        assert open_store(sys.argv[1]).labels().tolist() == [0, 0, 0, 0]
        """
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path / "s")], check=True)
