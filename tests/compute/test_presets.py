"""The presets against the codes that they follow: their own outputs, and plain loops over targets.

`tests/data/presets_README.md` says how the outputs in presets_peers.npz came about.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from attack_harness import Experiment, from_logits, scores
from scipy.stats import norm

from lirastore.attacks import named, presets
from lirastore.moments import Others
from lirastore.signals import SIGNALS

DATA = Path(__file__).parents[1] / "data"
Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

# Relative to max(1, |score|). Given the other code's own signal in float64, only rounding is between the two.
# Signals are kept in float32, which moves scores by up to 2e-5 of these experiments, whose φ goes up to 300.
FLOAT64, FLOAT32 = 1e-11, 2e-5
# Of a code that takes means and standard deviations in float32.
ALL_FLOAT32 = 5e-5

NEW = ("tf-library", "misleading-evals", "leakpro")


@pytest.fixture(scope="module")
def peers() -> dict[str, Array]:
    """16 models, 300 examples, 2 queries; what is said of targets 0 and 15."""
    with np.load(DATA / "peers_m16_n300.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Array]:
    with np.load(DATA / "presets_peers.npz") as file:
        return dict(file)


def experiments(
    found: dict[str, Array], tag: str, models: int | None = None
) -> tuple[Experiment, Experiment]:
    """With the recorded signals in float64, and with the signals that this library computes of the logits."""
    part = {
        key.split("/")[1]: found[key] for key in found if key.startswith(f"{tag}/") and key.count("/") == 1
    }
    part["leakpro_score"] = part["leakpro_score"][:, :, None]
    member = part["membership"][:models]
    exact = {name: part[name][:models].astype(np.float64) for name in part if name in SIGNALS}
    return Experiment(member, exact), from_logits(part["logits"][:models], part["label"], member)


def error(found: Float64, expected: Array) -> float:
    assert found.shape == expected.shape
    return float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())


# --- outputs of the other codes -----------------------------------------------------------------

GOLDEN = {
    "tf_library_online_median": ("tf-library", "lira_online"),
    "tf_library_online_median_fixed": ("tf-library", "lira_online_fixed"),
    "tf_library_online_mean": ("tf-library", "lira_online_mean"),
    "tf_library_online_mean_fixed": ("tf-library", "lira_online_fixed_mean"),
    "tf_library_offset_both_median": ("tf-library", "sablayrolles"),
    "tf_library_offset_both_mean": ("tf-library", "sablayrolles_mean"),
    "tf_library_offset_out_median": ("tf-library", "watson"),
    "tf_library_offset_out_mean": ("tf-library", "watson_mean"),
    "leakpro_online_individual_q0": ("leakpro", "lira_online_individual"),
    "leakpro_offline_individual_q0": ("leakpro", "lira_offline_individual"),
}


@pytest.mark.parametrize("key", list(GOLDEN))
def test_the_golden_outputs_of_both_targets(peers: dict[str, Array], key: str) -> None:
    preset, name = GOLDEN[key]
    phi = peers["carlini_score_py"]
    exact = Experiment(peers["membership"], {"carlini_score": phi, "leakpro_score": phi})
    ours = from_logits(peers["logits"], peers["label"], peers["membership"])
    attack = named(name, preset=preset)
    for experiment, tolerance in ((exact, FLOAT64), (ours, 5e-6)):
        found = scores(attack, experiment, tile=37)
        for target in (0, 15):
            assert error(found[target], peers[f"{key}_target{target}"]) <= tolerance


def test_the_default_of_leakpro_is_its_individual_rule_while_models_are_few(peers: dict[str, Array]) -> None:
    """Of 15 shadow models neither rule takes an example's own deviation, so the golden file holds both."""
    phi = peers["carlini_score_py"]
    experiment = Experiment(peers["membership"], {"leakpro_score": phi})
    for way in ("online", "offline"):
        found = scores(named(f"lira_{way}", preset="leakpro"), experiment)
        assert error(found[15], peers[f"leakpro_{way}_individual_q0_target15"]) <= FLOAT64


