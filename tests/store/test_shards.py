"""The shard codec against zarr-python, both ways, and against damage."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec

from lirastore.errors import InputError
from lirastore.store.layout import ArraySpec, model_arrays
from lirastore.store.reader import ShardReader, Unreadable
from lirastore.store.shards import ArrayWriter, ShardWriter, crc32c


@st.composite
def specs(draw: st.DrawFn) -> ArraySpec:
    """Any layout of format 1, small: chunks and shards that need not divide the array, 2 to 4 dimensions."""
    examples, augmentations = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    classes = draw(st.integers(1, 4))
    rank = draw(st.integers(2, 4))
    chunk, width = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    across = draw(st.integers(1, 3))
    down = draw(st.integers(1, 4))
    if rank > 2 and width * across < augmentations:
        chunk, down = 1, 1
    return ArraySpec(
        "logits",
        ("model", "example", "augmentation", "class")[:rank],
        (2, examples, augmentations, classes)[:rank],
        np.dtype(draw(st.sampled_from(["<f4", "<f2"]))),
        (1, chunk, width, classes)[:rank],
        (1, chunk * down, width * across, classes)[:rank],
    )


def zarr_array(root: Path, spec: ArraySpec) -> zarr.Array:
    return zarr.create_array(
        root / spec.name,
        shape=spec.shape,
        dtype=spec.dtype.name,
        chunks=spec.chunk_shape,
        shards=spec.shard_shape,
        fill_value=np.nan,
        filters=None,
        compressors=Crc32cCodec(),
        dimension_names=spec.dims,
        config={"write_empty_chunks": True},
    )


def values_of(spec: ArraySpec, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(spec.examples, *spec.example_shape)).astype(spec.dtype)


@pytest.fixture
def whole(tmp_path):
    """One model of one array of two shards, three inner chunks each but for the edge, and its directory."""
    spec = ArraySpec(
        "logits",
        ("model", "example", "augmentation", "class"),
        (1, 10, 2, 3),
        np.dtype("<f4"),
        (1, 2, 2, 3),
        (1, 6, 2, 3),
    )
    values = values_of(spec)
    (tmp_path / "c").mkdir()
    writer = ArrayWriter(tmp_path / "c" / "0", spec)
    writer.append(values)
    return spec, values, tmp_path / "c" / "0", writer.finish()


def read(
    directory: Path, spec: ArraySpec, start: int, stop: int, out: np.ndarray | None = None
) -> np.ndarray:
    if out is None:
        out = np.full((stop - start, *spec.example_shape), -1, dtype=spec.dtype)
    ShardReader().read(str(directory), spec, start, stop, out)
    return out


@settings(max_examples=60, deadline=None)
@given(specs(), st.integers(1, 7), st.data())
def test_what_we_write_zarr_python_and_we_read(spec, block, data):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        array = zarr_array(root, spec)
        values = values_of(spec)
        directory = root / spec.name / "c" / "1"
        directory.parent.mkdir(parents=True, exist_ok=True)
        writer = ArrayWriter(directory, spec)
        for start in range(0, spec.examples, block):
            writer.append(values[start : start + block])
        objects = writer.finish()
        np.testing.assert_array_equal(array[1], values)
        assert list(objects) == spec.keys()
        for key, stored in objects.items():
            found = (directory / key).read_bytes()
            assert (len(found), hashlib.sha256(found).hexdigest()) == stored
        start = data.draw(st.integers(0, spec.examples))
        stop = data.draw(st.integers(start, spec.examples))
        np.testing.assert_array_equal(read(directory, spec, start, stop), values[start:stop])


@settings(max_examples=60, deadline=None)
@given(specs(), st.data())
def test_what_zarr_python_writes_we_read(spec, data):
    with tempfile.TemporaryDirectory() as place:
        array = zarr_array(Path(place), spec)
        values = values_of(spec)
        array[1] = values
        start = data.draw(st.integers(0, spec.examples))
        stop = data.draw(st.integers(start, spec.examples))
        found = read(Path(place) / spec.name / "c" / "1", spec, start, stop)
        np.testing.assert_array_equal(found, values[start:stop])


def test_a_view_or_another_dtype_is_filled_as_well(whole):
    spec, values, directory, _ = whole
    backwards = np.empty((7, 2, 3), dtype="<f4")[::-1]
    wide = np.empty((7, 2, 3), dtype=np.float64)
    columns = np.empty((3, 2, 7), dtype="<f4").T
    for out in (backwards, wide, columns):
        np.testing.assert_array_equal(read(directory, spec, 2, 9, out), values[2:9])


def test_an_empty_range_opens_nothing(whole):
    spec, _, directory, _ = whole
    shutil.rmtree(directory)
    assert read(directory, spec, 3, 3).shape == (0, 2, 3)


def test_only_overlapping_chunks_are_touched(whole):
    spec, values, directory, _ = whole
    path = directory / "0/0/0"
    data = bytearray(path.read_bytes())
    data[0] ^= 1  # the first inner chunk: examples 0 and 1
    path.write_bytes(data)
    np.testing.assert_array_equal(read(directory, spec, 2, 10), values[2:])
    with pytest.raises(Unreadable, match=r"0/0/0: inner chunk 0 fails its crc32c"):
        read(directory, spec, 1, 10)


def test_every_flipped_bit_and_every_truncation_is_noticed(whole):
    spec, _, directory, _ = whole
    path = directory / "1/0/0"
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        with pytest.raises(Unreadable, match="1/0/0"):
            read(directory, spec, 0, 10)
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(Unreadable, match="1/0/0"):
            read(directory, spec, 0, 10)


def test_an_absent_object_and_a_directory_in_its_place(whole):
    spec, _, directory, _ = whole
    (directory / "1/0/0").unlink()
    with pytest.raises(Unreadable, match="1/0/0: the object is absent"):
        read(directory, spec, 5, 10)
    (directory / "1/0/0").mkdir()
    with pytest.raises(Unreadable, match="1/0/0"):
        read(directory, spec, 5, 10)
    shutil.rmtree(directory)
    directory.touch()
    with pytest.raises(Unreadable, match="0/0/0: the object is absent"):
        read(directory, spec, 0, 10)


def shard_of(path: Path, chunks: list[np.ndarray | None], size: int) -> None:
    with ShardWriter(path, size) as shard:
        for chunk in chunks:
            if chunk is None:
                shard.skip()
            else:
                shard.append(chunk)
        shard.finish()


def test_an_absent_inner_chunk_is_no_fill_value(whole):
    spec, values, directory, _ = whole
    (directory / "0/0/0").unlink()
    shard_of(directory / "0/0/0", [values[None, 0:2], None, values[None, 4:6]], 3)
    np.testing.assert_array_equal(read(directory, spec, 4, 6), values[4:6])
    with pytest.raises(Unreadable, match="inner chunk 1 is absent"):
        read(directory, spec, 0, 6)


def test_an_inner_chunk_of_another_size(whole):
    spec, values, directory, _ = whole
    (directory / "0/0/0").unlink()
    shard_of(directory / "0/0/0", [values[None, 0:2], values[None, 2:3], values[None, 4:6]], 3)
    with pytest.raises(Unreadable, match="inner chunk 1 has 28 bytes, expected 52"):
        read(directory, spec, 0, 6)


def test_an_offset_beyond_the_file(whole):
    spec, _, directory, _ = whole
    path = directory / "1/0/0"
    data = path.read_bytes()
    index = np.frombuffer(data[-52:-4], dtype="<u8").copy()
    index[0] = 10**6
    path.write_bytes(data[:-52] + index.tobytes() + crc32c(index.tobytes()).to_bytes(4, "little"))
    with pytest.raises(Unreadable, match="ends within inner chunk 0"):
        read(directory, spec, 6, 7)


def test_the_writer_takes_exactly_the_examples_there_are(tmp_path, whole):
    spec, values, _, _ = whole
    writer = ArrayWriter(tmp_path / "other", spec)
    writer.append(values[:4])
    with pytest.raises(InputError, match="4 of 10 examples"):
        writer.finish()
    with pytest.raises(InputError, match=r"shape \(7, 2, 3\) after 4 examples; expected at most 6"):
        writer.append(values[:7])
    with pytest.raises(InputError, match=r"shape \(1, 3, 2\)"):
        writer.append(np.zeros((1, 3, 2), dtype="<f4"))
    assert writer.written == 4
    writer.close()


def test_a_shard_is_never_overwritten_and_never_overfilled(tmp_path):
    chunk = np.zeros((2, 3), dtype="<f4")
    shard_of(tmp_path / "s", [chunk], 1)
    with pytest.raises(FileExistsError):
        ShardWriter(tmp_path / "s", 1)
    with ShardWriter(tmp_path / "t", 1) as shard:
        shard.append(chunk)
        with pytest.raises(InputError, match="has 1 inner chunks and all were written"):
            shard.append(chunk)


def test_the_writer_holds_one_row_of_chunks(tmp_path):
    """Memory does not depend on the number of examples: 24 MB go through a buffer of one 6 KB chunk."""
    import tracemalloc

    spec = ArraySpec("s", ("model", "example"), (1, 6_000_000), np.dtype("<f4"), (1, 1500), (1, 6_000_000))
    block = np.ones(60_000, dtype="<f4")
    writer = ArrayWriter(tmp_path / "m", spec)
    tracemalloc.start()
    try:
        for _ in range(100):
            writer.append(block)
        writer.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_directory_that_was_removed_does_not_come_back(tmp_path):
    """A writer whose attempt was taken away must not leave a piece of it behind."""
    spec = model_arrays(models=1, examples=8, augmentations=1, classes=None, dtype="float32", signals={})[
        "scaled_logit"
    ]
    writer = ArrayWriter(tmp_path / "attempt" / "scaled_logit", spec)
    with pytest.raises(FileNotFoundError):
        writer.append(np.zeros((8, 1), np.float32))
    assert list(tmp_path.iterdir()) == []
