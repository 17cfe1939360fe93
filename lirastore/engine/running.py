"""Runs attacks: what is to be done, the passes over the blocks, and the documents at the very end."""

from __future__ import annotations

import functools
import itertools
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lirastore import results
from lirastore.attacks import PerTarget, Summary
from lirastore.attacks.power import is_power_name
from lirastore.engine.blocks import Job, Scoring, Watch, score_block
from lirastore.engine.checks import membership_warnings, merge_extremes, scored_examples, signal_warnings
from lirastore.engine.facts import facts_of
from lirastore.engine.firstpass import Stage
from lirastore.engine.heartbeat import Heartbeat
from lirastore.engine.matrix import MatrixFile
from lirastore.engine.parts import Part, find_part
from lirastore.engine.planning import Options, Plan, make_plan
from lirastore.engine.progress import Bar
from lirastore.engine.reading import Reading, bytes_read, first_passes, readings, signals_of
from lirastore.engine.snapshot import Snapshot, identity, run_id, up_to_date
from lirastore.errors import (
    AttackError,
    InputError,
    LirastoreError,
    MissingData,
    MissingDependency,
    ResultError,
    name_some,
)
from lirastore.results import Result
from lirastore.store.fsio import fsync_dir

if TYPE_CHECKING:
    from pathlib import Path

    from lirastore.attacks import Attack, Facts, FirstPass
    from lirastore.store import LogitStore

__all__ = ["feasible", "run"]

Span = tuple[int, int]


def run(store: LogitStore, attacks: Sequence[Attack], options: Options | None = None) -> list[Result]:
    """Scores every committed model as target with all `attacks`, in one pass over the store.

    Attacks that are up to date (same parameters, options, models and library version) are left as they are
    unless `options.force`. A run that was interrupted is resumed: its finished parts are kept. Neither holds
    for attacks that are not `described`, those of users' functions, which are computed from the start each
    time. The result documents are replaced at the very end; until then the results before stay current.

    Returns the current results in the order of `attacks`.

    Raises:
        MissingData: no committed model, a signal that the store cannot give, examples with too few models.
        MissingDependency: an attack is made with a package that is not installed.
        MemoryBudgetError: not even the smallest block fits `options.memory`.
        DamagedStore: committed data is absent, fails its checksum, or is NaN or infinite.
        ModelNotCommitted, ResultError: a model was withdrawn, or parts were removed, while it ran.
        AttackError: an attack function failed or returned something other than finite scores.
        KeyboardInterrupt: after the tasks have stopped; call again to resume.
    """
    options = options or Options()
    _check_names(attacks)
    snapshot = Snapshot.take(store, options)
    facts = _facts(store, snapshot, options)
    attacks = [attack.on(facts) for attack in attacks]
    done = {attack.name: results.find(store.lira, attack.name) for attack in attacks}
    fresh = [identity(attack, snapshot, options) for attack in attacks]
    todo = [
        attack
        for attack, expected in zip(attacks, fresh, strict=True)
        if options.force or not up_to_date(attack, done[attack.name], expected, store.lira)
    ]
    _say_kept([attack.name for attack in attacks if attack not in todo], options)
    if todo:
        run = _Run(store, snapshot, facts, todo, options, done)
        run.say_replaced()
        done |= {result.attack: result for result in run.execute()}
    return [result for result in done.values() if result is not None]


def feasible(
    store: LogitStore, attacks: Iterable[Attack], options: Options | None = None
) -> tuple[list[Attack], dict[str, LirastoreError]]:
    """Which of the attacks can run with `options`, and for the others, by name, why not.

    Looks at metadata and membership only, and finds there every MissingData and MissingDependency that `run`
    would raise.
    """
    options = options or Options()
    snapshot = Snapshot.take(store, options)
    facts = _facts(store, snapshot, options)
    able: list[Attack] = []
    refused: dict[str, LirastoreError] = {}
    for attack in attacks:
        try:
            _check_feasible(store, attack.on(facts), snapshot, options)
            able.append(attack)
        except (MissingData, MissingDependency) as error:
            refused[attack.name] = error
    return able, refused


def _facts(store: LogitStore, snapshot: Snapshot, options: Options) -> Facts:
    return facts_of(store, snapshot.models, snapshot.labels, options.seed)


def _check_feasible(store: LogitStore, attack: Attack, snapshot: Snapshot, options: Options) -> None:
    passes: list[Sequence[Attack | FirstPass]] = [*first_passes([attack]), [attack]]
    for parts in passes:
        readings(store, signals_of(parts), options.source)
    _scored(attack, snapshot, options)


