"""What attacks leave behind: Parquet parts of a run, and one small document that names the current run.

    results/<kind>/<attack>/<run>/part-<first example>.parquet   kinds: scores, examples, pairs, power
    results/current/<attack>.json                                points at the run; replaced atomically
    results/evaluation/<attack>/<run>.json                       intervals of that run (lirastore.evaluation)

Readers take the exact files that a current document names and never list a directory, so two runs do not
mix, and an unfinished run is invisible. Paths here are relative to `results/`, with forward slashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from lirastore.errors import FormatVersionError, ResultError
from lirastore.store.fsio import clock, entries, move, remove_tree, write_atomic

if TYPE_CHECKING:
    from lirastore.store import LogitStore

__all__ = [
    "RESULTS_FORMAT",
    "Kind",
    "PartObject",
    "Result",
    "current",
    "evaluation_file",
    "find",
    "parse",
    "part_path",
    "publish",
    "remove_old_runs",
    "results_folder",
    "run_folder",
    "stale",
    "verify_results",
]

RESULTS_FORMAT = 1

_TRASH = ".trash-"

# A run that is being written is touched every 30 seconds. One that has been silent for this long is dead.
RUN_SECONDS = 600.0

Kind = Literal["scores", "examples", "pairs", "power"]


@dataclass(frozen=True)
class PartObject:
    """What a part holds, so that verification means something: rows, size in bytes, sha256 (hex)."""

    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Result:
    """The current result of one attack, as its document states it.

    `columns` are the Parquet columns in order: model, example, score, member (score: higher means member)
    for kind "scores"; example and the attack's own columns for kind "examples"; example, other and a value
    for kind "pairs". Kind "power" is scores with few shadow models: `attack` is `<base>__k<K>_q<q>`, and
    `parameters` hold {"attack": base, "models": K, "queries": q}. `parts` are in the order of their first
    example; `models` are the committed models it was computed from, `set_digest` their digest. `seconds` is
    wall time, `bytes_read` what was read of the store's arrays.
    """

    attack: str
    run: str
    kind: Kind
    columns: tuple[str, ...]
    parts: tuple[str, ...]
    objects: Mapping[str, PartObject]
    preset: str
    models: tuple[int, ...]
    set_digest: str
    parameters: Mapping[str, Any]
    equal_counts: bool
    seed: int
    seconds: float
    bytes_read: int
    finished_at: str
    library_version: str
    warnings: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows over all parts."""
        return sum(part.rows for part in self.objects.values())

    @property
    def arguments(self) -> list[str]:
        """What to pass to `lirastore attack STORE` for this attack, options that change the scores aside."""
        if self.kind != "power":
            return [self.attack]
        limits = (self.parameters["attack"], self.parameters["models"], self.parameters["queries"])
        return [str(limits[0]), "--models", str(limits[1]), "--queries", str(limits[2])]

    def files(self, lira: Path) -> list[Path]:
        """The Parquet files, in the order of their first example."""
        return [results_folder(lira) / part for part in self.parts]

    def to_json(self) -> bytes:
        """The document, as it is stored."""
        document = {"format": RESULTS_FORMAT, **asdict(self)}
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def results_folder(lira: Path) -> Path:
    """`_lirastore/results` of a store."""
    return lira / "results"


def run_folder(kind: Kind, attack: str, run: str) -> str:
    """Folder of one run, relative to `results/`."""
    return f"{kind}/{attack}/{run}"


def part_path(kind: Kind, attack: str, run: str, first_example: int) -> str:
    """Path of the part that starts at `first_example`, relative to `results/`."""
    return f"{run_folder(kind, attack, run)}/part-{first_example:010d}.parquet"


def evaluation_file(lira: Path, attack: str, run: str) -> Path:
    """Where the evaluation document of a run is, if it has one."""
    return results_folder(lira) / "evaluation" / attack / f"{run}.json"


def _document_path(lira: Path, attack: str) -> Path:
    return results_folder(lira) / "current" / f"{attack}.json"


def parse(text: bytes, name: str) -> Result:
    """Reads a current document; `name` is for messages.

    Raises FormatVersionError for a newer format, ResultError for anything that is not such a document.
    """
    try:
        document = dict(json.loads(text))
        version = int(document.pop("format"))
    except (ValueError, TypeError, KeyError) as error:
        raise ResultError(f"{name} is not a result document ({error}); attack again to replace it") from error
    if version > RESULTS_FORMAT:
        raise FormatVersionError(
            f"{name} has result format {version}, this library reads up to {RESULTS_FORMAT}; update lirastore"
        )
    try:
        return _from_document(document)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ResultError(
            f"{name} lacks or misstates a field ({error}); attack again to replace it"
        ) from error


def _from_document(document: dict[str, Any]) -> Result:
    known = {item.name for item in fields(Result)}
    values = {key: value for key, value in document.items() if key in known}
    for key in ("columns", "parts", "models", "warnings"):
        values[key] = tuple(values.get(key, ()))
    values["objects"] = {path: PartObject(**part) for path, part in values["objects"].items()}
    if values["kind"] not in get_args(Kind) or set(values["objects"]) != set(values["parts"]):
        raise ValueError("kind or parts")
    if values["kind"] == "power" and not {"attack", "models", "queries"} <= values["parameters"].keys():
        raise ValueError("parameters")
    return Result(**values)


def current(lira: Path) -> dict[str, Result]:
    """The current result of every attack, by name, in alphabetical order; empty when there is none.

    Raises ResultError for a document that cannot be read, FormatVersionError for a newer one.
    """
    folder = results_folder(lira) / "current"
    if not folder.is_dir():
        return {}
    documents = sorted(path for path in folder.iterdir() if _is_document(path))
    return {path.stem: parse(_read(path), f"results/current/{path.name}") for path in documents}


