"""The cross-fitted attacks with a closed form against naive loops, and what cross-fitting promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from attack_harness import Experiment, from_logits, membership, scores
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attacks import naive_rows

from lirastore.attacks import Attack, intervals
from lirastore.attacks.crossfitted import ATTACKS
from lirastore.attacks.entropy import MODIFIED_ENTROPY
from lirastore.attacks.folds import FOLDS, folds
from lirastore.attacks.long import LONG, few_neighbours
from lirastore.attacks.merlin import MERLIN, MORGAN
from lirastore.errors import MissingData

Array = npt.NDArray[Any]

# The classifiers and quantiles that are fitted by trees have tests of their own.
CLOSED_FORMS = [MERLIN, MORGAN, MODIFIED_ENTROPY, LONG]
STORED = frozenset({"logits", "merlin"})


def experiment(
    models: int = 9,
    examples: int = 30,
    classes: int = 3,
    *,
    design: str = "bernoulli",
    seed: int = 0,
    leak: float = 1.0,
    **plan: Any,
) -> Experiment:
    """Logits of 10 examples a class or so, a little surer on members, with a share of noisy queries."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, examples)
    member = membership(design, models, examples, seed)
    logits = rng.normal(0, 1, (models, examples, 2, classes)) + rng.normal(0, 2, (1, examples, 1, classes))
    logits[:, np.arange(examples), :, label] += (1 + leak * member.T)[:, :, None]
    merlin = np.round(rng.random((models, examples, 1)) * 0.6 + 0.4 * leak * member[:, :, None], 2)
    extra = {"merlin": merlin.astype(np.float32)}
    return from_logits(logits.astype(np.float32), label, member, extra, arrays=STORED, **plan)


def rounded(of: Experiment, step: float) -> Experiment:
    """With many ties in the signals that are fitted on."""
    coarse = {
        name: (np.round(of.signals[name] / step) * step).astype(of.signals[name].dtype)
        for name in ("modified_entropy", "scaled_logit")
    }
    return replace(of, signals={**of.signals, **coarse})


def fold_of(of: Experiment) -> Array:
    return folds(np.arange(len(of.member)), of.options.get("seed", 0))


# --- naive versions -----------------------------------------------------------------------------


def others_pairs(
    of: Experiment, values: Array, target: int, examples: Array
) -> tuple[list[float], list[float]]:
    """Values of members and of non-members, in the models of the other folds, of some examples."""
    fold = fold_of(of)
    allowed = examples if of.mask is None else examples[of.mask[examples]]
    found: tuple[list[float], list[float]] = ([], [])
    for model in np.flatnonzero(fold != fold[target]):
        for example in allowed:
            found[0 if of.member[model, example] else 1].append(float(values[model, example]))
    return found


def balanced(inside: list[float], outside: list[float], lower: float, upper: float) -> Fraction:
    """TPR − FPR, exactly."""
    hits = [sum(lower <= value <= upper for value in side) for side in (inside, outside)]
    return Fraction(hits[0], len(inside)) - Fraction(hits[1], len(outside))


def naive_modified_entropy(of: Experiment) -> Array:
    entropy = -of.signals["modified_entropy"][:, :, 0].astype(np.float64)
    found = np.empty(of.member.shape)
    for target, label in np.ndindex(len(of.member), int(of.labels.max()) + 1):
        same = np.flatnonzero(of.labels == label)
        inside, outside = others_pairs(of, entropy, target, same)
        threshold = 0.0
        if inside and outside:
            candidates = sorted({*inside, *outside})
            threshold = max(candidates, key=lambda at: balanced(inside, outside, -np.inf, at))
        found[target, same] = threshold - entropy[target, same]
    return found


def naive_morgan(of: Experiment) -> Array:
    loss = -of.signals["scaled_logit"][:, :, 0].astype(np.float64)
    found = of.signals["merlin"][:, :, 0].astype(np.float64)
    for target in range(len(of.member)):
        inside, outside = others_pairs(of, loss, target, np.arange(of.member.shape[1]))
        if inside and outside:
            values = sorted({*inside, *outside})
            ends = [(lower, upper) for upper in values for lower in values if lower <= upper]
            lower, upper = max(ends, key=lambda pair: balanced(inside, outside, *pair))
            found[target, (loss[target] < lower) | (loss[target] > upper)] = -1
    return found


