"""Runs trainers: which models are left, one after the other or several side by side, committing as they go.

A model is written while the next one trains. What is finished is committed; a job that is killed, preempted
or interrupted loses the models in flight only, and the same call again trains the rest.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np

import lirastore
from lirastore.errors import (
    AlreadyCommitted,
    InputError,
    NonFiniteLogits,
    TrainingDiverged,
    TrainingFailed,
    UnknownModel,
    name_some,
)
from lirastore.pipelines.core import Trainer, one_thread, torch
from lirastore.pipelines.journal import Clock, Cost, Event, Journal
from lirastore.pipelines.provenance import facts

__all__ = ["Make", "Worker", "left", "place", "reproducible", "train", "using"]

QUEUE = 32
"""Pieces of 4 MiB that may wait for the writing thread: a GPU gives a large batch at once."""

Make = Callable[[lirastore.Store, torch.device], Trainer]
Tell = Callable[[Event], None]


def train(
    store: lirastore.Store,
    make: Make,
    *,
    models: Iterable[int] | None = None,
    shard: tuple[int, int] | None = None,
    device: str | None = None,
    together: int = 1,
    progress: bool = True,
) -> list[int]:
    """Trains those of `models` (None: all) that are not committed yet; returns the ids committed now.

    make: (store, device) -> Trainer; with `together` above 1, so many processes train on the device side by
    side, and `make` must be picklable. shard: (i, n), every nth of the models from the ith on; by default
    torchrun's rank, else all. device: such as cuda:1; by default a GPU if torch sees one, torchrun's local
    one if there are several, else the CPU, one thread for each model. What is trained depends on none of
    these, but for the last bits of floating-point sums, which depend on the kind of device.

    Raises UnknownModel, InputError; TrainingDiverged at the end, naming the models whose loss or outputs were
    not finite; TrainingFailed if a process died.
    """
    if together < 1:
        raise InputError(f"together is {together}: expected at least 1 model at a time")
    where = place(device)
    index, parts = _sharded(shard)
    todo = left(store, models, shard)
    if not todo:
        return []
    journal = Journal(len(todo), epochs=_epochs(store), shown=progress)
    count = min(together, len(todo))
    part = "" if (index, parts) == (0, 1) else f" (shard {index}/{parts})"
    side = f", {count} at a time" if count > 1 else ""
    journal.say(f"training {len(todo)} models{part} of {store.path} on {where}{side}")
    try:
        costs = _run(store, make, where, todo, count, journal)
    finally:
        journal.close()
    journal.summary(costs)
    if journal.diverged:
        raise TrainingDiverged(_diverged(journal.diverged))
    return sorted(journal.committed)


def _run(
    store: lirastore.Store, make: Make, where: torch.device, todo: list[int], count: int, journal: Journal
) -> list[Cost]:
    if count > 1:
        from lirastore.pipelines.together import run_processes

        return run_processes(store.path, make, where, todo, count, journal)
    with using(where):
        return [Worker(store, make(store, where), where, journal).run(todo)]


def left(
    store: lirastore.Store, models: Iterable[int] | None = None, shard: tuple[int, int] | None = None
) -> list[int]:
    """Which of `models` (None: all planned) are this shard's and not committed yet, ascending.

    Shards cut what was asked for, not what is left: jobs that start at different times never overlap.
    """
    index, count = _sharded(shard)
    planned = range(store.info.models)
    wanted = sorted(set(planned if models is None else models))
    unknown = [model for model in wanted if model not in planned]
    if unknown:
        raise UnknownModel(
            f"no such models: {name_some(unknown)}; {store.path} plans models 0 to {planned[-1]}"
        )
    pending = set(store.pending())
    return [model for model in wanted[index::count] if model in pending]


def _sharded(shard: tuple[int, int] | None) -> tuple[int, int]:
    """The part (i, n) that is this process's: torchrun's processes divide what was asked for."""
    index, count = shard or (0, 1)
    rank, world = _number("RANK", 0), _number("WORLD_SIZE", 1)
    for i, n in ((index, count), (rank, world)):
        if not 0 <= i < n:
            raise InputError(f"shard {i}/{n}: expected i/n with i from 0 to n − 1, such as 0/8 … 7/8")
    return index + count * rank, count * world


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise InputError(f"the environment's {variable} is {text!r}: expected a number, as torchrun sets it")
    return int(text)


def place(device: str | None) -> torch.device:
    """The device to train on. Raises InputError if torch does not know it or does not see it."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r}: expected such as cpu, cuda or cuda:1") from error
    if chosen.type == "cuda":
        count = torch.cuda.device_count()
        index = _number("LOCAL_RANK", 0) if chosen.index is None else chosen.index
        if index >= count:
            raise InputError(f"device {device!r} (number {index}): torch sees {count} GPUs; choose another")
        return torch.device("cuda", index)
    if chosen.type != "cpu":
        raise InputError(f"device {device!r}: expected cpu, cuda or cuda:1")
    return chosen