RECORDED = [
    (tag, preset, name)
    for tag in ("queries", "lopsided", "many")
    for preset in NEW
    for name in presets.attacks(preset)
    if (tag != "many" or preset == "leakpro") and "global" not in name
]


@pytest.mark.parametrize(("tag", "preset", "name"), RECORDED)
def test_every_target_of_every_attack_as_the_other_code_has_it(
    recorded: dict[str, Array], tag: str, preset: str, name: str
) -> None:
    expected = recorded[f"{tag}/{preset}/{name}"]
    exact, ours = experiments(recorded, tag)
    attack = named(name, preset=preset)
    for tile in (5, 64):
        assert error(scores(attack, exact, tile), expected) <= FLOAT64
    assert error(scores(attack, ours), expected) <= FLOAT32


@pytest.mark.parametrize(
    "name", ["lira_online", "lira_offline", "lira_online_individual", "lira_offline_individual"]
)
def test_leakpro_counts_shadow_models_without_the_target(recorded: dict[str, Array], name: str) -> None:
    """Of 64 models 63 are shadow models, too few for an example's own deviation; of 66 enough are."""
    few, _ = experiments(recorded, "many", models=64)
    assert error(scores(named(name, preset="leakpro"), few), recorded[f"many/first64/{name}"]) <= FLOAT64
    assert recorded["many/leakpro/lira_online"].std() > 10 * recorded["many/first64/lira_online"].std()


@pytest.mark.parametrize("name", ["lira_online", "lira_offline"])
def test_leakpro_in_its_own_precision(recorded: dict[str, Array], name: str) -> None:
    _, ours = experiments(recorded, "many")
    found = scores(named(name, preset="leakpro"), ours)
    assert error(found, recorded[f"many/leakpro-float32/{name}"]) <= ALL_FLOAT32


@pytest.mark.parametrize("tag", ["queries", "lopsided"])
def test_signals_are_theirs(recorded: dict[str, Array], tag: str) -> None:
    """To the rounding of float32: exp, in it, differs between machines."""
    exact, ours = experiments(recorded, tag)
    for name in ("carlini_score", "scaled_logit", "hinge"):
        np.testing.assert_allclose(ours.signals[name], exact.signals[name], rtol=5e-7, atol=5e-7)
    theirs = exact.signals["leakpro_score"]
    np.testing.assert_allclose(ours.signals["leakpro_score"][:, :, :1], theirs, rtol=5e-7, atol=5e-7)


def test_the_signal_of_leakpro_saturates_where_float32_ends() -> None:
    logits = np.array([[[0, 500, 0]], [[0, -500, 0]]], np.float32)
    limit = -np.log(np.float32(1e-45))
    compute = SIGNALS["leakpro_score"].compute["logits"]
    for dtype in (np.float32, np.float16):
        found = compute(logits.astype(dtype), np.array([1, 1]))
        np.testing.assert_allclose(found[:, 0], [limit, -limit], rtol=1e-6)
    assert limit == pytest.approx(103.279, abs=1e-3)


# --- plain loops over targets, on designs that the recorded experiments do not have ---------------

Columns = list[Float64]


def beside(
    target: int, values: Array, others: Others, member: npt.NDArray[np.bool_]
) -> tuple[Columns, Columns]:
    """For each example the (k, A) values of the IN, and of the OUT models beside a target."""

    def side(example: int, inside: bool) -> Float64:
        chosen = member[:, example] == inside
        kept = others.cross
        if inside == member[target, example] and others.base is not None:
            kept = others.base if others.base[target, example] else others.spare
        if kept is not None:
            chosen &= kept[:, example]
        chosen[target] = False
        return np.asarray(values[chosen, example])

    examples = range(member.shape[1])
    return [side(j, True) for j in examples], [side(j, False) for j in examples]


