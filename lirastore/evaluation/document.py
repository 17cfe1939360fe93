"""Evaluation documents: one per run, beside the scores and never in them, replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lirastore.errors import FormatVersionError, ResultError
from lirastore.results import Result, evaluation_file
from lirastore.store.fsio import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EVALUATION_FORMAT", "Evaluation", "find", "read", "write"]

EVALUATION_FORMAT = 1
"""Of the document, and of the computation: a document of an earlier number is computed anew."""

_RESAMPLING = "examples"


@dataclass(frozen=True)
class Evaluation:
    """What was made of one run of one attack.

    `replicates` and `seed` are those of the bootstrap, `seconds` is wall time. `sections` holds what each
    evaluator gave, by its name: JSON values. That of the bootstrap, "intervals", is {metric: [lo, hi]}, with
    null where there is none.
    """

    attack: str
    run: str
    replicates: int
    seed: int
    seconds: float
    sections: Mapping[str, Any]

    @property
    def intervals(self) -> Mapping[str, tuple[float, float] | None]:
        """(lo, hi) of each metric; None where the data resolve no interval."""
        found = self.sections["intervals"]
        return {name: None if ends is None else (ends[0], ends[1]) for name, ends in found.items()}

    def to_json(self) -> bytes:
        """The document, as it is stored."""
        document = {
            "format": EVALUATION_FORMAT,
            "attack": self.attack,
            "run": self.run,
            "replicates": self.replicates,
            "seed": self.seed,
            "resampling": _RESAMPLING,
            "seconds": self.seconds,
            **self.sections,
        }
        return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read(lira: Path, result: Result) -> Evaluation | None:
    """The evaluation of a run; None if there is none, or one of an earlier format.

    Raises ResultError for a document that cannot be read, FormatVersionError for a newer one.
    """
    path = evaluation_file(lira, result.attack, result.run)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResultError(f"{path} cannot be read ({error.strerror}); {_remedy(result)}") from error
    try:
        return _parse(text, path, result)
    except FormatVersionError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResultError(f"{path} is not an evaluation ({error}); {_remedy(result)}") from error


def find(lira: Path, result: Result) -> Evaluation | None:
    """As `read`, but None for a document that is unreadable: for whoever computes it anew."""
    try:
        return read(lira, result)
    except FormatVersionError:
        raise
    except ResultError:
        return None


def write(lira: Path, evaluation: Evaluation) -> None:
    """Stores an evaluation in the place of the one that its run has, if it has one."""
    path = evaluation_file(lira, evaluation.attack, evaluation.run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, evaluation.to_json())


def _parse(text: bytes, path: Path, result: Result) -> Evaluation | None:
    document = dict(json.loads(text))
    version = int(document.pop("format"))
    if version > EVALUATION_FORMAT:
        raise FormatVersionError(
            f"{path} has evaluation format {version}, this library reads up to {EVALUATION_FORMAT}; "
            "update lirastore"
        )
    if version < EVALUATION_FORMAT:
        return None
    if (document.pop("attack"), document.pop("run")) != (result.attack, result.run):
        raise ValueError("of another run")
    if document.pop("resampling") != _RESAMPLING:
        raise ValueError("resampling")
    fixed = {name: document.pop(name) for name in ("replicates", "seed", "seconds")}
    for name, ends in document["intervals"].items():
        if ends is not None and not (len(ends) == 2 and ends[0] <= ends[1]):
            raise ValueError(f"interval {name}")
    return Evaluation(result.attack, result.run, **fixed, sections=document)


def _remedy(result: Result) -> str:
    return f"`lirastore attack STORE {' '.join(result.arguments)}` replaces it"
