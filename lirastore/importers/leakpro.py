"""An `output_dir` of aidotse/LeakPro (or the `attack_cache` in it), and a file of the masks.

    DIR/attack_cache/target_{hash}_logits.npy         (n, C) float32 logits of the target model
    DIR/attack_cache/sm_{i}_{hash}_logits.npy         the same of shadow model i
    DIR/attack_cache/…_indices.npy                    (n,) int64: which sample of the data set each row is
    DIR/attack_objects/shadow_model/metadata_{i}.pkl  never read

Who was trained on what is written in pickles only, and a pickle can run any code: they are refused, and the
masks come from a file of yours, `--membership`. Labels are not stored either: `--labels`. Where LeakPro can
run, this writes both:

    shadow = ShadowModelHandler()
    told = shadow.get_shadow_model_metadata(numbers)
    masks = {str(i): list(map(int, one.train_indices)) for i, one in zip(numbers, told)}
    masks["target"] = list(map(int, shadow.handler.train_indices))
    json.dump(masks, open("membership.json", "w"))
    np.save("labels.npy", labels of the whole data set)

Shadow models come first, by number, then the target: the last row of the store. `--membership` is one of

* JSON, an object: a model's number (or `target`) -> the samples that it was trained on, as above, or a list
  of n truth values. The models that it names are those that there should be.
* JSON, a list of M lists of n truth values; or a `.npy` of (M, n) bool, or of integers 0 and 1. Row i is
  shadow model i; one more is the target's, after them (or before, which its mask tells). Without it the
  target is left out, with a warning.

The examples of the store are the n audited samples in ascending order of their indices, and so are the
columns of the masks and the entries of the labels; both may also be of the whole data set, if it has more
samples. The rows of a file stand in the order train_indices ++ test_indices of the target, which changes from
run to run; each is put in its place by `_indices.npy`. Masks whose columns stand in the order of the target's
rows are told by the target's mask, which is then True for the first ones and False for the rest: the
examples of the store are then in that order, and labels must be, too. Any other mask of it is refused.

Logits are the raw output. A binary model's, (n,) or (n, 1), is that of class 1 against 0 for class 0. The
cache keeps outputs for every split that was ever used, by hash; several are refused. So are outputs without
`_indices.npy`, as old versions left them, which LeakPro itself does not use any more.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import SourceError, name_some
from lirastore.importers.masks import TARGET, Masks, Model, read_masks
from lirastore.importers.npyfile import open_npy
from lirastore.importers.outputs import (
    Outputs,
    common_sizes,
    copies,
    given_labels,
    outputs_of,
    source_model,
    store_dtype,
)
from lirastore.importers.source import (
    Experiment,
    Options,
    SourceModel,
    check_labels,
    data_set_name,
    missing_models,
)

__all__ = ["EXPECTS", "TAKES", "recognises", "scan"]

EXPECTS: Final = "a directory with attack_cache/target_{hash}_logits.npy and sm_{i}_{hash}_logits.npy"
TAKES: Final = frozenset({"labels", "membership"})

_CACHE: Final = "attack_cache"
_LOGITS: Final = re.compile(r"(?:(target)|sm_(\d+))(?:_([^_]+))?_logits\.npy")


@dataclass(frozen=True)
class _Cached:
    """One model of the cache: what it is, its outputs, and the sample of the data set that each row is."""

    model: Model
    outputs: Outputs
    samples: NDArray[np.int64]


@dataclass(frozen=True)
class _Plan:
    """Rows and examples of the store.

    models: by row. membership: (M, n). samples: (n,) the sample of the data set that each example is.
    """

    models: tuple[Model, ...]
    membership: NDArray[np.bool_]
    samples: NDArray[np.int64]


def recognises(source: Path) -> bool:
    """Whether `source` is a directory that holds a cache of logits, or is one."""
    cache = _cache(source)
    return cache.is_dir() and any(_LOGITS.fullmatch(path.name) for path in cache.iterdir())


def scan(source: Path, options: Options) -> Experiment:
    """Checks the whole cache. Raises SourceError naming the file and what was expected of it."""
    if not source.is_dir():
        raise SourceError(f"{source}: a file, expected {EXPECTS}")
    cached = _read_cache(_cache(source))
    sizes = common_sizes([found.outputs for found in cached.values()])
    _check_samples(list(cached.values()))
    masks = read_masks(_needed_masks(options, source))
    plan = _plan(masks, cached)
    missing = [row for row, model in enumerate(plan.models) if model not in cached]
    absent = name_some([_name(plan.models[row]) for row in missing])
    why = f" ({absent} of {masks.where} have no logits in {_cache(source)})"
    missing_models(missing, len(plan.models), source, allowed=options.allow_missing, why=why)
    binary = len(sizes) == 2
    classes = 2 if binary else sizes[2]
    found = [_at_row(cached[model], row) for row, model in enumerate(plan.models) if model in cached]
    return Experiment(
        format="leakpro",
        name=data_set_name(source),
        labels=_labels(options, source, plan.samples, classes),
        membership=plan.membership,
        augmentations=("identity",),
        classes=classes,
        dtype=store_dtype(one.outputs for one in found),
        models=tuple(_model(one, plan.samples, binary) for one in found),
        missing=tuple(missing),
        design={"scheme": "imported", "format": "leakpro"},
        warnings=(*_left_out(masks, plan, cached), *copies(one.outputs for one in found)),
    )


# --- what there is --------------------------------------------------------------------------------


def _cache(source: Path) -> Path:
    within = source / _CACHE
    return within if within.is_dir() else source


def _read_cache(cache: Path) -> dict[Model, _Cached]:
    """Every model of the cache. Raises SourceError where there are several splits or targets."""
    files: dict[Model, list[tuple[str, Path]]] = {}
    for path in sorted(cache.iterdir()):
        match = _LOGITS.fullmatch(path.name)
        if match is not None:
            files.setdefault(TARGET if match[1] else int(match[2]), []).append((match[3] or "", path))
    if not files:
        raise SourceError(f"{cache}: expected {EXPECTS}; it has no such file")
    splits = {split for model, found in files.items() if model != TARGET for split, _ in found}
    if len(splits) > 1 or any(len(found) > 1 for found in files.values()):
        names = name_some([path.name for found in files.values() for _, path in found])
        raise SourceError(
            f"{cache}: outputs of several splits of the data, or of several target models: {names}; import "
            "one set (one hash of sm_…, one target_…) from a copy of the directory without the others"
        )
    return {model: _cached(model, found[0][1]) for model, found in files.items()}


def _cached(model: Model, path: Path) -> _Cached:
    name = path.name.removesuffix("_logits.npy")
    beside = path.with_name(f"{name}_indices.npy")
    if not beside.exists():
        raise SourceError(
            f"{beside}: no such file, so nobody knows which sample each row of {path.name} is; run LeakPro "
            "again, which writes it (or, if you know the order, save the indices there)"
        )
    outputs = outputs_of(
        0, name, open_npy(path), "logits", ("NC", "N1", "N"), "delete it, and run LeakPro again"
    )
    array = open_npy(beside)
    if array.dtype.kind not in "iu" or array.shape != outputs.sizes[:1]:
        raise SourceError(
            f"{array.where}: {array.dtype} {array.shape}, expected int64 {outputs.sizes[:1]}, one index for "
            f"each row of {path.name}"
        )
    samples = array.load().astype(np.int64)
    if samples.min() < 0 or len(np.unique(samples)) < len(samples):
        raise SourceError(
            f"{array.where}: expected indices of 0 or more that differ; delete both "
            "files and run LeakPro again"
        )
    return _Cached(model, outputs, samples)


def _check_samples(cached: list[_Cached]) -> None:
    first = np.sort(cached[0].samples)
    for other in cached:
        if not np.array_equal(np.sort(other.samples), first):
            raise SourceError(
                f"{other.outputs.array.where}: evaluated on other samples than "
                f"{cached[0].outputs.source_id}, by their indices; run LeakPro again on one split of the data"
            )


def _needed_masks(options: Options, source: Path) -> Path:
    if options.membership is None:
        raise SourceError(
            f"{source}: who was trained on what is written in pickles (metadata_{{i}}.pkl) only, which could "
            "run any code and are never loaded; pass the masks with --membership FILE (membership=FILE), a "
            ".npy of (models, examples) bool or JSON"
        )
    return options.membership


def _name(model: Model) -> str:
    return TARGET if model == TARGET else f"sm_{model}"


# --- who was trained on what ----------------------------------------------------------------------


def _plan(masks: Masks, cached: Mapping[Model, _Cached]) -> _Plan:
    """Puts the masks and the samples into the store's order."""
    ascending = np.sort(next(iter(cached.values())).samples)
    rows = (
        _named(masks, masks.named, cached) if masks.named is not None else _numbered(masks, cached, ascending)
    )
    samples: NDArray[np.int64] | None = ascending
    if TARGET in rows and TARGET in cached:
        samples = _order(masks, rows[TARGET], cached[TARGET].samples, ascending)
    if samples is None:
        raise SourceError(
            f"{masks.where}: the target's mask is not that of the target in the cache, whose rows begin with "
            "the samples that it was trained on, by its indices. Expected are masks in the order of the data "
            "set, shadow models by number, then the target"
        )
    membership = np.stack([_mask(masks, model, row, samples) for model, row in rows.items()])
    return _Plan(tuple(rows), membership, samples)