def naive_long(of: Experiment) -> Array:
    loss = -of.signals["loss"][:, :, 0]
    logits, fold = of.signals["first_logits"].astype(np.float64), fold_of(of)
    models, examples = of.member.shape
    found = np.full((models, examples), -1.0)
    for target in range(models):
        outside = ~of.member & (fold != fold[target])[:, None]
        mean = [
            logits[outside[:, j], j].mean(axis=0) if outside[:, j].any() else None for j in range(examples)
        ]
        for j in range(examples):
            if mean[j] is None:
                continue
            near = sum(
                cosine(mean[j], mean[i]) >= 0.9 for i in range(examples) if i != j and mean[i] is not None
            )
            others = naive_rows(of, target, j)[1]
            if of.options.get("equal_counts") == "fixed":
                others = others[: min(of.member[:, j].sum(), (~of.member[:, j]).sum()) - 1]
            if near < 5 and others:
                share = np.mean(loss[others, j] <= loss[target, j])
                found[target, j] = -np.log(max(share, 1 / (2 * models)))
    return found


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# --- against them -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1e-9, 0.5, 10])
@pytest.mark.parametrize("design", ["bernoulli", "balanced", "sparse"])
def test_modified_entropy(design: str, step: float) -> None:
    of = rounded(experiment(design=design, seed=4), step).with_options(seed=2)
    np.testing.assert_array_equal(scores(MODIFIED_ENTROPY, of, tile=7), naive_modified_entropy(of))


@pytest.mark.parametrize("step", [1e-9, 0.5, 10])
@pytest.mark.parametrize("design", ["bernoulli", "balanced", "sparse"])
def test_morgan(design: str, step: float) -> None:
    of = rounded(experiment(7, 8, design=design, seed=5), step).with_options(seed=1)
    np.testing.assert_array_equal(scores(MORGAN, of, tile=3), naive_morgan(of))


@pytest.mark.parametrize(
    ("attack", "naive"), [(MODIFIED_ENTROPY, naive_modified_entropy), (MORGAN, naive_morgan)]
)
@settings(max_examples=60, deadline=None)
@given(
    models=st.integers(1, 7),
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    step=st.integers(1, 5),
    data=st.data(),
)
def test_intervals_on_few_values(
    attack: Attack,
    naive: Callable[[Experiment], Array],
    models: int,
    labels: list[int],
    step: int,
    data: st.DataObject,
) -> None:
    """Ties, groups without members, walks that stop anywhere: with steps of a few rows."""
    shape, cells = (models, len(labels)), models * len(labels)
    value = data.draw(st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 3.5]), min_size=cells, max_size=cells))
    held = data.draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
    mask = data.draw(st.none() | st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    values = np.array(value, np.float32).reshape(*shape, 1)
    signals = dict.fromkeys(("modified_entropy", "scaled_logit", "merlin"), values)
    of = Experiment(
        np.array(held).reshape(shape),
        signals,
        None if mask is None else np.array(mask),
        label=np.array(labels),
        arrays=STORED,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "_STEP", step)
        np.testing.assert_array_equal(scores(attack, of, tile=2), naive(of))


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("options", [{}, {"equal_counts": True}, {"equal_counts": "fixed"}], ids=str)
def test_long(options: dict[str, Any], classes: int) -> None:
    design = "balanced" if options.get("equal_counts") == "fixed" else "bernoulli"
    of = experiment(9, 24, classes, design=design, seed=3).with_options(seed=5, **options)
    scored = LONG.scored(of.member, equal_counts=options.get("equal_counts", False))
    found = scores(LONG, of, tile=5)
    np.testing.assert_allclose(found[:, scored], naive_long(of)[:, scored], rtol=1e-12)
    assert ((found == -1) | (found >= 0)).all()
    assert (found[:, scored] >= 0).any()
    assert classes > 2 or (found[:, scored] < 0).any()


@pytest.mark.parametrize(("count", "classes"), [(1, 3), (7, 2), (700, 5), (900, 100)])
def test_few_neighbours(count: int, classes: int) -> None:
    rng = np.random.default_rng(count)
    vectors = rng.normal(size=(count, classes)) + rng.choice([0, 3], (count, 1)) * np.eye(classes)[0]
    vectors[rng.random(count) < 0.1] = 0
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0).astype(np.float32)
    near = directions.astype(np.float64) @ directions.T.astype(np.float64) >= 0.9
    np.fill_diagonal(near, False)
    expected = (near.sum(axis=1) < 5) & (length[:, 0] > 0)
    np.testing.assert_array_equal(few_neighbours(directions), expected)


