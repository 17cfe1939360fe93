"""Verification: everything in the store against the digests that its documents state."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lirastore.errors import DamagedStore, LirastoreError, ModelNotCommitted
from lirastore.store.commit import Commit, committed_models, keep_mask_digest, model_digest, read_commit
from lirastore.store.fsio import entries
from lirastore.store.integrity import explain, readable_spec, store_damage
from lirastore.store.layout import RESULTS
from lirastore.store.plain import read_plain
from lirastore.store.protocol import Places, current_claim
from lirastore.store.reader import Unreadable
from lirastore.store.shards import StoredObject

if TYPE_CHECKING:
    from lirastore.store.open import LogitStore

__all__ = ["VerifyReport", "verify_store"]

_REMEDY = "restore it from a copy of the store, or discard the model and write it again"


@dataclass
class VerifyReport:
    """What was checked, and what is damaged: lines by model; under None what belongs to no model."""

    damaged: dict[int | None, list[str]] = field(default_factory=dict)
    models: int = 0
    objects: int = 0
    bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    def lines(self) -> list[str]:
        """One line per damage, naming its model, and a last one that says what was checked."""
        order = sorted(self.damaged, key=lambda model: -1 if model is None else model)
        found = [
            f"{'store' if model is None else f'model {model}'}: {problem}"
            for model in order
            for problem in self.damaged[model]
        ]
        problems = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        verdict = "all is well" if self.ok else problems
        checked = f"{self.models} models, {self.objects} objects, {self.bytes} bytes checked"
        return [*found, f"{checked}: {verdict}"]

    def add(self, model: int | None, problems: list[str]) -> None:
        """Adds what was found, each problem once; nothing if there are no problems."""
        if problems:
            known = self.damaged.setdefault(model, [])
            known.extend(problem for problem in problems if problem not in known)


def verify_store(
    store: LogitStore,
    *,
    results: Callable[[Path], list[str]] | None = None,
    progress: bool = False,
) -> VerifyReport:
    """Reads everything: documents, small arrays, every object of every committed model, result files.

    Per model: its marker and claim, its membership row, size and sha256 of each object, the checksums within,
    that all values are finite, and that there are no other objects. `results(lira)` checks the results and
    returns one line per problem. progress: a bar on stderr, if that is a terminal. Damage is reported, not
    raised; models withdrawn meanwhile are left out. Memory: labels and masks, a few pieces of 8 MB, and an
    inner chunk or two per thread, whatever the number of models and pictures.
    """
    from tqdm import tqdm

    report = VerifyReport()
    for owner, problem in store_damage(store):
        report.add(owner, [problem])
    if results is not None:
        report.add(None, [f"{RESULTS}/{line}" for line in results(store.lira)])
    models = committed_models(store)
    for model, problem in _strays(store, set(models)):
        report.add(model, [problem])
    disable = None if progress else True
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = pool.map(lambda model: _Check(store, model).run(), models)
        for check in tqdm(checks, "verify", len(models), unit="model", file=sys.stderr, disable=disable):
            report.models += 1
            report.objects += check.objects
            report.bytes += check.bytes
            report.add(check.model, check.problems)
    return report


def _strays(store: LogitStore, committed: set[int]) -> Iterator[tuple[int, str]]:
    """Models with objects in place though nobody committed or claimed them."""
    places = Places.of(store)
    names = {path.name for name in store.arrays for path in entries(places.array(name, 0).parent)}
    for model in sorted({int(name) for name in names if name.isdecimal()} - committed):
        try:
            if current_claim(places, model).attempt is None:
                yield model, "it has objects, but nobody committed or claimed it: move them out of the store"
        except DamagedStore as error:
            yield model, str(error)


class _Check:
    """The verification of one committed model."""

    def __init__(self, store: LogitStore, model: int) -> None:
        self.model = model
        self.objects = 0
        self.bytes = 0
        self.problems: list[str] = []
        self._store = store

    def run(self) -> _Check:
        """Checks until the model stays the same meanwhile: it may be withdrawn, and be written again."""
        seen: Commit | None = None
        while True:
            try:
                commit = read_commit(self._store, self.model)
            except ModelNotCommitted:
                return self._start()
            except LirastoreError as error:
                return self._start(str(error))
            if commit == seen:
                return self
            seen = commit
            self._start()
            try:
                self.problems = [*self._document(commit), *self._objects(commit)]
            except (LirastoreError, OSError) as error:
                self.problems = [str(error)]

    def _start(self, *problems: str) -> _Check:
        self.problems, self.objects, self.bytes = list(problems), 0, 0
        return self

    def _document(self, commit: Commit) -> Iterator[str]:
        store = self._store
        if model_digest(commit.objects) != commit.digest:
            yield f"the marker's digest is not that of the objects it lists; {_REMEDY}"
        yield from self._membership(commit)
        yield from self._claim()
        arrays = store.arrays.items()
        expected = {f"{name}/c/{self.model}/{key}" for name, spec in arrays for key in spec.keys()}  # noqa: SIM118
        for key in sorted(expected - commit.objects.keys()):
            yield f"{key}: absent from the marker; {_REMEDY}"
        for key in sorted((self._present() | commit.objects.keys()) - expected):
            yield f"{key}: no object of this store; move it out"

    def _membership(self, commit: Commit) -> Iterator[str]:
        spec = readable_spec(self._store, "membership")
        if spec is None:
            return
        try:
            row = read_plain(self._store.path, spec, np.array([self.model]))[0]
        except Unreadable as error:
            yield explain(error)
            return
        if keep_mask_digest(row) != commit.keep_mask:
            key = spec.key(self.model // spec.chunk_shape[0])
            problem = "its membership row is not the one it was written with"
            yield f"{problem}; restore {key} from a copy of the store"

    def _claim(self) -> Iterator[str]:
        try:
            current_claim(Places.of(self._store), self.model)
        except DamagedStore as error:
            yield str(error)

    def _present(self) -> set[str]:
        root = self._store.path
        folders = [root / name / "c" / str(self.model) for name in self._store.arrays]
        files = (path for folder in folders for path in folder.rglob("*") if not path.is_dir())
        return {path.relative_to(root).as_posix() for path in files}

    def _objects(self, commit: Commit) -> Iterator[str]:
        damaged = set()
        for key, expected in commit.objects.items():
            problem = self._object(key, expected)
            if problem is not None:
                damaged.add(key.split("/", 1)[0])
                yield f"{key}: {problem}; {_REMEDY}"
        for name in sorted(self._store.arrays.keys() - damaged):
            yield from self._values(name)

    def _object(self, key: str, expected: StoredObject) -> str | None:
        try:
            with (self._store.path / key).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            return str(error.strerror).lower()
        self.objects += 1
        self.bytes += size
        if size != expected.size:
            return f"{size} bytes, expected {expected.size}"
        if digest == expected.sha256:
            return None
        return f"sha256 {digest[:12]}…, expected {expected.sha256[:12]}…"

    def _values(self, name: str) -> Iterator[str]:
        spec = self._store.arrays[name]
        block: np.ndarray[Any, Any] = np.empty((spec.chunk, *spec.example_shape), dtype=spec.dtype)
        for start in range(0, spec.examples, spec.chunk):
            stop = min(start + spec.chunk, spec.examples)
            try:
                values = self._store.read(name, self.model, start, stop, out=block[: stop - start])
            except DamagedStore as error:
                yield str(error)
                return
            if not np.isfinite(values).all():
                which = f"{spec.dims[1]}s {start} to {stop - 1}"
                yield f"{name}: NaN or infinity among {which}; discard the model"
