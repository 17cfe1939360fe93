"""Evaluates the runs whose evaluation is absent: several evaluators share each pass over the scores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lirastore.evaluation.bootstrap import bootstrap
from lirastore.evaluation.document import Evaluation, find, write
from lirastore.evaluation.epsilon import bounds
from lirastore.evaluation.resampling import Resamples
from lirastore.evaluation.stream import Pass, Stream, progress_bar
from lirastore.memory import default_budget

if TYPE_CHECKING:
    from lirastore.results import Result
    from lirastore.store import LogitStore

__all__ = ["EVALUATORS", "KINDS", "REPLICATES", "Evaluator", "Subject", "evaluate"]

KINDS = ("scores", "power")
"""The kinds of results that are evaluated."""

REPLICATES = 1000

_PASSES = 3
_THREAD_BYTES = 40 * 2**20


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a run of a store. `resamples` are shared by all runs of a call."""

    store: LogitStore
    result: Result
    resamples: Resamples


Evaluator = Callable[[Subject], Generator[Pass, None, Any]]
"""Yields the passes over the scores that it needs, and after each goes on with what that has given it.

Returns its section of the evaluation document, a JSON value; may do so without any pass.
"""

EVALUATORS: Mapping[str, Evaluator] = MappingProxyType(
    {
        "intervals": lambda subject: bootstrap(
            subject.store.info.examples, subject.result.rows, subject.resamples
        ),
        "epsilon": lambda subject: bounds(subject.store, subject.result),
    }
)
"""Section of the evaluation document -> what fills it."""


def evaluate(
    store: LogitStore,
    found: Sequence[Result],
    *,
    progress: bool,
    threads: int | None = None,
    memory: int | None = None,
    seed: int = 0,
) -> None:
    """Evaluates the results of `found` that hold scores and whose evaluation is absent, and stores it.

    One evaluation per run: absent is also one of an earlier format, of other replicates or another seed, one
    that cannot be read, and one that lacks a section. Each is stored as it is done, so that a call that was
    interrupted goes on where it was. Which examples a replicate draws depends on the seed and on how many
    there are, and on nothing else: not on threads or memory, and not on the attack.

    memory: budget in bytes (default: a quarter of the machine's). At most a quarter of it holds the weights,
    1,001 bytes per example if that fits (50 MB for 50,000), else some replicates at a time, 64 at least, with
    a pass over the scores for each lot. There are as many threads as take another quarter at most, with 40 MB
    and a row group each, but one at least. Beside these: 80 MB, 70 bytes per example, and 16 bytes per
    non-member near a threshold, of which there are 230,000 among 12.8 million scores of 256 models.

    Raises ResultError for scores that cannot be read, FormatVersionError for an evaluation of a newer format.
    """
    budget = (memory or default_budget()) // 4
    workers = max(1, min(threads or _cores(), budget // _THREAD_BYTES))
    resamples = Resamples(REPLICATES, seed, budget=budget, threads=workers)
    todo = [result for result in found if result.kind in KINDS and not _done(store, result, seed)]
    rows = sum(result.rows for result in todo)
    if not todo:
        return
    with progress_bar(_PASSES * rows, visible=progress) as bar:
        for result in todo:
            stream = Stream(result, store.lira, threads=workers, advance=bar.update)
            write(store.lira, _evaluated(Subject(store, result, resamples), stream))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _done(store: LogitStore, result: Result, seed: int) -> bool:
    made = find(store.lira, result)
    return (
        made is not None
        and (made.replicates, made.seed) == (REPLICATES, seed)
        and made.sections.keys() >= EVALUATORS.keys()
    )


def _evaluated(subject: Subject, stream: Stream) -> Evaluation:
    """Lets all evaluators of a run share passes until each has returned its section."""
    began = time.perf_counter()
    sections: dict[str, Any] = {}
    waiting = {name: evaluator(subject) for name, evaluator in EVALUATORS.items()}
    while waiting:
        passes: dict[str, Pass] = {}
        for name, evaluator in waiting.items():
            try:
                passes[name] = next(evaluator)
            except StopIteration as ended:
                sections[name] = ended.value
        waiting = {name: waiting[name] for name in passes}
        if passes:
            stream.scan(list(passes.values()))
    return Evaluation(
        attack=subject.result.attack,
        run=subject.result.run,
        replicates=subject.resamples.replicates,
        seed=subject.resamples.seed,
        seconds=round(time.perf_counter() - began, 3),
        sections={name: sections[name] for name in EVALUATORS},
    )
