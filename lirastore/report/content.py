"""What a report shows. Rates, shares and percentiles are from 0 to 1; the page turns them into percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from lirastore.results import Result
    from lirastore.store import StoreInfo

__all__ = [
    "AblationStep",
    "AttackRow",
    "Bound",
    "Calibrated",
    "ClassRow",
    "Curve",
    "Examples",
    "Exposed",
    "Facts",
    "Floats",
    "Integers",
    "Outputs",
    "PaperRow",
    "Pictures",
    "PowerPoint",
    "Rate",
    "ReportData",
    "Seen",
    "Sketch",
    "Spread",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Rate:
    """A rate with its 95% intervals; an end is None where there is no such interval.

    low, high: bootstrap over examples. exact_low, exact_high: Clopper–Pearson, for these very data.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    exact_low: float | None = None
    exact_high: float | None = None


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (ddof 1) of a metric over the targets, each by itself."""

    mean: float | None
    std: float | None


# --- attacks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttackRow:
    """The metrics of one attack, pooled over its targets; `rates` by column of `OPERATING_POINTS`.

    aliases: other attacks that gave exactly the same scores here, shown together with this one. main: whether
    it is drawn before anybody asks for more. non_members: how many of its scores are of an example that the
    target was not trained on.
    """

    attack: str
    preset: str
    targets: int
    examples: int
    non_members: int
    auc: Rate
    balanced_accuracy: Rate
    rates: Mapping[str, Rate]
    aliases: tuple[str, ...] = ()
    main: bool = True
    stale: bool = False


@dataclass(frozen=True)
class Curve:
    """An attack's ROC, (n,) each, ascending; between points it is a step. Infinite threshold: the origin."""

    attack: str
    fpr: Floats
    tpr: Floats
    threshold: Floats


@dataclass(frozen=True)
class Calibrated:
    """What the leading attack does at 0.1% FPR if each target's threshold comes from the other models only.

    fpr: what these thresholds realise over all targets; fpr_least, fpr_most: over a single one.
    """

    tpr: float | None
    fpr: float | None
    fpr_least: float | None
    fpr_most: float | None

    def precision(self, prior: float) -> float | None:
        """The share of members among those called members, if `prior` of all are members; None if none is."""
        called = prior * (self.tpr or 0.0) + (1 - prior) * (self.fpr or 0.0)
        return prior * (self.tpr or 0.0) / called if called else None


@dataclass(frozen=True)
class PaperRow:
    """A row of the talk's table: measured here (None: the attack has not run), and published."""

    row: str
    attack: str
    preset: str | None
    balanced_accuracy: float | None
    rate: Rate
    finest: float | None
    published_balanced_accuracy: float | None
    published_rate: float | None
    published_finest: float | None
    data_set: str | None


@dataclass(frozen=True)
class AblationStep:
    """A step of one of the talk's three chains: what it adds, TPR at 0.1% FPR with it, and as published."""

    chain: str
    step: int
    adds: str
    attack: str
    preset: str | None
    rate: Rate
    published: float | None
    data_set: str | None


@dataclass(frozen=True)
class PowerPoint:
    """An attack with `models` shadow models and the first `queries` queries only; rate: TPR at 0.1% FPR."""

    attack: str
    preset: str
    models: int
    queries: int
    auc: float | None
    rate: Rate


@dataclass(frozen=True)
class ClassRow:
    """One attack on one class, at the threshold that gives 0.1% FPR over the whole data.

    fpr: the share of the class's own non-members above it. rate: of its members, with an interval from a
    bootstrap of the class's examples that leaves the threshold where it is.
    """

    label: int
    members: int
    non_members: int
    auc: float | None
    rate: Rate
    fpr: float | None


@dataclass(frozen=True)
class Bound:
    """A lower bound on ε, or (refused) why there is none."""

    attack: str
    method: str
    model: int | None
    example: int | None
    guesses: int | None
    correct: int | None
    epsilon: float | None
    delta: float | None
    confidence: float | None
    assumption: str | None
    refused: str | None


# --- examples -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exposed:
    """One example as the leading attack sees it.

    score_in, score_out: mean scores where it was a member and where not. detected: in how many of the `held`
    models trained on it its score is above the threshold at 0.1% FPR. picture: (H, W, channel) uint8.
    """

    example: int
    label: int
    score_in: float | None
    score_out: float | None
    detected: int | None
    held: int
    picture: Pictures | None


@dataclass(frozen=True)
class Seen:
    """All chosen examples as one attack sees them, (n,) each; NaN, or held = 0, where it says nothing.

    detected: in how many of the `held` models trained on the example it is detected at 0.1% FPR.
    """

    attack: str
    score_in: Floats
    score_out: Floats
    detected: Integers
    held: Integers


@dataclass(frozen=True)
class Sketch:
    """The scaled logits of many examples' first query, IN and OUT: (n, 2) each, (n, 2, bins) `counts`.

    The bins divide [low, high], (n,) each, evenly. std has ddof 0; NaN where a side is empty.
    """

    low: Floats
    high: Floats
    mean: Floats
    std: Floats
    counts: Integers


@dataclass(frozen=True)
class Outputs:
    """The outputs of one example: a row of `sketch`."""

    shown: Exposed
    title: str
    sketch: Sketch
    row: int


@dataclass(frozen=True)
class Examples:
    """What can be looked up: the n examples that the leading attack exposes most, in that order.

    total: how many it has scored; often: how many it detects in half or more of the models that had
    them, never: in none of these. seen: per attack, strongest first. correct: shares of the models with and
    without the example that predict its label, (n, 2); percentile: of the leading attack's score among all
    scores of the same target, 0 to 1, mean and standard deviation over the targets that held it, (n, 2).
    """

    ids: Integers
    labels: Integers
    total: int
    often: int
    never: int
    seen: tuple[Seen, ...]
    correct: Floats | None
    percentile: Floats | None
    sketch: Sketch


# --- everything -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """The store itself: what is planned, committed, and how accurate the models are on average."""

    title: str
    info: StoreInfo
    committed: int
    set_digest: str
    train_accuracy: float | None
    test_accuracy: float | None
    labelled: bool


@dataclass(frozen=True)
class ReportData:
    """All that a report shows; `attacks` strongest first, `curves` in the same order.

    spreads: by attack and column, over its targets; classes: by attack; both of the strongest attacks only.
    exposed: for the pictures on the page; pictures: of the first of `examples`, (n, H, W, channel) uint8.
    """

    facts: Facts
    runs: tuple[Result, ...]
    stale: frozenset[str]
    versions: Mapping[str, str]
    written_at: datetime
    attacks: tuple[AttackRow, ...] = ()
    curves: tuple[Curve, ...] = ()
    calibrated: Calibrated | None = None
    paper: tuple[PaperRow, ...] = ()
    ablation: tuple[AblationStep, ...] = ()
    power: tuple[PowerPoint, ...] = ()
    bounds: tuple[Bound, ...] = ()
    spreads: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)
    classes: Mapping[str, Sequence[ClassRow]] = field(default_factory=dict)
    examples: Examples | None = None
    pictures: Pictures | None = None
    exposed: tuple[Exposed, ...] = ()
    outputs: tuple[Outputs, ...] = ()

    @property
    def lead(self) -> AttackRow | None:
        """The strongest attack, if any ran."""
        return self.attacks[0] if self.attacks else None

    @property
    def non_members(self) -> int:
        """The most non-members that an attack has scored: one of them is the finest false positive rate."""
        return max((row.non_members for row in self.attacks), default=0)
