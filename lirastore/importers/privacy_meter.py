"""A `log_dir` of privacytrustlab/ml_privacy_meter, version 2.

    LOG/models/memberships.npy                (R, N) bool: row i is what model i was trained on
    LOG/models/models_metadata.json           optional: {"0": {"train_acc": …, "num_train": …}, …}
    LOG/signals/{algorithm}_signals.npy       (N, M) float32: each example's softmax of its true class
    LOG/signals/{algorithm}_signals_pop.npy   (Z, M) float32, optional: the same of Z population points
    LOG/models/*.pkl, LOG/report/             left alone

The algorithm is `rmia` or `loss`; both files hold the same kind of number. Those are confidences, not logits:
the store holds no logits, but φ = log p − log(1 − p), computed in float64. A p that was rounded to 0 or 1 is
taken as its neighbour in float32 (or whatever the file holds); how many there were is counted and reported
as `clipped`. Labels are not stored and not needed; `--labels` adds them.

The tool reuses signals that it finds whenever their number of rows fits, also after a retraining; their age
is compared, with a warning. Column i is model i: of R models it trains it evaluates the first M, and the
others are missing. With `audit.data_size` it draws the rows that it evaluates and does not record which, so
signals with another number of rows than memberships has columns are refused, as are range signals (RaMIA).

Memory: a few slices of 4 MiB, and the population points of one model; `columns` says how models are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import SourceError
from lirastore.importers.columns import Columns
from lirastore.importers.npyfile import Npy, open_npy
from lirastore.importers.npzstream import check_range, from_confidence
from lirastore.importers.outputs import given_labels, load_mask, needed
from lirastore.importers.source import (
    Batch,
    Experiment,
    Options,
    SourceModel,
    data_set_name,
    missing_models,
    parse_json,
)

__all__ = ["EXPECTS", "TAKES", "recognises", "scan"]

EXPECTS: Final = "a directory with models/memberships.npy and signals/*_signals.npy"
TAKES: Final = frozenset({"labels"})

_MEMBERSHIPS: Final = "models/memberships.npy"
_METADATA: Final = "models/models_metadata.json"
_SIGNALS: Final = re.compile(r"(.+)_signals\.npy")
_RANGE: Final = "_ramia"
_OLDER_SECONDS: Final = 60


def recognises(source: Path) -> bool:
    """Whether `source` is a directory that holds models/memberships.npy, or signals."""
    signals = source / "signals"
    return source.is_dir() and (
        (source / _MEMBERSHIPS).is_file()
        or (signals.is_dir() and any(_SIGNALS.fullmatch(path.name) for path in signals.iterdir()))
    )


def scan(source: Path, options: Options) -> Experiment:
    """Checks the whole directory. Raises SourceError naming the file and what was expected of it."""
    if not source.is_dir():
        raise SourceError(f"{source}: a file, expected {EXPECTS}")
    path, warnings = _choose(source)
    membership = _membership(needed(source / _MEMBERSHIPS))
    models, examples = membership.shape
    signals = _confidences(path)
    _check_rows(signals, membership)
    trained = _metadata(source / _METADATA, membership, warnings)
    missing = range(signals.shape[1], models)
    missing_models(missing, models, source, allowed=options.allow_missing, why=f" (no columns in {path})")
    resources = ExitStack()
    columns = Columns(signals, resources, options.scratch)
    population = _population(path, signals, resources, options.scratch)
    return Experiment(
        format="privacy-meter",
        name=data_set_name(source),
        labels=given_labels(options, source, examples=examples, classes=None),
        membership=membership,
        augmentations=("identity",),
        classes=None,
        dtype="float32",
        models=tuple(_models(columns, population, trained)),
        missing=tuple(missing),
        design={"scheme": "imported", "format": "privacy-meter"},
        population=None if population is None else population.examples,
        warnings=(*warnings, *_age(path, source)),
        resources=resources,
    )


# --- what there is --------------------------------------------------------------------------------


def _choose(source: Path) -> tuple[Path, list[str]]:
    """The file of signals, that of RMIA if there are several, and warnings of those left alone."""
    folder = source / "signals"
    found = {
        match[1]: path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if (match := _SIGNALS.fullmatch(path.name))
    }
    plain = {name: path for name, path in found.items() if not name.endswith(_RANGE)}
    if not plain:
        ranges = (
            "; the range signals (RaMIA) that are there are of samples around the examples, not of them"
            if found
            else ""
        )
        raise SourceError(f"{folder}: no *_signals.npy{ranges}; run run_mia.py of the tool, which writes it")
    chosen = plain.get("rmia", plain[min(plain)])
    return chosen, [
        f"{path}: left alone; it holds the same kind of signals as {chosen.name}"
        for path in plain.values()
        if path != chosen
    ]


def _membership(array: Npy) -> NDArray[np.bool_]:
    if len(array.shape) != 2 or 0 in array.shape:
        raise SourceError(f"{array.where}: {array.dtype} {array.shape}, expected bool (models, examples)")
    return load_mask(
        array, array.shape, "(models, examples), True where the model was trained on the example"
    )


def _confidences(path: Path) -> Npy:
    array = open_npy(path)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8 or len(array.shape) != 2 or 0 in array.shape:
        raise SourceError(
            f"{array.where}: {array.dtype} {array.shape}, expected float32 (examples, models), the softmax "
            "of the true class"
        )
    return array


def _check_rows(signals: Npy, membership: NDArray[np.bool_]) -> None:
    """Raises SourceError unless row n of the signals is example n, and column i model i."""
    models, examples = membership.shape
    rows, columns = signals.shape
    if rows != examples:
        raise SourceError(
            f"{signals.where}: shape {signals.shape}, expected ({examples}, {models}), (examples, models), "
            f"as {_MEMBERSHIPS} is ({models}, {examples}). With audit.data_size, or an audit of canaries, "
            "the tool does not record which examples the rows are: delete the signals, run it again without"
        )
    if columns > models:
        raise SourceError(
            f"{signals.where}: shape {signals.shape}, but {_MEMBERSHIPS} has {models} models: the signals "
            "are of other models than are there now; delete them, and run the tool again"
        )


def _metadata(path: Path, membership: NDArray[np.bool_], warnings: list[str]) -> dict[int, dict[str, Any]]:
    """What the tool notes of each model; empty without the file. SourceError where it is of other models."""
    if not path.is_file():
        return {}
    told = parse_json(path.read_bytes(), str(path), strict=False)
    if not _is_of_models(told):
        warnings.append(f"{path}: left alone; expected an object for each model, as the tool writes it")
        return {}
    rows = len(membership)
    if set(told) != {str(model) for model in range(rows)}:
        raise SourceError(
            f"{path}: tells of {len(told)} models, {_MEMBERSHIPS} of {rows}: a later training was begun and "
            "not finished; finish it, or restore the memberships that the models were trained with"
        )
    for model in range(rows):
        trained = told[str(model)].get("num_train")
        members = int(np.count_nonzero(membership[model]))
        if isinstance(trained, int) and trained != members:
            raise SourceError(
                f"{path}: model {model} was trained on {trained} examples, but {_MEMBERSHIPS} has {members} "
                "for it: they are of different runs; restore the memberships of those models"
            )
    return {model: told[str(model)] for model in range(rows)}


def _is_of_models(told: object) -> bool:
    return (
        isinstance(told, dict)
        and bool(told)
        and all(key.isdecimal() and isinstance(entry, dict) for key, entry in told.items())
    )


def _population(path: Path, signals: Npy, resources: ExitStack, scratch: Path | None) -> Columns | None:
    beside = path.with_name(f"{path.stem}_pop.npy")
    if not beside.exists():
        return None
    array = _confidences(beside)
    if array.shape[1] != signals.shape[1]:
        raise SourceError(
            f"{array.where}: shape {array.shape}, expected (points, {signals.shape[1]}), a column for each "
            f"model as in {path.name}; delete both, and run the tool again"
        )
    return Columns(array, resources, scratch)


def _age(path: Path, source: Path) -> Iterator[str]:
    """A warning where the models were trained after their signals were computed."""
    trained = max(
        (source / name).stat().st_mtime for name in (_MEMBERSHIPS, _METADATA) if (source / name).exists()
    )
    if trained - path.stat().st_mtime > _OLDER_SECONDS:
        yield (
            f"{path} is older than the models: the tool reuses signals after a retraining; if the models "
            "were trained anew, delete the signals, run it again, and ingest into a new store"
        )


# --- the models -----------------------------------------------------------------------------------


def _models(
    columns: Columns, population: Columns | None, trained: dict[int, dict[str, Any]]
) -> Iterator[SourceModel]:
    prints = columns.fingerprints()
    if population is not None:
        prints = [f"{mine}-{others}" for mine, others in zip(prints, population.fingerprints(), strict=True)]
    for model in range(columns.models):
        told = trained.get(model, {})
        accuracies = {"train_accuracy": told.get("train_acc"), "test_accuracy": told.get("test_acc")}
        yield SourceModel(
            model=model,
            origin=columns.array.where,
            source_id=f"model_{model}",
            fingerprint=prints[model],
            metadata={
                "source_file": f"signals/{Path(columns.array.where).name}",
                **{name: value for name, value in accuracies.items() if value is not None},
                **({"training": told} if told else {}),
            },
            stream=_stream(columns, model),
            population=None if population is None else _points(population, model),
        )


def _stream(columns: Columns, model: int) -> Callable[[dict[str, float]], Iterator[Batch]]:
    def stream(counts: dict[str, float]) -> Iterator[Batch]:
        for start, values in columns.read(model):
            check_range(values, "confidence", start, model)
            scaled = _scaled(values, counts, "clipped")
            yield Batch(slice(start, start + len(values)), {"scaled_logit": scaled[:, None]})

    return stream


def _points(population: Columns, model: int) -> Callable[[dict[str, float]], NDArray[np.float32]]:
    def points(counts: dict[str, float]) -> NDArray[np.float32]:
        scaled = np.empty(population.examples, dtype=np.float32)
        for start, values in population.read(model):
            check_range(values, "confidence", start, model, of="population point")
            scaled[start : start + len(values)] = _scaled(values, counts, "clipped_population")
        return scaled

    return points


def _scaled(values: NDArray[Any], counts: dict[str, float], name: str) -> NDArray[np.float64]:
    scaled, clipped = from_confidence(values)
    if clipped:
        counts[name] = counts.get(name, 0) + clipped
    return scaled
