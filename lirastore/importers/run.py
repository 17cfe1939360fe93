"""Turns a checked source into a store: creates or compares it, then streams and commits model by model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lirastore.errors import (
    AlreadyCommitted,
    InputError,
    NonFiniteLogits,
    SourceError,
    StoreExists,
    name_some,
)
from lirastore.importers import IngestReport
from lirastore.importers.source import BadValues, Experiment, SourceModel
from lirastore.store import LogitStore, create, open_store
from lirastore.store.writer import unknown_masks

__all__ = ["check_place", "run"]


def check_place(path: Path) -> None:
    """Raises InputError where neither a store is nor one can be made: before a long source is read."""
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise InputError(
                f"{path}: {place} is a symbolic link to {place.readlink()}, which does not exist; remove the "
                "link, or choose another path"
            )
        if place != path and place.exists() and not place.is_dir():
            raise InputError(
                f"{path}: {place} is a file, expected a directory; choose another path for the store"
            )


def run(
    experiment: Experiment, path: Path, *, dtype: str | None, name: str | None, progress: bool
) -> IngestReport:
    """Imports a scanned experiment. See `lirastore.importers.ingest`."""
    with experiment.resources:
        warnings = list(experiment.warnings)
        store = _open_or_create(experiment, path, dtype, name, warnings)
        _check_same(store, experiment, dtype)
        _check_name(store, name)
        skipped = _check_committed(store, experiment.models)
        todo = [model for model in experiment.models if model.model not in skipped]
        ingested, clipped, points = [], {}, 0
        with closing(_bar(store, len(todo), progress)) as bar:
            for model in todo:
                counts = _ingest(store, experiment, model, bar.update)
                if counts is None:
                    skipped.add(model.model)
                    continue
                ingested.append(model.model)
                if "clipped" in counts:
                    clipped[model.model] = int(counts["clipped"])
                points += int(counts.get("clipped_population", 0))
    if points:
        warnings.append(f"clipped {points} values of population points, too (metadata `clipped_population`)")
    return IngestReport(
        path=path,
        format=experiment.format,
        models=store.info.models,
        ingested=tuple(sorted(ingested)),
        skipped=tuple(sorted(skipped)),
        missing=experiment.missing,
        clipped=clipped,
        warnings=tuple(warnings),
    )


def _bar(store: LogitStore, models: int, progress: bool) -> Any:
    return tqdm(
        total=models * store.info.examples,
        desc=f"ingest {models} models",
        unit=" examples",
        unit_scale=True,
        disable=None if progress else True,
    )


def _open_or_create(
    experiment: Experiment, path: Path, dtype: str | None, name: str | None, warnings: list[str]
) -> LogitStore:
    if path.exists():
        return open_store(path)
    preview = None if experiment.preview is None else experiment.preview(warnings)
    design = {key: value for key, value in experiment.design.items() if key != "unknown_masks"}
    if experiment.unknown_masks:
        design["unknown_masks"] = list(experiment.unknown_masks)
    try:
        return create(
            path,
            labels=experiment.labels,
            membership=experiment.membership,
            augmentations=experiment.augmentations,
            classes=experiment.classes,
            dtype=dtype or experiment.dtype,
            name=experiment.name if name is None else name,
            design=design,
            preview=preview,
            attackable=experiment.attackable,
            signals=list(experiment.signals.items()),
            population=experiment.population,
            features=experiment.features,
        )
    except StoreExists:  # another import of the same source was faster; what it made is checked as any other
        return open_store(path)


def _check_same(store: LogitStore, experiment: Experiment, dtype: str | None) -> None:
    """Raises SourceError unless the store was planned for this experiment."""
    models, examples = experiment.membership.shape
    info = store.info
    planned = {
        "models": (info.models, models),
        "examples": (info.examples, examples),
        "augmentations": (tuple(info.augmentations), tuple(experiment.augmentations)),
        "classes": (info.classes, experiment.classes),
        "signals": (dict(info.signals), dict(experiment.signals)),
        "population points": (info.population, experiment.population),
    }
    for what, (stored, given) in planned.items():
        if stored != given:
            raise _different(store, f"its {what} are {stored}, the source's {given}")
    if dtype not in (None, info.dtype):
        raise SourceError(
            f"{store.path} holds {info.dtype}, but dtype {dtype} was asked for; leave it out (--dtype), or "
            "import into a new store"
        )
    labels = store.labels()
    if not np.array_equal(labels, experiment.labels):
        example = int(np.flatnonzero(labels != experiment.labels)[0])
        raise _different(
            store,
            f"example {example} has label {labels[example]}, in the source {experiment.labels[example]}",
        )
    _check_membership(store, experiment)


def _check_name(store: LogitStore, name: str | None) -> None:
    """Raises SourceError if a name was given that is not the store's."""
    if name not in (None, store.info.name):
        raise SourceError(
            f"{store.path} is of the data set {store.info.name!r}, but name {name!r} was given; leave it out "
            "(--name), or import into a new store"
        )


