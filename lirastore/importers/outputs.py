"""What layouts with one array of outputs per model have in common: shapes, masks, labels, numbers.

Outputs are `logits`, (examples, queries, classes), or `scores`, (examples, queries), which are scaled logits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import SourceError, name_some
from lirastore.importers.npyfile import Npy, open_npy
from lirastore.importers.source import Batch, Options, SourceModel, check_labels

__all__ = [
    "Outputs",
    "common_sizes",
    "copies",
    "given_labels",
    "kind_of",
    "load_mask",
    "needed",
    "numbered",
    "outputs_of",
    "shift_name",
    "source_model",
    "store_dtype",
]

_MOST_MODELS: Final = 100_000


@dataclass(frozen=True)
class Outputs:
    """One model's outputs, the header checked.

    number: the model's, which is its row in the store. source_id: what the source calls it. sizes:
    (examples, queries, classes) of logits, (examples, queries) of scores.
    """

    number: int
    source_id: str
    array: Npy
    sizes: tuple[int, ...]

    @cached_property
    def fingerprint(self) -> str:
        return self.array.fingerprint()


def numbered(source: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    """The entries of `source` whose whole name matches, by the number in its first group.

    Raises SourceError for two of one number, as `3` and `03`, and for numbers that no row can have.
    """
    found: dict[int, Path] = {}
    for path in sorted(source.iterdir()):
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            raise SourceError(
                f"{path} and {found[number].name} are both model {number}; move one of them away"
            )
        if number >= _MOST_MODELS:
            raise SourceError(
                f"{path}: model {number}; row m of the store is model m: number the models from 0, or move "
                "this away if it is none"
            )
        found[number] = path
    return dict(sorted(found.items()))


def kind_of(source: Path, logits: Iterable[int], scores: Iterable[int]) -> str:
    """`logits`, or `scores` where no model has logits. Raises SourceError where models differ."""
    with_logits = set(logits)
    without = sorted(set(scores) - with_logits)
    if with_logits and without:
        raise SourceError(
            f"{source}: models {name_some(without)} have scores but no logits, the others have logits; run "
            "the inference for them, or move the logits of all away to import scores only"
        )
    return "scores" if without else "logits"


def outputs_of(
    number: int, source_id: str, array: Npy, kind: str, forms: Sequence[str], hint: str
) -> Outputs:
    """The array as a model's outputs.

    forms: the shapes that it may have, a letter for each axis: N examples, Q queries, C classes, 1 for an
    axis of that length. hint: what to do where it has none of them. Raises SourceError for another shape,
    fewer than 2 classes, an empty axis, a type that is not floating, or Fortran order.
    """
    for form in forms:
        sizes = _sizes(array.shape, form)
        if sizes is not None:
            break
    else:
        shapes = " or ".join(f"({', '.join(form)})" for form in forms)
        raise SourceError(
            f"{array.where}: shape {array.shape}, expected {shapes}: N examples, Q queries"
            f"{', C classes (2 or more)' if kind == 'logits' else ''}; {hint}"
        )
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise SourceError(f"{array.where}: type {array.dtype}, expected float32 (or float16, float64)")
    return Outputs(number, source_id, array.require_c_order(), sizes)


def _sizes(shape: tuple[int, ...], form: str) -> tuple[int, ...] | None:
    """(N, Q[, C]) if the shape is of that form."""
    if len(shape) != len(form) or 0 in shape:
        return None
    axes = dict(zip(form, shape, strict=True))
    if axes.get("1", 1) != 1 or axes.get("C", 2) < 2:
        return None
    return (axes["N"], axes.get("Q", 1), *((axes["C"],) if "C" in axes else ()))


def common_sizes(outputs: Sequence[Outputs]) -> tuple[int, ...]:
    """The sizes that all outputs have; SourceError naming the first that differs."""
    first = outputs[0]
    for other in outputs:
        if other.sizes != first.sizes:
            raise SourceError(
                f"{other.array.where}: shape {other.array.shape}, but {first.array.where} has "
                f"{first.array.shape}; all models must be evaluated on the same examples and queries: run "
                "the inference again"
            )
    return first.sizes


def store_dtype(outputs: Iterable[Outputs]) -> str:
    """float16 if all outputs are, else float32."""
    return "float16" if all(output.array.dtype.itemsize == 2 for output in outputs) else "float32"


def source_model(
    outputs: Outputs,
    kind: str,
    *,
    metadata: Mapping[str, Any],
    order: NDArray[np.int64] | None = None,
    prepare: Callable[[NDArray[Any]], NDArray[Any]] = lambda values: values,
) -> SourceModel:
    """The model, streamed a slice at a time.

    order: (N,) the example that each row is of, where rows are not in the order of the examples. prepare:
    rows (n, Q[, C]) as read -> the values to store.
    """

    def stream(_: dict[str, float]) -> Iterator[Batch]:
        for start, values in outputs.array.rows(outputs.sizes[1:]):
            rows = slice(start, start + len(values))
            written = {"logits" if kind == "logits" else "scaled_logit": prepare(values)}
            yield Batch(rows if order is None else order[rows], written)

    return SourceModel(
        outputs.number, outputs.array.where, outputs.source_id, outputs.fingerprint, metadata, stream
    )


def copies(outputs: Iterable[Outputs]) -> Iterator[str]:
    """A warning for each set of models whose outputs are the same."""
    by_data: dict[str, list[int]] = {}
    for output in outputs:
        by_data.setdefault(output.fingerprint, []).append(output.number)
    for same in by_data.values():
        if len(same) > 1:
            yield f"models {name_some(same)} have the same outputs, as if one had been copied"


def needed(path: Path) -> Npy:
    """The `.npy` at `path`; SourceError if it is not there."""
    if not path.exists():
        raise SourceError(f"{path}: no such file, though the layout needs it; restore it")
    return open_npy(path)


def load_mask(array: Npy, shape: tuple[int, ...], meaning: str) -> NDArray[np.bool_]:
    """A bool array of that shape; SourceError for another shape or type."""
    if array.dtype != np.bool_ or array.shape != shape:
        raise SourceError(f"{array.where}: {array.dtype} {array.shape}, expected bool {shape}, {meaning}")
    return array.load()


def given_labels(options: Options, source: Path, *, examples: int, classes: int | None) -> NDArray[np.int64]:
    """The labels of a layout that does not store them: from the file that the caller names, (E,) int64.

    Without one, −1 throughout where there are no logits; SourceError where there are.
    """
    if options.labels is not None:
        array = open_npy(options.labels)
        return check_labels(array.load(), array.where, examples=examples, classes=classes)
    if classes is not None:
        raise SourceError(
            f"{source}: this layout does not store the labels, without which logits mean nothing; save them "
            f"as a .npy of {examples} integers and pass it with --labels FILE (labels=FILE)"
        )
    return np.full(examples, -1, dtype=np.int64)


def shift_name(down: int, right: int) -> str:
    """What a query is called that moves the picture by so many pixels."""
    return f"shift({_signed(down)},{_signed(right)})"


def _signed(pixels: int) -> str:
    return f"{pixels:+d}" if pixels else "0"
