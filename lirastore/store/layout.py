"""What format 1 looks like: names, dims, dtypes, chunks, object keys, and the root document.

Pure functions of shapes: nothing here touches a file. `storage/FORMAT.md` is the normative text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lirastore.errors import DamagedStore, FormatVersionError, InputError, NotAStore

__all__ = [
    "ATTEMPTS",
    "CLAIM_METHODS",
    "COMMITS",
    "DTYPES",
    "FORMAT",
    "LIRA",
    "LOGITS",
    "MAX_PIECE_BYTES",
    "MAX_SHARD_BYTES",
    "POPULATION",
    "RESULTS",
    "SCALED_LOGIT",
    "ArraySpec",
    "Json",
    "StoreInfo",
    "check_signal_name",
    "even_part",
    "little",
    "model_arrays",
    "pieces",
]

Json = Any
"""A value that `json.loads` can return; checked where it is used."""

FORMAT = 1
LIRA = "_lirastore"
ATTEMPTS = "staging"
COMMITS = "commits"
RESULTS = "results"

LOGITS = "logits"
SCALED_LOGIT = "scaled_logit"
POPULATION = "population_scaled_logit"
DTYPES = ("float32", "float16")
CLAIM_METHODS = ("link", "rename")

MODEL, EXAMPLE, AUGMENTATION, CLASS, POINT = "model", "example", "augmentation", "class", "point"
LOGITS_DIMS = (MODEL, EXAMPLE, AUGMENTATION, CLASS)
SIGNAL_DIMS = (MODEL, EXAMPLE, AUGMENTATION)
FLAT_SIGNAL_DIMS = (MODEL, EXAMPLE)
POPULATION_DIMS = (MODEL, POINT)

# Large enough that a disk or a network reads it at full speed, small enough that a row of them, one per
# model, is a modest block: 256 models × 1.5 MB = 384 MB.
LOGITS_CHUNK_BYTES = 1_500_000
# The same number of examples of all models is far smaller in a signal: smaller chunks keep blocks small.
SIGNAL_CHUNK_BYTES = 256_000
# One example above this is cut along its augmentations. Never along its classes: every kernel needs them all.
MAX_EXAMPLE_BYTES = 8_000_000
# Bounds what a writer must redo, what an object store must take in one request, and the number of objects.
MAX_SHARD_BYTES = 64_000_000
# Small arrays (labels, pictures, coordinates) are cut at this size along their first axis.
MAX_PIECE_BYTES = 8_000_000

CRC_BYTES = 4
INDEX_ENTRY_BYTES = 16

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_RESERVED = frozenset(
    {
        *LOGITS_DIMS,
        LOGITS,
        SCALED_LOGIT,
        POINT,
        POPULATION,
        "heartbeat",  # a file beside the arrays of an attempt
        "membership",
        "member",
        "label",
        "preview",
        "attackable",
        "features",
        "population",
        "loss",
        "correct",
        "score",
        "models",
        "examples",
    }
)


@dataclass(frozen=True)
class ArraySpec:
    """One per-model array: shape, inner chunk and shard, all with the model as their first axis.

    `shape` is (models, examples[, augmentations[, classes]]), or (models, points): then points are what is
    called examples here. `chunk_shape` and `shard_shape` have the same rank and 1 in front. A shard is a
    whole number of inner chunks and is one object; classes are never cut.
    A spec with several shards along the augmentations has one example per shard, so that objects in key order
    are always examples in order: a writer streams them one after the other.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_shape: tuple[int, ...]
    shard_shape: tuple[int, ...]

    @property
    def chunk(self) -> int:
        """Examples per inner chunk."""
        return self.chunk_shape[1]

    @property
    def shard(self) -> int:
        """Examples per shard object."""
        return self.shard_shape[1]

    @property
    def examples(self) -> int:
        """Examples of one model."""
        return self.shape[1]

    @property
    def example_shape(self) -> tuple[int, ...]:
        """What one example of one model is: (A, C), (A,) or ()."""
        return self.shape[2:]

    @property
    def example_bytes(self) -> int:
        """Bytes of one example of one model."""
        return math.prod(self.example_shape) * self.dtype.itemsize

    @property
    def augmentations_per_chunk(self) -> int:
        """Augmentations per inner chunk; 1 where there is no such axis."""
        return self.chunk_shape[2] if len(self.chunk_shape) > 2 else 1

    @property
    def augmentations_per_shard(self) -> int:
        """Augmentations per shard object; 1 where there is no such axis."""
        return self.shard_shape[2] if len(self.shard_shape) > 2 else 1

    @property
    def whole_examples(self) -> bool:
        """Whether inner chunks hold their examples whole, not cut along the augmentations, in one column."""
        return self.shard_shape[2:] == self.chunk_shape[2:] == self.example_shape

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one inner chunk as stored, without its crc32c."""
        return math.prod(self.chunk_shape) * self.dtype.itemsize

    @property
    def chunks_per_shard(self) -> int:
        """Inner chunks in one shard, those beyond the array's edge included."""
        return math.prod(s // c for s, c in zip(self.shard_shape, self.chunk_shape, strict=True))

    @property
    def chunk_columns(self) -> int:
        """Inner chunks side by side along the augmentations within one shard."""
        return self.augmentations_per_shard // self.augmentations_per_chunk

    @property
    def shard_grid(self) -> tuple[int, int]:
        """Objects per model: (along the examples, along the augmentations)."""
        augmentations = self.shape[2] if len(self.shape) > 2 else 1
        return -(-self.examples // self.shard), -(-augmentations // self.augmentations_per_shard)

    def key(self, row: int, column: int = 0) -> str:
        """The key of one object below `<array>/c/<model>/` (and below `<attempt>/<array>/` while staged)."""
        return "/".join(str(i) for i in (row, column, 0)[: len(self.shape) - 1])

    def shards(self) -> Iterator[tuple[int, int]]:
        """(row, column) of every object of one model, in key order, which is the order of the examples."""
        rows, columns = self.shard_grid
        return ((row, column) for row in range(rows) for column in range(columns))

    def keys(self) -> list[str]:
        """All object keys of one model, as `key` gives them, in order."""
        return [self.key(row, column) for row, column in self.shards()]


def _spec(
    name: str,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    target: int,
) -> ArraySpec:
    """Chooses chunks of at most `target` bytes and shards of at most MAX_SHARD_BYTES."""
    _, examples, *rest = shape
    row_bytes = math.prod(rest[1:]) * dtype.itemsize  # one augmentation of one example
    augmentations = rest[0] if rest else 1
    example_bytes = row_bytes * augmentations
    columns = augmentations
    if example_bytes > MAX_EXAMPLE_BYTES and augmentations > 1:
        columns = even_part(augmentations, max(1, target // row_bytes))
    rows = even_part(examples, max(1, target // example_bytes))
    room = max(
        1, (MAX_SHARD_BYTES - CRC_BYTES) // (rows * columns * row_bytes + CRC_BYTES + INDEX_ENTRY_BYTES)
    )
    across = min(-(-augmentations // columns), room)
    down = min(-(-examples // rows), room // across) if across * columns >= augmentations else 1
    tail = tuple(rest[1:])
    chunk = (1, rows, *((columns, *tail) if rest else ()))
    shard = (1, rows * down, *((columns * across, *tail) if rest else ()))
    return ArraySpec(name, dims, shape, dtype, chunk, shard)


def even_part(total: int, most: int) -> int:
    """The smallest part that cuts `total` into as few parts as parts of `most` would: least padding."""
    return -(-total // -(-total // most))


def little(dtype: str) -> np.dtype[Any]:
    """The little-endian numpy dtype of a Zarr data type name: what objects hold on every machine."""
    return np.dtype(dtype).newbyteorder("<")


def model_arrays(
    *,
    models: int,
    examples: int,
    augmentations: int,
    classes: int | None,
    dtype: str,
    signals: Mapping[str, tuple[str, ...]],
    population: int | None = None,
) -> dict[str, ArraySpec]:
    """All per-model arrays of a store: logits (unless `classes` is None), scaled_logit, auxiliaries, and
    population_scaled_logit where there are population points."""
    sizes = (models, examples, augmentations)
    specs = {}
    if classes is not None:
        specs[LOGITS] = _spec(LOGITS, LOGITS_DIMS, (*sizes, classes), little(dtype), LOGITS_CHUNK_BYTES)
    for name, dims in {SCALED_LOGIT: SIGNAL_DIMS, **signals}.items():
        specs[name] = _spec(name, dims, sizes[: len(dims)], little("float32"), SIGNAL_CHUNK_BYTES)
    if population is not None:
        shape = (models, population)
        specs[POPULATION] = _spec(POPULATION, POPULATION_DIMS, shape, little("float32"), SIGNAL_CHUNK_BYTES)
    return specs


def pieces(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunk shape of an unsharded array that is cut along its first axis only."""
    first, *rest = shape
    most = max(1, MAX_PIECE_BYTES // (math.prod(rest) * itemsize))
    return (even_part(first, most), *rest)


def check_signal_name(name: object) -> str:
    """Returns `name` if an auxiliary array may have it; InputError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"signal name {name!r}: expected lower-case letters, digits and _, such as token_logprob"
        )
    if name in _RESERVED:
        raise InputError(f"signal name {name!r} is taken by the format: choose another, such as {name}_aux")
    return name


@dataclass(frozen=True)
class StoreInfo:
    """The root attributes under `lirastore`: what was planned, once, when the store was made.

    `classes` is None in a signal-only store. `claim` says how a model is claimed on this filesystem: `link`
    (a hard link made only if absent) or `rename` (renaming a directory that is not empty). `population` is
    the number of population points, None where there are none. `training` is what the job that planned the
    store wants remembered of how its models are trained, None if it said nothing.
    """

    format: int
    models: int
    examples: int
    augmentations: tuple[str, ...]
    classes: int | None
    dtype: str
    name: str
    fingerprint: str
    design: Mapping[str, Json]
    signals: Mapping[str, tuple[str, ...]]
    claim: str
    created_at: str
    library_version: str
    population: int | None = None
    training: Mapping[str, Json] | None = None

    def to_json(self) -> dict[str, Json]:
        """The document as stored."""
        document = dict(vars(self))
        document["augmentations"] = list(self.augmentations)
        document["design"] = dict(self.design)
        document["signals"] = {name: list(dims) for name, dims in self.signals.items()}
        for optional in ("population", "training"):
            if document[optional] is None:
                del document[optional]
        return document

    @classmethod
    def from_json(cls, document: Json, where: str) -> StoreInfo:
        """Parses the attributes of the group at `where`.

        Raises NotAStore if they are not lirastore's, FormatVersionError if they are of a newer format,
        DamagedStore if a field is missing or has a wrong type.
        """
        if not isinstance(document, dict) or not isinstance(document.get("format"), int):
            raise NotAStore(
                f"{where} is a Zarr group but no lirastore store: it has no lirastore.format attribute"
            )
        if document["format"] != FORMAT:
            raise FormatVersionError(
                f"{where} has format {document['format']}, this library reads {FORMAT}: upgrade lirastore"
            )
        try:
            return cls._parse(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedStore(f"{where}: the attribute lirastore is malformed: {error!r}") from error

    @classmethod
    def _parse(cls, document: dict[str, Json]) -> StoreInfo:
        classes, population = document["classes"], document.get("population")
        training = document.get("training")
        info = cls(
            format=FORMAT,
            models=int(document["models"]),
            examples=int(document["examples"]),
            augmentations=tuple(str(name) for name in document["augmentations"]),
            classes=None if classes is None else int(classes),
            dtype=str(document["dtype"]),
            name=str(document["name"]),
            fingerprint=str(document["fingerprint"]),
            design=dict(document["design"]),
            signals={str(name): tuple(dims) for name, dims in document["signals"].items()},
            claim=str(document["claim"]),
            created_at=str(document["created_at"]),
            library_version=str(document["library_version"]),
            population=None if population is None else int(population),
            training=None if training is None else dict(training),
        )
        info._check()
        return info

    def _check(self) -> None:
        sizes = (
            self.models,
            self.examples,
            len(self.augmentations),
            1 if self.population is None else self.population,
        )
        if min(sizes) < 1 or (self.classes is not None and self.classes < 2):
            raise ValueError(f"sizes {sizes} with classes {self.classes}")
        if self.dtype not in DTYPES or self.claim not in CLAIM_METHODS:
            raise ValueError(f"dtype {self.dtype!r}, claim {self.claim!r}")
        for name, dims in self.signals.items():
            if check_signal_name(name) and dims not in (SIGNAL_DIMS, FLAT_SIGNAL_DIMS):
                raise ValueError(f"dims {dims} of signal {name}")