def find(lira: Path, attack: str) -> Result | None:
    """The current result of one attack; None if there is none, or if its document is unreadable.

    For whoever is about to compute it anew, which is the remedy. Raises FormatVersionError for a newer one.
    """
    path = _document_path(lira, attack)
    if not path.exists():
        return None
    try:
        return parse(_read(path), path.name)
    except ResultError:
        return None


def _is_document(path: Path) -> bool:
    return path.suffix == ".json" and not path.name.startswith(".")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResultError(f"{path} cannot be read ({error}); attack again to replace it") from error


def stale(store: LogitStore) -> list[str]:
    """The attacks, by name, whose results are of other models than those that are committed now."""
    found = current(store.lira)
    digest = store.set_digest() if found else ""
    return [name for name, result in found.items() if result.set_digest != digest]


def publish(lira: Path, result: Result) -> None:
    """Makes a finished run the current one of its attack, by one atomic replacement.

    The run that it replaces is touched, so that its age, by which gc decides, counts from now: a reader
    that has just bound its files keeps them.
    """
    path = _document_path(lira, result.attack)
    path.parent.mkdir(parents=True, exist_ok=True)
    previous = find(lira, result.attack)
    write_atomic(path, result.to_json())
    if previous is not None:
        _touch(results_folder(lira) / run_folder(previous.kind, previous.attack, previous.run))


def _touch(folder: Path) -> None:
    if folder.is_dir():
        os.utime(folder)


# --- old runs ------------------------------------------------------------------------------------


def remove_old_runs(lira: Path, older_than: float = 24 * 3600.0) -> list[str]:
    """Deletes runs that no current document names and that nothing has touched for `older_than` seconds, and
    for ten minutes at least: a run being written is touched all the time, so it is younger than that.

    Remains of killed writers in the kept runs go at the same age. A run is renamed before it is deleted: a
    deletion that is killed leaves trash, for the next call, and never half a run. Evaluations go with their
    runs. Returns the deleted runs, relative to `results/`.
    """
    folder = results_folder(lira)
    kept = {run_folder(result.kind, result.attack, result.run) for result in current(lira).values()}
    runs = _runs(folder)
    limit = clock(folder) - max(RUN_SECONDS, older_than) if runs else 0.0
    removed = []
    for run in runs:
        name = run.relative_to(folder).as_posix()
        if run.name.startswith(_TRASH):
            remove_tree(run)
        elif _last_touched(run) >= limit:
            continue
        elif name in kept:
            _remove_remains(run)
        else:
            trash = run.with_name(f"{_TRASH}{uuid.uuid4().hex}")
            if move(run, trash):
                remove_tree(trash)
                removed.append(name)
    _remove_evaluations(folder, limit)
    return removed


def _remove_evaluations(folder: Path, limit: float) -> None:
    """Deletes evaluations of runs that are gone, and what killed writers left before `limit`."""
    for attack in entries(folder / "evaluation"):
        runs = {run.name for kind in get_args(Kind) for run in entries(folder / kind / attack.name)}
        for path in entries(attack):
            gone = _is_document(path) and path.stem not in runs
            if gone or (_is_remainder(path) and _mtime(path) < limit):
                path.unlink(missing_ok=True)


def _runs(folder: Path) -> list[Path]:
    attacks = [attack for kind in get_args(Kind) for attack in entries(folder / kind)]
    return [run for attack in attacks for run in entries(attack) if run.is_dir()]


def _last_touched(run: Path) -> float:
    """The folder last: what vanishes from it while this looks on changes the folder's own time."""
    return max(map(_mtime, (*entries(run), run)))


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # published under its name, or removed, this moment
        return 0.0


def _remove_remains(run: Path) -> None:
    for path in entries(run):
        if _is_remainder(path):
            path.unlink(missing_ok=True)


def _is_remainder(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".partial"


# --- verification --------------------------------------------------------------------------------


def verify_results(lira: Path) -> list[str]:
    """Checks size and sha256 of every file that a current document names.

    Returns what is wrong and the remedy, one line each, starting with the path relative to `results/`; empty:
    all is well.
    """
    folder = results_folder(lira) / "current"
    documents = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return [line for path in documents if _is_document(path) for line in _verify_document(lira, path)]


def _verify_document(lira: Path, path: Path) -> Iterator[str]:
    try:
        result = parse(_read(path), path.name)
    except (ResultError, FormatVersionError) as error:
        yield f"current/{path.name}: {error}"
        return
    for part, expected in result.objects.items():
        problem = _verify_part(results_folder(lira) / part, expected)
        if problem:
            yield f"{part}: {problem}; compute it again: {_remedy(lira, result)}"


def _remedy(lira: Path, result: Result) -> str:
    """The command that replaces a result by the same, computed anew."""
    options = [] if result.preset == "paper" else ["--preset", result.preset]
    if result.equal_counts:
        options += ["--equal-counts", "--seed", str(result.seed)]
    if result.options.get("skip_unattackable"):
        options.append("--skip-unattackable")
    return shlex.join(["lirastore", "attack", str(lira.parent), *result.arguments, *options, "--force"])


def _verify_part(file: Path, expected: PartObject) -> str | None:
    if not file.is_file():
        return "absent"
    size = file.stat().st_size
    if size != expected.bytes:
        return f"{size} bytes, expected {expected.bytes}"
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return None if digest == expected.sha256 else f"sha256 {digest[:12]}…, expected {expected.sha256[:12]}…"
