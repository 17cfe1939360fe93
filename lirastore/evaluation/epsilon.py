"""Lower bounds on the ε of the training algorithm, from the scores of a run; view `epsilon_lower_bound`.

`one_run` (Steinke, Nasr & Jagielski 2023): the many examples of one target are the trials. Those that score
highest are called members, or the highest members and the lowest others; eight such tests are fixed
beforehand. With δ = 0 each target has a row, and the best of them one for the attack; tests and targets are
Bonferroni-corrected, so that all these rows hold together. With δ > 0 a p-value cannot be below about
2mδ / r, and so many corrections would leave nothing: there is one row, with an ε that half of the targets
reach at half the significance. Twice the median of p-values is a p-value however they depend on each other
(Meinshausen, Meier & Bühlmann 2009; so does jax_privacy's `auditing.py`). Guesses of several targets are
never added up: each target's scores depend on the others' memberships: such sums need not be binomial.

`clopper_pearson`: the models are the trials, for one example. Half of the models, drawn by a fixed seed,
choose the example and the threshold; of the other half TPR and FPR are bounded. Many examples of one model
are not independent runs, nor are scores of several models that are computed from each other's. So it is for
attacks that score each model by itself, and loses nothing by that: the threshold is the example's own anyway.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lirastore.evaluation.bounding import Separations, one_run_bound
from lirastore.evaluation.coins import Membership, membership_of
from lirastore.evaluation.guesses import Extremes, Separation
from lirastore.evaluation.stream import Block, Pass

if TYPE_CHECKING:
    from lirastore.results import Result
    from lirastore.store import LogitStore

__all__ = ["COLUMNS", "CONFIDENCE", "DELTA", "GUESSES", "Bound", "bounds"]

Array = np.ndarray[Any, Any]

CONFIDENCE = 0.95

DELTA = 1e-5
"""Of the rows that are not for δ = 0."""

GUESSES = (32, 128, 512, 2048)
"""How many examples of a target are guessed; all that it has, if these are fewer than 32."""

COLUMNS: Mapping[str, str] = {
    "method": "varchar",
    "model": "bigint",
    "example": "bigint",
    "guesses": "bigint",
    "correct": "bigint",
    "epsilon": "double",
    "delta": "double",
    "confidence": "double",
    "assumption": "varchar",
    "refused": "varchar",
}
"""Of a `Bound`, with their types in SQL."""

_SIGNIFICANCE = 1 - CONFIDENCE
_SEED = 0
_ONE_RUN, _CLOPPER_PEARSON = "one_run", "clopper_pearson"
_PLAN = "plan the store with `--design bernoulli`"


@dataclass(frozen=True)
class Bound:
    """A row of view `epsilon_lower_bound`, which says what its columns mean."""

    method: str
    model: int | None
    example: int | None
    guesses: int | None
    correct: int | None
    epsilon: float | None
    delta: float | None
    confidence: float
    assumption: str
    refused: str | None


def bounds(store: LogitStore, result: Result) -> Generator[Pass, None, list[dict[str, Any]]]:
    """The bounds that the scores of a run give, as JSON objects with the keys `COLUMNS`.

    Takes one pass over the scores. Memory: 200 kB per model, and 60 bytes per score of a block and thread.
    A method whose assumptions do not hold gives one row, which says why. Other results than scores give none.
    """
    if result.kind != "scores":
        return []
    design = _membership(store)
    audits: list[_OneRun | _Separated] = [_OneRun(store, result, design), _Separated(result, design)]
    reading = [audit for audit in audits if audit.refused is None]
    if reading:
        yield _together(reading)
    return [asdict(row) for audit in audits for row in audit.bounds()]


def _together(audits: Sequence[_OneRun | _Separated]) -> Pass:
    """One pass for all of them."""

    def work(block: Block) -> list[Any]:
        return [audit.reader.work(block) for audit in audits]

    def merge(found: list[Any]) -> None:
        for audit, value in zip(audits, found, strict=True):
            audit.reader.merge(value)

    return Pass(work, merge, model=True)


@lru_cache(maxsize=1)
def _membership(store: LogitStore) -> Membership:
    """That of all attacks of a store; what was planned does not change."""
    return membership_of(store)


# --- one run --------------------------------------------------------------------------------------


class _Guess(NamedTuple):
    epsilon: float
    guesses: int
    correct: int


class _OneRun:
    """Audits each target by itself."""

    def __init__(self, store: LogitStore, result: Result, design: Membership) -> None:
        self._models = np.asarray(result.models, np.int64)
        self._assumption = _coins(design, separate=_is_separate(result))
        self.refused = _one_run_refused(store, result, design)
        self.reader = Extremes(self._models, GUESSES[-1], GUESSES[-1] // 2)

    def bounds(self) -> list[Bound]:
        """The best of all targets, that of half of them with δ, and each target's."""
        if self.refused is not None:
            return [_refusal(_ONE_RUN, self._assumption, self.refused)]
        tests = [
            _tests(int(scored), *ranked)
            for scored, ranked in zip(self.reader.scored, self.reader.ranked(), strict=True)
        ]
        many = len(tests)
        single = [_best(*test, 0.0, _SIGNIFICANCE / many) for test in tests]
        halves = sorted((_best(*test, DELTA, _SIGNIFICANCE / 2) for test in tests), reverse=True)
        return [
            self._row(None, max(single), 0.0),
            self._row(None, halves[(many + 1) // 2 - 1], DELTA),
            *(self._row(int(model), guess, 0.0) for model, guess in zip(self._models, single, strict=True)),
        ]

    def _row(self, model: int | None, guess: _Guess, delta: float) -> Bound:
        return Bound(
            method=_ONE_RUN,
            model=model,
            example=None,
            guesses=guess.guesses,
            correct=guess.correct,
            epsilon=guess.epsilon,
            delta=delta,
            confidence=CONFIDENCE,
            assumption=self._assumption,
            refused=None,
        )


def _tests(scored: int, high: Array, low: Array) -> tuple[int, list[tuple[int, int]]]:
    """How many examples a target has, and (guesses, correct) of each test.

    high, low: membership of those that score highest and lowest, the most extreme first.
    """
    counts = [count for count in GUESSES if count <= scored] or [scored]
    members = np.concatenate([[0], np.cumsum(high)])
    others = np.concatenate([[0], np.cumsum(~low)])
    one_sided = [(count, int(members[count])) for count in counts]
    two_sided = [(count, int(members[count - count // 2] + others[count // 2])) for count in counts]
    return scored, one_sided + two_sided


def _best(scored: int, tests: list[tuple[int, int]], delta: float, significance: float) -> _Guess:
    """The test of the largest bound, Bonferroni-corrected over the tests."""
    level = significance / len(tests)
    ranked = sorted((_Guess(one_run_bound(scored, *test, 0.0, level), *test) for test in tests), reverse=True)
    if delta == 0:
        return ranked[0]
    best = ranked[0]._replace(epsilon=0.0)
    for guess in ranked:
        if guess.epsilon <= best.epsilon:  # with δ it is smaller still
            break
        found = one_run_bound(scored, guess.guesses, guess.correct, delta, level)
        best = max(best, guess._replace(epsilon=found), key=lambda each: each.epsilon)
    return best


def _is_separate(result: Result) -> bool:
    """Whether a model's scores are made of its own outputs alone: `Attack.separate`, as it was stamped."""
    return result.parameters.get("separate") is True


def _coins(design: Membership, *, separate: bool) -> str:
    text = (
        "each example was put into the target's training set or left out by a fair coin of its own, and the "
        "attack can know how it fell from the trained model only"
    )
    if design.fixed and separate:
        text += (
            "; every example is in half of the models, which ties the coins of one model to those of the "
            "others and not to each other, and the attack reads no model but the target"
        )
    elif design.fixed:
        text += (
            "; every example is in half of the models: equal counts keep its shadow models from betraying "
            "the coin, and what they say of other examples is taken not to betray it either"
        )
    return text + _origin(design)


def _origin(design: Membership) -> str:
    given = (
        "; membership was given or imported: that it was drawn so is assumed, its counts do not contradict it"
    )
    return "" if design.drawn else given


def _one_run_refused(store: LogitStore, result: Result, design: Membership) -> str | None:
    """Why there can be no one-run audit, and the remedy.

    With fixed counts, too, a single model's memberships are fair coins, each example's independent of the
    others'. The other models' betray them: together they tell each coin. So what matters is whether the
    attack reads other models.
    """
    told = design.fixed and not _is_separate(result)
    attackable = store.attackable()
    examples = store.info.examples if attackable is None else int(np.count_nonzero(attackable))
    if design.doubt is not None:
        return f"{design.doubt}, so examples were not drawn independently with even odds; {_PLAN}"
    if not design.half:
        return f"examples were not drawn with even odds; {_PLAN} and `--keep-fraction 0.5`"
    if told and "folds" in result.parameters:
        return (
            "every example is in the same number of models, so those of the other folds betray the target's "
            f"membership, and equal counts do not reach what is fitted to folds; {_PLAN}"
        )
    if told and not result.equal_counts:
        return (
            "every example is in the same number of models, so the other models, which the attack reads, "
            f"betray the target's membership; run it with `--equal-counts`, or {_PLAN}"
        )
    if result.rows != examples * len(result.models) or not result.rows:
        return (
            f"{result.rows} scores of {examples} examples × {len(result.models)} models: which examples were "
            "left out depends on who was trained on them; commit more models, until none falls short"
        )
    from lirastore.attacks.population import NON_MEMBERS  # here: with it come all attacks, and scipy

    if result.parameters.get("population") == NON_MEMBERS:
        return (
            "its population are the target's own non-members, so scores depend on the membership that is "
            "guessed; give the store population points (lirastore.create(population=))"
        )
    return None


# --- many runs ------------------------------------------------------------------------------------


class _Separated:
    """Audits one example over the models."""

    def __init__(self, result: Result, design: Membership) -> None:
        self._models = len(result.models)
        self._assumption = (
            "models are independent runs, and this example was drawn into their training sets without regard "
            "to anything else; the score of a model is computed from that model alone" + _origin(design)
        )
        self.refused = _separated_refused(result, design)

    @cached_property
    def _tables(self) -> list[Separations]:
        """For each δ; the last chooses."""
        return [Separations(self._models, delta=delta, significance=_SIGNIFICANCE) for delta in (0.0, DELTA)]

    @cached_property
    def reader(self) -> Separation:
        """What it has of the scores."""
        order = np.random.Generator(np.random.Philox(key=_SEED)).permutation(self._models)
        return Separation(self._models, order < self._models // 2, self._tables[-1])

    def bounds(self) -> list[Bound]:
        """That of the chosen example on the models that did not choose it, for each δ."""
        if self.refused is not None:
            return [_refusal(_CLOPPER_PEARSON, self._assumption, self.refused)]
        self.reader.finish()
        choice = self.reader.best
        if choice is None:
            why = "no example is in some and out of others of both halves of the models; commit more models"
            return [_refusal(_CLOPPER_PEARSON, self._assumption, why)]
        called, member = choice.score >= choice.threshold, choice.member
        counts = called & member, member, called & ~member, ~member
        tp, members, fp, others = (np.array(np.count_nonzero(side)) for side in counts)
        return [
            Bound(
                method=_CLOPPER_PEARSON,
                model=None,
                example=choice.example,
                guesses=len(member),
                correct=int(tp + others - fp),
                epsilon=float(table.bound(tp, members, fp, others)),
                delta=table.delta,
                confidence=CONFIDENCE,
                assumption=self._assumption,
                refused=None,
            )
            for table in self._tables
        ]


def _separated_refused(result: Result, design: Membership) -> str | None:
    """Why one example over the models cannot be audited, and the remedy."""
    if not _is_separate(result):
        return (
            "it does not, as far as is known, score each model by that model's own outputs alone, so the "
            "scores of different models are no independent trials; `lirastore attack STORE loss` does"
        )
    if design.doubt is not None:
        return f"{design.doubt}, so examples were not drawn independently of each other; {_PLAN}"
    return None


def _refusal(method: str, assumption: str, refused: str) -> Bound:
    return Bound(
        method=method,
        model=None,
        example=None,
        guesses=None,
        correct=None,
        epsilon=None,
        delta=None,
        confidence=CONFIDENCE,
        assumption=assumption,
        refused=refused,
    )
