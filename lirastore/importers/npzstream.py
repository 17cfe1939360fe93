"""Streams the values of the exchange form, turning confidences and losses into scaled logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import NonFiniteLogits, SourceError
from lirastore.importers.npyfile import Npy
from lirastore.importers.npzform import SIGNAL_PREFIX, Archive, Form
from lirastore.importers.source import Batch

__all__ = ["Handles", "from_confidence", "from_loss", "stream"]


class Handles:
    """Open members. One that has all models stays open: decompressing would start at the first one again."""

    def __init__(self, resources: ExitStack) -> None:
        self._resources = resources
        self._open: dict[str, IO[bytes]] = {}

    @contextmanager
    def reading(self, array: Npy, *, keep: bool) -> Iterator[IO[bytes]]:
        """A file for `array.read`, kept open for the next call if `keep`."""
        if not keep:
            with array.reading() as file:
                yield file
            return
        if array.where not in self._open:
            self._open[array.where] = self._resources.enter_context(array.reading())
        yield self._open[array.where]


def stream(
    archive: Archive, index: int, form: Form, handles: Handles, counts: dict[str, int]
) -> Iterator[Batch]:
    """The batches of the archive's model `index`. Clipped values are counted in counts["clipped"].

    Raises NonFiniteLogits or SourceError for confidences and losses that cannot be.
    """
    arrays = {name: archive.need(name) for name in form.members}
    rows = {name: array.shape[len(archive.lead) + 1 :] for name, array in arrays.items()}
    step = min(array.step(rows[name]) for name, array in arrays.items())
    with ExitStack() as stack:
        keep = bool(archive.lead)
        files = {name: stack.enter_context(handles.reading(arrays[name], keep=keep)) for name in arrays}
        for start in range(0, form.examples, step):
            examples = slice(start, min(start + step, form.examples))
            first, last = index * form.examples + examples.start, index * form.examples + examples.stop
            values = {name: arrays[name].read(files[name], first, last, rows[name]) for name in arrays}
            yield Batch(examples, _converted(values, form, start, arrays[form.values].where, counts))


def _converted(
    values: dict[str, NDArray[Any]], form: Form, start: int, where: str, counts: dict[str, int]
) -> dict[str, NDArray[Any]]:
    converted = {
        name.removeprefix(SIGNAL_PREFIX): array for name, array in values.items() if name != form.values
    }
    main = values[form.values]
    if form.values in _CONVERSIONS:
        _check_range(main, form.values, start, where)
        scaled, clipped = _CONVERSIONS[form.values](main)
        counts["clipped"] = counts.get("clipped", 0) + clipped
        return {**converted, "scaled_logit": scaled}
    return {**converted, form.values: main}


def _check_range(values: NDArray[Any], kind: str, start: int, where: str) -> None:
    finite = np.isfinite(values)
    good = finite & (values >= 0) & ((values <= 1) | (kind != "confidence"))
    if good.all():
        return
    at = tuple(int(index) for index in np.argwhere(~good)[0])
    expected = "between 0 and 1" if kind == "confidence" else "of 0 or more"
    error = SourceError if finite[at] else NonFiniteLogits
    raise error(
        f"{where}: the {kind} of example {start + at[0]} is {values[at]}, expected a number {expected}."
    )


def from_confidence(confidence: NDArray[Any]) -> tuple[NDArray[np.float64], int]:
    """φ = log p − log(1 − p) of confidences p in [0, 1], float64, and how many were clipped.

    0 and 1 are taken as the neighbours that the type of `confidence` has between them.
    """
    one, zero = confidence.dtype.type(1), confidence.dtype.type(0)
    inner = np.clip(confidence, np.nextafter(zero, one), np.nextafter(one, zero))
    p = inner.astype(np.float64)
    return np.log(p) - np.log1p(-p), int(np.count_nonzero(inner != confidence))


def from_loss(loss: NDArray[Any]) -> tuple[NDArray[np.float64], int]:
    """φ = −log(e^ℓ − 1) of losses ℓ ≥ 0, float64, and how many were clipped.

    A loss below the unit roundoff u of its type is taken as u: a confidence that near to 1 has been rounded.
    """
    roundoff = float(np.finfo(loss.dtype).eps) / 2
    inner = np.maximum(loss.astype(np.float64), roundoff)
    return -inner - np.log(-np.expm1(-inner)), int(np.count_nonzero(loss < roundoff))


_CONVERSIONS: Final[dict[str, Callable[[NDArray[Any]], tuple[NDArray[np.float64], int]]]] = {
    "confidence": from_confidence,
    "loss": from_loss,
}