def normal(s: Float64, centre: Float64, sigma: Float64) -> Float64:
    return np.asarray(norm.logpdf(s, centre, sigma + 1e-30))


def tf_library(s: Float64, inside: Columns, outside: Columns, name: str) -> Float64:
    average = np.mean if name.endswith("_mean") else np.median

    def centre(side: Columns) -> Float64:
        return np.array([average(values, axis=0) for values in side])

    def density(side: Columns) -> Float64:
        middle = centre(side)
        if "fixed" in name:
            sigma = np.std(np.concatenate([x - m for x, m in zip(side, middle, strict=True)]))
        else:
            sigma = np.array([np.std(values, axis=0) for values in side])
        return normal(s, middle, sigma)

    if name.startswith("watson"):
        of_queries = s - centre(outside)
    elif name.startswith("sablayrolles"):
        of_queries = s - (centre(inside) + centre(outside)) / 2
    elif name.startswith("lira_offline"):
        of_queries = -density(outside)
    else:
        of_queries = density(inside) - density(outside)
    return np.asarray(of_queries.mean(axis=1))


def misleading_evals(s: Float64, inside: Columns, outside: Columns, name: str) -> Float64:
    if "inout_gauss" in name:
        s, inside, outside = s[:, :1], [x[:, :1] for x in inside], [x[:, :1] for x in outside]

    def density(side: Columns) -> Float64:
        if "fixed" in name:
            sigma = np.std(np.concatenate([values.ravel() for values in side]), ddof=1)
        else:
            sigma = np.array([np.std(values, axis=0, ddof=1) for values in side])
        return normal(s, np.array([values.mean(axis=0) for values in side]), sigma)

    if "global" in name:
        return s[:, 0]
    return np.asarray(density(inside).mean(axis=1) - density(outside).mean(axis=1))


def leakpro(s: Float64, inside: Columns, outside: Columns, name: str) -> Float64:
    found = np.empty(len(s))
    total = [np.std(np.concatenate([values[:, 0] for values in side])) for side in (inside, outside)]
    for j, target in enumerate(s[:, 0]):
        sides = [inside[j][:, 0], outside[j][:, 0]]
        models = len(sides[0]) + len(sides[1])
        sigma = []
        for values, all_values in zip(sides, total, strict=True):
            own = (
                "fixed" in name
                or ("individual" in name and len(values) >= 32)
                or ("individual" not in name and models >= 64)
            )
            sigma.append((np.std(values) if own else all_values) + 1e-30)
        if "offline" in name:
            found[j] = norm.logcdf(target, sides[1].mean(), sigma[1])
        else:
            found[j] = norm.logpdf(target, sides[0].mean(), sigma[0])
            found[j] -= norm.logpdf(target, sides[1].mean(), sigma[1])
    return found


NAIVE = {"tf-library": tf_library, "misleading-evals": misleading_evals, "leakpro": leakpro}
ALL = [(preset, name) for preset in NEW for name in presets.attacks(preset)]


def synthetic(models: int, share: float, queries: int, examples: int = 18, seed: int = 5) -> Experiment:
    """Bernoulli membership with at least 3 models a side, and a float64 signal, with huge values in it."""
    rng = np.random.default_rng([seed, models, queries, int(100 * share)])
    member = rng.random((models, examples)) < share
    member[:3], member[3:6] = True, False
    phi = (
        rng.normal(0, 3, (1, examples, 1))
        + member[:, :, None]
        + rng.normal(0, 1, (models, examples, queries))
    )
    phi[5 % models, 4] = 1e4
    return Experiment(member, dict.fromkeys(("carlini_score", "scaled_logit", "hinge", "leakpro_score"), phi))


def assert_naive(experiment: Experiment, preset: str, name: str, tile: int = 7) -> None:
    attack = named(name, preset=preset)
    found = scores(attack, experiment, tile)
    values = experiment.signals[attack.signals[0]]
    (block,) = experiment.blocks(values.shape[1], {}, set())
    others = block.others()
    assert attack.minimum.met(block).all()
    for target in range(len(values)):
        inside, outside = beside(target, values, others, experiment.member)
        expected = NAIVE[preset](values[target], inside, outside, name)
        assert error(found[target], expected) <= 1e-9


