"""The part of a model that is no example's: φ of the population points, taken in one piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lirastore.errors import IncompleteModel, InputError, NonFiniteLogits
from lirastore.store.layout import POPULATION, ArraySpec
from lirastore.store.shards import ArrayWriter, StoredObject
from lirastore.store.tensors import as_batch

__all__ = ["PopulationSink"]


class PopulationSink:
    """Writes the population's array of one model under `directory`. `spec` is None in a store without one.

    objects: what was written, {array: {key: object}}; empty before, and in a store without a population.
    """

    def __init__(self, model: int, directory: Path, spec: ArraySpec | None) -> None:
        self._model = model
        self._directory = directory
        self._spec = spec
        self.objects: dict[str, dict[str, StoredObject]] = {}

    def check(self, scaled_logit: Any) -> npt.NDArray[np.float32]:
        """A copy as float32 (Z,). Raises InputError, IncompleteModel or NonFiniteLogits, see ModelWriter."""
        about = f"model {self._model}: population"
        if self._spec is None:
            raise InputError(f"{about}: this store has none; plan another with create(…, population=Z)")
        if self.objects:
            raise IncompleteModel(f"{about} was written before; it is written once")
        try:
            batch = as_batch(scaled_logit, "population")
        except InputError as error:
            raise InputError(f"model {self._model}: {error}") from None
        points = self._spec.examples
        if batch.shape != (points,):
            raise InputError(f"{about} has shape {batch.shape}, expected ({points},), one φ for each point")
        given = batch.copy(slice(0, points))()
        with np.errstate(over="ignore"):  # becomes infinity, and is refused below
            values = given.astype(self._spec.dtype)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise NonFiniteLogits(
                f"{about} holds NaN or infinity for point {bad[0]} ({len(bad)} such); expected finite values "
                "as float32; nothing of this model was committed"
            )
        return values

    def write(self, values: npt.NDArray[np.float32]) -> None:
        """Writes all of it, flushed."""
        assert self._spec is not None
        writer = ArrayWriter(self._directory / POPULATION, self._spec)
        try:
            writer.append(values)
            self.objects = {POPULATION: writer.finish()}
        finally:
            writer.close()

    def require(self) -> None:
        """Raises IncompleteModel if the store has a population and it was not written."""
        if self._spec is not None and not self.objects:
            raise IncompleteModel(
                f"model {self._model}: the {self._spec.examples} population points were never written; call "
                "write_population; the model is not committed"
            )
