"""`store.writer(model)`: streams the outputs of one model into the store, and commits it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore.errors import AlreadyCommitted, IncompleteModel, InputError, NonFiniteLogits
from lirastore.kernels import scaled_logit
from lirastore.store.attempt import Attempt, retire
from lirastore.store.commit import keep_mask_digest
from lirastore.store.conveyor import Conveyor
from lirastore.store.examples import Examples, describe, parse_examples, rows_of
from lirastore.store.faults import reach
from lirastore.store.layout import LOGITS, POPULATION, SCALED_LOGIT, ArraySpec, Json
from lirastore.store.model_metadata import ModelMetadata
from lirastore.store.population import PopulationSink
from lirastore.store.protocol import Places, claim, publish
from lirastore.store.recover import settle
from lirastore.store.spill import ModelSink
from lirastore.store.tensors import Batch, Pending, as_batch

if TYPE_CHECKING:
    from lirastore.store.open import LogitStore

__all__ = ["ModelWriter", "unknown_masks"]

PIECE_BYTES = 4 * 1024 * 1024
"""Batches are cut into pieces of this size: a caller may pass the whole model at once."""


@dataclass(frozen=True)
class _Piece:
    """Some consecutive rows of a caller's batch, on their way."""

    examples: Examples
    arrays: dict[str, Pending]


class ModelWriter:
    """A context manager that stages one model and commits it when the block ends without an exception.

    `write` copies a batch and returns; a thread casts it to the store's dtype, checks that it is finite,
    computes `scaled_logit`, and writes. What goes wrong there is raised by the next `write`, or at the end of
    the block. An exception in the block, of whatever kind, removes the attempt: nothing is visible.

    At the end of the block: IncompleteModel if examples were never written; LostClaim if another process
    committed the model meanwhile. From the moment the claim succeeded the model is as good as committed:
    should this process die then, whoever next wants the model, or `recover`, finishes the work.
    """

    metadata: ModelMetadata
    """JSON values for view `models`, such as train_accuracy, test_accuracy, seed, source_id; may be filled
    until the block ends. InputError for what is not JSON, NaN included."""

    cpu_seconds: float = 0.0
    """Processor time that the writing thread took, once the block has ended."""

    def __init__(
        self,
        store: LogitStore,
        model: int,
        *,
        metadata: Mapping[str, Json] | None = None,
        scratch: str | os.PathLike[str] | None = None,
        queue_batches: int = 4,
    ) -> None:
        """Raises UnknownModel; InputError if the design lists the model among its `unknown_masks`; and
        AlreadyCommitted if the model is in the store, or is found to have been claimed by a process that
        died: then it is published first.

        scratch: a directory for batches that come out of order (default: the attempt's own); they need as
        much space as the model. queue_batches: how many pieces of up to 4 MiB may wait for the thread.
        """
        self.model = store.check_model(model)
        _refuse_unknown_mask(store, self.model)
        self.metadata = ModelMetadata(self.model, metadata)
        if queue_batches < 1:
            raise InputError(f"queue_batches is {queue_batches}, expected at least 1")
        if scratch is not None and not Path(scratch).is_dir():
            raise InputError(f"scratch {scratch} is no directory: make it first")
        if settle(store, self.model):
            raise AlreadyCommitted(
                f"model {self.model} is already committed in {store.path}: to write it again, withdraw it "
                f"with `lirastore discard --models {self.model}`"
            )
        self._store = store
        self._scratch = None if scratch is None else Path(scratch)
        self._limit = queue_batches * PIECE_BYTES
        self._stage: _Stage | None = None
        self._ended = False

    def write(
        self,
        logits: Any = None,
        *,
        examples: slice | range | Sequence[int] | npt.NDArray[np.integer[Any]],
        **signals: Any,
    ) -> None:
        """Takes the outputs for some examples, in any order and any number; returns as soon as it has copied.

        logits: (n, A, C), or (n, C) in a store of one augmentation: raw outputs before the softmax, as a
        numpy array or a torch tensor on any device, of any floating dtype. examples: their n ids, each
        written exactly once. signals: the store's auxiliary arrays by name, all of them each time, (n, A), or
        (n,) where they have no augmentations or there is one; in a store without logits also `scaled_logit`.

        Raises InputError for wrong shapes, dtypes, names and ids, IncompleteModel for examples that were
        written already, and whatever went wrong with earlier batches: NonFiniteLogits for NaN or infinity
        after the cast to the store's dtype, OSError, LostClaim.
        """
        stage = self._open("write")
        given = signals if logits is None else {LOGITS: logits, **signals}
        stage.put(given, examples)

    def write_population(self, scaled_logit: Any) -> None:
        """Takes φ of the store's population points, (Z,), once, before or after any batch; returns when they
        are on disk.

        scaled_logit: a numpy array or a torch tensor on any device, of any floating dtype. In a store that
        was planned with a population the block ends with IncompleteModel without it.

        Raises InputError for a wrong shape or dtype and in a store without a population, IncompleteModel if
        it was written already, NonFiniteLogits for NaN or infinity after the cast to float32, and whatever
        went wrong with earlier batches.
        """
        self._open("write_population").put_population(scaled_logit)

    def __enter__(self) -> ModelWriter:
        if self._stage is not None or self._ended:
            raise InputError(
                f"model {self.model}: a writer is used once: open another with `store.writer(…)`"
            )
        self._stage = _Stage(self._store, self.model, self._scratch, self._limit)
        return self

    def _open(self, called: str) -> _Stage:
        """What is being filled. Raises InputError outside the block."""
        if self._stage is None:
            when = "after the block has ended" if self._ended else "before the block has begun"
            raise InputError(
                f"model {self.model}: {called} was called {when}: use `with store.writer(…) as w:`"
            )
        return self._stage

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stage, self._stage, self._ended = self._stage, None, True
        if stage is None:
            return
        try:
            if error is not None:
                stage.abandon()
            else:
                _commit(stage, self.metadata)
        finally:
            self.cpu_seconds = stage.cpu_seconds


