"""Stores of released formats stay readable, by the library and by a reader made from FORMAT.md alone.

The second shares nothing with the library: standard library and numpy, a CRC-32C of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import xarray

from lirastore.store import open_store
from lirastore.store.integrity import store_damage

GOLDEN = Path(__file__).parents[2] / "storage" / "golden"
STORES = sorted(GOLDEN.glob("format-1-*.lira"))
DIGESTS = json.loads((GOLDEN / "format-1.json").read_text(encoding="utf-8"))

pytestmark = pytest.mark.parametrize("path", STORES, ids=lambda path: path.stem)


# --- a reader from FORMAT.md ----------------------------------------------------------------------


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def checked(data: bytes) -> bytes:
    assert crc32c(data[:-4]) == int.from_bytes(data[-4:], "little")
    return data[:-4]


def document(path: Path) -> dict:
    return json.loads((path / "zarr.json").read_text(encoding="utf-8"))


def plain(store: Path, name: str) -> np.ndarray:
    meta = document(store / name)
    shape, chunk = meta["shape"], meta["chunk_grid"]["configuration"]["chunk_shape"]
    dtype = np.dtype(meta["data_type"]).newbyteorder("<")
    pieces = []
    for i in range(-(-shape[0] // chunk[0])):
        data = (store / name / "/".join(["c", str(i), *["0"] * (len(shape) - 1)])).read_bytes()
        pieces.append(np.frombuffer(checked(data), dtype).reshape(chunk))
    return np.concatenate(pieces)[: shape[0]]


def strings(store: Path, name: str) -> list[str]:
    data = checked((store / name / "c" / "0").read_bytes())
    count, at, found = int.from_bytes(data[:4], "little"), 4, []
    for _ in range(count):
        length = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return found


def model(store: Path, name: str, m: int) -> np.ndarray:
    meta = document(store / name)
    shape, shard = meta["shape"][1:], meta["chunk_grid"]["configuration"]["chunk_shape"][1:]
    chunk = meta["codecs"][0]["configuration"]["chunk_shape"][1:]
    dtype = np.dtype(meta["data_type"]).newbyteorder("<")
    out = np.full([-(-n // s) * s for n, s in zip(shape, shard, strict=True)], np.nan, dtype)
    inner = [s // c for s, c in zip(shard, chunk, strict=True)]
    for place in product(*(range(-(-n // s)) for n, s in zip(shape, shard, strict=True))):
        data = (store / name / "c" / str(m) / "/".join(map(str, place))).read_bytes()
        index = checked(data[-(16 * int(np.prod(inner)) + 4) :])
        for (offset, nbytes), cell in zip(
            np.frombuffer(index, "<u8").reshape(-1, 2).tolist(),
            product(*(range(n) for n in inner)),
            strict=True,
        ):
            first = [p * s + i * c for p, s, i, c in zip(place, shard, cell, chunk, strict=True)]
            if offset == nbytes == 2**64 - 1:
                assert any(f >= n for f, n in zip(first, shape, strict=True)), "absent within the array"
                continue
            values = np.frombuffer(checked(data[offset : offset + nbytes]), dtype).reshape(chunk)
            out[tuple(slice(f, f + c) for f, c in zip(first, chunk, strict=True))] = values
    return out[tuple(slice(n) for n in shape)]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- tests ----------------------------------------------------------------------------------------


def test_a_reader_made_from_the_text_finds_every_number(path):
    root = document(path)["attributes"]["lirastore"]
    assert root["format"] == 1
    expected = np.load(path.with_suffix(".npz"))
    markers = [re.fullmatch(r"(\d+)\.json", p.name) for p in (path / "_lirastore/commits").iterdir()]
    committed = sorted(int(match[1]) for match in markers if match)
    assert committed == [0, 2, 3]
    assert strings(path, "augmentation") == root["augmentations"] == DIGESTS[path.name]["augmentations"]
    sharded = [*(["logits"] if root["classes"] else []), "scaled_logit", *root["signals"]]
    if root.get("population"):
        sharded.append("population_scaled_logit")
        assert expected["population_scaled_logit"].shape == (3, root["population"])
    for name in expected.files:
        if name in sharded:
            found = np.stack([model(path, name, m) for m in committed])
            assert np.isfinite(found).all()
        else:
            found = plain(path, name)
        np.testing.assert_array_equal(found, expected[name])
        assert found.dtype == expected[name].dtype


def test_a_reader_made_from_the_text_finds_every_digest(path):
    root = document(path)["attributes"]["lirastore"]
    labels, mask = plain(path, "label"), plain(path, "membership")
    lines = f"lirastore set 1\nlabel {sha256(labels.tobytes())}\n"
    for m in (0, 2, 3):
        marker = json.loads((path / f"_lirastore/commits/{m}.json").read_text(encoding="utf-8"))
        objects = marker["objects"]
        for key, stated in objects.items():
            data = (path / key).read_bytes()
            assert stated == {"size": len(data), "sha256": sha256(data)}
        arrays = {key.split("/")[0] for key in objects}
        files = (p for array in arrays for p in (path / array / "c" / str(m)).rglob("*") if p.is_file())
        assert {p.relative_to(path).as_posix() for p in files} == set(objects)
        digest = sha256("".join(sorted(f"{key} {s['sha256']}\n" for key, s in objects.items())).encode())
        assert digest == marker["digest"] == DIGESTS[path.name]["models"][str(m)]
        keep = sha256(mask[m].tobytes())
        assert keep == marker["keep_mask"]
        lines += f"model {m} membership {keep} data {digest}\n"
    assert sha256(lines.encode()) == DIGESTS[path.name]["set_digest"]
    data = f"label int64 {len(labels)}\n".encode() + labels.tobytes()
    if (path / "preview").exists():
        pictures = plain(path, "preview")
        data += f"preview uint8 {'x'.join(map(str, pictures.shape))}\n".encode() + pictures.tobytes()
    assert sha256(data) == root["fingerprint"] == DIGESTS[path.name]["fingerprint"]


def test_the_library_reads_it(path):
    store = open_store(path)
    expected = np.load(path.with_suffix(".npz"))
    assert store.committed().tolist() == [0, 2, 3]
    for array, spec in store.arrays.items():
        for row, m in enumerate([0, 2, 3]):
            for start, stop in ((0, spec.examples), (1, spec.examples - 2), (3, 4)):
                found = store.read(array, m, start, stop)
                np.testing.assert_array_equal(found, expected[array][row, start:stop])
    for name in store.plain:
        np.testing.assert_array_equal(store.read_plain(name), expected[name])
    assert list(store_damage(store)) == []
    assert store.set_digest() == DIGESTS[path.name]["set_digest"]
    assert store.info.fingerprint == DIGESTS[path.name]["fingerprint"]


def test_the_dataset_and_a_zarr_client_agree_on_committed_models(path):
    ours = open_store(path).dataset.load()
    theirs = xarray.open_zarr(path, consolidated=False).load()
    xarray.testing.assert_equal(ours, theirs.sel(model=[0, 2, 3]))
    for name in open_store(path).arrays:
        assert np.isnan(theirs[name].sel(model=1)).all()


def test_this_library_still_makes_the_same_documents(path, tmp_path):
    """Whatever version of zarr-python is installed."""
    location = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    make = importlib.util.module_from_spec(location)
    location.loader.exec_module(make)
    fresh = tmp_path / path.name
    make.KINDS[path.stem.removeprefix("format-1-")](fresh, np.random.default_rng(0))
    documents = sorted(p.relative_to(path) for p in path.rglob("zarr.json"))
    assert documents == sorted(p.relative_to(fresh) for p in fresh.rglob("zarr.json"))
    for name in documents:
        old, new = (json.loads((root / name).read_text(encoding="utf-8")) for root in (path, fresh))
        for root in (old, new):
            for key in ("created_at", "library_version", "fingerprint"):
                root["attributes"].get("lirastore", {}).pop(key, None)
        assert new == old


def test_this_library_still_writes_it(path, tmp_path):
    """The store goes on growing, also as a copy that lost its empty directories, as git makes them."""
    copy = tmp_path / path.name
    shutil.copytree(path, copy)
    for directory in sorted(copy.rglob("*"), reverse=True):
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
    store = open_store(copy)
    source = {name: store.read(name, 2, 0, spec.examples) for name, spec in store.arrays.items()}
    if "logits" in source:
        del source["scaled_logit"]
    with store.writer(1) as writer:
        if "population_scaled_logit" in source:
            writer.write_population(source.pop("population_scaled_logit"))
        writer.write(source.pop("logits", None), examples=slice(0, store.info.examples), **source)
    for name, spec in store.arrays.items():
        np.testing.assert_array_equal(
            store.read(name, 1, 0, spec.examples), store.read(name, 2, 0, spec.examples)
        )
    written = store.commits()
    for m in (1, 2):
        assert written[m].objects.keys() == {k.replace("/c/1/", f"/c/{m}/") for k in written[1].objects}
    assert list(written[1].objects.values()) == list(written[2].objects.values())
