"""An experiment of najeebjebreel/lira_analysis, such as `experiments/cifar10/resnet18/seed1`.

    DIR/keep_indices.npy                      (M, N) bool: row i is what model i was trained on
    DIR/membership_labels.npy                 (M, N) bool, the same; read where keep_indices.npy is not there
    DIR/model_{i}/logits/logits.npy           (N, 1, A, C) float32; (N, A, C) from older versions
    DIR/model_{i}/scores/scores.npy           (N, A) float64: scaled logits
    DIR/*_scores_leave_one_out.npy            left alone: scores of its attacks, not outputs of models
    DIR/*.yaml, *.log, *.csv, *.pdf, *.pth    left alone

Labels are not stored: `--labels`. Scores are read only where no model has logits; the store then holds no
logits, and needs no labels.

The tool itself goes through the models that it finds and takes as many rows of the masks from the top: with
model 3 absent, model 4 gets the mask of model 3. Here row i is model i, and a missing one is an error.

Augmentations are those of `get_model_logits`: not flipped, then flipped; within each, shifts by columns, then
rows, padded by reflection: none for one query, the flip for two, shifts of one pixel for 18, of two for 50.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import SourceError
from lirastore.importers.npyfile import open_npy
from lirastore.importers.outputs import (
    Outputs,
    common_sizes,
    copies,
    given_labels,
    kind_of,
    load_mask,
    numbered,
    outputs_of,
    shift_name,
    source_model,
    store_dtype,
)
from lirastore.importers.source import Experiment, Options, data_set_name, missing_models

__all__ = ["EXPECTS", "TAKES", "recognises", "scan"]

EXPECTS: Final = (
    "a directory with keep_indices.npy and model_{i}/logits/logits.npy or model_{i}/scores/scores.npy"
)
TAKES: Final = frozenset({"labels"})

_DIRECTORY: Final = re.compile(r"model_(\d+)")
_FORMS: Final = {"logits": ("N1QC", "NQC"), "scores": ("NQ",)}
_MASKS: Final = ("keep_indices.npy", "membership_labels.npy")
_SHIFTS: Final = {18: 1, 50: 2}


def recognises(source: Path) -> bool:
    """Whether `source` is a directory that holds the masks, or outputs of a model_{i}."""
    return source.is_dir() and (
        any((source / name).is_file() for name in _MASKS)
        or any(
            _DIRECTORY.fullmatch(path.name) and any(_file(path, kind).is_file() for kind in _FORMS)
            for path in source.iterdir()
        )
    )


def scan(source: Path, options: Options) -> Experiment:
    """Checks the whole experiment. Raises SourceError naming the file and what was expected of it."""
    if not source.is_dir():
        raise SourceError(f"{source}: a file, expected {EXPECTS}")
    runs = numbered(source, _DIRECTORY)
    have = {kind: [number for number in runs if _file(runs[number], kind).exists()] for kind in _FORMS}
    kind = kind_of(source, have["logits"], have["scores"])
    outputs = {number: _outputs(number, runs[number], kind) for number in have[kind]}
    if not outputs:
        raise SourceError(f"{source}: no model_{{i}} has outputs; run attack.py with compute_logits first")
    sizes = common_sizes(list(outputs.values()))
    membership = _membership(source, sizes[0])
    models = len(membership)
    if max(outputs) >= models:
        raise SourceError(
            f"{runs[max(outputs)]}: {source.name} has masks of {models} models, expected model_0 to "
            f"model_{models - 1}; restore the keep_indices.npy that the models were trained with"
        )
    missing = [number for number in range(models) if number not in outputs]
    missing_models(missing, models, source, allowed=options.allow_missing)
    classes = sizes[2] if kind == "logits" else None
    return Experiment(
        format="lira-analysis",
        name=data_set_name(source),
        labels=given_labels(options, source, examples=sizes[0], classes=classes),
        membership=membership,
        augmentations=_augmentations(sizes[1]),
        classes=classes,
        dtype=store_dtype(outputs.values()),
        models=tuple(
            source_model(
                output,
                kind,
                metadata={"source_file": _file(Path(output.source_id), kind).as_posix()},
            )
            for output in outputs.values()
        ),
        missing=tuple(missing),
        design={"scheme": "imported", "format": "lira-analysis"},
        warnings=tuple(copies(outputs.values())),
    )


def _file(run: Path, kind: str) -> Path:
    return run / kind / f"{kind}.npy"


def _outputs(number: int, run: Path, kind: str) -> Outputs:
    hint = "delete it and run attack.py again"
    return outputs_of(number, run.name, open_npy(_file(run, kind)), kind, _FORMS[kind], hint)


def _membership(source: Path, examples: int) -> NDArray[np.bool_]:
    """(M, N) masks. Raises SourceError also where the two files of them differ."""
    meaning = "(models, examples): True where the model was trained on the example"
    found = []
    for name in _MASKS:
        if (source / name).exists():
            array = open_npy(source / name)
            if len(array.shape) != 2 or 0 in array.shape or array.shape[1] != examples:
                raise SourceError(
                    f"{array.where}: {array.dtype} {array.shape}, expected bool (models, {examples}), as the "
                    "outputs have that many examples; were they computed on another data set?"
                )
            found.append((array.where, load_mask(array, array.shape, meaning)))
    if not found:
        raise SourceError(f"{source}: neither {' nor '.join(_MASKS)}, which tell who was trained on what")
    (where, masks), *others = found
    for other, same in others:
        # A run with fewer models writes fewer rows, and takes them from the top whichever models it had.
        if same.shape == masks.shape and not np.array_equal(same, masks):
            raise SourceError(
                f"{other}: differs from {Path(where).name}: one of them is of another run; move it away"
            )
    return masks


def _augmentations(queries: int) -> tuple[str, ...]:
    if queries <= 2:
        return ("identity", "flip")[:queries]
    if queries not in _SHIFTS:
        return tuple(f"query{query}" for query in range(queries))
    most = _SHIFTS[queries]
    offsets = range(-most, most + 1)
    names = {(0, 0): "identity"} | {
        (down, right): shift_name(-down, -right) for down in offsets for right in offsets if down or right
    }
    grid = [names[down, right] for right in offsets for down in offsets]
    return (*grid, *("flip" if name == "identity" else f"flip {name}" for name in grid))