def test_duplicates_are_neighbours_of_each_other() -> None:
    one, other = np.eye(4, dtype=np.float32)[:2]
    assert few_neighbours(np.stack([one] * 5 + [other])).all()
    assert few_neighbours(np.stack([one] * 6 + [other])).tolist() == [False] * 6 + [True]


# --- Merlin's share -----------------------------------------------------------------------------


def with_noise(count: int = 6) -> Experiment:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 1, (5, 12, 2 + count, 3)).astype(np.float32)
    names = ("identity", "flip", *(f"noise(0.01)#{number}" for number in range(count)))
    member = membership("bernoulli", 5, 12)
    return from_logits(logits, rng.integers(0, 3, 12), member, augmentations=names)


def test_merlin_counts_the_noise_queries_with_a_larger_loss() -> None:
    of = with_noise()
    loss = -of.signals["loss"]
    expected = (loss[:, :, 2:] > loss[:, :, :1]).mean(axis=2)
    np.testing.assert_array_equal(scores(MERLIN, of, tile=5), expected)
    stamped = MERLIN.on(of.facts()).parameters
    assert stamped["noise_queries"] == 6
    assert stamped["noise"] == ["noise(0.01)"]


def test_morgan_takes_the_noise_queries_too() -> None:
    of = with_noise()
    merlin = scores(MERLIN, of).astype(np.float64)[:, :, None]
    stored = replace(of, signals={**of.signals, "merlin": merlin}, arrays=STORED)
    np.testing.assert_array_equal(scores(MORGAN, of, tile=5), scores(MORGAN, stored))


def test_a_stored_share_comes_before_noise_queries() -> None:
    share = np.full((5, 12, 1), 0.25, np.float32)
    of = with_noise()
    of = replace(of, signals={**of.signals, "merlin": share}, arrays=STORED)
    assert MERLIN.on(of.facts()).signals == ("merlin",)
    assert (scores(MERLIN, of) == 0.25).all()


@pytest.mark.parametrize("attack", [MERLIN, MORGAN], ids=lambda attack: attack.name)
@pytest.mark.parametrize("augmentations", [("identity", "flip"), ("noise(0.01)#0", "noise(0.01)#1")])
def test_without_noise_the_error_says_how_to_make_it(attack: Attack, augmentations: tuple[str, ...]) -> None:
    of = from_logits(np.zeros((2, 3, 2, 2), np.float32), np.zeros(3, int), np.zeros((2, 3), bool))
    of = replace(of, augmentations=augmentations)
    with pytest.raises(MissingData, match=r"merlin.*noise\(0\.01\)#0"):
        attack.on(of.facts())


# --- what cross-fitting promises ----------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_names_are_stamped(attack: Attack) -> None:
    made = attack.on(experiment().facts())
    assert made.described
    assert made.kind == "scores"
    assert made.parameters["preset"] == "paper"
    assert made.parameters.get("folds") == (None if attack is MERLIN else FOLDS)
    assert "Higher means member" in made.doc


@pytest.mark.parametrize("attack", CLOSED_FORMS, ids=lambda attack: attack.name)
def test_tiles_do_not_matter(attack: Attack) -> None:
    of = experiment(12, 40, 4).with_options(seed=3)
    whole = scores(attack, of, tile=40)
    for tile in (1, 7):
        np.testing.assert_array_equal(scores(attack, of, tile=tile), whole)