def _commit(stage: _Stage, metadata: ModelMetadata) -> None:
    try:
        stage.commit(metadata)
    except BaseException:
        stage.abandon()
        raise


class _Stage:
    """An attempt being filled: which examples have come, and the thread that writes them."""

    def __init__(self, store: LogitStore, model: int, scratch: Path | None, limit: int) -> None:
        self._places = Places.of(store)
        self._store = store
        self._model = model
        self._arrays = {name: spec for name, spec in store.arrays.items() if name != POPULATION}
        self._labels = store.labels() if LOGITS in store.arrays else None
        self._keep_mask = keep_mask_digest(store.membership([model])[0])
        self._seen = np.zeros(store.info.examples, dtype=np.bool_)
        self._conveyor = Conveyor(self._process, limit=limit, name=f"lirastore writer, model {model}")
        try:
            self._attempt = Attempt(self._places, model)
        except BaseException:
            self._conveyor.abort()
            raise
        self._sink = ModelSink(self._attempt.directory, self._arrays, scratch or self._attempt.directory)
        self._population = PopulationSink(model, self._attempt.directory, store.arrays.get(POPULATION))

    @property
    def cpu_seconds(self) -> float:
        """Of the writing thread, once it has ended."""
        return self._conveyor.cpu_seconds

    # --- in the caller's thread -------------------------------------------------------------------

    def put(self, given: Mapping[str, Any], examples: Any) -> None:
        """Checks a batch, then copies it piece by piece into the queue."""
        self._conveyor.check()
        ids = parse_examples(examples, len(self._seen), self._model)
        batches = self._check(given, ids)
        if not len(ids):
            return
        self._mark(ids)
        try:
            self._queue(batches, ids)
        except BaseException as error:  # half a batch is on its way: this model can't be completed any more
            self._conveyor.fail(error)
            raise

    def put_population(self, scaled_logit: Any) -> None:
        """Checks and writes φ of the population points."""
        self._conveyor.check()
        values = self._population.check(scaled_logit)
        if self._attempt.lost:
            raise self._attempt.gone()
        try:
            self._population.write(values)
        except BaseException as error:  # half of it is there: this model can't be completed any more
            self._conveyor.fail(error)
            if isinstance(error, FileNotFoundError):
                raise self._attempt.explain(error) from None
            raise

    def _queue(self, batches: dict[str, Batch], ids: Examples) -> None:
        rows = max(1, PIECE_BYTES * len(ids) // max(batch.nbytes for batch in batches.values()))
        for start in range(0, len(ids), rows):
            part = slice(start, start + rows)
            piece_ids = ids[part]
            nbytes = sum(batch.nbytes for batch in batches.values()) * len(piece_ids) // len(ids)
            self._conveyor.put(partial(_copy, batches, piece_ids, part), nbytes)

    def _check(self, given: Mapping[str, Any], ids: Examples) -> dict[str, Batch]:
        expected = {name for name in self._arrays if name != SCALED_LOGIT or LOGITS not in self._arrays}
        if given.keys() != expected:
            raise InputError(self._about(ids, _wrong_names(set(given), expected)))
        try:
            batches = {name: as_batch(value, name) for name, value in given.items()}
        except InputError as error:
            raise InputError(self._about(ids, str(error))) from None
        for name, batch in batches.items():
            shapes = _shapes(self._arrays[name], len(ids))
            if batch.shape not in shapes:
                wanted = " or ".join(map(str, shapes))
                raise InputError(self._about(ids, f"{name} has shape {batch.shape}, expected {wanted}"))
        return batches

    def _mark(self, ids: Examples) -> None:
        rows = rows_of(ids)
        again = self._seen[rows]
        if again.any():
            twice = np.asarray(ids)[again]
            raise IncompleteModel(
                f"model {self._model}: examples {describe(twice)} were written before; each is written once"
            )
        self._seen[rows] = True

    def _about(self, ids: Examples, problem: str) -> str:
        return f"model {self._model}, examples {describe(ids)}: {problem}"

    def commit(self, metadata: ModelMetadata) -> None:
        """Seals, claims and publishes."""
        self._conveyor.finish()
        missing = np.flatnonzero(~self._seen)
        if len(missing):
            raise IncompleteModel(
                f"model {self._model}: {len(missing)} of {len(self._seen)} examples were never written: "
                f"{describe(missing)}; the model is not committed"
            )
        self._population.require()
        document = metadata.checked()
        objects = self._finish_sink()
        self._attempt.seal(objects, document, self._keep_mask)
        claim(self._places, self._model, self._attempt.name)
        self._attempt.close()
        publish(self._places, self._model, self._attempt.name)

    def _finish_sink(self) -> dict[str, Any]:
        try:
            found = self._sink.finish() | self._population.objects
        except FileNotFoundError as error:
            raise self._attempt.explain(error) from None
        finally:
            self._sink.close()
        return {
            f"{name}/c/{self._model}/{key}": stored
            for name, objects in found.items()
            for key, stored in objects.items()
        }

    def abandon(self) -> None:
        """Stops, and removes the attempt; one that has claimed the model stays, to be published."""
        self._attempt.close()
        self._conveyor.abort()
        self._sink.close()
        retire(self._places, self._model, self._attempt.name)

    # --- in the writing thread --------------------------------------------------------------------

    def _process(self, piece: _Piece) -> None:
        blocks = {name: self._store_form(name, wait(), piece) for name, wait in piece.arrays.items()}
        if self._labels is not None:
            phi = scaled_logit(blocks[LOGITS], self._labels[rows_of(piece.examples)])
            blocks[SCALED_LOGIT] = self._finite(SCALED_LOGIT, phi, piece)
        if self._attempt.lost:
            raise self._attempt.gone()
        try:
            self._sink.write(piece.examples, blocks)
        except FileNotFoundError as error:
            raise self._attempt.explain(error) from None
        reach("write.batch")

    def _store_form(self, name: str, block: npt.NDArray[Any], piece: _Piece) -> npt.NDArray[Any]:
        spec = self._arrays[name]
        with np.errstate(over="ignore"):  # becomes infinity, and is refused below
            cast = block.astype(spec.dtype, copy=False)
        return self._finite(name, cast.reshape(len(block), *spec.example_shape), piece, block)

    def _finite(
        self, name: str, block: npt.NDArray[Any], piece: _Piece, given: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """`block`, if it is finite; `given` is what it was before the cast, for the message."""
        finite = np.isfinite(block)
        if finite.all():
            return block
        bad = ~finite.reshape(len(block), -1).all(axis=1)
        limit = f"{np.finfo(block.dtype).max:.6g}"
        overflow = (
            block.dtype == np.float16
            and given is not None
            and np.isfinite(given.reshape(block.shape)[~finite]).any()
        )
        remedy = " (a store made with dtype float32, --dtype float32, takes larger ones)" if overflow else ""
        raise NonFiniteLogits(
            f"model {self._model}: {name} holds NaN or infinity for examples "
            f"{describe(np.asarray(piece.examples)[bad])}; expected finite values as {block.dtype.name}, "
            f"whose largest is {limit}{remedy}; nothing of this model was committed"
        )


def unknown_masks(store: LogitStore) -> frozenset[int]:
    """Models whose training sets nobody knew when the store was made: the design's `unknown_masks`."""
    listed = store.info.design.get("unknown_masks")
    return (
        frozenset(model for model in listed if isinstance(model, int))
        if isinstance(listed, list)
        else frozenset()
    )


def _refuse_unknown_mask(store: LogitStore, model: int) -> None:
    if model in unknown_masks(store):
        raise InputError(
            f"model {model}: its training set was unknown when {store.path} was made (unknown_masks of the "
            f"design), so its row of membership is empty, and every attack would take it for a model trained "
            f"on nothing; once its outputs are there, import all of them into a new store"
        )


def _copy(batches: Mapping[str, Batch], ids: Examples, part: slice) -> _Piece:
    return _Piece(ids, {name: batch.copy(part) for name, batch in batches.items()})


def _shapes(spec: ArraySpec, n: int) -> list[tuple[int, ...]]:
    """What a batch of n examples may look like: with a single augmentation, that axis may be left out."""
    shapes = [(n, *spec.example_shape)]
    if spec.example_shape[:1] == (1,):
        shapes.append((n, *spec.example_shape[1:]))
    return shapes


def _wrong_names(given: set[str], expected: set[str]) -> str:
    problems = []
    if expected - given:
        problems.append(f"{', '.join(sorted(expected - given))} missing")
    if given - expected:
        problems.append(f"{', '.join(sorted(given - expected))} not written in this store")
    return f"{'; '.join(problems)}; expected exactly {', '.join(sorted(expected))}"
