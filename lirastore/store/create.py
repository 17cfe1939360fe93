"""Makes a store: everything in `STORE.<id>.partial` beside it, flushed to disk, then one rename.

Killed at any moment before the rename, there is no store and a rerun starts over.
"""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.errors import InputError, StoreExists
from lirastore.store import fsio
from lirastore.store.layout import ATTEMPTS, COMMITS, LIRA, MAX_PIECE_BYTES, RESULTS, ArraySpec, Json, pieces
from lirastore.store.metadata import DOCUMENT
from lirastore.store.open import LogitStore, open_store
from lirastore.store.plan import Fingerprint, Plan, Signal, Sliced, checked_plan

if TYPE_CHECKING:
    import zarr

__all__ = ["create", "is_partial"]

Array = npt.NDArray[Any]

_ID_DIGITS = 12

LONG_NAMES = {
    "logits": "raw pre-softmax outputs",
    "scaled_logit": "z_y - logsumexp over the other classes",
    "membership": "the example was in the model's training set",
    "label": "class of the example",
    "attackable": "the example may be scored",
    "preview": "picture of the example",
    "population_scaled_logit": "scaled_logit of points that no model was trained on",
    "features": "what the example is like",
}


def create(
    path: str | os.PathLike[str],
    *,
    labels: npt.ArrayLike,
    membership: npt.ArrayLike,
    augmentations: Sequence[str] | int,
    classes: int | None = None,
    dtype: str = "float32",
    name: str = "",
    design: Mapping[str, Json] | None = None,
    preview: npt.ArrayLike | Sliced | None = None,
    attackable: npt.ArrayLike | None = None,
    signals: Sequence[Signal] = (),
    population: int | None = None,
    features: npt.ArrayLike | Sliced | None = None,
    training: Mapping[str, Json] | None = None,
) -> LogitStore:
    """Plans a store at `path`, atomically, and opens it.

    labels (E,) ints in [0, classes), or from -1 (none) up if `classes` is None: then the store is signal-only
    and has no logits. membership (M, E) bool: row m is the training set of model m. augmentations: unique
    names, or how many: 1 is `identity`, n are `query0` … . dtype: of the logits, float32 or float16.
    design: JSON that says how membership was drawn. preview (E, H, W, channel) uint8: an array, or anything
    with a shape, a dtype and slices along its first axis, such as a reader of a file: it is read once, in
    order, in slices of at most 8 MB (or one picture). attackable (E,) bool. signals: auxiliary float32 arrays
    over (model, example, augmentation), or (name, dims) with dims ("model", "example"). population: of how
    many points that no model was trained on the writer takes φ (`write_population`). features (E, d):
    numbers, stored as float32, that tell which examples are alike; anything that can be sliced, as preview.
    training: JSON that a training job wants remembered of how the models are trained (`store.info.training`).

    Raises StoreExists if anything stands at `path`, InputError for values that do not fit and for a path
    within another store, UnsupportedFilesystem if nothing can be created there only if it is absent.
    """
    target = Path(path)
    plan = checked_plan(
        labels=labels,
        membership=membership,
        augmentations=augmentations,
        classes=classes,
        dtype=dtype,
        name=name,
        design=design or {},
        preview=preview,
        attackable=attackable,
        signals=signals,
        population=population,
        features=features,
        training=training,
    )
    _refuse_existing(target)
    _refuse_within_store(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _partial(target) as partial:
        _build(partial, plan)
        _flush(partial)
        _publish(partial, target)
    return open_store(target)


def _refuse_existing(target: Path) -> None:
    if not target.name:
        raise InputError(f"{str(target)!r}: expected the path of a directory that does not exist yet")
    if os.path.lexists(target):
        raise StoreExists(f"{target} exists: open it, remove it, or choose another path")


def _refuse_within_store(target: Path) -> None:
    """What stands within a store but is no part of it makes Zarr clients stumble."""
    for parent in target.resolve().parents:
        if (parent / LIRA).is_dir() and (parent / DOCUMENT).is_file():
            raise InputError(
                f"{target} is within the store {parent}, where a Zarr client would stumble over it: choose a "
                f"path beside that store, such as {parent.parent / target.name}"
            )


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A fresh directory beside `target`, removed if it is still there at the end."""
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:_ID_DIGITS]}.partial")
    partial.mkdir()
    try:
        yield partial
    finally:
        if partial.exists():
            shutil.rmtree(partial)


def is_partial(path: Path, target: Path) -> bool:
    """Whether `path` has a name that a creation of `target` gives its unfinished directory."""
    pattern = rf"{re.escape(target.name)}\.[0-9a-f]{{{_ID_DIGITS}}}\.partial"
    return path.parent == target.parent and re.fullmatch(pattern, path.name) is not None


def _flush(root: Path) -> None:
    """Flushes every file and directory of a tree, several at once: the disk joins their journal commits."""
    directories = [Path(found) for found, _, _ in os.walk(root)]
    files = [path for directory in directories for path in directory.iterdir() if path.is_file()]
    with ThreadPoolExecutor(max_workers=16) as threads:
        for flush, paths in ((fsio.fsync_file, files), (fsio.fsync_dir, directories)):
            list(threads.map(flush, paths))


def _publish(partial: Path, target: Path) -> None:
    """Renames the finished store to its name, which must be free, and makes that durable."""
    _refuse_existing(target)
    try:
        partial.rename(target)
    except (
        OSError
    ) as error:  # somebody else made it in between: a directory that is not empty is never replaced
        if fsio.occupied(error) or error.errno == errno.ENOTDIR:
            raise StoreExists(f"{target} was created by another process: open it") from error
        raise
    fsio.fsync_dir(target.parent)


def _build(root: Path, plan: Plan) -> None:
    """Writes every document and small array of the store under `root`; what makes it a store comes last."""
    import zarr

    lira = root / LIRA
    for directory in (ATTEMPTS, COMMITS, RESULTS):
        (lira / directory).mkdir(parents=True)
    claim = fsio.probe_claim_method(lira)
    group = zarr.create_group(root, zarr_format=3)
    group.create_group(LIRA)
    for spec in plan.specs.values():
        _add_model_array(group, spec)
        (root / spec.name / "c").mkdir()  # a model is published by one rename into it
    _add_coordinates(group, plan)
    _add(group, "label", ("example",), plan.labels, fill=-1)
    _add(group, "membership", ("model", "example"), plan.membership, fill=False, chunks=(1, len(plan.labels)))
    if plan.attackable is not None:
        _add(group, "attackable", ("example",), plan.attackable, fill=False)
    if plan.features is not None:
        _add(group, "features", ("example", "feature"), plan.features, fill=np.nan)
    fingerprint = Fingerprint(plan.labels)
    if plan.preview is not None:
        fingerprint.begin_pictures(plan.preview.shape)
        dims = ("example", "height", "width", "channel")
        _add(group, "preview", dims, plan.preview, fill=0, seen=fingerprint.update)
    group.update_attributes({"lirastore": plan.info(claim, fingerprint.hexdigest()).to_json()})


def _add_coordinates(group: zarr.Group, plan: Plan) -> None:
    models, examples = plan.membership.shape
    _add(group, "model", ("model",), np.arange(models, dtype="<i8"), fill=-1)
    _add(group, "example", ("example",), np.arange(examples, dtype="<i8"), fill=-1)
    _add(group, "augmentation", ("augmentation",), np.array(plan.augmentations, dtype=object), fill="")


def _attributes(name: str) -> dict[str, Json]:
    return {"long_name": LONG_NAMES[name]} if name in LONG_NAMES else {}


def _add_model_array(group: zarr.Group, spec: ArraySpec) -> None:
    """The document of a per-model array; its objects come with the models."""
    from zarr.codecs import Crc32cCodec

    group.create_array(
        spec.name,
        shape=spec.shape,
        dtype=spec.dtype.name,
        chunks=spec.chunk_shape,
        shards=spec.shard_shape,
        fill_value=np.nan,
        filters=None,
        compressors=Crc32cCodec(),
        dimension_names=spec.dims,
        attributes=_attributes(spec.name),
        config={"write_empty_chunks": True},
    )


def _add(
    group: zarr.Group,
    name: str,
    dims: tuple[str, ...],
    values: Sliced,
    *,
    fill: object,
    chunks: tuple[int, ...] | None = None,
    seen: Callable[[Array], None] = lambda block: None,
) -> None:
    """A small array, written whole: pieces along the first axis, each with its crc32c.

    `seen` is told of every block that was written, in order.
    """
    from zarr.codecs import Crc32cCodec

    text = values.dtype == object
    chunks = chunks or (values.shape if text else pieces(values.shape, values.dtype.itemsize))
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="string" if text else values.dtype.name,
        chunks=chunks,
        fill_value=fill,
        compressors=Crc32cCodec(),
        dimension_names=dims,
        attributes=_attributes(name),
        config={"write_empty_chunks": True},
    )
    for start, block in _blocks(name, values, chunks):
        array[start : start + len(block)] = block
        seen(block)


def _blocks(name: str, values: Sliced, chunks: tuple[int, ...]) -> Iterator[tuple[int, Array]]:
    """(first row, rows) of a few whole pieces at a time; InputError if a reader gives something else."""
    examples, *row = values.shape
    each = chunks[0] * math.prod(row) * values.dtype.itemsize
    step = chunks[0] * max(1, MAX_PIECE_BYTES // each)
    for start in range(0, examples, step):
        stop = min(start + step, examples)
        block = np.asarray(values[start:stop])
        if block.shape != (stop - start, *row) or block.dtype != values.dtype:
            raise InputError(
                f"{name}: rows {start} to {stop - 1} are {block.dtype} of shape {block.shape}, expected "
                f"{values.dtype} of shape {(stop - start, *row)}, as its own dtype and shape say"
            )
        yield start, block