@pytest.mark.parametrize("attack", [MODIFIED_ENTROPY, MORGAN], ids=lambda attack: attack.name)
def test_nothing_of_a_target_or_its_fold_is_fitted_on(attack: Attack) -> None:
    of, target = experiment(12, 40, 2, seed=8), 4
    before = scores(attack, of)
    member, signals = of.member.copy(), {name: values.copy() for name, values in of.signals.items()}
    member[target] ^= True
    for values in signals.values():
        values[target] = np.random.default_rng(0).permuted(values[target], axis=0)
    after = scores(attack, replace(of, member=member, signals=signals))
    fold = fold_of(of)
    mates = np.flatnonzero((fold == fold[target]) & (np.arange(12) != target))
    np.testing.assert_array_equal(after[mates], before[mates])
    assert (after[fold != fold[target]] != before[fold != fold[target]]).any()


@pytest.mark.parametrize("attack", CLOSED_FORMS, ids=lambda attack: attack.name)
def test_a_target_is_scored_whatever_its_own_membership(attack: Attack) -> None:
    of = experiment(12, 40, 5, seed=9)
    before = scores(attack, of)
    for target in range(3):
        member = of.member.copy()
        member[target] ^= True
        after = scores(attack, replace(of, member=member))
        np.testing.assert_array_equal(after[target], before[target])


@pytest.mark.parametrize("attack", [MODIFIED_ENTROPY, MORGAN], ids=lambda attack: attack.name)
def test_exempt_examples_are_not_fitted_on(attack: Attack) -> None:
    of = experiment(10, 40, 3, seed=1)
    mask = np.arange(40) % 4 > 0
    member = of.member | ~mask
    kept = replace(
        of,
        member=member[:, mask],
        signals={name: values[:, mask] for name, values in of.signals.items()},
        label=of.labels[mask],
    )
    found = scores(attack, replace(of, member=member, mask=mask), tile=7)[:, mask]
    np.testing.assert_array_equal(found, scores(attack, kept))


@pytest.mark.parametrize("attack", CLOSED_FORMS, ids=lambda attack: attack.name)
def test_members_score_higher(attack: Attack) -> None:
    of = experiment(24, 60, 10, seed=6, leak=4)
    found = scores(attack, of)
    assert found[of.member].mean() > found[~of.member].mean() + 0.1


# --- corners ------------------------------------------------------------------------------------


def corner(name: str) -> Experiment:
    if name in ("1", "2", "4", "5"):
        return experiment(int(name), 12, 3, design="dense")
    of = experiment(8, 12, 3)
    if name == "every label once":
        return replace(experiment(8, 12, 12), label=np.arange(12))
    if name == "one example":
        return experiment(6, 1, 2)
    if name == "constant":
        flat = {signal: np.zeros_like(values) for signal, values in of.signals.items()}
        return replace(of, signals=flat)
    if name == "all members":
        return replace(of, member=np.ones_like(of.member))
    if name == "no members":
        return replace(of, member=np.zeros_like(of.member))
    if name == "nobody to be attacked":
        return replace(of, mask=np.zeros(12, bool))
    huge = np.random.default_rng(0).choice(np.float32([-1e38, 1e38, 0, 1e-30]), (8, 12, 1, 3))
    extra = {"merlin": of.signals["merlin"]}
    return from_logits(huge, of.labels, of.member, extra, arrays=STORED)


CORNERS = [
    *("1", "2", "4", "5"),
    *("every label once", "one example", "constant", "all members", "no members", "huge"),
    "nobody to be attacked",
]


@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_scores_are_finite_in_every_corner(attack: Attack, name: str) -> None:
    of = corner(name)
    attack = attack.on(of.facts())
    found = scores(attack, of, tile=5)
    assert np.isfinite(found[:, attack.scored(of.member, of.mask)]).all()
    assert np.isfinite(found).all()