def _named(
    masks: Masks, given: Mapping[Model, NDArray[Any]], cached: Mapping[Model, _Cached]
) -> dict[Model, NDArray[Any]]:
    """The masks by model, in the order of the store's rows. SourceError where a shadow model has none."""
    absent = sorted(model for model in cached if isinstance(model, int) and model not in given)
    if absent:
        raise SourceError(
            f"{masks.where}: nothing of {name_some([_name(model) for model in absent])}, whose logits are "
            "there; add them, or move the logits away"
        )
    order: list[Model] = [*sorted(model for model in given if isinstance(model, int))]
    return {model: given[model] for model in [*order, *([TARGET] if TARGET in given else [])]}


def _numbered(
    masks: Masks, cached: Mapping[Model, _Cached], ascending: NDArray[np.int64]
) -> dict[Model, NDArray[Any]]:
    """The same of masks without names: shadow models by number, and the target after (or before) them."""
    matrix = masks.matrix
    assert matrix is not None
    top = max((model for model in cached if isinstance(model, int)), default=-1)
    if len(matrix) <= top:
        raise SourceError(
            f"{masks.where}: {len(matrix)} rows, but there is sm_{top}: row i is shadow model i; add the "
            "others, or write JSON with the models' numbers"
        )
    if TARGET not in cached or len(matrix) == top + 1:
        return dict(enumerate(matrix))
    last = _order(masks, matrix[-1], cached[TARGET].samples, ascending)
    first = _order(masks, matrix[0], cached[TARGET].samples, ascending)
    if last is None and first is not None:
        matrix = np.roll(matrix, -1, axis=0)
    return {**dict(enumerate(matrix[:-1])), TARGET: matrix[-1]}


