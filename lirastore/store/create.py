"""Makes a store: everything in `STORE.<id>.partial` beside it, flushed to disk, then one rename.

Killed at any moment before the rename, there is no store and a rerun starts over.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.errors import InputError, StoreExists
from lirastore.store import fsio
from lirastore.store.layout import ATTEMPTS, COMMITS, LIRA, RESULTS, ArraySpec, Json, pieces
from lirastore.store.open import LogitStore, open_store
from lirastore.store.plan import Plan, Signal, checked_plan

if TYPE_CHECKING:
    import zarr

__all__ = ["create"]

Array = npt.NDArray[Any]

LONG_NAMES = {
    "logits": "raw pre-softmax outputs",
    "scaled_logit": "z_y - logsumexp over the other classes",
    "membership": "the example was in the model's training set",
    "label": "class of the example",
    "attackable": "the example may be scored",
    "preview": "picture of the example",
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
    preview: npt.ArrayLike | None = None,
    attackable: npt.ArrayLike | None = None,
    signals: Sequence[Signal] = (),
) -> LogitStore:
    """Plans a store at `path`, atomically, and opens it.

    labels (E,) ints in [0, classes), or from -1 (none) up if `classes` is None: then the store is signal-only
    and has no logits. membership (M, E) bool: row m is the training set of model m. augmentations: unique
    names, or how many: 1 is `identity`, n are `query0` … . dtype: of the logits, float32 or float16.
    design: JSON that says how membership was drawn. preview (E, H, W, channel) uint8. attackable (E,) bool.
    signals: auxiliary float32 arrays over (model, example, augmentation), or (name, dims) with dims
    ("model", "example").

    Raises StoreExists if anything stands at `path`, InputError for values that do not fit,
    UnsupportedFilesystem if nothing can be created there only if it is absent.
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
    )
    _refuse_existing(target)
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


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A fresh directory beside `target`, removed if it is still there at the end."""
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:12]}.partial")
    partial.mkdir()
    try:
        yield partial
    finally:
        if partial.exists():
            shutil.rmtree(partial)


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
    """Writes every document and small array of the store under `root`; the root document first to last."""
    import zarr

    lira = root / LIRA
    for directory in (ATTEMPTS, COMMITS, RESULTS):
        (lira / directory).mkdir(parents=True)
    info = plan.info(fsio.probe_claim_method(lira))
    group = zarr.create_group(root, zarr_format=3, attributes={"lirastore": info.to_json()})
    group.create_group(LIRA)
    for spec in plan.specs.values():
        _add_model_array(group, spec)
        (root / spec.name / "c").mkdir()  # a model is published by one rename into it
    _add_coordinates(group, plan)
    _add(group, "label", ("example",), plan.labels, fill=-1)
    _add(group, "membership", ("model", "example"), plan.membership, fill=False, chunks=(1, len(plan.labels)))
    if plan.attackable is not None:
        _add(group, "attackable", ("example",), plan.attackable, fill=False)
    if plan.preview is not None:
        _add(group, "preview", ("example", "height", "width", "channel"), plan.preview, fill=0)


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
    values: Array,
    *,
    fill: object,
    chunks: tuple[int, ...] | None = None,
) -> None:
    """A small array, written whole: pieces along the first axis, each with its crc32c."""
    from zarr.codecs import Crc32cCodec

    text = values.dtype == object
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="string" if text else values.dtype.name,
        chunks=chunks or (values.shape if text else pieces(values.shape, values.itemsize)),
        fill_value=fill,
        compressors=Crc32cCodec(),
        dimension_names=dims,
        attributes=_attributes(name),
        config={"write_empty_chunks": True},
    )
    array[...] = values
