"""What a training job says about its model, kept in the commit: strict JSON, checked at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from lirastore.errors import InputError
from lirastore.store.layout import Json

__all__ = ["ModelMetadata"]


class ModelMetadata(MutableMapping[str, Json]):
    """A dict of JSON values that refuses anything else when it is put in, not when the model is committed.

    numpy and torch scalars and arrays become numbers and lists. NaN and infinity are no JSON.
    """

    def __init__(self, model: int, values: Mapping[str, Any] | None = None) -> None:
        self._model = model
        self._values: dict[str, Json] = {}
        self.update(values or {})

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise InputError(f"model {self._model}: metadata key {key!r}: expected a string")
        try:
            self._values[key] = json.loads(json.dumps(value, allow_nan=False, default=_plain))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"model {self._model}: metadata {key} = {value!r} is not JSON ({error}): expected finite "
                f"numbers, strings, booleans, None, and lists and dicts of them"
            ) from None

    def __getitem__(self, key: str) -> Json:
        return self._values[key]

    def __delitem__(self, key: str) -> None:
        del self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)

    def checked(self) -> dict[str, Json]:
        """A copy as it is now; raises InputError if a list or dict in it was changed to something else."""
        return dict(ModelMetadata(self._model, self._values))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON type")