@pytest.mark.parametrize(("models", "share", "queries"), [(12, 0.5, 3), (20, 0.25, 1), (17, 0.75, 2)])
@pytest.mark.parametrize(("preset", "name"), ALL)
def test_every_target_of_unbalanced_designs(
    preset: str, name: str, models: int, share: float, queries: int
) -> None:
    assert_naive(synthetic(models, share, queries), preset, name)


@pytest.mark.parametrize("models", [64, 65, 66])
@pytest.mark.parametrize("share", [0.35, 0.5])
@pytest.mark.parametrize("name", list(presets.attacks("leakpro")))
def test_leakpro_about_its_thresholds(name: str, share: float, models: int) -> None:
    assert_naive(synthetic(models, share, queries=1, examples=9), "leakpro", name)


@pytest.mark.parametrize("options", [{"equal_counts": True, "seed": 3}, {"shadows": 6, "seed": 3}], ids=str)
@pytest.mark.parametrize(("preset", "name"), ALL)
def test_with_equal_counts_and_with_fewer_models(preset: str, name: str, options: dict[str, Any]) -> None:
    """As if the other code had been given the models that are left. LeakPro counts those as shadow models."""
    assert_naive(synthetic(15, 0.4, 2).with_options(**options), preset, name)


@pytest.mark.parametrize("way", ["online", "offline"])
def test_leakpro_counts_the_models_that_equal_counts_leave(way: Literal["online", "offline"]) -> None:
    """70 models, of which 20 are IN: at most 40 are left, and no example has a deviation of its own."""
    experiment = synthetic(70, 0.25, 1, examples=9).with_options(equal_counts=True, seed=1)
    assert_naive(experiment, "leakpro", f"lira_{way}")


@pytest.mark.parametrize(("preset", "name"), ALL)
def test_examples_that_are_exempt_do_not_count(preset: str, name: str) -> None:
    """Canary designs: what is pooled over examples is pooled over the canaries."""
    whole = synthetic(13, 0.5, 2)
    mask = np.arange(18) % 3 != 0
    whole.member[:, ~mask] = True
    exempt = Experiment(whole.member, whole.signals, mask)
    part = Experiment(whole.member[:, mask], {key: phi[:, mask] for key, phi in whole.signals.items()})
    attack = named(name, preset=preset)
    found = scores(attack, exempt, tile=5)[:, mask]
    np.testing.assert_allclose(found, scores(attack, part), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("preset", "name"), ALL)
def test_saturated_and_constant_columns_have_finite_scores(preset: str, name: str) -> None:
    """σ of constant columns is 0 and its floor: the scores are huge, and checked to be finite."""
    experiment = synthetic(12, 0.5, 2)
    phi = experiment.signals["hinge"]
    phi[:, 0], phi[:, 1] = 103.6, np.where(experiment.member[:, 1, None], 300, -300)
    phi[:-1, 2] = 0
    assert np.abs(scores(named(name, preset=preset), experiment)).max() < 1e70


@pytest.mark.parametrize(("preset", "name"), ALL)
def test_what_is_stamped_says_it_all(preset: str, name: str) -> None:
    attack = named(name, preset=preset)
    stamped = json.loads(json.dumps(dict(attack.parameters)))
    assert stamped["preset"] == preset
    assert {"signal", "test", "queries"} <= stamped.keys()
    assert attack.signals == (stamped["signal"],)
    assert attack.described
    assert attack.limitable
    assert "igher means member" in attack.doc


def test_no_two_attacks_of_a_preset_are_stamped_alike() -> None:
    for preset in NEW:
        stamps = [
            json.dumps(dict(attack.parameters), sort_keys=True) for attack in presets.attacks(preset).values()
        ]
        assert len(set(stamps)) == len(stamps)