def _mask(masks: Masks, model: Model, row: NDArray[Any], samples: NDArray[np.int64]) -> NDArray[np.bool_]:
    """One mask as (n,), in the order of `samples`."""
    if row.dtype != np.bool_:
        return np.isin(samples, row)
    if len(row) == len(samples):
        return row
    if len(row) > samples.max():
        return row[samples]
    raise SourceError(
        f"{masks.where}: {len(row)} truth values for {_name(model)}, expected {len(samples)}, one for each "
        f"sample that was audited, or more than {samples.max()}, one for each of the data set"
    )


def _order(
    masks: Masks, row: NDArray[Any], target: NDArray[np.int64], ascending: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """The samples in the order of the masks' columns, if `row` is the target's mask, which gives it away.

    The target's rows are the samples that it was trained on, then the others.
    """
    mask = _mask(masks, TARGET, row, ascending)
    if _is_step(mask[np.searchsorted(ascending, target)]):
        return ascending
    if row.dtype == np.bool_ and len(row) == len(target) and _is_step(row):
        return target
    return None


def _is_step(mask: NDArray[np.bool_]) -> bool:
    return bool(mask[: np.count_nonzero(mask)].all())


def _left_out(masks: Masks, plan: _Plan, cached: Mapping[Model, _Cached]) -> Iterator[str]:
    if TARGET in cached and TARGET not in plan.models:
        yield f"{cached[TARGET].outputs.source_id} is left out: {masks.where} has no mask of it"


# --- labels and values ----------------------------------------------------------------------------


def _labels(options: Options, source: Path, samples: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(n,) labels of the audited samples. The file may be of the whole data set."""
    if options.labels is not None:
        array = open_npy(options.labels)
        if len(array.shape) == 1 and len(samples) < array.shape[0] > samples.max():
            whole = check_labels(array.load(), array.where, examples=array.shape[0], classes=classes)
            return whole[samples]
    return given_labels(options, source, examples=len(samples), classes=classes)


def _at_row(cached: _Cached, row: int) -> _Cached:
    return replace(cached, outputs=replace(cached.outputs, number=row))


def _model(cached: _Cached, samples: NDArray[np.int64], binary: bool) -> SourceModel:
    rank = np.argsort(samples, kind="stable")
    examples = rank[np.searchsorted(samples, cached.samples, sorter=rank)]
    model = source_model(
        cached.outputs,
        "logits",
        metadata={
            "source_file": Path(cached.outputs.array.where).name,
            "role": TARGET if cached.model == TARGET else "shadow",
        },
        order=None if np.array_equal(examples, np.arange(len(examples))) else examples,
        prepare=_two_classes if binary else lambda values: values,
    )
    order = hashlib.sha256(cached.samples.tobytes()).hexdigest()[:16]
    return replace(model, fingerprint=f"{model.fingerprint}-{order}")


def _two_classes(values: NDArray[Any]) -> NDArray[Any]:
    """Logits (n, 1, 2) of a binary model whose one output (n, 1) is that of class 1 against class 0."""
    return np.stack([np.zeros_like(values), values], axis=-1)
