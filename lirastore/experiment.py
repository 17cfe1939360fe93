"""The public facade: make, open and import experiments; attack, query and report them.

store = lirastore.create("cifar10.lira", labels=y, classes=10, models=256, augmentations=["identity", "flip"])
with store.writer(model=17) as w:
    w.write(logits, examples=slice(0, 512))
store.attack("lira_online")
store.sql("from tpr_at_fpr(0.001)").df()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lirastore import store as _store
from lirastore import subsets
from lirastore.errors import InputError

if TYPE_CHECKING:
    import duckdb
    import numpy.typing as npt
    import xarray

    from lirastore.attacks import Attack
    from lirastore.catalog import QueryResult
    from lirastore.results import Result

StrPath = str | PathLike[str]


@dataclass(frozen=True)
class AttackStatus:
    """One attack that has been run: how many models it covered, and whether models came or went since."""

    name: str
    models: int
    stale: bool


@dataclass(frozen=True)
class Status:
    """What a store holds: planned and committed models, attempts nobody works on, attacks."""

    models: int
    committed: int
    pending: list[int]
    stale_attempts: int
    attacks: list[AttackStatus]


class Store:
    """One experiment: a LogitStore (`.logits`) with everything that can be done with it.

    Made by `lirastore.create`, `lirastore.open` or `lirastore.ingest`.
    """

    def __init__(self, logits: _store.LogitStore) -> None:
        self.logits = logits

    def __repr__(self) -> str:
        info = self.info
        return (
            f"<lirastore.Store {str(self.path)!r}: {len(self.committed())} of {info.models} models, "
            f"{info.examples} examples, {len(info.augmentations)} augmentations, {info.classes} classes>"
        )

    @property
    def path(self) -> Path:
        """Where the store is."""
        return self.logits.path

    @property
    def info(self) -> _store.StoreInfo:
        """The fixed facts: shape, dtype, augmentations, subset design, versions."""
        return self.logits.info

    def committed(self) -> npt.NDArray[Any]:
        """The committed models' ids, sorted, (K,) int64; read from the commit markers at each call."""
        return self.logits.committed()

    def pending(self) -> list[int]:
        """The planned models that are not committed yet, ascending: what a training job has left to do."""
        committed = set(self.committed().tolist())
        return [model for model in range(self.info.models) if model not in committed]

    @property
    def labels(self) -> npt.NDArray[Any]:
        """(E,) int64: the class of each example."""
        return self.logits.labels()

    def keep_mask(self, model: int) -> npt.NDArray[Any]:
        """(E,) bool: the examples that `model` is to train on. Raises UnknownModel."""
        keep: npt.NDArray[Any] = self.logits.membership([model])[0]
        return keep

    @property
    def membership(self) -> npt.NDArray[Any]:
        """(M, E) bool: which examples each planned model is to train on, committed or not."""
        import numpy as np

        return self.logits.membership(np.arange(self.info.models))

    @property
    def dataset(self) -> xarray.Dataset:
        """A lazy xarray.Dataset of the committed models, labelled by model, example and augmentation."""
        return self.logits.dataset

    def writer(
        self, model: int, *, metadata: Mapping[str, Any] | None = None, scratch: StrPath | None = None
    ) -> _store.ModelWriter:
        """Opens model `model` for writing; leaving the block commits it, an exception leaves nothing visible.

        Raises UnknownModel or AlreadyCommitted at once; see `ModelWriter.write` for what a batch may be.
        """
        return self.logits.writer(
            model, metadata=metadata, scratch=None if scratch is None else Path(scratch)
        )

    def attack(
        self,
        *attacks: str | Attack,
        memory: int | None = None,
        threads: int | None = None,
        preset: str = "paper",
        equal_counts: bool = False,
        seed: int = 0,
        force: bool = False,
        skip_unattackable: bool = False,
        models: Sequence[int] | None = None,
        queries: Sequence[int | Literal["first", "all"]] | None = None,
        bootstrap: bool = True,
        progress: bool = True,
    ) -> list[Result]:
        """Scores every committed model as target, leave-one-out, in one pass over the data for all `attacks`.

        `attacks` are names, `path/to/file.py:function`, functions decorated with `lirastore.attack`, or
        points of the algebra made by `lirastore.attacks.compose`. `memory` is a budget in bytes (default: a
        quarter of the machine's). What is up to date is skipped unless `force`, but functions are always
        computed anew. Scores land in Parquet, higher always means member; read them with `sql`.

        With `models`, even numbers K, the attacks are scored as if there were K/2 IN and K/2 OUT models
        beside each target, and with the first q of the `queries` only, for every K and q, in one pass:
        results `<attack>__k<K>_q<q>`, in the view `power`. A K that not every example allows is skipped,
        with a line on stderr that names the largest that works.

        Scores are then evaluated, unless `bootstrap` is False: intervals by resampling examples, about
        three seconds for 12.8 million scores, and bounds on ε. Nothing is evaluated twice.

        Raises AttackError (no such attack), MissingData (the store lacks what it needs, or an example falls
        short of the minimum counts), MemoryBudgetError, DamagedStore.
        """
        from lirastore import engine, evaluation
        from lirastore.attacks import resolve

        options = engine.Options(
            memory=memory,
            threads=threads,
            preset=preset,
            equal_counts=equal_counts,
            seed=seed,
            force=force,
            skip_unattackable=skip_unattackable,
            progress=progress,
        )
        chosen = [resolve(attack, preset=preset) for attack in attacks]
        if models is not None:
            chosen = engine.limited(self.logits, chosen, models, queries or ("all",), options)
        elif queries is not None:
            raise InputError(f"queries={queries} without models: expected numbers of shadow models as well")
        found = engine.run(self.logits, chosen, options)
        if bootstrap:
            evaluation.evaluate(self.logits, found, progress=progress, threads=threads, memory=memory)
        return found

    def attacks(
        self, *, preset: str = "paper", equal_counts: bool = False, skip_unattackable: bool = False
    ) -> tuple[list[str], dict[str, str]]:
        """The preset's attacks that this store has the data for, and why each of the others cannot run.

        The options are those that `attack` would be called with.
        """
        from lirastore import engine
        from lirastore.attacks import presets

        options = engine.Options(
            preset=preset, equal_counts=equal_counts, skip_unattackable=skip_unattackable
        )
        able, refused = engine.feasible(self.logits, presets.attacks(preset).values(), options)
        return [attack.name for attack in able], {name: str(why) for name, why in refused.items()}

    def influence(self, examples: npt.ArrayLike, others: npt.ArrayLike) -> xarray.DataArray:
        """How much more often models get `others` right if they were trained on `examples`: ids, (n,), (m,).

        Dims (example, other), from −1 to 1 (Feldman & Zhang 2020). Attack `influence` keeps the ten greatest
        per example. Raises InputError for ids that are not there, MissingData without logits.
        """
        from lirastore.engine.influence import influence

        return influence(self.logits, examples, others)

    def sql(self, sql: str, *, memory: int | None = None, threads: int | None = None) -> QueryResult:
        """Answers one read-only SQL statement over the views (`.df()`, `.arrow()`, `.fetchall()`, …).

        Raises QueryError for anything but a single SELECT (FROM-first, DESCRIBE and SUMMARIZE included).
        """
        from lirastore import catalog

        return catalog.query(self.logits, sql, memory=memory, threads=threads)

    def connect(self, *, memory: int | None = None, threads: int | None = None) -> duckdb.DuckDBPyConnection:
        """An ordinary DuckDB connection with the views, so that a notebook can join its own frames."""
        from lirastore import catalog

        return catalog.connect(self.logits, memory=memory, threads=threads)

    def report(
        self,
        output: StrPath,
        *,
        png: StrPath | None = None,
        svg: StrPath | None = None,
        memory: int | None = None,
        threads: int | None = None,
    ) -> Path:
        """Writes the self-contained HTML report (and the ROC alone as PNG or SVG); returns its path."""
        from lirastore.report import write_report

        write_report(self.logits, output, png=png, svg=svg, memory=memory, threads=threads)
        return Path(output)

    def export(self, file: StrPath) -> Path:
        """Writes the committed models as one `.npz`, the form that `ingest` reads; `file` must not exist."""
        from lirastore import importers

        importers.export(self.logits, Path(file))
        return Path(file)

    def status(self) -> Status:
        """What is committed, pending and stale; writes nothing."""
        from lirastore import results

        found = _store.status(self.logits)
        stale = results.stale(self.logits)
        attacks = [
            AttackStatus(name, len(result.models), name in stale)
            for name, result in results.current(self.logits.lira).items()
        ]
        return Status(found.models, found.committed, found.pending, found.stale_attempts, attacks)

    def verify(self, *, progress: bool = True) -> _store.VerifyReport:
        """Checks every digest: logits, signals, membership, labels, and the results' files."""
        from lirastore import results

        return _store.verify_store(self.logits, results=results.verify_results, progress=progress)

    def gc(self, *, older_than: timedelta = timedelta(hours=24)) -> _store.GcReport:
        """Removes attempts of committed models, abandoned attempts, and runs that no attack points at."""
        from lirastore import results

        return _store.gc_store(self.logits, older_than=older_than, results=results.remove_old_runs)

    def discard(self, models: Iterable[int]) -> None:
        """Withdraws committed models; they can be trained again. Raises ModelNotCommitted."""
        _store.discard(self.logits, list(models))