def _check_names(attacks: Sequence[Attack]) -> None:
    for attack in attacks:
        if attack.kind != "power" and is_power_name(attack.name):
            raise AttackError(
                f"attack name {attack.name!r}: names that end like __k8_q2 are of attacks with limited "
                "shadow models (--models, --queries); choose another name"
            )
    names = [attack.name for attack in attacks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"attacks {name_some(twice)} were asked for more than once; results go by name")


def _say(message: str, options: Options) -> None:
    if options.progress:
        print(message, file=sys.stderr)


def _say_kept(names: list[str], options: Options) -> None:
    if names:
        _say(f"up to date: {name_some(names)} (--force computes again)", options)


def _scored(attack: Attack, snapshot: Snapshot, options: Options) -> npt.NDArray[np.bool_]:
    return scored_examples(
        attack,
        snapshot.member,
        snapshot.attackable,
        equal_counts=snapshot.counts_of(attack),
        skip=options.skip_unattackable,
    )


# --- the run -------------------------------------------------------------------------------------


class _Run:
    """One pass for all attacks that are not up to date, with a first pass where one is declared."""

    def __init__(
        self,
        store: LogitStore,
        snapshot: Snapshot,
        facts: Facts,
        attacks: Sequence[Attack],
        options: Options,
        current: Mapping[str, Result | None],
    ) -> None:
        self.began = time.perf_counter()
        self.options = options
        self.store = store
        self.current = current
        self.snapshot = snapshot
        self.plan: Plan = make_plan(store, attacks, options, facts.sizes)
        self.identities = {attack.name: identity(attack, snapshot, options) for attack in attacks}
        self.scorings = [
            Scoring(attack, _scored(attack, snapshot, options), self._run_id(attack), store.lira)
            for attack in attacks
        ]
        self.job = Job(
            store=store,
            models=snapshot.models,
            member=snapshot.member,
            labels=snapshot.labels,
            attackable=snapshot.attackable,
            grid=self.plan.grid,
            equal_counts=snapshot.equal_counts,
            even_counts=snapshot.even_counts,
            seed=options.seed,
            preset=options.preset,
        )
        self.parts: dict[tuple[str, int], Part] = {}

    def _run_id(self, attack: Attack) -> str:
        before = self.current[attack.name] if self.options.force else None
        return run_id(attack, self.identities[attack.name], self.plan, before.run if before else None)

    def say_replaced(self) -> None:
        """Names the results of other numerics that this run is going to replace."""
        for name, new in self.identities.items():
            before = self.current[name]
            changed = [] if before is None else _differences(before, new)
            if changed:
                print(
                    f"{name}: replaces the result with {' and '.join(changed)}; another --name keeps both",
                    file=sys.stderr,
                )

    def execute(self) -> list[Result]:
        """Computes what is missing of every run, then publishes the documents."""
        _say(str(self.plan), self.options)
        with Heartbeat(self._prepare_folders()):
            self._compute_missing()
            self.snapshot.check_unchanged(self.store)
            return [self._finish(scoring) for scoring in self.scorings]

    def _compute_missing(self) -> None:
        pending = self._pending()
        first = first_passes(scoring.attack for _, missing in pending for scoring in missing)
        total = sum(self._bytes(self._needed(stage), self.plan.blocks) for stage in first)
        total += sum(self._bytes(self._needed(_attacks(missing)), [span]) for span, missing in pending)
        blocks = len(first) * len(self.plan.blocks) + len(pending)
        with (
            Bar(self.plan.attacks, total, blocks, visible=self.options.progress) as bar,
            ExitStack() as matrices,
        ):
            watch = Watch(bar.advance, bar.finish_block, bar.finish_target)
            known: dict[str, Any] = {}
            for stage in first:
                known |= self._look(stage, known, watch, matrices)
            self._score(pending, known, watch)
        self.bytes_read = bar.bytes

    def _prepare_folders(self) -> list[Path]:
        folders = [scoring.part_file(0).parent for scoring in self.scorings]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            for parent in itertools.islice(folder.parents, 4):  # attack, kind, results, _lirastore
                fsync_dir(parent)
        return folders

    def _pending(self) -> list[tuple[Span, list[Scoring]]]:
        """Blocks with the attacks whose part of them does not exist yet; keeps the parts that do."""
        pending = []
        for span in self.plan.blocks:
            missing = [scoring for scoring in self.scorings if not self._keep(scoring, span[0])]
            if missing:
                pending.append((span, missing))
        if self.parts:
            planned = len(self.plan.blocks) * len(self.scorings)
            _say(f"resuming: {len(self.parts)} of {planned} parts are there already", self.options)
        return pending

    def _keep(self, scoring: Scoring, first: int) -> bool:
        part = find_part(scoring.part_file(first))
        if part is None:
            return False
        self.parts[scoring.attack.name, first] = part
        return True

    def _needed(self, parts: Iterable[Attack | FirstPass]) -> tuple[Reading, ...]:
        return readings(self.store, signals_of(parts), self.options.source)

    def _bytes(self, needed: Iterable[Reading], blocks: Sequence[Span]) -> int:
        return sum(bytes_read(reading.array, blocks) for reading in needed) * len(self.snapshot.models)

    def _look(
        self, passes: Sequence[FirstPass], known: Mapping[str, Any], watch: Watch, matrices: ExitStack
    ) -> dict[str, Any]:
        """One pass over the store for the first passes of a stage: their values, by key."""
        folder, shape = results.results_folder(self.store.lira), self.snapshot.member.shape
        per_target = tuple(first for first in passes if isinstance(first, PerTarget))
        stage = Stage(
            job=self.job,
            summaries=tuple(first for first in passes if isinstance(first, Summary)),
            per_target=per_target,
            readings=self._needed(passes),
            known=dict(known),
            matrices={first.key: matrices.enter_context(MatrixFile(folder, *shape)) for first in per_target},
            watch=watch,
        )
        self._compute([functools.partial(stage.take, span) for span in self.plan.blocks], watch)
        if per_target:
            self._compute([functools.partial(stage.finish_target, row) for row in range(shape[0])], watch)
        return stage.values()

    def _score(
        self, pending: Sequence[tuple[Span, list[Scoring]]], known: Mapping[str, Any], watch: Watch
    ) -> None:
        tasks = [
            functools.partial(
                score_block, self.job, self._needed(_attacks(missing)), known, watch, missing, span
            )
            for span, missing in pending
        ]
        found = self._compute(tasks, watch)
        for (span, _), parts in zip(pending, found, strict=True):
            self.parts |= {(name, span[0]): part for name, part in parts.items()}

    def _compute(self, tasks: Sequence[Callable[[], Any]], watch: Watch) -> list[Any]:
        """Runs the tasks on Dask's threads; an error or an interrupt stops the others, and is raised."""
        from concurrent.futures import ThreadPoolExecutor

        from dask.base import compute
        from dask.delayed import delayed

        # Dask starts equals from the last key down. In order, a chunk that two blocks share is still cached.
        token = uuid.uuid4().hex
        calls = [
            delayed(task, pure=False)(dask_key_name=f"lirastore-{token}-{left:06d}")
            for left, task in zip(range(len(tasks), 0, -1), tasks, strict=True)
        ]
        with ThreadPoolExecutor(self.plan.threads, thread_name_prefix="lirastore") as pool:
            try:
                # the pool itself: naming the threaded scheduler makes dask import distributed, 40 MB
                found = compute(*calls, scheduler=pool, optimize_graph=False)  # type: ignore[no-untyped-call]
                return list(found)
            except BaseException:
                watch.cancelled.set()
                raise

    def _finish(self, scoring: Scoring) -> Result:
        """Publishes the document of one attack."""
        attack = scoring.attack
        firsts = [start for start, _ in self.plan.blocks]
        parts = {scoring.part(first): self.parts[attack.name, first] for first in firsts}
        self._check_complete(attack, parts)
        extremes = merge_extremes([part.extremes for part in parts.values()])
        result = Result(
            **self.identities[attack.name],
            run=scoring.run,
            columns=next(iter(parts.values())).columns,
            parts=tuple(parts),
            objects={path: part.object for path, part in parts.items()},
            models=tuple(self.snapshot.models.tolist()),
            seconds=round(time.perf_counter() - self.began, 3),
            bytes_read=self.bytes_read,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            warnings=(
                *membership_warnings(
                    attack,
                    self.snapshot.member,
                    self.snapshot.attackable,
                    scoring.scored,
                    equal_counts=self.snapshot.counts_of(attack),
                ),
                *signal_warnings(attack, extremes),
            ),
        )
        results.publish(self.store.lira, result)
        return result

    def _check_complete(self, attack: Attack, parts: Mapping[str, Part]) -> None:
        """Raises ResultError if parts are gone: a process may have slept until gc took its run for dead."""
        folder = results.results_folder(self.store.lira)
        gone = [path for path in parts if not (folder / path).is_file()]
        if gone:
            raise ResultError(
                f"{name_some(gone)} were removed while the attack {attack.name!r} ran; its results were not "
                "published: run it again"
            )


def _differences(before: Result, new: Mapping[str, Any]) -> list[str]:
    """What the result before was computed with, where this run would do otherwise."""
    changed = [] if before.preset == new["preset"] else [f"preset {before.preset}"]
    if before.equal_counts != new["equal_counts"]:
        changed.append("equal counts" if before.equal_counts else "all shadow models")
    return changed


def _attacks(scorings: Iterable[Scoring]) -> list[Attack]:
    return [scoring.attack for scoring in scorings]
