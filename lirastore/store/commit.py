"""Commit markers: the documents `commits/<model>.json`, which alone say that a model is in the store.

A marker is sealed with its attempt, before the claim, and published by one rename: its bytes do not depend
on who publishes it, or when.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lirastore import __version__
from lirastore.errors import DamagedStore, FormatVersionError, ModelNotCommitted
from lirastore.store.layout import COMMITS, FORMAT, Json
from lirastore.store.shards import StoredObject

if TYPE_CHECKING:
    from lirastore.store.open import LogitStore

__all__ = [
    "Commit",
    "committed_models",
    "find_commit",
    "keep_mask_digest",
    "model_digest",
    "parse_commit",
    "read_commit",
    "read_marker",
]

_MARKER = re.compile(r"(0|[1-9][0-9]*)\.json")


@dataclass(frozen=True)
class Commit:
    """What one commit marker states.

    `objects` maps the path of each object relative to the store (`logits/c/17/0/0/0`) to its size in bytes
    and sha256; `digest` is `model_digest` of it; `keep_mask` the `keep_mask_digest` of the model's membership
    row at the time; `committed_at` is the time of sealing, UTC, ISO 8601; `attempt` names the attempt.
    """

    model: int
    attempt: str
    committed_at: str
    metadata: Mapping[str, Json]
    keep_mask: str
    digest: str
    objects: Mapping[str, StoredObject]
    library_version: str

    @classmethod
    def sealed(
        cls,
        model: int,
        attempt: str,
        *,
        metadata: Mapping[str, Json],
        keep_mask: str,
        objects: Mapping[str, StoredObject],
    ) -> Commit:
        """The commit of a finished attempt, at this moment, by this version of the library."""
        return cls(
            model=model,
            attempt=attempt,
            committed_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            metadata=dict(metadata),
            keep_mask=keep_mask,
            digest=model_digest(objects),
            objects=dict(sorted(objects.items())),
            library_version=__version__,
        )

    @property
    def arrays(self) -> list[str]:
        """Names of the arrays that have objects, sorted."""
        return sorted({key.split("/", 1)[0] for key in self.objects})

    def to_bytes(self) -> bytes:
        """The marker's contents: strict JSON, keys in a fixed order."""
        document = {
            "format": FORMAT,
            "model": self.model,
            "attempt": self.attempt,
            "committed_at": self.committed_at,
            "library_version": self.library_version,
            "digest": self.digest,
            "keep_mask": self.keep_mask,
            "metadata": self.metadata,
            "objects": {key: found._asdict() for key, found in self.objects.items()},
        }
        return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def model_digest(objects: Mapping[str, StoredObject]) -> str:
    """sha256 over the sorted lines `<key> <sha256>\\n` of a model's objects: what is stored, and nothing
    about who stored it or when."""
    return _digest_lines(f"{key} {found.sha256}" for key, found in objects.items())


def _digest_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()


def keep_mask_digest(row: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    """sha256 of a membership row (E,) bool, one byte (0 or 1) per example."""
    return hashlib.sha256(np.ascontiguousarray(row, dtype=np.bool_).tobytes()).hexdigest()


def committed_models(store: LogitStore) -> list[int]:
    """Planned models that have a marker, sorted: one directory listing."""
    matches = (_MARKER.fullmatch(path.name) for path in (store.lira / COMMITS).iterdir())
    models = (int(match[1]) for match in matches if match)
    return sorted(model for model in models if model < store.info.models)


def read_commit(store: LogitStore, model: int) -> Commit:
    """Reads one marker. Raises ModelNotCommitted if there is none, DamagedStore if it is unreadable."""
    commit = find_commit(store, model)
    if commit is None:
        raise ModelNotCommitted(f"model {model} is not committed in {store.path}: write it, then ask again")
    return commit


def find_commit(store: LogitStore, model: int) -> Commit | None:
    """Reads one marker, None if there is none. Raises DamagedStore if it is unreadable or another model's."""
    path = store.lira / COMMITS / f"{model}.json"
    commit = read_marker(path)
    if commit is not None and commit.model != model:
        raise DamagedStore(f"{path} is the marker of model {commit.model}: {_remedy(model)}, or restore it")
    return commit


def read_marker(path: Path) -> Commit | None:
    """The commit in the file `path`, None if there is no such file; DamagedStore if it is unreadable."""
    try:
        return parse_commit(path.read_bytes(), path)
    except FileNotFoundError:
        return None


def parse_commit(data: bytes, path: Path) -> Commit:
    """Parses a marker; `path` is for messages. Raises DamagedStore, or FormatVersionError if it is newer."""
    try:
        document = json.loads(data)
        found = document["format"]
        commit = _from_json(document) if found == FORMAT else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedStore(
            f"{path} is no readable commit marker ({type(error).__name__}: {error}): {_remedy(path.stem)}, "
            f"or restore the file"
        ) from error
    if commit is None:
        raise FormatVersionError(
            f"{path} has format {found}; this library reads format {FORMAT}: upgrade lirastore"
        )
    return commit


def _from_json(document: dict[str, Any]) -> Commit:
    return Commit(
        model=int(document["model"]),
        attempt=str(document["attempt"]),
        committed_at=str(document["committed_at"]),
        metadata=dict(document["metadata"]),
        keep_mask=str(document["keep_mask"]),
        digest=str(document["digest"]),
        objects={
            str(key): StoredObject(int(found["size"]), str(found["sha256"]))
            for key, found in document["objects"].items()
        },
        library_version=str(document["library_version"]),
    )


def _remedy(model: object) -> str:
    return f"`lirastore discard --models {model}` withdraws the model so that it can be written again"