def open(path: StrPath) -> Store:
    """Opens the store at `path`. Raises NotAStore, or FormatVersionError if a newer lirastore wrote it."""
    return Store(_store.open_store(Path(path)))


def create(
    path: StrPath,
    *,
    labels: npt.ArrayLike,
    classes: int | None,
    models: int,
    augmentations: Sequence[str] | int,
    design: str = "balanced",
    keep_fraction: float = 0.5,
    seed: int = 0,
    membership: npt.ArrayLike | None = None,
    dtype: str = "float32",
    name: str = "",
    preview: npt.ArrayLike | _store.Sliced | None = None,
    attackable: npt.ArrayLike | None = None,
    signals: Sequence[str | tuple[str, Sequence[str]]] = (),
    population: int | None = None,
    features: npt.ArrayLike | _store.Sliced | None = None,
    training: Mapping[str, Any] | None = None,
) -> Store:
    """Plans a store at `path`, atomically; who is trained on what is drawn here, once.

    design: `balanced`, `bernoulli` or `carlini` (see `subsets`), unless `membership` (M, E) bool is given.
    classes=None: signal-only, `scaled_logit` is written instead of logits. preview (E, H, W, channel) uint8:
    pictures for the report. attackable (E,) bool: which examples may be scored. signals: auxiliary arrays
    that the writer takes beside the logits. population: of how many points that no model was trained on the
    writer takes φ. features (E, d): what examples are like. training: JSON that says how the models are
    trained, for `info.training`. For the rest see `lirastore.store.create`.

    Raises StoreExists if anything stands at `path`, InputError for values that do not fit.
    """
    import numpy as np

    label = np.asarray(labels)
    drawing: dict[str, Any] = {"scheme": design, "seed": seed, "keep_fraction": keep_fraction}
    if membership is None:
        rows = subsets.draw(**drawing, models=models, examples=label.size)
    else:
        drawing, rows = {"scheme": "given"}, _given(membership, models, label.size)
    return Store(
        _store.create(
            Path(path),
            labels=label,
            membership=rows,
            augmentations=augmentations,
            classes=classes,
            dtype=dtype,
            name=name,
            design=drawing,
            preview=preview,
            attackable=attackable,
            signals=signals,
            population=population,
            features=features,
            training=training,
        )
    )


def _given(membership: npt.ArrayLike, models: int, examples: int) -> npt.NDArray[Any]:
    """The rows of a membership matrix that is given, if there is one for every model."""
    import numpy as np

    rows = np.asarray(membership)
    if rows.shape[:1] != (models,):
        raise InputError(f"membership has shape {rows.shape}; expected ({models}, {examples}), (M, E)")
    return rows


def ingest(
    path: StrPath,
    source: StrPath,
    *,
    format: str = "auto",
    allow_missing: bool = False,
    epoch: int | None = None,
    labels: StrPath | None = None,
    membership: StrPath | None = None,
    dtype: str | None = None,
    name: str | None = None,
    progress: bool = True,
) -> Store:
    """Imports somebody else's outputs at `source` into the store at `path`, made if absent; resumable.

    The structure of everything is checked before the first write. name: of the data set, by which published
    values go. For the other options, and for a report of what was imported, see `lirastore.importers.ingest`.
    Raises SourceError naming file and expectation.
    """
    from lirastore import importers

    importers.ingest(
        source,
        path,
        format=format,
        allow_missing=allow_missing,
        epoch=epoch,
        labels=labels,
        membership=membership,
        dtype=dtype,
        name=name,
        progress=progress,
    )
    return open(path)
