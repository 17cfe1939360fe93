"""The log directory of tensorflow/privacy `research/mi_lira_2021` (Carlini et al. 2022).

    LOGDIR/x_train.npy                          (E, H, W, channel) float or uint8, optional: pictures
    LOGDIR/y_train.npy                          (E,) integers
    LOGDIR/experiment-{i}_{M}/                  model i of M; or experiment-{seed}, numbered from 0
        hparams.json                            optional, becomes the model's metadata
        keep.npy                                (E,) bool: what the model was trained on
        logits/{epoch:010d}.npy                 (E, 1, A, C) float, one file per saved epoch
        scores/{epoch:010d}.npy                 (E, A) float: scaled logits

The fork that came with the RMIA paper appends `_{augmentations:04d}` to the epoch. The scores are read only
where no model has logits; the store then holds no logits. Without a chosen epoch the latest is taken.

Augmentations follow `get_loss` of `inference.py`: not flipped, then flipped; within each, shifts by rows,
then columns, padded by reflection. One is the plain image, two are the plain and the flipped one; from any
larger number the shifts cannot be told, since its `shift` and `stride` are nowhere recorded (18 arises from
shifts of 1 in steps of 1 and of 4 in steps of 4), so those are called query0, query1, ….

Models whose latest epochs differ are refused unless one epoch is chosen: outputs of different epochs must not
be compared with each other.

A model that has a directory but no outputs is missing, with its mask known; one without a directory is
missing with an all-False mask, and listed in the store's design as `unknown_masks`. A missing model is never
committed, so no statistic sees that row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import SourceError, name_some
from lirastore.importers.npyfile import Npy, open_npy
from lirastore.importers.pictures import open_pictures
from lirastore.importers.source import (
    Batch,
    Experiment,
    Options,
    SourceModel,
    check_labels,
    data_set_name,
    missing_models,
    parse_json,
)

EXPECTS: Final = "a directory of experiment-{i}_{M}/ or experiment-{seed}/ directories, beside y_train.npy"
TAKES: Final = frozenset({"epoch"})

_PREFIX: Final = "experiment"
_DIRECTORY: Final = re.compile(r"experiment-(\d+)(?:_(\d+))?")
_OUTPUT: Final = re.compile(r"(\d{10})(?:_(\d{4}))?\.npy")
_UNPADDED: Final = re.compile(r"(\d+)(?:_(\d+))?\.npy")
_MOST_SEEDS: Final = 100_000


@dataclass
class _Run:
    """One experiment directory: model `number`, and the files of its saved epochs by kind of output."""

    number: int
    path: Path
    outputs: dict[str, dict[int, Path]] = field(default_factory=dict)

    @property
    def keep(self) -> Path:
        return self.path / "keep.npy"


@dataclass(frozen=True)
class _Output:
    """The chosen output of one run, its header checked."""

    run: _Run
    epoch: int
    array: Npy

    @cached_property
    def fingerprint(self) -> str:
        return self.array.fingerprint()


def recognises(source: Path) -> bool:
    """Whether `source` is a directory that holds directories named experiment-…"""
    return source.is_dir() and any(_DIRECTORY.fullmatch(path.name) for path in _directories(source))


def scan(source: Path, options: Options) -> Experiment:
    """Checks the whole log directory. Raises SourceError naming the file and what was expected of it."""
    runs, models = _find_runs(source)
    labels = _needed(source / "y_train.npy")
    kind = _kind(source, runs)
    found = _choose(runs, kind, options.epoch)
    _refuse_mixed_epochs(source, found, kind)
    missing = [number for number in range(models) if number not in found]
    missing_models(
        missing, models, source, allowed=options.allow_missing, why=_why(runs, missing, kind, options.epoch)
    )
    if not found:
        raise SourceError(f"{source}: no model has outputs{_at(options.epoch)}; run inference.py first")
    shape = _common_shape(found, kind)
    classes = shape[-1] if kind == "logits" else None
    label = check_labels(labels.load(), labels.where, examples=shape[0], classes=classes)
    membership = _read_masks(runs, found, models, len(label))
    pictures = open_pictures(source / "x_train.npy", len(label))
    unknown = tuple(number for number in missing if number not in runs or not runs[number].keep.exists())
    queries = shape[2] if kind == "logits" else shape[1]
    return Experiment(
        format="carlini",
        name=data_set_name(source),
        labels=label,
        membership=membership,
        augmentations=_augmentations(queries, pictures is None or pictures.is_images),
        classes=classes,
        dtype="float16" if all(output.array.dtype.itemsize == 2 for output in found.values()) else "float32",
        models=tuple(_model(found[number], kind) for number in sorted(found)),
        missing=tuple(missing),
        unknown_masks=unknown,
        design={"scheme": "imported", "format": "carlini"},
        preview=None if pictures is None else pictures.preview,
        warnings=tuple(_warnings(found)),
    )


def _directories(source: Path) -> Iterator[Path]:
    return (path for path in sorted(source.iterdir()) if path.name.startswith(_PREFIX) and path.is_dir())


def _find_runs(source: Path) -> tuple[dict[int, _Run], int]:
    """The experiment directories by number, whatever order the listing had, and the number of models."""
    if not source.is_dir():
        raise SourceError(f"{source}: a file, expected {EXPECTS}")
    runs: dict[int, _Run] = {}
    totals: dict[int | None, Path] = {}
    for path in _directories(source):
        match = _DIRECTORY.fullmatch(path.name)
        if match is None:
            raise SourceError(f"{path}: expected a name like experiment-3_16 or experiment-3; move it away")
        number = int(match[1])
        if number in runs:
            raise SourceError(
                f"{path} and {runs[number].path.name} are both experiment {number}; move one of them away"
            )
        runs[number] = _Run(number, path, {kind: _outputs(path / kind) for kind in ("logits", "scores")})
        totals.setdefault(int(match[2]) if match[2] else None, path)
    if not runs:
        raise SourceError(f"{source}: expected {EXPECTS}; it has no such directory")
    return runs, _count_models(source, runs, totals)


def _count_models(source: Path, runs: Mapping[int, _Run], totals: Mapping[int | None, Path]) -> int:
    if len(totals) > 1:
        names = name_some([path.name for path in totals.values()])
        raise SourceError(
            f"{source}: {names} belong to experiments of different sizes; import one set, move the others "
            "away"
        )
    total = next(iter(totals))
    highest = max(runs)
    if total is not None and highest >= total:
        raise SourceError(f"{runs[highest].path}: experiment {highest} of {total}: expected 0 to {total - 1}")
    if total is None and highest >= _MOST_SEEDS:
        raise SourceError(
            f"{runs[highest].path}: named by a random seed, so its row is unknown; row m of the store is "
            f"experiment m: rename the {len(runs)} directories to experiment-0, experiment-1, …"
        )
    return highest + 1 if total is None else total


def _outputs(folder: Path) -> dict[int, Path]:
    """Saved epochs of one kind of output.

    Names of another form are no outputs, except that a number padded otherwise, such as `20.npy`, is refused:
    passed over, an earlier epoch would be taken for the latest.
    """
    found: dict[int, Path] = {}
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir()):
        match = _OUTPUT.fullmatch(path.name)
        if match is None:
            _refuse_unpadded(path)
            continue
        epoch = int(match[1])
        if epoch in found:
            raise SourceError(
                f"{path} and {found[epoch].name} are both of epoch {epoch}; move the one not to be read away"
            )
        found[epoch] = path
    return found


def _refuse_unpadded(path: Path) -> None:
    match = _UNPADDED.fullmatch(path.name)
    if match is not None:
        queries = f"_{int(match[2]):04d}" if match[2] else ""
        raise SourceError(
            f"{path}: expected the epoch with ten digits: rename it to {int(match[1]):010d}{queries}.npy, or "
            "move it away"
        )


def _kind(source: Path, runs: Mapping[int, _Run]) -> str:
    """`logits`, or `scores` where no run has logits. Raises SourceError where runs differ."""
    logits = [run for run in runs.values() if run.outputs["logits"]]
    scores = [run for run in runs.values() if run.outputs["scores"] and not run.outputs["logits"]]
    if logits and scores:
        raise SourceError(
            f"{source}: {name_some([run.path.name for run in scores])} have scores but no logits, the others "
            "have logits; run inference.py for them, or move the logits directories away to import scores "
            "only"
        )
    return "scores" if scores else "logits"


def _choose(runs: Mapping[int, _Run], kind: str, epoch: int | None) -> dict[int, _Output]:
    found = {}
    for number, run in runs.items():
        epochs = run.outputs[kind]
        chosen = max(epochs, default=None) if epoch is None else epoch
        if chosen is not None and chosen in epochs:
            found[number] = _Output(run, chosen, open_npy(epochs[chosen]).require_c_order())
    return found


def _refuse_mixed_epochs(source: Path, found: Mapping[int, _Output], kind: str) -> None:
    """Raises SourceError where the chosen epochs differ, naming the latest epoch that all models have."""
    models: dict[int, list[int]] = {}
    for number, output in sorted(found.items()):
        models.setdefault(output.epoch, []).append(number)
    if len(models) < 2:
        return
    common = set.intersection(*(set(output.run.outputs[kind]) for output in found.values()))
    told = "; ".join(f"epoch {epoch}: models {name_some(models[epoch])}" for epoch in sorted(models))
    latest = max(common, default=max(models))
    remedy = (
        f"choose one with --epoch {latest} (epoch={latest}), the latest that all of them have"
        if common
        else f"they have none in common: complete the models, or take only those of one epoch with --epoch "
        f"{latest} --allow-missing (epoch={latest}, allow_missing=True)"
    )
    raise SourceError(
        f"{source}: the models' latest epochs differ ({told}), and outputs of different epochs must not be "
        f"mixed; {remedy}"
    )


def _needed(path: Path) -> Npy:
    if not path.exists():
        raise SourceError(f"{path}: no such file, though the layout needs it; restore it")
    return open_npy(path)


def _at(epoch: int | None) -> str:
    return "" if epoch is None else f" at epoch {epoch}"


def _why(runs: Mapping[int, _Run], missing: list[int], kind: str, epoch: int | None) -> str:
    present = [number for number in missing if number in runs]
    if not present:
        return " (no such directories)"
    run = runs[present[0]]
    have = name_some(sorted(run.outputs[kind])) if run.outputs[kind] else "none"
    return f" ({run.path / kind} has no outputs{_at(epoch)}; its epochs: {have})"


def _common_shape(found: Mapping[int, _Output], kind: str) -> tuple[int, ...]:
    """The shape of all outputs; every file that differs from the first, or has another form, is an error."""
    first = found[min(found)].array
    for output in found.values():
        array = output.array
        _check_form(array, kind)
        if array.shape != first.shape:
            raise SourceError(
                f"{array.where}: shape {array.shape}, but {first.where} has {first.shape}; all models must "
                "be evaluated on the same examples and queries: run inference.py again"
            )
        match = _OUTPUT.fullmatch(output.run.outputs[kind][output.epoch].name)
        queries = array.shape[2 if kind == "logits" else 1]
        if match is not None and match[2] is not None and int(match[2]) != queries:
            raise SourceError(
                f"{array.where}: its name says {int(match[2])} augmentations, its shape {queries}"
            )
    return first.shape


def _check_form(array: Npy, kind: str) -> None:
    form = "(examples, 1, augmentations, classes)" if kind == "logits" else "(examples, augmentations)"
    good = (
        len(array.shape) == 4 and array.shape[1] == 1 and array.shape[3] >= 2
        if kind == "logits"
        else len(array.shape) == 2
    )
    if not good or 0 in array.shape:
        raise SourceError(
            f"{array.where}: shape {array.shape}, expected {form} with 2 or more classes, as inference.py "
            "and score.py write them; reshape the array and save it again"
        )
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise SourceError(f"{array.where}: type {array.dtype}, expected float32 (or float16, float64)")


def _read_masks(
    runs: Mapping[int, _Run], found: Mapping[int, _Output], models: int, examples: int
) -> NDArray[np.bool_]:
    membership = np.zeros((models, examples), dtype=np.bool_)
    for number, run in runs.items():
        if number not in found and not run.keep.exists():
            continue  # a run that died before it wrote anything
        keep = _needed(run.keep)
        if keep.dtype != np.bool_ or keep.shape != (examples,):
            raise SourceError(
                f"{keep.where}: {keep.dtype} {keep.shape}, expected bool ({examples},), True where the model "
                "was trained on the example"
            )
        membership[number] = keep.load()
    return membership


def _augmentations(queries: int, images: bool) -> tuple[str, ...]:
    if queries <= 2 and images:
        return ("identity", "flip")[:queries]
    return tuple(f"query{query}" for query in range(queries))


def _model(output: _Output, kind: str) -> SourceModel:
    run, array = output.run, output.array
    hparams = _read_hparams(run)
    metadata: dict[str, Any] = {
        "source_file": f"{run.path.name}/{kind}/{run.outputs[kind][output.epoch].name}",
        "epoch": output.epoch,
    }
    if hparams is not None:
        metadata["hparams"] = hparams
        if isinstance(hparams.get("seed"), int):
            metadata["seed"] = hparams["seed"]

    def stream(_: dict[str, float]) -> Iterator[Batch]:
        row = array.shape[2:] if kind == "logits" else array.shape[1:]
        for start, values in array.rows(row):
            yield Batch(
                slice(start, start + len(values)), {"logits" if kind == "logits" else "scaled_logit": values}
            )

    return SourceModel(
        run.number, array.where, run.path.name, output.fingerprint, metadata=metadata, stream=stream
    )


def _read_hparams(run: _Run) -> dict[str, Any] | None:
    """hparams.json, if there. Raises SourceError if the directory's name tells of another experiment."""
    path = run.path / "hparams.json"
    if not path.is_file():
        return None
    hparams = parse_json(path.read_bytes(), str(path))
    if not isinstance(hparams, dict):
        raise SourceError(f"{path}: expected a JSON object; correct it, or move it away")
    numbered = "_" in run.path.name
    told = hparams.get("expid" if numbered else "seed")
    if isinstance(told, int) and told != run.number:
        raise SourceError(
            f"{path}: tells of {'expid' if numbered else 'seed'} {told}, but its directory is that of "
            f"experiment {run.number}; was it renamed or copied? Give it its own name again"
        )
    return hparams


def _warnings(found: Mapping[int, _Output]) -> Iterator[str]:
    by_data: dict[str, list[int]] = {}
    for number, output in sorted(found.items()):
        by_data.setdefault(output.fingerprint, []).append(number)
    for same in by_data.values():
        if len(same) > 1:
            yield f"models {name_some(same)} have the same outputs, as if one had been copied"
