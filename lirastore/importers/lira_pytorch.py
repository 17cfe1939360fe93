"""A `--savedir` of orientino/lira-pytorch, such as `exp/cifar10`.

    SAVEDIR/{i}/keep.npy        (N,) bool: what model i was trained on
    SAVEDIR/{i}/logits.npy      (N, Q, C) float32; (N, C) from versions before there were queries
    SAVEDIR/{i}/scores.npy      (N, Q) float64, or (N,): scaled logits
    SAVEDIR/{i}/model.pt        never read

Labels are not stored: `--labels`. Scores are read only where no model has logits; the store then holds no
logits, and needs no labels.

Queries are drawn at random for each model (`RandomHorizontalFlip`, `RandomCrop`, no seed), so query q is not
one transform across models; it is called query{q}, and a warning says so.

How many models there should be is nowhere written. But `train.py` draws the masks of all from one seed, so
that those that are there tell how many they were drawn for; where they do not, it is the highest number
and one. A model without outputs is missing; one without `keep.npy` is listed in `unknown_masks`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    needed,
    numbered,
    outputs_of,
    source_model,
    store_dtype,
)
from lirastore.importers.source import Experiment, Options, data_set_name, missing_models

__all__ = ["EXPECTS", "TAKES", "recognises", "scan"]

EXPECTS: Final = "a directory of directories 0/, 1/, … with keep.npy and logits.npy or scores.npy"
TAKES: Final = frozenset({"labels"})

_DIRECTORY: Final = re.compile(r"(\d+)")
_FORMS: Final = {"logits": ("NQC", "NC"), "scores": ("NQ", "N")}
_FILES: Final = ("keep.npy", "logits.npy", "scores.npy")
_MOST_DRAWN: Final = 512
_COLUMNS: Final = 32
_ENOUGH_BITS: Final = 32


def recognises(source: Path) -> bool:
    """Whether `source` is a directory that holds directories with numbers for names and outputs in them."""
    return source.is_dir() and any(
        _DIRECTORY.fullmatch(path.name) and any((path / name).is_file() for name in _FILES)
        for path in source.iterdir()
    )


def scan(source: Path, options: Options) -> Experiment:
    """Checks all directories. Raises SourceError naming the file and what was expected of it."""
    runs = _runs(source)
    have = {kind: [number for number in runs if (runs[number] / f"{kind}.npy").exists()] for kind in _FORMS}
    kind = kind_of(source, have["logits"], have["scores"])
    outputs = {number: _outputs(number, runs[number], kind) for number in have[kind]}
    if not outputs:
        raise SourceError(f"{source}: no model has outputs; run inference.py first")
    sizes = common_sizes(list(outputs.values()))
    masks = _masks(runs, outputs, sizes[0])
    models, why = _planned(max(runs), masks, sizes[0])
    missing = [number for number in range(models) if number not in outputs]
    missing_models(missing, models, source, allowed=options.allow_missing, why=why)
    membership = np.zeros((models, sizes[0]), dtype=np.bool_)
    for number, mask in masks.items():
        membership[number] = mask
    classes = sizes[2] if kind == "logits" else None
    return Experiment(
        format="lira-pytorch",
        name=data_set_name(source),
        labels=given_labels(options, source, examples=sizes[0], classes=classes),
        membership=membership,
        augmentations=tuple(f"query{query}" for query in range(sizes[1])),
        classes=classes,
        dtype=store_dtype(outputs.values()),
        models=tuple(
            source_model(output, kind, metadata={"source_file": f"{output.source_id}/{kind}.npy"})
            for output in outputs.values()
        ),
        missing=tuple(missing),
        unknown_masks=tuple(number for number in missing if number not in masks),
        design={"scheme": "imported", "format": "lira-pytorch"},
        warnings=(
            "inference.py draws its queries at random for each model: query q is not the same transform "
            "across models",
            *copies(outputs.values()),
        ),
    )


def _runs(source: Path) -> dict[int, Path]:
    """The directories that hold something of a model, by its number; others are left alone."""
    if not source.is_dir():
        raise SourceError(f"{source}: a file, expected {EXPECTS}")
    runs = {
        number: path
        for number, path in numbered(source, _DIRECTORY).items()
        if any((path / name).exists() for name in (*_FILES, "model.pt"))
    }
    if not runs:
        raise SourceError(f"{source}: expected {EXPECTS}; it has no such directory")
    return runs


def _outputs(number: int, run: Path, kind: str) -> Outputs:
    hint = "run inference.py again" if kind == "logits" else "run score.py again"
    return outputs_of(number, run.name, open_npy(run / f"{kind}.npy"), kind, _FORMS[kind], hint)


def _masks(
    runs: Mapping[int, Path], outputs: Mapping[int, Outputs], examples: int
) -> dict[int, NDArray[np.bool_]]:
    meaning = "True where the model was trained on the example"
    return {
        number: load_mask(needed(run / "keep.npy"), (examples,), meaning)
        for number, run in runs.items()
        if number in outputs or (run / "keep.npy").exists()
    }


def _planned(highest: int, masks: Mapping[int, NDArray[np.bool_]], examples: int) -> tuple[int, str]:
    """How many models there should be, and how that is known, if it is more than the highest number says."""
    drawn = _drawn_for(highest, masks, examples)
    if drawn is None or drawn == highest + 1:
        return highest + 1, ""
    return drawn, f" (the masks are those that train.py draws with --n_shadows {drawn})"


def _drawn_for(highest: int, masks: Mapping[int, NDArray[np.bool_]], examples: int) -> int | None:
    """For how many models train.py drew these masks, None if it did not draw them.

    That is `argsort(uniform(size=(models, examples)), 0) < int(pkeep * models)` of seed 0. A few columns
    decide. For every further model the generator gives one more row.
    """
    columns = np.unique(np.linspace(0, examples - 1, _COLUMNS).astype(np.int64))
    numbers = sorted(masks)
    seen = np.array([masks[number][columns] for number in numbers])
    if seen.size < _ENOUGH_BITS:
        return None
    random, rows = np.random.RandomState(0), []
    for models in range(1, _MOST_DRAWN + 1):
        rows.append(random.uniform(size=examples)[columns])
        if models > highest:
            order = np.argsort(rows, axis=0)[numbers]
            if order[seen].max(initial=-1) < order[~seen].min(initial=models):
                return models
    return None
