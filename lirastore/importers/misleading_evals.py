"""An experiment of ethz-spylab/misleading-privacy-evals: `EXPERIMENT_DIR/NAME`, or one run's `shadow*` in it.

    DIR/shadow/{i}/predictions_train.pt       (N, 18, C) float32 logits of shadow model i
    DIR/shadow/{i}/metrics.json               optional, becomes the model's metadata
    DIR/attack_ys.pt                          (N,) int64: the labels trained on
    DIR/shadow_membership_mask.pt             (N, M) bool: column i is what shadow model i was trained on
    DIR/canary_indices.pt                     (K,) int64: the examples that are audited

With `--run-suffix S` of the tool these are `shadow_S/` and `attack_S/`. All other files are left alone, above
all `model.pt`, which is a pickle. `torchfile` reads the others: it needs torch, and unpickles nothing.

All models are trained on every example that is no canary, so only canaries are `attackable`.

Augmentations are those of `_predict`: not flipped, then flipped; within each, shifts by rows, then columns,
of 0, −4 and 4, padded with zeros; the shift comes before the flip.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import SourceError, name_some
from lirastore.importers.npyfile import Npy
from lirastore.importers.outputs import (
    Outputs,
    common_sizes,
    copies,
    load_mask,
    numbered,
    outputs_of,
    shift_name,
    source_model,
    store_dtype,
)
from lirastore.importers.source import (
    Experiment,
    Options,
    check_labels,
    data_set_name,
    missing_models,
    parse_json,
)
from lirastore.importers.torchfile import open_tensor

__all__ = ["EXPECTS", "TAKES", "recognises", "scan"]

EXPECTS: Final = "a directory with shadow*/{i}/predictions_train.pt and shadow_membership_mask.pt"
TAKES: Final[frozenset[str]] = frozenset()

_SHADOW: Final = re.compile(r"shadow.*")
_NUMBER: Final = re.compile(r"(\d+)")
_PREDICTIONS: Final = "predictions_train.pt"
_MASK: Final = "shadow_membership_mask.pt"
_SHIFTS: Final = (0, -4, 4)


def recognises(source: Path) -> bool:
    """Whether `source` is a directory with an attack's masks, or with a shadow*, or such a one itself."""
    return source.is_dir() and (
        (source / _MASK).is_file() or bool(_shadows(source)) or _is_shadow(source.resolve())
    )


def scan(source: Path, options: Options) -> Experiment:
    """Checks the whole experiment. Raises SourceError naming the file and what was expected of it."""
    if not source.is_dir():
        raise SourceError(f"{source}: a file, expected {EXPECTS}")
    shadow, attack = _places(source)
    runs = numbered(shadow, _NUMBER)
    outputs = {number: _outputs(number, run) for number, run in runs.items() if (run / _PREDICTIONS).exists()}
    if not outputs:
        raise SourceError(f"{shadow}: no model has {_PREDICTIONS}{_others(runs)}")
    sizes = common_sizes(list(outputs.values()))
    examples, queries, classes = sizes
    membership = _membership(attack / _MASK, examples)
    models = len(membership)
    if max(outputs) >= models:
        raise SourceError(
            f"{runs[max(outputs)]}: {_MASK} is of {models} models, expected 0 to {models - 1}; run the "
            "attack again with the --num-shadow that the models were trained with"
        )
    missing = [number for number in range(models) if number not in outputs]
    missing_models(missing, models, source, allowed=options.allow_missing, why=_others(runs))
    labels = open_tensor(attack / "attack_ys.pt")
    canaries = _canaries(attack / "canary_indices.pt", examples)
    return Experiment(
        format="misleading-evals",
        name=data_set_name(shadow.resolve().parent),
        labels=check_labels(labels.load(), labels.where, examples=examples, classes=classes),
        membership=membership,
        augmentations=_augmentations(queries),
        classes=classes,
        dtype=store_dtype(outputs.values()),
        models=tuple(
            source_model(output, "logits", metadata=_metadata(runs[output.number]))
            for output in outputs.values()
        ),
        missing=tuple(missing),
        design={"scheme": "imported", "format": "misleading-evals"},
        attackable=canaries,
        warnings=(*_varying(membership, canaries), *copies(outputs.values())),
    )


# --- where things are -----------------------------------------------------------------------------


def _is_shadow(path: Path) -> bool:
    return _SHADOW.fullmatch(path.name) is not None and any(
        _NUMBER.fullmatch(run.name) and any(run.glob("predictions*.pt")) for run in path.iterdir()
    )


def _shadows(source: Path) -> list[Path]:
    return [path for path in sorted(source.iterdir()) if path.is_dir() and _is_shadow(path)]


