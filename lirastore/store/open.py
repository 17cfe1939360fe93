"""An open store: what was planned, what is committed, and the way to read it."""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.errors import (
    DamagedStore,
    InputError,
    MissingData,
    ModelNotCommitted,
    NotAStore,
    UnknownModel,
    name_some,
)
from lirastore.store import metadata
from lirastore.store.commit import Commit, committed_models, find_commit, keep_mask_digest
from lirastore.store.layout import COMMITS, FORMAT, LIRA, ArraySpec, Json, StoreInfo
from lirastore.store.plain import PlainSpec, read_plain
from lirastore.store.reader import ShardReader, Unreadable

if TYPE_CHECKING:
    import xarray

    from lirastore.store.writer import ModelWriter

__all__ = ["LogitStore", "open_store"]


def open_store(path: str | os.PathLike[str]) -> LogitStore:
    """Opens the store at `path`; reads a few small documents, no data.

    Raises NotAStore, FormatVersionError, or DamagedStore if the documents disagree with each other.
    """
    return LogitStore(Path(path))


class LogitStore:
    """A store of format 1. Cheap to open, safe to share between threads, and picklable (it reopens).

    path: the directory of the store. info: what was planned. arrays: the per-model arrays by name (`logits`
    unless signal-only, `scaled_logit`, auxiliaries, `population_scaled_logit` where there are population
    points). lira: the directory of what is lirastore's own.
    """

    path: Path
    info: StoreInfo
    arrays: Mapping[str, ArraySpec]
    lira: Path

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lira = path / LIRA
        attributes = metadata.read_group(path)
        self.info = StoreInfo.from_json(attributes.get("lirastore"), str(path))
        if not (self.lira / COMMITS).is_dir():
            raise NotAStore(
                f"{path} has no {LIRA}/{COMMITS}: it is not a whole store; was it copied in part?"
            )
        self.arrays = metadata.read_arrays(path, self.info)
        self._reader = ShardReader()
        self._known: frozenset[int] = frozenset()

    def __repr__(self) -> str:
        return f"LogitStore({str(self.path)!r})"

    def __reduce__(self) -> tuple[type[LogitStore], tuple[Path]]:
        return LogitStore, (self.path.absolute(),)

    # --- what is committed ------------------------------------------------------------------------

    def committed(self) -> npt.NDArray[np.int64]:
        """(K,) ids of the committed models, ascending; listed afresh from the commit markers."""
        models = committed_models(self)
        self._known = frozenset(models)
        return np.asarray(models, dtype=np.int64)

    def commits(self) -> dict[int, Commit]:
        """The commit marker of every committed model, by id, ascending."""
        markers = {model: find_commit(self, model) for model in self.committed().tolist()}
        return {model: commit for model, commit in markers.items() if commit}  # None: discarded just now

    def set_digest(self) -> str:
        """sha256 over format, labels, and the committed models: their ids, membership rows and digests.

        Equal for equal data however it was written; changes when a model is committed or discarded.
        """
        commits = self.commits()
        labels = hashlib.sha256(self.labels().astype("<i8", copy=False).tobytes()).hexdigest()
        digest = hashlib.sha256(f"lirastore set {FORMAT}\nlabel {labels}\n".encode())
        for model, commit in commits.items():
            row = keep_mask_digest(self.membership([model])[0])
            digest.update(f"model {model} membership {row} data {commit.digest}\n".encode())
        return digest.hexdigest()

    def check_model(self, model: int) -> int:
        """Returns `model` as an int if it is one of the planned ones; UnknownModel otherwise."""
        number = operator.index(model) if hasattr(model, "__index__") else -1
        if not 0 <= number < self.info.models:
            raise UnknownModel(
                f"model {model} is not in {self.path}: its models are 0 to {self.info.models - 1}"
            )
        return number

    def check_committed(self, model: int) -> int:
        """Returns `model` as an int if it is committed; ModelNotCommitted or UnknownModel otherwise."""
        number = self.check_model(model)
        if number not in self._known:
            self.committed()
        if number not in self._known:
            raise ModelNotCommitted(
                f"model {number} is not committed in {self.path}: write it, then ask again"
            )
        return number

    # --- what was planned -------------------------------------------------------------------------

    def labels(self) -> npt.NDArray[np.int64]:
        """(E,) class of each example; in a signal-only store -1 where there is none."""
        return self.read_plain("label")

    def membership(self, models: npt.ArrayLike | None = None) -> npt.NDArray[np.bool_]:
        """(K, E): True where the example was in that model's training set.

        `models`: ids of planned models, committed or not; by default the committed ones, ascending.
        """
        rows = self.committed() if models is None else np.asarray(models, dtype=np.int64).reshape(-1)
        for model in rows.tolist():
            self.check_model(model)
        return self.read_plain("membership", rows)

    def attackable(self) -> npt.NDArray[np.bool_] | None:
        """(E,) which examples may be scored; None if the store does not say."""
        return self.read_plain("attackable") if "attackable" in self.plain else None

    def preview(self, examples: npt.ArrayLike) -> npt.NDArray[np.uint8] | None:
        """(n, H, W, channel) pictures of some examples; None if the store has none."""
        if "preview" not in self.plain:
            return None
        return self.read_plain("preview", np.asarray(examples, dtype=np.int64).reshape(-1))

    def features(self, start: int, stop: int) -> npt.NDArray[np.float32] | None:
        """(stop − start, d) features of examples [start, stop), which tell who is alike; None if there are
        none. Raises InputError for a range that does not fit."""
        if "features" not in self.plain:
            return None
        if not 0 <= start <= stop <= self.info.examples:
            raise InputError(f"examples [{start}, {stop}): expected a range within [0, {self.info.examples})")
        return self.read_plain("features", np.arange(start, stop))

    @cached_property
    def plain(self) -> Mapping[str, PlainSpec]:
        """The small arrays by name: model, example, label, membership; and the optional ones if there."""
        names = metadata.plain_names(self.path)
        return {name: metadata.read_plain_spec(self.path, name, self.info) for name in names}

    def read_plain(self, name: str, rows: npt.NDArray[np.int64] | None = None) -> npt.NDArray[Any]:
        """All of a small array, or some rows of it; DamagedStore names the object that cannot be read."""
        spec = self.plain[name]
        if rows is None:
            rows = np.arange(spec.shape[0])
        elif len(rows) and (rows.min() < 0 or rows.max() >= spec.shape[0]):
            raise InputError(f"{name}: rows {rows.min()} to {rows.max()}, expected 0 to {spec.shape[0] - 1}")
        try:
            return read_plain(self.path, spec, rows)
        except Unreadable as error:
            raise DamagedStore(f"{self.path}: {error}; restore this file from a copy of the store") from error

    # --- reading ----------------------------------------------------------------------------------

    def read(
        self, array: str, model: int, start: int, stop: int, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """Examples [start, stop) of one committed model, n of them: logits (n, A, C), signals (n, A) or (n,);
        of `population_scaled_logit`, points [start, stop), (n,).

        `out`, if given, is filled and returned; it may have another floating dtype or be a view, but a
        C-contiguous one of the array's dtype is read into directly. Thread-safe. Values are as stored:
        checksums are checked, finiteness is not (see `damage`).

        Raises MissingData for an array that the store does not have, UnknownModel, ModelNotCommitted,
        InputError for a range or `out` that does not fit, DamagedStore naming the model and the object if an
        object or a chunk of it is absent, has a wrong size, or fails its crc32c.
        """
        spec = self._spec(array)
        number = self.check_committed(model)
        if not 0 <= start <= stop <= spec.examples:
            raise InputError(f"examples [{start}, {stop}): expected a range within [0, {spec.examples})")
        shape = (stop - start, *spec.example_shape)
        if out is None:
            out = np.empty(shape, dtype=spec.dtype)
        elif out.shape != shape:
            raise InputError(f"out has shape {out.shape}, expected {shape}")
        try:
            self._reader.read(f"{self.path}/{array}/c/{number}", spec, start, stop, out)
        except Unreadable as error:
            raise self._damaged(number, f"{array}/c/{number}/{error.key}", error.problem) from error
        return out

    def damage(
        self, model: int, array: str, start: int, stop: int, problem: str = "it holds NaN or infinity"
    ) -> DamagedStore | ModelNotCommitted:
        """The error for committed values of examples [start, stop) that cannot be; the caller raises it.

        It names the model and its objects, or is ModelNotCommitted if the model was withdrawn meanwhile.
        """
        spec = self._spec(array)
        keys = [spec.key(row, 0) for row in range(start // spec.shard, -(-stop // spec.shard))]
        objects = name_some([f"{array}/c/{model}/{key}" for key in keys])
        return self._damaged(model, objects, f"{problem} within examples [{start}, {stop})")

    def writer(
        self,
        model: int,
        *,
        metadata: Mapping[str, Json] | None = None,
        scratch: str | os.PathLike[str] | None = None,
        queue_batches: int = 4,
    ) -> ModelWriter:
        """A context manager that streams one model and commits it on a clean exit; see ModelWriter.

        metadata: JSON values for view `models` (train_accuracy, seed, source_id, …). scratch: where batches
        out of order are kept until the end (default: within the attempt). queue_batches: how many batches
        may wait for the writing thread. Raises UnknownModel, AlreadyCommitted.
        """
        from lirastore.store.writer import ModelWriter

        return ModelWriter(self, model, metadata=metadata, scratch=scratch, queue_batches=queue_batches)

    @property
    def dataset(self) -> xarray.Dataset:
        """The committed models, lazily, read by `read`: damage is an error, never a fill value."""
        from lirastore.store.dataset import dataset

        return dataset(self)

    def _spec(self, array: str) -> ArraySpec:
        try:
            return self.arrays[array]
        except KeyError:
            have = ", ".join(self.arrays)
            raise MissingData(f"{self.path} has no array {array!r}; it has {have}") from None

    def _damaged(self, model: int, objects: str, problem: str) -> DamagedStore | ModelNotCommitted:
        if model not in self.committed().tolist():  # discarded while it was read
            return ModelNotCommitted(f"model {model} was withdrawn from {self.path}")
        return DamagedStore(
            f"model {model} of {self.path} is damaged: {objects}: {problem}. `lirastore verify` finds all "
            f"damage; `lirastore discard --models {model}` withdraws the model, to be written again"
        )
