"""Chunk policy, names and the root document: pure functions of shapes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lirastore.errors import DamagedStore, FormatVersionError, InputError, NotAStore
from lirastore.store.layout import (
    CRC_BYTES,
    INDEX_ENTRY_BYTES,
    LOGITS_CHUNK_BYTES,
    MAX_EXAMPLE_BYTES,
    MAX_SHARD_BYTES,
    SIGNAL_CHUNK_BYTES,
    ArraySpec,
    StoreInfo,
    check_signal_name,
    even_part,
    model_arrays,
    pieces,
)

sizes = st.builds(
    dict,
    models=st.integers(1, 1000),
    examples=st.integers(1, 2_000_000),
    augmentations=st.integers(1, 3000),
    classes=st.none() | st.integers(2, 200_000),
    dtype=st.sampled_from(["float32", "float16"]),
)


def stored_bytes(spec: ArraySpec) -> int:
    """The largest size that one shard object can have."""
    return spec.chunks_per_shard * (spec.chunk_bytes + CRC_BYTES + INDEX_ENTRY_BYTES) + CRC_BYTES


@given(sizes)
def test_every_layout_is_one_that_format_1_allows(size):
    for name, spec in model_arrays(**size, signals={"flat": ("model", "example")}).items():
        target = LOGITS_CHUNK_BYTES if name == "logits" else SIGNAL_CHUNK_BYTES
        row = math.prod(spec.shape[3:]) * spec.dtype.itemsize
        assert spec.chunk_shape[0] == spec.shard_shape[0] == 1
        assert spec.chunk_shape[3:] == spec.shard_shape[3:] == spec.shape[3:], "classes are never cut"
        assert all(s % c == 0 for s, c in zip(spec.shard_shape, spec.chunk_shape, strict=True))
        assert spec.chunk <= spec.examples
        assert spec.whole_examples or spec.example_bytes > MAX_EXAMPLE_BYTES
        assert spec.chunk_bytes <= target or (spec.chunk == 1 and spec.example_bytes > target)
        if not spec.whole_examples:
            assert spec.chunk_bytes <= max(target, row)
        assert stored_bytes(spec) <= MAX_SHARD_BYTES or spec.chunks_per_shard == 1
        assert spec.shard_grid[1] == 1 or spec.shard == 1, "objects are in the order of the examples"
        assert spec.shard_grid[0] * spec.shard - spec.examples < spec.shard


@given(st.integers(1, 10**7), st.integers(1, 10**6))
def test_even_parts_cut_no_more_often_and_pad_less(total, most):
    part = even_part(total, most)
    assert part <= most
    count = -(-total // part)
    assert count == -(-total // most)
    assert count * part - total < count


def test_the_layout_of_cifar_10_is_as_designed():
    arrays = model_arrays(
        models=256, examples=50_000, augmentations=18, classes=10, dtype="float32", signals={}
    )
    logits, scaled = arrays["logits"], arrays["scaled_logit"]
    assert (logits.chunk_shape, logits.shard_shape) == ((1, 2000, 18, 10), (1, 50_000, 18, 10))
    assert (scaled.chunk_shape, scaled.shard_shape) == ((1, 3334, 18), (1, 50_010, 18))
    assert logits.keys() == ["0/0/0"]
    assert scaled.keys() == ["0/0"]


def test_imagenet_takes_several_shards_in_the_order_of_examples():
    arrays = model_arrays(
        models=4, examples=50_000, augmentations=2, classes=1000, dtype="float32", signals={}
    )
    logits = arrays["logits"]
    assert logits.chunk_shape == (1, 187, 2, 1000)
    assert logits.keys() == [f"{row}/0/0" for row in range(7)]


def test_a_huge_example_is_cut_along_its_augmentations_and_a_gigantic_one_into_several_objects():
    arrays = model_arrays(
        models=2, examples=3, augmentations=100, classes=30_000, dtype="float32", signals={}
    )
    assert arrays["logits"].chunk_shape == (1, 1, 12, 30_000)
    assert arrays["logits"].shard_shape == (1, 3, 108, 30_000)
    arrays = model_arrays(
        models=2, examples=3, augmentations=1000, classes=30_000, dtype="float32", signals={}
    )
    assert arrays["logits"].keys() == ["0/0/0", "0/1/0", "1/0/0", "1/1/0", "2/0/0", "2/1/0"]


def test_a_signal_only_store_has_no_logits():
    arrays = model_arrays(
        models=2,
        examples=3,
        augmentations=1,
        classes=None,
        dtype="float32",
        signals={"token_logprob": ("model", "example", "augmentation"), "share": ("model", "example")},
    )
    assert list(arrays) == ["scaled_logit", "token_logprob", "share"]
    assert arrays["share"].example_shape == ()
    assert arrays["share"].keys() == ["0"]
    assert arrays["token_logprob"].dims == ("model", "example", "augmentation")


@given(st.integers(1, 10**7), st.lists(st.integers(1, 64), max_size=3), st.sampled_from([1, 8]))
def test_pieces_cut_the_first_axis_only(first, rest, itemsize):
    shape = pieces((first, *rest), itemsize)
    assert shape[1:] == tuple(rest)
    assert 1 <= shape[0] <= first
    assert math.prod(shape) * itemsize <= 8_000_000


@pytest.mark.parametrize("name", ["logits", "label", "member", "Token", "1st", "", "a" * 65, "a-b", None, 3])
def test_names_that_an_auxiliary_array_may_not_have(name):
    with pytest.raises(InputError, match="signal name"):
        check_signal_name(name)


def info(**changes: object) -> StoreInfo:
    values = {
        "format": 1,
        "models": 2,
        "examples": 3,
        "augmentations": ("identity", "flip"),
        "classes": 10,
        "dtype": "float32",
        "name": "digits",
        "fingerprint": "ab",
        "design": {"scheme": "balanced", "seed": 0},
        "signals": {"share": ("model", "example")},
        "claim": "link",
        "created_at": "2026-01-01T00:00:00Z",
        "library_version": "0.1.0",
    }
    return StoreInfo(**(values | changes))


def test_the_root_document_survives_json():
    for made in (info(), info(classes=None)):
        assert StoreInfo.from_json(json.loads(json.dumps(made.to_json())), "here") == made


def test_a_newer_format_is_refused_before_anything_else_is_looked_at():
    with pytest.raises(FormatVersionError, match=r"x\.lira has format 2.*upgrade"):
        StoreInfo.from_json({"format": 2, "something": "else"}, "x.lira")


@pytest.mark.parametrize("document", [None, {}, {"format": "1"}, [1]])
def test_other_groups_are_no_stores(document):
    with pytest.raises(NotAStore, match="no lirastore store"):
        StoreInfo.from_json(document, "x.zarr")


@pytest.mark.parametrize(
    "change",
    [
        {"models": None},
        {"models": 0},
        {"claim": "hope"},
        {"design": 3},
        {"signals": None},
        {"signals": {"logits": ["model", "example"]}},
        {"signals": {"share": ["example"]}},
        {"augmentations": 2},
        {"augmentations": []},
        {"classes": 1},
        {"dtype": "float64"},
    ],
)
def test_a_malformed_root_document_is_damage(change):
    with pytest.raises(DamagedStore, match="malformed"):
        StoreInfo.from_json(info().to_json() | change, "x.lira")


def test_a_missing_field_is_damage():
    for field in set(info().to_json()) - {"format"}:
        document = info().to_json()
        del document[field]
        with pytest.raises(DamagedStore, match=field):
            StoreInfo.from_json(document, "x.lira")


def test_dtypes_on_disk_are_little_endian():
    spec = model_arrays(models=1, examples=1, augmentations=1, classes=2, dtype="float16", signals={})[
        "logits"
    ]
    assert spec.dtype == np.dtype("<f2")


def test_the_format_lists_the_names_that_are_taken():
    from lirastore.store.layout import _RESERVED

    text = (Path(__file__).parents[2] / "storage" / "FORMAT.md").read_text(encoding="utf-8")
    listed = text[text.index("Names of signals match") : text.index("## Arrays")]
    assert set(re.findall(r"`([a-z_]+)`", listed)) == _RESERVED