def _places(source: Path) -> tuple[Path, Path]:
    """(the directory of the models, the directory of the attack's files)."""
    shadows = _shadows(source) or ([source.resolve()] if _is_shadow(source.resolve()) else [])
    if not shadows:
        raise SourceError(f"{source}: expected {EXPECTS}; it has no such directory")
    if len(shadows) > 1:
        names = name_some([path.name for path in shadows])
        raise SourceError(f"{source}: {names} are runs of their own; give one of them as the source")
    shadow = shadows[0]
    attack = shadow.parent / f"attack{shadow.name.removeprefix('shadow')}"
    for place in (attack, shadow.parent, shadow):
        if (place / _MASK).is_file():
            return shadow, place
    raise SourceError(
        f"{attack if attack.is_dir() else shadow.parent}: no {_MASK}, which tells who was trained on what; "
        "run the attack of the tool, which writes it"
    )


def _outputs(number: int, run: Path) -> Outputs:
    source_id = f"{run.parent.name}/{run.name}"
    array = open_tensor(run / _PREDICTIONS)
    return outputs_of(number, source_id, array, "logits", ("NQC",), "train the model again")


def _others(runs: Mapping[int, Path]) -> str:
    """Outputs by other names that a directory has in place of predictions_train.pt, for a message."""
    for run in runs.values():
        if not (run / _PREDICTIONS).exists():
            names = sorted(path.name for path in run.glob("predictions_train_*.pt"))
            if names:
                return (
                    f" ({run} has {', '.join(names)}, outputs with and without a defence; in a copy of the "
                    f"directory give one of them the name {_PREDICTIONS})"
                )
            return f" (no {_PREDICTIONS} in {run})"
    return ""


# --- what the files say ---------------------------------------------------------------------------


def _membership(path: Path, examples: int) -> NDArray[np.bool_]:
    """(M, N) of the file's (N, M)."""
    array = open_tensor(path)
    if len(array.shape) != 2 or array.shape[0] != examples or not array.shape[1]:
        raise SourceError(
            f"{array.where}: shape {array.shape}, expected (examples, models), ({examples}, models), as the "
            "models' outputs have that many examples"
        )
    masks = load_mask(array, array.shape, "True where the model was trained on the example")
    return np.ascontiguousarray(masks.T)


def _canaries(path: Path, examples: int) -> NDArray[np.bool_]:
    """(N,) which examples are audited."""
    array: Npy = open_tensor(path)
    if len(array.shape) > 1 or array.dtype.kind not in "iu":
        raise SourceError(f"{array.where}: {array.dtype} {array.shape}, expected int64 (canaries,)")
    indices = array.load().reshape(-1).astype(np.int64)
    outside = indices[(indices < 0) | (indices >= examples)]
    if len(outside) or not len(indices) or len(np.unique(indices)) < len(indices):
        raise SourceError(
            f"{array.where}: expected distinct indices of examples, 0 to {examples - 1}, at least one; it "
            f"has {len(indices)}{f', {outside[0]} among them' if len(outside) else ''}"
        )
    canaries = np.zeros(examples, dtype=np.bool_)
    canaries[indices] = True
    return canaries


def _varying(membership: NDArray[np.bool_], canaries: NDArray[np.bool_]) -> Iterator[str]:
    varying = int(np.count_nonzero((membership != membership[0]).any(axis=0) & ~canaries))
    if varying:
        yield (
            f"{varying} examples that are no canaries are in some models and out of others, as in "
            "validate_loo and with duplicates; only canaries can be attacked"
        )


def _augmentations(queries: int) -> tuple[str, ...]:
    if queries == 1:
        return ("identity",)
    if queries != 2 * len(_SHIFTS) ** 2:
        return tuple(f"query{query}" for query in range(queries))
    grid = [(-rows, -columns) for rows in _SHIFTS for columns in _SHIFTS]
    names = [shift_name(*shift) if any(shift) else "identity" for shift in grid]
    return (*names, *("flip" if name == "identity" else f"{name} flip" for name in names))


def _metadata(run: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = {"source_file": f"{run.parent.name}/{run.name}/{_PREDICTIONS}"}
    path = run / "metrics.json"
    if not path.is_file():
        return metadata
    metrics = parse_json(path.read_bytes(), str(path), strict=False)
    if not isinstance(metrics, dict):
        raise SourceError(f"{path}: expected a JSON object; correct it, or move it away")
    known = {
        "train_accuracy": metrics.get("train_accuracy_in"),
        "test_accuracy": metrics.get("test_accuracy"),
    }
    return (
        metadata | {name: value for name, value in known.items() if value is not None} | {"metrics": metrics}
    )
