"""One archive of the exchange form: its members, and what its values are and how many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from lirastore.errors import SourceError, name_some
from lirastore.importers.npyfile import Npy
from lirastore.store.layout import POPULATION

__all__ = ["MEMBERS", "SIGNAL_PREFIX", "VALUES", "Archive", "Form", "Row", "read_form"]

VALUES: Final = ("logits", "scaled_logit", "confidence", "loss")
"""An archive has one of these; any but the first makes a signal-only store."""

SIGNAL_PREFIX: Final = "signal."
"""Members with this prefix are auxiliary arrays."""

MEMBERS: Final = frozenset(
    {
        *VALUES,
        "membership",
        "label",
        "model",
        "models",
        "planned_membership",
        "source_id",
        "metadata",
        "augmentation",
        "name",
        "design",
        "attackable",
        "preview",
        "features",
        POPULATION,
    }
)
"""All members that mean something, auxiliary arrays aside."""

_KINDS: Final = {"b": "bool", "iu": "integers", "U": "text"}


@dataclass(frozen=True)
class Archive:
    """The members of one file. `lead` is (M,) in a file of all models, () in a file of one."""

    path: Path
    members: Mapping[str, Npy]
    lead: tuple[int, ...]

    def need(self, name: str) -> Npy:
        if name not in self.members:
            raise SourceError(
                f"{self.path}: no member {name!r}; it has {name_some(sorted(self.members))}; add it and save "
                "again"
            )
        return self.members[name]

    def load(self, name: str, shape: tuple[int, ...], kinds: str) -> NDArray[Any]:
        """A small member. SourceError if it is absent, or of another shape or kind of dtype."""
        member = self.need(name)
        if member.shape != shape or member.dtype.kind not in kinds:
            raise SourceError(
                f"{member.where}: {member.dtype} {member.shape}, expected {_KINDS[kinds]} {shape}; correct "
                "it and save it again"
            )
        return member.load()

    def maybe(self, name: str, shape: tuple[int, ...], kinds: str) -> NDArray[Any] | None:
        """As `load`, but None if it is absent."""
        return self.load(name, shape, kinds) if name in self.members else None


@dataclass(frozen=True)
class Row:
    """One model: its row in the store, its archive, and its index there."""

    model: int
    archive: Archive
    index: int


@dataclass(frozen=True)
class Form:
    """What all files agree on: which values they hold, and their sizes. signals: dims by name. population:
    how many points, None for none."""

    values: str
    examples: int
    augmentations: int
    classes: int | None
    signals: Mapping[str, tuple[str, ...]]
    population: int | None = None

    def __str__(self) -> str:
        sizes = f"{self.values} of {self.examples} examples, {self.augmentations} augmentations"
        classes = "" if self.classes is None else f", {self.classes} classes"
        points = "" if self.population is None else f", {self.population} population points"
        signals = f"; signals {name_some(sorted(self.signals))}" if self.signals else ""
        return sizes + classes + points + signals

    @property
    def members(self) -> tuple[str, ...]:
        """Those with values for each example."""
        return (self.values, *(SIGNAL_PREFIX + name for name in self.signals))


def read_form(archive: Archive) -> Form:
    """What the archive holds, by its headers. Raises SourceError naming the member and what was expected."""
    present = [name for name in VALUES if name in archive.members]
    if len(present) != 1:
        have = name_some(present) or f"none (its members: {name_some(sorted(archive.members))})"
        raise SourceError(f"{archive.path}: expected exactly one of {', '.join(VALUES)}, it has {have}")
    name = present[0]
    shape = _floats(archive, name)
    classes = (shape[-1],) if name == "logits" else ()
    sizes = shape[: len(shape) - len(classes)]
    if len(sizes) not in (1, 2) or 0 in shape or (classes and classes[0] < 2):
        raise _wrong_shape(archive, name)
    examples, queries = sizes[0], sizes[1] if len(sizes) == 2 else 1
    signals = {}
    for member in sorted(archive.members):
        if member.startswith(SIGNAL_PREFIX):
            signals[member.removeprefix(SIGNAL_PREFIX)] = _signal_dims(archive, member, examples, queries)
    return Form(name, examples, queries, classes[0] if classes else None, signals, _points(archive))


def _points(archive: Archive) -> int | None:
    """How many population points there are."""
    if POPULATION not in archive.members:
        return None
    shape = _floats(archive, POPULATION)
    if len(shape) != 1 or not shape[0]:
        axes = "models, points" if archive.lead else "points,"
        member = archive.need(POPULATION)
        raise SourceError(f"{member.where}: shape {member.shape}, expected ({axes}); save it again")
    return shape[0]


def _floats(archive: Archive, name: str) -> tuple[int, ...]:
    """Shape of one model's part of a member of floats."""
    member = archive.need(name).require_c_order()
    if member.dtype.kind != "f" or member.dtype.itemsize > 8:
        raise SourceError(f"{member.where}: type {member.dtype}, expected float32 (or float16, float64)")
    if member.shape[: len(archive.lead)] != archive.lead:
        raise _wrong_shape(archive, name)
    return member.shape[len(archive.lead) :]


def _wrong_shape(archive: Archive, name: str) -> SourceError:
    axes = [*(["models"] if archive.lead else []), "examples", "[augmentations]"]
    if name == "logits":
        axes.append("classes (2 or more)")
    membership = archive.need("membership")
    return SourceError(
        f"{archive.need(name).where}: shape {archive.need(name).shape}, expected ({', '.join(axes)}), where "
        f"membership is {membership.shape}; reshape it and save it again"
    )


def _signal_dims(archive: Archive, member: str, examples: int, queries: int) -> tuple[str, ...]:
    shape = _floats(archive, member)
    if shape == (examples, queries):
        return ("model", "example", "augmentation")
    if shape == (examples,):
        return ("model", "example")
    raise _wrong_shape(archive, member)