@contextmanager
def using(device: torch.device) -> Iterator[None]:
    """Makes a GPU this process's current one, or what names none would wake the first GPU as well.

    A CPU computes with one thread: with several the last bits of sums differ, so that models would depend on
    how many are trained together, and for small networks two threads are no faster than one.
    """
    with torch.cuda.device(device) if device.type == "cuda" else one_thread():
        yield


def _epochs(store: lirastore.Store) -> int | None:
    training = store.info.training or {}
    found = training.get("settings", {}).get("epochs")
    return found if isinstance(found, int) else None


def _diverged(messages: Mapping[int, str]) -> str:
    first = messages[min(messages)]
    return (
        f"diverged and not committed: {name_some(sorted(messages))}. The first: "
        f"{first}. They will again, for their seeds are theirs; a store with a lower learning rate may do"
    )


@contextmanager
def reproducible(*, strict: bool = False) -> Iterator[None]:
    """The same kernels each time, so that (seed, model) decides; torch's settings are restored.

    strict: refuse what has no such kernel, instead of warning.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    filled = torch.utils.deterministic.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS sums in any order
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    torch.backends.cudnn.benchmark = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a launch for each new tensor
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = filled


# --- one process --------------------------------------------------------------------------------


class Worker:
    """Trains models one after the other in this process, each committed while the next one trains."""

    def __init__(self, store: lirastore.Store, trainer: Trainer, device: torch.device, tell: Tell) -> None:
        self._store, self._trainer, self._tell = store, trainer, tell
        self._facts = facts(store, trainer, device)
        self._clock = Clock()

    def run(self, models: Iterable[int]) -> Cost:
        """Trains them as they come; returns what it cost once the last is committed."""
        seconds, cpu = time.perf_counter(), time.process_time()
        with (
            reproducible(strict=self._trainer.strict),
            _Committing(self._store, self._tell, self._clock) as committing,
        ):
            for model in models:
                try:
                    self._train(model, committing)
                except (TrainingDiverged, NonFiniteLogits) as error:
                    self._tell(Event("diverged", model, str(error)))
                except AlreadyCommitted as error:
                    _check_taken(self._store, model, error)
                    self._tell(Event("taken", model))
                except torch.OutOfMemoryError as error:
                    raise TrainingFailed(
                        f"model {model}: {error}. Train fewer models together, or in smaller batches"
                    ) from error
        clock = self._clock
        return Cost(time.perf_counter() - seconds, time.process_time() - cpu, clock.waited, clock.stored)

    def _train(self, model: int, committing: _Committing) -> None:
        with self._clock.waiting():
            self._store.writer(model)  # AlreadyCommitted: by another job, or by one that died meanwhile
        unit = self._trainer.unit
        watch = _Watch(model, unit, self._tell, committing.check)
        started = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        net = self._trainer.fit(model, watch.epoch)
        trained = watch.seconds()
        recorded = {
            **self._facts,
            "started_at": started,
            "epochs": len(watch.losses),
            "loss_curve": watch.losses,
            "train_seconds": trained,
            f"{unit}_per_second": watch.count / trained,
        }
        with self._clock.waiting():
            writer = self._store.logits.writer(model, metadata=recorded, queue_batches=QUEUE)
        with _opened(writer, self._clock):
            self._trainer.write(net, model, _Timed(writer, self._clock))
            writer.metadata["seconds"] = watch.seconds()
        committing.submit(writer, unit)


def _check_taken(store: lirastore.Store, model: int, error: AlreadyCommitted) -> None:
    """Raises `error` unless the model is in the store: an attempt is lost to `lirastore gc`, too."""
    try:
        store.writer(model)  # completes what another job has claimed
    except AlreadyCommitted:
        return
    raise error


@contextmanager
def _opened(writer: lirastore.ModelWriter, clock: Clock) -> Iterator[None]:
    """Opens the writer's block and leaves it so, for another thread to end, unless something goes wrong."""
    try:
        with clock.waiting():
            writer.__enter__()
        yield
    except BaseException:
        writer.__exit__(*sys.exc_info())
        raise


