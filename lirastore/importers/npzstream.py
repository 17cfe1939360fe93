"""Streams the values of the exchange form, turning confidences and losses into scaled logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import NonFiniteLogits
from lirastore.importers.npyfile import Npy
from lirastore.importers.npzform import SIGNAL_PREFIX, Form, Row
from lirastore.importers.source import BadValues, Batch
from lirastore.store.layout import POPULATION

__all__ = ["Handles", "check_range", "from_confidence", "from_loss", "least_loss", "population", "stream"]


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
    row: Row, form: Form, handles: Handles, least: float | None, counts: dict[str, float]
) -> Iterator[Batch]:
    """The batches of one model. Clipped values are counted in counts["clipped"].

    least: what a loss of 0 is taken as, see `least_loss`. Raises NonFiniteLogits or BadValues for confidences
    and losses that cannot be.
    """
    archive = row.archive
    arrays = {name: archive.need(name) for name in form.members}
    rows = {name: array.shape[len(archive.lead) + 1 :] for name, array in arrays.items()}
    step = min(array.step(rows[name]) for name, array in arrays.items())
    with ExitStack() as stack:
        keep = bool(archive.lead)
        files = {name: stack.enter_context(handles.reading(arrays[name], keep=keep)) for name in arrays}
        for start in range(0, form.examples, step):
            examples = slice(start, min(start + step, form.examples))
            first, last = (
                row.index * form.examples + examples.start,
                row.index * form.examples + examples.stop,
            )
            values = {name: arrays[name].read(files[name], first, last, rows[name]) for name in arrays}
            if form.values in ("confidence", "loss"):
                check_range(values[form.values], form.values, start, row.model)
                values["scaled_logit"] = _scaled(values.pop(form.values), least, counts)
            yield Batch(examples, {name.removeprefix(SIGNAL_PREFIX): values[name] for name in values})


def population(row: Row, form: Form, handles: Handles, _: dict[str, float]) -> NDArray[Any]:
    """φ of the population points of one model, (Z,)."""
    archive, points = row.archive, form.population
    assert points is not None
    array = archive.need(POPULATION)
    with handles.reading(array, keep=bool(archive.lead)) as file:
        values: NDArray[Any] = array.read(file, row.index, row.index + 1, (points,))[0]
        return values


def _scaled(values: NDArray[Any], least: float | None, counts: dict[str, float]) -> NDArray[np.float64]:
    scaled, clipped = from_confidence(values) if least is None else from_loss(values, least)
    if clipped:
        counts["clipped"] = counts.get("clipped", 0) + clipped
        if least is not None:
            counts["clipped_to"] = least
    return scaled


def check_range(values: NDArray[Any], kind: str, start: int, model: int, *, of: str = "example") -> None:
    """Raises NonFiniteLogits or BadValues for what is no `confidence` or `loss`.

    The first of `values` is that of example `start`, or of another thing that `of` names.
    """
    finite = np.isfinite(values)
    good = finite & (values >= 0) & ((values <= 1) | (kind != "confidence"))
    if good.all():
        return
    at = tuple(int(index) for index in np.argwhere(~good)[0])
    expected = "between 0 and 1" if kind == "confidence" else "of 0 or more"
    error = BadValues if finite[at] else NonFiniteLogits
    raise error(
        f"model {model}: the {kind} of {of} {start + at[0]} is {values[at]}, expected a number "
        f"{expected}; nothing of this model was committed"
    )


def from_confidence(confidence: NDArray[Any]) -> tuple[NDArray[np.float64], int]:
    """φ = log p − log(1 − p) of confidences p in [0, 1], float64, and how many were clipped.

    0 and 1 are taken as the neighbours that the type of `confidence` has between them; nothing else is.
    """
    one, zero = confidence.dtype.type(1), confidence.dtype.type(0)
    inner = np.clip(confidence, np.nextafter(zero, one), np.nextafter(one, zero))
    p = inner.astype(np.float64)
    return np.log(p) - np.log1p(-p), int(np.count_nonzero(inner != confidence))


def from_loss(loss: NDArray[Any], least: float) -> tuple[NDArray[np.float64], int]:
    """φ = −log(e^ℓ − 1) of losses ℓ ≥ 0, float64, and how many were clipped: those of 0, taken as `least`.

    φ is finite, and as exact as float64, for every ℓ > 0: −log ℓ for tiny ones, −ℓ for large ones.
    """
    certain = loss == 0
    inner = np.where(certain, least, loss.astype(np.float64))
    return -inner - np.log(-np.expm1(-inner)), int(np.count_nonzero(certain))


def least_loss(losses: Sequence[Npy]) -> float:
    """What a loss of 0 is taken as: the unit roundoff of the type, or the smallest positive loss of all
    `losses` if that is smaller. Reads them through; NaN, infinities and negative ones are passed over."""
    least = min(float(np.finfo(array.dtype).eps) / 2 for array in losses)
    for array in losses:
        for _, values in array.rows(()):
            least = float(np.min(values, initial=least, where=values > 0))
    return least
