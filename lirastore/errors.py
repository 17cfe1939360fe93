"""One tree of errors, grouped by what a handler would do about them.

Every error carries a stable `kind` (for programs), is also a builtin exception (for handlers that
do not know this library), and has a message that gives the value, what was expected, and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AlreadyCommitted",
    "AttackError",
    "DamagedStore",
    "FormatVersionError",
    "IncompleteModel",
    "InputError",
    "LirastoreError",
    "LostClaim",
    "MemoryBudgetError",
    "MissingData",
    "MissingDependency",
    "ModelNotCommitted",
    "NonFiniteLogits",
    "NotAStore",
    "QueryError",
    "ResultError",
    "SourceError",
    "StoreExists",
    "TrainingDiverged",
    "TrainingFailed",
    "UnknownModel",
    "UnsupportedFilesystem",
    "name_some",
]


def name_some(values: Sequence[object], most: int = 8) -> str:
    """Names the first few of many values, for messages: `3, 17, 21 … (812 in all)`."""
    shown = ", ".join(str(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown} … ({len(values)} in all)"


class LirastoreError(Exception):
    """Any error that this library raises on purpose; the command line prints it without a traceback."""

    kind = "error"

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


# --- what the caller passed ---------------------------------------------------------------------


class InputError(LirastoreError, ValueError):
    """An argument has a wrong value, shape or type."""

    kind = "input"


class UnknownModel(LirastoreError, KeyError):
    """A model id outside the store's planned models."""

    kind = "unknown-model"


class NonFiniteLogits(InputError):
    """NaN or infinity in a batch, after the cast to the store's dtype."""

    kind = "non-finite"


class IncompleteModel(InputError):
    """Examples of a model were never written, or written twice."""

    kind = "incomplete-model"


class AttackError(InputError):
    """An attack, signal or test that does not exist, or an attack whose result is malformed."""

    kind = "attack"


class QueryError(InputError):
    """SQL that was refused or that failed."""

    kind = "query"


class SourceError(InputError):
    """Somebody else's files are not what their layout promises."""

    kind = "source"


# --- what the store holds -----------------------------------------------------------------------


class NotAStore(LirastoreError, FileNotFoundError):
    """Nothing there, or something that is not a lirastore store."""

    kind = "not-a-store"


class StoreExists(LirastoreError, FileExistsError):
    """A store, or something else, stands where one should be created."""

    kind = "store-exists"


class FormatVersionError(LirastoreError, ValueError):
    """The store's format is newer than this library."""

    kind = "format-version"


class ModelNotCommitted(LirastoreError, KeyError):
    """A planned model that has no commit marker yet."""

    kind = "not-committed"


class MissingData(LirastoreError, LookupError):
    """The store lacks what was asked of it: an array, enough models, a result."""

    kind = "missing-data"


class DamagedStore(LirastoreError, OSError):
    """Committed data is absent or fails its checksum."""

    kind = "damaged"


class ResultError(LirastoreError, OSError):
    """A result document or file is absent or unreadable."""

    kind = "result"


# --- training -------------------------------------------------------------------------------------


class TrainingDiverged(LirastoreError, FloatingPointError):
    """A model's loss or outputs became NaN or infinite; it was not committed."""

    kind = "diverged"


class TrainingFailed(LirastoreError, RuntimeError):
    """A process that trained models ended before its work was done."""

    kind = "training"


# --- races, limits and surroundings -------------------------------------------------------------


class AlreadyCommitted(LirastoreError, FileExistsError):
    """The model is in the store already; nothing was changed."""

    kind = "already-committed"


class LostClaim(AlreadyCommitted):
    """Another process committed the model first; this attempt changed nothing."""

    kind = "lost-claim"


class MemoryBudgetError(LirastoreError, MemoryError):
    """The work cannot fit the memory budget."""

    kind = "memory"


class UnsupportedFilesystem(LirastoreError, OSError):
    """The filesystem offers no way to create a file only if it is absent."""

    kind = "filesystem"


class MissingDependency(LirastoreError, ImportError):
    """An optional package is not installed."""

    kind = "missing-dependency"