def _check_membership(store: LogitStore, experiment: Experiment) -> None:
    stored = store.membership(np.arange(store.info.models))
    once_unknown = unknown_masks(store)
    present = {model.model for model in experiment.models}
    differ = set(np.flatnonzero((stored != experiment.membership).any(axis=1)).tolist())
    for model in sorted(differ | (once_unknown & present)):
        if model in experiment.unknown_masks:
            continue  # the source has lost it, the store still knows its mask
        if model in once_unknown:
            raise SourceError(
                f"{store.path}: model {model} was missing when this store was made, which therefore lacks "
                "its training set; import the completed experiment into a new store"
            )
        example = int(np.flatnonzero(stored[model] != experiment.membership[model])[0])
        was, now = ("in", "out of") if stored[model, example] else ("out of", "in")
        raise _different(store, f"example {example} is {was} model {model}'s training set, there {now} it")


def _different(store: LogitStore, how: str) -> SourceError:
    return SourceError(f"{store.path} is another experiment than the source: {how}; import into a new store")


def _check_committed(store: LogitStore, models: Sequence[SourceModel]) -> set[int]:
    """Which of `models` the store has already. Raises SourceError if one of them came from elsewhere."""
    commits = store.commits()
    changed = [
        model
        for model in models
        if model.model in commits and not _same_source(commits[model.model].metadata, model)
    ]
    if changed:
        first = changed[0]
        was = commits[first.model].metadata.get("source_id")
        how = (
            f"its contents have changed, it is still named {was!r}"
            if was == first.source_id
            else f"source_id {was!r}, now {first.source_id!r}"
        )
        numbers = [model.model for model in changed]
        raise SourceError(
            f"{first.origin}: model {first.model} is in {store.path} already, but from other data "
            f"({how}; models that differ: {name_some(numbers)}). If the source was made anew, withdraw "
            f"them with `lirastore discard {store.path} --models {','.join(map(str, numbers))}` and ingest "
            "again"
        )
    return {model.model for model in models if model.model in commits}


def _same_source(metadata: Mapping[str, Any], model: SourceModel) -> bool:
    return (metadata.get("source_id"), metadata.get("source_fingerprint")) == (
        model.source_id,
        model.fingerprint,
    )


def _ingest(
    store: LogitStore, experiment: Experiment, model: SourceModel, progress: Callable[[int], object]
) -> dict[str, float] | None:
    """Streams and commits one model: the counts of its stream, or None if another process was faster."""
    counts: dict[str, float] = {}
    metadata = {
        **model.metadata,
        "source_id": model.source_id,
        "source_format": experiment.format,
        "source_fingerprint": model.fingerprint,
    }
    try:
        with store.writer(model.model, metadata=metadata) as writer:
            for batch in model.stream(counts):
                writer.write(examples=batch.examples, **batch.values)
                progress(len(next(iter(batch.values.values()))))
            if model.population is not None:
                writer.write_population(model.population(counts))
            writer.metadata.update(counts)
    except AlreadyCommitted:
        _check_committed(store, [model])
        return None
    except (NonFiniteLogits, BadValues) as error:
        raise type(error)(
            f"{model.origin}: {error}. {len(store.committed())} models are in {store.path}: correct this "
            "model's outputs and ingest again, which resumes"
        ) from error
    return counts
