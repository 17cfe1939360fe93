"""What a foreign layout must tell before anything is written, and how its values are streamed.

An importer is a module of this package that satisfies `Importer`: a sentence, a cheap look, and a scan
that checks the structure of everything and returns an `Experiment`. Creating, comparing, resuming and
committing are `run.py`'s, the same for all layouts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lirastore.datasets import dataset_key
from lirastore.errors import SourceError, name_some
from lirastore.store import Sliced

__all__ = [
    "BadValues",
    "Batch",
    "Experiment",
    "Importer",
    "Options",
    "SourceModel",
    "check_labels",
    "check_options",
    "data_set_name",
    "missing_models",
    "parse_json",
]

_WITHOUT: Final = {
    "epoch": "has no epochs to choose from",
    "labels": "stores the labels itself",
    "membership": "stores the masks itself",
}
"""Why a layout has no use for an option."""

_TELLING: Final = 4
"""How many parts of a path may name the data set."""


class BadValues(SourceError):
    """Finite values that cannot be what the source calls them, met while streaming.

    The message names model and example; file and remedy are added by `run`, as to the writer's own errors.
    """


class Batch(NamedTuple):
    """Some examples of one model, by a slice or by their ids (n,); `values` has the keyword arguments of
    `ModelWriter.write`."""

    examples: slice | NDArray[np.int64]
    values: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Options:
    """What the caller of `ingest` asked for, as far as it concerns a scan.

    labels, membership: files of what a layout does not store. scratch: a directory that is there while
    models are written, in which a stream may keep unnamed temporary files.
    """

    allow_missing: bool = False
    epoch: int | None = None
    labels: Path | None = None
    membership: Path | None = None
    progress: bool = True
    scratch: Path | None = None


@dataclass(frozen=True)
class SourceModel:
    """One model that the source holds: who it is, and a stream of its values.

    model: its row in the store. origin: the file, for messages. source_id: its name in the source.
    fingerprint: changes when the model's values do, as far as that can be told cheaply. stream(counts):
    yields batches that cover every example once, in ascending order if it can, each in memory of its own;
    what it counts on the way (clipped values) goes into `counts`. population(counts): φ of the population
    points, (Z,), where the experiment has them. Both raise NonFiniteLogits and BadValues for values, without
    naming the file, and SourceError for what cannot be read.
    """

    model: int
    origin: str
    source_id: str
    fingerprint: str
    metadata: Mapping[str, Any]
    stream: Callable[[dict[str, float]], Iterator[Batch]]
    population: Callable[[dict[str, float]], NDArray[Any]] | None = None


@dataclass(frozen=True)
class Experiment:
    """A source whose structure has been checked, all of it: what the store is created from.

    name: what the data set is called, unless the user says otherwise. labels (E,) int64; membership (M, E)
    bool, with all-False rows for the `unknown_masks` of the `missing` ones. classes None where there are no
    logits. models: in the order in which they are read fastest.
    preview(warnings) gives the (E, H, W, channel) uint8 pictures, read as they are sliced; it is only called
    when a store is created. signals: auxiliary arrays and their dims. population: how many points each
    model's `population` gives. features (E, d), read as they are sliced. resources: closed when the import
    ends.
    """

    format: str
    name: str
    labels: NDArray[np.int64]
    membership: NDArray[np.bool_]
    augmentations: tuple[str, ...]
    classes: int | None
    dtype: str
    models: tuple[SourceModel, ...]
    missing: tuple[int, ...] = ()
    unknown_masks: tuple[int, ...] = ()
    design: Mapping[str, Any] = field(default_factory=dict)
    preview: Callable[[list[str]], Sliced | None] | None = None
    attackable: NDArray[np.bool_] | None = None
    signals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    population: int | None = None
    features: Sliced | None = None
    warnings: tuple[str, ...] = ()
    resources: ExitStack = field(default_factory=ExitStack)


class Importer(Protocol):
    """One layout. Modules satisfy it: `lirastore.importers.carlini` is an Importer."""

    @property
    def EXPECTS(self) -> str:
        """What a source of this layout looks like, in a few words."""

    @property
    def TAKES(self) -> frozenset[str]:
        """Which of the options `epoch`, `labels` and `membership` this layout has a use for."""

    def recognises(self, source: Path) -> bool:
        """Whether `source` looks like this layout, judged by names alone."""

    def scan(self, source: Path, options: Options) -> Experiment:
        """Checks the structure of all models. Raises SourceError; writes nothing."""


def data_set_name(source: Path) -> str:
    """What the data set is to be called: as the directory, `cifar10` for `exp/cifar10`.

    Where that name tells none of the paper's data sets, and exactly one of the three directories above does,
    the path from there on: `cifar10/resnet18/seed1` for `experiments/cifar10/resnet18/seed1`.
    """
    *above, own = source.resolve().parts[-_TELLING:]
    telling = [place for place, part in enumerate(above) if dataset_key(part) is not None]
    if dataset_key(own) is not None or len(telling) != 1:
        return own
    return "/".join([*above[telling[0] :], own])


def check_options(name: str, takes: frozenset[str], given: Mapping[str, object]) -> None:
    """Raises SourceError for an option that the layout called `name` has no use for; None is not given."""
    for option, value in given.items():
        if value is not None and option not in takes:
            raise SourceError(
                f"{name} {_WITHOUT[option]}, but --{option} {value} ({option}=…) was given; leave it out"
            )


def check_labels(
    labels: NDArray[Any], where: str, *, examples: int, classes: int | None
) -> NDArray[np.int64]:
    """Labels as (E,) int64.

    In [0, classes), or from -1 (none) up where there are no classes. Raises SourceError for another shape, a
    non-integer type, or a label out of range.
    """
    if labels.shape != (examples,):
        raise SourceError(
            f"{where}: labels have the shape {labels.shape}, expected ({examples},), one for each example of "
            "the models' outputs; labels and outputs must come from the same, uncut data set"
        )
    if labels.dtype.kind not in "iu":
        raise SourceError(f"{where}: labels are {labels.dtype}, expected whole numbers; save them as int64")
    lowest, highest = (-1, np.iinfo(np.int64).max) if classes is None else (0, classes - 1)
    bad = np.flatnonzero((labels < lowest) | (labels > highest))
    if len(bad):
        bound = "-1 or more" if classes is None else f"0 to {highest}, as the outputs have {classes} classes"
        raise SourceError(
            f"{where}: label {labels[bad[0]]} of example {bad[0]} is out of range ({len(bad)} such): "
            f"expected {bound}"
        )
    return labels.astype(np.int64)


def missing_models(missing: Sequence[int], models: int, where: Path, *, allowed: bool, why: str = "") -> None:
    """Raises SourceError naming the models that have no outputs, unless that is allowed."""
    if missing and not allowed:
        raise SourceError(
            f"{where}: {len(missing)} of {models} models are missing: {name_some(missing)}{why}; complete "
            "the experiment, or pass --allow-missing (allow_missing=True) to import the others: row m stays "
            "model m"
        )


def parse_json(text: str | bytes, where: str, *, strict: bool = True) -> Any:
    """JSON. NaN and Infinity, which Python writes and no other reader takes, are a SourceError, or None if
    not `strict`: for what is only passed on as metadata."""

    def constant(name: str) -> None:
        if strict:
            raise SourceError(
                f"{where}: {name} is no JSON value; put a finite number, null or a string in its place"
            )

    try:
        return json.loads(text, parse_constant=constant)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(f"{where}: not valid JSON ({error}); correct it, or move it away") from error