class _Timed:
    """A writer that the clock watches: what a trainer sees of it."""

    def __init__(self, writer: lirastore.ModelWriter, clock: Clock) -> None:
        self._writer, self._clock = writer, clock
        self.model, self.metadata = writer.model, writer.metadata

    def write(self, logits: Any = None, **given: Any) -> None:
        """As ModelWriter.write."""
        with self._clock.waiting(), self._working():
            self._writer.write(logits, **given)

    def write_population(self, scaled_logit: Any) -> None:
        """As ModelWriter.write_population."""
        if isinstance(scaled_logit, torch.Tensor):
            scaled_logit = scaled_logit.cpu()  # waits for the GPU to compute it, which is no storing
        with self._clock.waiting(), self._working():
            self._writer.write_population(scaled_logit)

    @contextmanager
    def _working(self) -> Iterator[None]:
        start = time.thread_time()
        yield
        self._clock.spent(time.thread_time() - start)


class _Committing:
    """Ends the blocks of writers in a thread of its own, one at a time."""

    def __init__(self, store: lirastore.Store, tell: Tell, clock: Clock) -> None:
        self._store, self._tell, self._clock = store, tell, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lirastore commit")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> _Committing:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            self._thread.shutdown()  # waits: what is being committed will be

    def submit(self, writer: lirastore.ModelWriter, unit: str) -> None:
        """Hands a writer over, whose block is open and filled, once the one before it is committed."""
        try:
            self._wait()
        except BaseException:
            writer.__exit__(*sys.exc_info())
            raise
        self._under_way = self._thread.submit(self._commit, writer, unit)

    def check(self) -> None:
        """Raises what went wrong with a commit, if one has failed."""
        if self._under_way is not None and self._under_way.done():
            self._under_way.result()

    def _wait(self) -> None:
        if self._under_way is not None:
            with self._clock.waiting():
                self._under_way.result()

    def _commit(self, writer: lirastore.ModelWriter, unit: str) -> None:
        start = time.thread_time()
        try:
            writer.__exit__(None, None, None)
        except AlreadyCommitted as error:
            _check_taken(self._store, writer.model, error)
            self._tell(Event("taken", writer.model))
        except NonFiniteLogits as error:
            self._tell(Event("diverged", writer.model, str(error)))
        else:
            self._tell(Event("committed", writer.model, facts=dict(writer.metadata), unit=unit))
        finally:
            self._clock.spent(time.thread_time() - start + writer.cpu_seconds)


class _Watch:
    """Takes note of a model's epochs."""

    def __init__(self, model: int, unit: str, tell: Tell, check: Callable[[], None]) -> None:
        self._model, self._unit, self._tell, self._check = model, unit, tell, check
        self._start = time.perf_counter()
        self.losses: list[float] = []
        self.count = 0

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def epoch(self, loss: torch.Tensor | float, count: int) -> None:
        """See `core.Epoch`."""
        self._check()
        value = float(loss)
        self.losses.append(value)
        self.count += count
        if not np.isfinite(value):
            raise TrainingDiverged(
                f"model {self._model}: the training loss is {value} in epoch {len(self.losses)}"
            )
        facts = {"epoch": len(self.losses), "loss": value, "rate": self.count / self.seconds()}
        self._tell(Event("epoch", self._model, facts=facts, unit=self._unit))
