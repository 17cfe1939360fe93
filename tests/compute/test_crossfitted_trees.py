"""The attacks that trees are fitted for: which rows they see, that they are blind where they must be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.ensemble
from attack_harness import Experiment, from_logits, membership, scores, summarise
from test_crossfitted import experiment, fold_of
from test_null import auc

from lirastore.attacks import Attack, crossfit
from lirastore.attacks.quantile import QUANTILE
from lirastore.attacks.shokri import SHOKRI
from lirastore.errors import MissingDependency
from lirastore.moments.counts import model_order

Array = npt.NDArray[Any]

ATTACKS = [SHOKRI, QUANTILE]
each = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def with_features(of: Experiment) -> Experiment:
    """Two numbers per example, of which the first says how sure models are of it."""
    rng = np.random.default_rng(1)
    sure = of.signals["hinge"].mean(axis=(0, 2))
    return replace(of, features=np.stack([sure, rng.normal(size=len(sure))], axis=1).astype(np.float32))


# --- rows ---------------------------------------------------------------------------------------


def drawn(of: Experiment, rows: crossfit.Rows, most: int, tile: int) -> crossfit.Sample:
    """The rows for fits of at most `most`, as a first pass collects them; model and example of each."""
    counts = crossfit.count_rows(rows)
    attack = Attack("rows", lambda block: None, signals=(), summaries=(counts,))
    known = summarise(attack, of, tile)
    parts = [
        crossfit.draw(
            block,
            rows,
            most,
            lambda models, places, block=block: {"model": models, "example": block.examples[places]},
        )
        for block in of.blocks(tile, known, set())
    ]
    return crossfit.join(tuple(sample for part in parts for sample in part))


@pytest.mark.parametrize("most", [1, 40, 10_000])
@pytest.mark.parametrize("rows", ["all", "non-members"])
def test_a_fit_takes_the_first_rows_in_a_random_order(rows: crossfit.Rows, most: int) -> None:
    of = experiment(13, 70, mask=np.arange(70) % 5 > 0).with_options(seed=6)
    eligible = (of.member == 0) | (rows == "all")
    eligible &= of.mask
    keys = model_order(np.arange(13), np.arange(70), 6 ^ crossfit._SALT)
    fold = fold_of(of)
    for tile in (3, 70):
        sample = drawn(of, rows, most, tile)
        for number in range(4):
            pool = np.argwhere(eligible & (fold != number)[:, None])
            order = np.argsort(keys[pool[:, 0], pool[:, 1]])
            taken = crossfit.for_fold(sample, number, most)
            found = np.stack([sample.columns["model"][taken], sample.columns["example"][taken]], axis=1)
            np.testing.assert_array_equal(found, pool[order[:most]])


def test_hardly_more_rows_are_kept_than_fits_take() -> None:
    of = experiment(32, 2000, seed=1)
    kept = len(drawn(of, "all", 3000, 100).key)
    assert 4000 < kept < 1.5 * 4000
    uneven = replace(of, member=of.member | (fold_of(of) != 0)[:, None])
    assert len(drawn(uneven, "non-members", 500, 100).key) < 2.2 * crossfit._expected(500)


def test_long_rows_are_fewer() -> None:
    assert crossfit.most_rows(12) == 200_000
    assert crossfit.most_rows(1002) * 1002 <= 2**23
    assert crossfit.most_rows(10**9) == 1


@each
def test_the_number_of_rows_and_the_version_are_stamped(attack: Attack) -> None:
    stamped = attack.on(experiment().facts()).parameters
    assert stamped["rows"] == 200_000
    assert stamped["scikit_learn"] == sklearn.__version__
    wide = replace(experiment(), features=np.zeros((30, 999), np.float32))
    assert QUANTILE.on(wide.facts()).parameters["rows"] == 2**23 // 1000


@each
def test_no_more_rows_are_fitted_on(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for name in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"):
        kind = getattr(sklearn.ensemble, name)
        fit = kind.fit
        monkeypatch.setattr(kind, "fit", lambda self, x, y, fit=fit: sizes.append(len(x)) or fit(self, x, y))
    monkeypatch.setattr(crossfit, "MOST_ROWS", 77)
    assert np.isfinite(scores(attack, experiment(12, 40), tile=9)).all()
    assert sizes == [77] * 4


# --- scores -------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("features", [False, True], ids=["logits", "features"])
def test_tiles_do_not_matter(attack: Attack, features: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossfit, "MOST_ROWS", 300)
    of = experiment(12, 50, 4).with_options(seed=3)
    of = with_features(of) if features else of
    whole = scores(attack, of, tile=50)
    for tile in (1, 7):
        np.testing.assert_array_equal(scores(attack, of, tile=tile), whole)
    assert (scores(attack, of.with_options(seed=4)) != whole).any()


@each
@pytest.mark.parametrize("features", [False, True], ids=["logits", "features"])
def test_nothing_of_a_target_or_its_fold_is_fitted_on(attack: Attack, features: bool) -> None:
    of, target = experiment(12, 60, 2, seed=8), 4
    of = with_features(of) if features else of
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
    own = scores(attack, replace(of, member=member))
    np.testing.assert_array_equal(own[target], before[target])


@each
def test_exempt_examples_are_not_fitted_on(attack: Attack) -> None:
    """What all models were trained on would teach them that everything is a member."""
    of = experiment(12, 60, 3, seed=1)
    mask = np.arange(60) % 3 > 0
    garbled = {
        name: np.where(mask[:, None], values, np.float32(7)).astype(values.dtype)
        for name, values in of.signals.items()
    }
    expected = scores(attack, replace(of, mask=mask))
    found = scores(attack, replace(of, member=of.member | ~mask, signals=garbled, mask=mask))
    np.testing.assert_array_equal(found[:, mask], expected[:, mask])


@each
def test_an_easy_leak_is_found(attack: Attack) -> None:
    of = experiment(16, 120, 4, seed=3, leak=5)
    assert auc(scores(attack, of), of.member)[0] > 0.85


def test_log_odds_do_not_saturate() -> None:
    """Where one logit gives membership away, and φ says how surely, trees sum up to more than 1 or 0."""
    of = experiment(16, 400, 3, seed=3)
    logits = of.signals["first_logits"].copy()
    logits[:, :, 0] += 1000 * of.member
    found = scores(SHOKRI, replace(of, signals={**of.signals, "first_logits": logits}))
    assert np.median(found[of.member]) > 4
    assert np.median(found[~of.member]) < -4


def test_a_hundredth_of_non_members_is_above_the_quantile() -> None:
    of = experiment(32, 800, 3, seed=4, leak=0.0)
    assert 0.003 < (scores(QUANTILE, of)[~of.member] > 0).mean() < 0.03


def test_the_quantile_is_that_of_examples_like_it() -> None:
    """Two kinds of example, by their label or by their features alone; nothing else differs."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 600)
    hinge = (rng.normal(size=(16, 600)) + 10 * kind)[:, :, None].astype(np.float32)
    of = Experiment(membership("bernoulli", 16, 600), {"hinge": hinge}, label=np.zeros(600, int))
    by_features = replace(of, features=kind[:, None].astype(np.float32))
    assert QUANTILE.on(by_features.facts()).parameters["given"] == ["label", "features"]
    assert QUANTILE.on(of.facts()).parameters["given"] == ["label", "mean OUT hinge"]
    for one in (of, by_features, replace(of, label=kind)):
        found = scores(QUANTILE, one)
        assert abs(found[:, kind == 0].mean() - found[:, kind == 1].mean()) < 0.5
        assert -3.5 < found.mean() < -1.5  # a normal's 0.99 quantile is 2.3


