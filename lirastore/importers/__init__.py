"""Imports somebody else's outputs into a store, and writes the exchange form that others can read.

`carlini`           a log directory of tensorflow/privacy research/mi_lira_2021
`lira-pytorch`      a `--savedir` of orientino/lira-pytorch
`lira-analysis`     an experiment of najeebjebreel/lira_analysis
`misleading-evals`  an experiment of ethz-spylab/misleading-privacy-evals
`privacy-meter`     a `log_dir` of privacytrustlab/ml_privacy_meter 2
`leakpro`           an `output_dir` of aidotse/LeakPro
`npz`               one `.npz`, or a directory of `model-*.npz`: the exchange form, which `export` writes

Every layout is one module of this package, named in `FORMATS`, that satisfies `source.Importer`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from lirastore.errors import InputError, SourceError, name_some

if TYPE_CHECKING:
    from lirastore.importers.source import Importer
    from lirastore.store import LogitStore

__all__ = ["FORMATS", "IngestReport", "detect", "export", "ingest"]

FORMATS: Final = (
    "carlini",
    "lira-pytorch",
    "lira-analysis",
    "misleading-evals",
    "privacy-meter",
    "leakpro",
    "npz",
)
"""Names of the layouts; the module is called the same, with `_` for `-`."""


@dataclass(frozen=True)
class IngestReport:
    """What an import did. `str()` is a statement for people.

    ingested: models committed by this call. skipped: models that were in the store already. missing: models
    without outputs, allowed. clipped: by model, how many values stood exactly at the end of their range,
    where the scaled logit is infinite, and were clipped.
    """

    path: Path
    format: str
    models: int
    ingested: tuple[int, ...]
    skipped: tuple[int, ...]
    missing: tuple[int, ...]
    clipped: dict[int, int]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.path}: {len(self.ingested)} of {self.models} models ingested ({self.format})"]
        if self.skipped:
            lines[0] += f", {len(self.skipped)} were there already"
        if self.missing:
            lines.append(f"missing, as allowed: models {name_some(self.missing)}")
        if self.clipped:
            lines.append(
                f"clipped {sum(self.clipped.values())} values of {len(self.clipped)} models: confidences of "
                "exactly 0 or 1 or losses of exactly 0, whose scaled logits are infinite (metadata `clipped`)"
            )
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


def detect(source: str | PathLike[str]) -> str:
    """The layout of `source`, judged by names. Raises SourceError if none or several fit."""
    path = Path(source)
    if not path.exists():
        raise SourceError(f"{path}: no such file or directory")
    fitting = [name for name in FORMATS if importer(name).recognises(path)]
    if len(fitting) == 1:
        return fitting[0]
    expected = "; ".join(f"{name}: {importer(name).EXPECTS}" for name in fitting or FORMATS)
    if fitting:
        raise SourceError(
            f"{path}: could be {' or '.join(fitting)} ({expected}); choose with --format {fitting[0]} "
            f'(format="{fitting[0]}")'
        )
    raise SourceError(
        f"{path}: not recognised. Expected one of — {expected}. Give the directory that holds these"
    )


def importer(name: str) -> Importer:
    """The module that reads a layout. Raises InputError for an unknown name."""
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}: expected auto, {', '.join(FORMATS)}")
    return cast("Importer", importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))


def ingest(
    source: str | PathLike[str],
    store_path: str | PathLike[str],
    *,
    format: str = "auto",
    allow_missing: bool = False,
    epoch: int | None = None,
    labels: str | PathLike[str] | None = None,
    membership: str | PathLike[str] | None = None,
    dtype: str | None = None,
    name: str | None = None,
    progress: bool = True,
) -> IngestReport:
    """Imports `source` into the store at `store_path`, which is made if it does not exist.

    Row m of the store is model m of the source. The structure of all models is checked before the first
    write: headers, shapes, sizes, types, masks, labels, identities, checksums of archives. Values are checked
    while they stream: a model with a NaN or an infinity is not committed, the ones before it stay.

    An import that was interrupted resumes, and several may share the work: models that are in the store are
    skipped. It must then be the same experiment (labels, membership, augmentations, classes), and the
    skipped models must have come from what the source has now: name and fingerprint, which are in their
    metadata as `source_id` and `source_fingerprint`, are compared. The fingerprint of a `.npy` samples 17
    pages of 4 KiB spread over the whole file: it tells another training run apart, but not an edit of a few
    values between the samples. That of a model in a `.npz` is over all its values.

    format: one of FORMATS, or `auto`. allow_missing: import although models are missing; they stay
    uncommitted, and one whose training set the source does not tell can never be written to this store.
    epoch: which saved epoch, for layouts that have several; default: the latest, which must then be the same
    of all models. labels: a `.npy` of (E,) integers, for layouts that do not store the labels. membership: a
    `.npy` of (M, E) bool, or JSON, for a layout that stores the masks in pickles, which are never loaded (see
    `leakpro`). An option for which the layout has no use is an error. dtype: of the stored logits, `float32`
    or `float16`; default: float16 if the source's are, else float32. name: of the data set, in a new store;
    published values, and RMIA's a, go by it. Default: what the source says, else its directory's name, or
    where only a directory above tells the data set, the path from there (`cifar10/resnet18/seed1`). A store
    that is there must have the name that is given. progress: show it on stderr, if that is a terminal.

    Memory: labels and masks, a few slices of 4 MiB, and the writer's own; values and pictures are never held
    whole, whatever the size of the source.

    Raises SourceError if the source is not what its layout promises or not what the store was made of,
    NonFiniteLogits, InputError, also where no store can stand at `store_path`, and the errors of opening one.
    """
    from lirastore.importers.run import check_place, run
    from lirastore.importers.source import Options, check_options
    from lirastore.store.layout import ATTEMPTS, LIRA

    path = Path(source)
    check_place(Path(store_path))
    layout = detect(path) if format == "auto" else format
    chosen = importer(layout)
    if not path.exists():
        raise SourceError(f"{path}: no such file or directory")
    check_options(layout, chosen.TAKES, {"epoch": epoch, "labels": labels, "membership": membership})
    options = Options(
        allow_missing=allow_missing,
        epoch=epoch,
        labels=None if labels is None else Path(labels),
        membership=None if membership is None else Path(membership),
        progress=progress,
        scratch=Path(store_path) / LIRA / ATTEMPTS,
    )
    return run(chosen.scan(path, options), Path(store_path), dtype=dtype, name=name, progress=progress)


def export(store: LogitStore, file: str | PathLike[str]) -> None:
    """Writes the committed models as one `.npz`, the form that `ingest` reads; see `npzexport.export`."""
    from lirastore.importers.npzexport import export as write

    write(store, Path(file))
