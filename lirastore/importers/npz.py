"""The exchange form: one `.npz` with all models, or a directory with one `model-*.npz` for each.

One file, M models, E examples, A augmentations, C classes; the augmentation axis may be absent (A = 1):

    logits (M, E[, A], C) | scaled_logit (M, E[, A]) | confidence (M, E[, A]) | loss (M, E[, A])
                           exactly one of these; all but the first make a signal-only store
    membership (M, E) bool, label (E,) integers

and, all optional, what `export` adds so that a store comes back as it was:

    model (M,)             row in the store of each of the models above; default 0, 1, …
    models ()              how many are planned; default the highest `model` and one
    planned_membership (models, E) bool      masks of all planned ones, where some are missing
    source_id (M,), metadata (M,)            names, and JSON objects, of the models
    augmentation (A,)      names; name ()    of the experiment; design () JSON: how masks were drawn
    attackable (E,) bool, preview (E, H, W, channel) uint8, features (E, d) numbers
    population_scaled_logit (M, Z)           φ of Z points that no model was trained on
    signal.NAME (M, E[, A])                  auxiliary arrays

In a directory the number in `model-3.npz` is the model's row, the arrays lack the model axis, and label,
augmentation and models must be the same in all files. Other members are left alone, and named in a warning.

Confidences p and losses ℓ are of the true class: φ = log p − log(1 − p) = −log(e^ℓ − 1), in float64. φ is
infinite only where p is exactly 0 or 1, or ℓ exactly 0, and only these are clipped, counted, and reported as
`clipped`. p is taken as the nearest number its type has between 0 and 1. ℓ is taken as the unit roundoff of
its type, below which a loss computed by log-softmax becomes 0; or as the smallest positive loss of the
source if that is smaller still, so that no certainty ranks below a doubt. The models it happened to have
that number in their metadata as `clipped_to`.

Archives are read twice: once through, before the first write, so that damage is found by its checksum and
every model has a fingerprint; then to import. Losses are read a third time, for the smallest one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lirastore.errors import SourceError, name_some
from lirastore.importers.npyfile import open_npz
from lirastore.importers.npzform import MEMBERS, Archive, Form, Row, read_form
from lirastore.importers.npzstream import Handles, least_loss, population, stream
from lirastore.importers.source import (
    Experiment,
    Options,
    SourceModel,
    check_labels,
    missing_models,
    parse_json,
)
from lirastore.store import Sliced
from lirastore.store.layout import POPULATION

EXPECTS: Final = "a .npz file, or a directory of model-*.npz files"
TAKES: Final[frozenset[str]] = frozenset()

_MODEL_FILE: Final = re.compile(r"model-(\d+)\.npz")
_ZIP_MAGIC: Final = b"PK"
_LARGEST_MASKS: Final = 4 << 30


def recognises(source: Path) -> bool:
    """Whether `source` is a zip file, or a directory that holds files named model-….npz."""
    if source.is_dir():
        return any(_MODEL_FILE.fullmatch(path.name) for path in source.iterdir())
    with source.open("rb") as file:
        return file.read(2) == _ZIP_MAGIC


def scan(source: Path, options: Options) -> Experiment:
    """Checks the file, or all files of the directory. Raises SourceError naming file and member."""
    rows = _one_per_file(source) if source.is_dir() else _one_file(source)
    form = _common_form(rows)
    first = rows[0].archive
    labels = check_labels(
        _common(rows, "label"), first.need("label").where, examples=form.examples, classes=form.classes
    )
    membership, missing, unknown = _memberships(source, rows, form, options)
    fingerprints, resources = _checksums(rows, form, options.progress), ExitStack()
    return Experiment(
        format="npz",
        name=_text(first, "name") or source.stem,
        labels=labels,
        membership=membership,
        augmentations=_augmentations(rows, form),
        classes=form.classes,
        dtype="float16" if first.need(form.values).dtype.itemsize == 2 else "float32",
        models=tuple(_models(rows, form, fingerprints, Handles(resources))),
        missing=missing,
        unknown_masks=unknown,
        design=_design(first),
        preview=_preview(first, form, resources),
        attackable=first.maybe("attackable", (form.examples,), "b"),
        signals=form.signals,
        population=form.population,
        features=_features(first, form, resources),
        warnings=tuple(_warnings(rows, form)),
        resources=resources,
    )


# --- which models there are -----------------------------------------------------------------------


def _one_file(source: Path) -> list[Row]:
    members = open_npz(source)
    lead = Archive(source, members, ()).need("membership").shape[:1]
    archive = Archive(source, members, lead)
    if not lead or not lead[0]:
        raise SourceError(
            f"{archive.need('membership').where}: expected (models, examples), one model or more"
        )
    ids = archive.maybe("model", lead, "iu")
    numbers = list(range(*lead)) if ids is None else ids.tolist()
    if len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise SourceError(
            f"{archive.need('model').where}: model ids must be 0 or more and each must stand once; they are "
            f"{name_some(numbers)}"
        )
    return [Row(number, archive, index) for index, number in enumerate(numbers)]


def _one_per_file(source: Path) -> list[Row]:
    rows: dict[int, Row] = {}
    for path in sorted(source.iterdir()):
        match = _MODEL_FILE.fullmatch(path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in rows:
            raise SourceError(
                f"{path} and {rows[number].archive.path.name} are both model {number}; move one away"
            )
        rows[number] = Row(number, Archive(path, open_npz(path), ()), 0)
    if not rows:
        raise SourceError(f"{source}: expected {EXPECTS}; there is none")
    return [rows[number] for number in sorted(rows)]


def _archives(rows: list[Row]) -> list[Archive]:
    return [row.archive for row in rows if row.index == 0]


def _memberships(
    source: Path, rows: list[Row], form: Form, options: Options
) -> tuple[NDArray[np.bool_], tuple[int, ...], tuple[int, ...]]:
    """Masks of all planned models; the models that are missing; those of them whose masks are unknown."""
    models = _planned(rows, form)
    present = {row.model for row in rows}
    missing = tuple(sorted(set(range(models)) - present))
    missing_models(missing, models, source, allowed=options.allow_missing)
    first = rows[0].archive
    planned = first.maybe("planned_membership", (models, form.examples), "b")
    membership = np.zeros((models, form.examples), dtype=np.bool_) if planned is None else planned.copy()
    for archive in _archives(rows):
        mine = [row.model for row in rows if row.archive is archive]
        masks = archive.load("membership", (*archive.lead, form.examples), "b").reshape(len(mine), -1)
        if planned is not None and not np.array_equal(planned[mine], masks):
            raise SourceError(
                f"{archive.need('membership').where}: differs from planned_membership; correct one of them"
            )
        membership[mine] = masks
    if planned is None:
        return membership, missing, missing
    listed = _design(first).get("unknown_masks")
    never_known = listed if isinstance(listed, list) else []
    return membership, missing, tuple(model for model in missing if model in never_known)


def _planned(rows: list[Row], form: Form) -> int:
    """How many models are planned. Raises SourceError where that cannot be meant."""
    archive = rows[0].archive
    highest = max(row.model for row in rows)
    given = archive.maybe("models", (), "iu")
    models = highest + 1 if given is None else int(given)
    if given is not None:
        _common(rows, "models")
    if models <= highest:
        raise SourceError(
            f"{archive.need('models').where}: {models}, but there is a model {highest}; correct it"
        )
    if models * form.examples > _LARGEST_MASKS:
        raise SourceError(
            f"{archive.path}: {models} models, the highest being {highest}, of {form.examples} examples: "
            f"more than {_LARGEST_MASKS} masks; a model's id is its row in the store: number them from 0"
        )
    return models


# --- what all files must agree on -----------------------------------------------------------------


def _common_form(rows: list[Row]) -> Form:
    first = rows[0].archive
    form = read_form(first)
    for archive in _archives(rows):
        other = read_form(archive)
        if other != form:
            raise SourceError(
                f"{archive.path}: holds {other}, but {first.path.name} holds {form}; all models must have "
                "outputs of one kind on the same examples and queries"
            )
    return form


def _common(rows: list[Row], name: str) -> NDArray[Any]:
    """A small member that must be the same in all files."""
    first = rows[0].archive
    value = first.need(name).load()
    for archive in _archives(rows):
        if not np.array_equal(archive.need(name).load(), value):
            raise SourceError(
                f"{archive.path}: {name} differs from the one in {first.path.name}; all models must be "
                "evaluated on the same examples, in the same order, under the same queries"
            )
    return value


# --- what they say about the experiment -----------------------------------------------------------


def _augmentations(rows: list[Row], form: Form) -> tuple[str, ...]:
    archive = rows[0].archive
    if "augmentation" not in archive.members:
        return (
            ("identity",)
            if form.augmentations == 1
            else tuple(f"query{n}" for n in range(form.augmentations))
        )
    names = archive.load("augmentation", (form.augmentations,), "U")
    if not np.array_equal(_common(rows, "augmentation"), names) or len(set(names.tolist())) < len(names):
        raise SourceError(
            f"{archive.need('augmentation').where}: {names.tolist()}, expected names that differ"
        )
    return tuple(names.tolist())


def _text(archive: Archive, name: str) -> str:
    value = archive.maybe(name, (), "U")
    return "" if value is None else str(value)


def _design(archive: Archive) -> dict[str, Any]:
    text = _text(archive, "design")
    return _object(text, archive.need("design").where) if text else {"scheme": "imported", "format": "npz"}


def _object(text: str, where: str) -> dict[str, Any]:
    value = parse_json(text, where)
    if not isinstance(value, dict):
        raise SourceError(f"{where}: expected a JSON object, found {text[:80]!r}")
    return value


def _preview(
    archive: Archive, form: Form, resources: ExitStack
) -> Callable[[list[str]], Sliced | None] | None:
    member = archive.members.get("preview")
    if member is None:
        return None
    if member.dtype != np.uint8 or len(member.shape) != 4 or member.shape[0] != form.examples:
        raise SourceError(
            f"{member.where}: {member.dtype} {member.shape}, expected uint8 ({form.examples}, height, width, "
            "channel)"
        )
    pictures = member.require_c_order()
    return lambda _: resources.enter_context(pictures.slices())


def _features(archive: Archive, form: Form, resources: ExitStack) -> Sliced | None:
    member = archive.members.get("features")
    if member is None:
        return None
    if member.dtype.kind not in "fiu" or len(member.shape) != 2 or member.shape[0] != form.examples:
        raise SourceError(
            f"{member.where}: {member.dtype} {member.shape}, expected numbers ({form.examples}, d)"
        )
    return resources.enter_context(member.slices())


def _warnings(rows: list[Row], form: Form) -> Iterator[str]:
    archive = rows[0].archive
    ignored = sorted(set(archive.members) - MEMBERS - set(form.members))
    if ignored:
        yield f"{archive.path}: left alone: {name_some(ignored)}"


# --- the models -----------------------------------------------------------------------------------


def _checksums(rows: list[Row], form: Form, progress: bool) -> dict[int, str]:
    """Reads all values once: a fingerprint for each model, or SourceError where a checksum is wrong."""
    archives = _archives(rows)
    members = (*form.members, *(() if form.population is None else (POPULATION,)))
    others = [archives[0].need(name) for name in ("preview", "features") if name in archives[0].members]
    total = sum(archive.need(name).nbytes for archive in archives for name in members)
    total += sum(other.nbytes for other in others)
    parts: dict[int, list[str]] = {row.model: [] for row in rows}
    bar = tqdm(
        total=total, desc="check archive", unit="B", unit_scale=True, disable=None if progress else True
    )
    with closing(bar):
        for archive in archives:
            mine = [row.model for row in rows if row.archive is archive]
            for name in members:
                for model, checksum in zip(
                    mine, archive.need(name).checksums(len(mine), bar.update), strict=True
                ):
                    parts[model].append(checksum)
        for other in others:
            other.checksums(1, bar.update)
    return {model: f"crc32:{'-'.join(checksums)}" for model, checksums in parts.items()}


def _models(
    rows: list[Row], form: Form, fingerprints: Mapping[int, str], handles: Handles
) -> Iterator[SourceModel]:
    archives = _archives(rows)
    least = least_loss([archive.need("loss") for archive in archives]) if form.values == "loss" else None
    for archive in archives:
        mine = [row for row in rows if row.archive is archive]
        ids = archive.maybe("source_id", archive.lead, "U")
        texts = archive.maybe("metadata", archive.lead, "U")
        for row in mine:
            yield SourceModel(
                model=row.model,
                origin=archive.need(form.values).where,
                source_id=str(row.model) if ids is None else str(ids.reshape(-1)[row.index]),
                fingerprint=fingerprints[row.model],
                metadata={}
                if texts is None
                else _object(texts.reshape(-1)[row.index], archive.need("metadata").where),
                stream=partial(stream, row, form, handles, least),
                population=None if form.population is None else partial(population, row, form, handles),
            )