def test_a_row_is_left_out_of_its_own_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    of = experiment(8, 5, seed=7)
    seen: list[tuple[Array, Array]] = []
    kind = sklearn.ensemble.HistGradientBoostingRegressor
    fit = kind.fit
    monkeypatch.setattr(kind, "fit", lambda self, x, y: seen.append((x, y)) or fit(self, x, y))
    monkeypatch.setattr(crossfit, "_AT_ONCE", 1)
    scores(QUANTILE, of)
    hinge, fold = of.signals["hinge"][:, :, 0].astype(np.float64), fold_of(of)
    for number, (given, target) in enumerate(seen):
        others = np.flatnonzero(fold != number)
        expected = {}
        for model, example in np.argwhere(~of.member):
            if model in others:
                rest = [other for other in others if other != model and not of.member[other, example]]
                mean = hinge[rest, example].mean() if rest else hinge[others][~of.member[others]].mean()
                expected[float(np.float32(hinge[model, example]))] = (of.labels[example], mean)
        assert len(target) == len(expected)
        for row, value in zip(given, target, strict=True):
            np.testing.assert_allclose(row, expected[float(value)], rtol=1e-6)


# --- what a classifier that recognises examples gives away ---------------------------------------


def recognisable(design: str, seed: int) -> Experiment:
    """Examples that all models answer in much the same way, each in its own; membership does not matter."""
    rng = np.random.default_rng(seed)
    logits = 20 * rng.normal(size=(1, 60, 1, 3)) + 0.1 * rng.normal(size=(24, 60, 1, 3))
    member = membership(design, 24, 60, seed)
    return from_logits(logits.astype(np.float32), rng.integers(0, 3, 60), member)


def test_examples_that_are_recognised_are_unlearned_in_a_balanced_design() -> None:
    """Known and stated: who is in more of the other folds' models is in fewer of the target's. Equal counts
    cannot help it. The AUC falls below one half; with independent membership it does not."""
    areas = {
        design: [
            auc(scores(SHOKRI, recognisable(design, seed)), recognisable(design, seed).member)[0]
            for seed in range(3)
        ]
        for design in ("balanced", "bernoulli")
    }
    assert np.mean(areas["balanced"]) < 0.45
    assert abs(np.mean(areas["bernoulli"]) - 0.5) < 0.05


# --- scikit-learn -------------------------------------------------------------------------------


@each
def test_without_scikit_learn_the_error_names_the_extra(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossfit, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'lirastore\[attacks\]'"):
        attack.on(experiment().facts())


@each
def test_fits_leave_the_threads_of_others_alone(attack: Attack) -> None:
    from threadpoolctl import threadpool_info

    before = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    scores(attack, experiment())
    after = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    assert before.items() <= after.items()
