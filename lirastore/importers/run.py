"""Turns a checked source into a store: creates or compares it, then streams and commits model by model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lirastore.errors import AlreadyCommitted, NonFiniteLogits, SourceError, StoreExists, name_some
from lirastore.importers import IngestReport
from lirastore.importers.source import Experiment, SourceModel
from lirastore.store import LogitStore, create, open_store

__all__ = ["run"]


def run(experiment: Experiment, path: Path, *, dtype: str | None, progress: bool) -> IngestReport:
    """Imports a scanned experiment. See `lirastore.importers.ingest`."""
    with experiment.resources:
        warnings = list(experiment.warnings)
        store = _open_or_create(experiment, path, dtype, warnings)
        _check_same(store, experiment, dtype)
        skipped = _check_committed(store, experiment.models)
        todo = [model for model in experiment.models if model.model not in skipped]
        ingested, clipped = [], {}
        with closing(_bar(store, len(todo), progress)) as bar:
            for model in todo:
                counts = _ingest(store, experiment, model, bar.update)
                if counts is None:
                    skipped.add(model.model)
                    continue
                ingested.append(model.model)
                if counts.get("clipped"):
                    clipped[model.model] = counts["clipped"]
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


def _open_or_create(experiment: Experiment, path: Path, dtype: str | None, warnings: list[str]) -> LogitStore:
    if path.exists():
        return open_store(path)
    preview = None if experiment.preview is None else experiment.preview(warnings)
    design = dict(experiment.design)
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
            name=experiment.name,
            design=design,
            preview=preview,
            attackable=experiment.attackable,
            signals=list(experiment.signals.items()),
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
        "dtype": (info.dtype, dtype or info.dtype),
    }
    for what, (stored, given) in planned.items():
        if stored != given:
            raise _different(store, f"its {what} are {stored}, the source's {given}")
    labels = store.labels()
    if not np.array_equal(labels, experiment.labels):
        example = int(np.flatnonzero(labels != experiment.labels)[0])
        raise _different(
            store,
            f"example {example} has label {labels[example]}, in the source {experiment.labels[example]}",
        )
    _check_membership(store, experiment)


def _check_membership(store: LogitStore, experiment: Experiment) -> None:
    stored = store.membership(np.arange(store.info.models))
    once_unknown = set(store.info.design.get("unknown_masks", ()))
    for model in np.flatnonzero((stored != experiment.membership).any(axis=1)).tolist():
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
        numbers = [model.model for model in changed]
        raise SourceError(
            f"{first.origin}: model {first.model} is in {store.path} already, but from other data (source_id "
            f"{was!r}, now {first.source_id!r}; models that differ: {name_some(numbers)}). If the source was "
            f"made anew, withdraw them with `lirastore discard {store.path} --models "
            f"{','.join(map(str, numbers))}` and ingest again"
        )
    return {model.model for model in models if model.model in commits}


def _same_source(metadata: Mapping[str, Any], model: SourceModel) -> bool:
    return (metadata.get("source_id"), metadata.get("source_fingerprint")) == (
        model.source_id,
        model.fingerprint,
    )


def _ingest(
    store: LogitStore, experiment: Experiment, model: SourceModel, progress: Callable[[int], object]
) -> dict[str, int] | None:
    """Streams and commits one model: the counts of its stream, or None if another process was faster."""
    counts: dict[str, int] = {}
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
                progress(batch.examples.stop - batch.examples.start)
            writer.metadata.update(counts)
    except AlreadyCommitted:
        _check_committed(store, [model])
        return None
    except NonFiniteLogits as error:
        raise NonFiniteLogits(
            f"{model.origin}: {error} Model {model.model} was not committed; {len(store.committed())} models "
            f"are in {store.path}. Correct this model's outputs and ingest again: it resumes"
        ) from error
    return counts
