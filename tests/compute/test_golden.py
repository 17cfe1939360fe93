"""Against what other tools' own code says of one synthetic experiment: 16 models, 300 examples, 2 queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from attack_harness import Experiment, scores
from scipy.stats import norm

from lirastore.attacks import Attack, compose, named
from lirastore.signals import signal

GOLDEN = Path(__file__).parents[1] / "data" / "peers_m16_n300.npz"
TARGETS = (0, 15)

# The signal is stored in float32, which moves a score by up to 2e-6 of max(1, |score|); with the signal in
# float64 the same code agrees to 1e-12, so that nothing but this rounding is between the two.
FLOAT32, FLOAT64 = 5e-6, 1e-11


@pytest.fixture(scope="module")
def golden() -> dict[str, npt.NDArray[Any]]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def experiment(golden: dict[str, npt.NDArray[Any]]) -> Experiment:
    """The experiment, with the signals that this library computes of its logits."""
    signals = {
        name: np.stack(
            [signal(name, ["logits"]).compute["logits"](z, golden["label"]) for z in golden["logits"]]
        )
        for name in ("scaled_logit", "carlini_score")
    }
    return Experiment(golden["membership"], signals)


@pytest.fixture(scope="module")
def exact(golden: dict[str, npt.NDArray[Any]]) -> Experiment:
    """The same with the golden scores themselves, in float64."""
    phi = golden["carlini_score_py"]
    return Experiment(golden["membership"], {"carlini_score": phi, "scaled_logit": phi})


def agree(
    found: npt.NDArray[np.float64], golden: dict[str, npt.NDArray[Any]], key: str, tolerance: float
) -> None:
    """Target by target, relative to max(1, |score|)."""
    for target in TARGETS:
        expected = golden[f"{key}_target{target}"]
        error = np.abs(found[target] - expected) / np.maximum(1, np.abs(expected))
        assert error.max() <= tolerance, (key, target, error.max())


def test_the_signal_of_the_reference_code(
    golden: dict[str, npt.NDArray[Any]], experiment: Experiment
) -> None:
    """score.py to the last bit, rounded to float32; φ of the logits is the same where neither saturates."""
    expected = golden["carlini_score_py"]
    np.testing.assert_array_equal(experiment.signals["carlini_score"], expected.astype(np.float32))
    np.testing.assert_allclose(experiment.signals["scaled_logit"], expected, rtol=2e-6, atol=2e-6)


def test_the_signal_saturates_where_the_reference_code_does() -> None:
    z = np.zeros((2, 1, 3), np.float32)
    z[0, 0, 1], z[1, 0, 1] = 500, -500
    found = signal("carlini_score", ["logits"]).compute["logits"](z, np.array([1, 1]))[:, 0]
    np.testing.assert_allclose(found, [103.6, -103.6], atol=0.1)


CARLINI = {
    "online": "lira_online",
    "online_fixed": "lira_online_fixed",
    "offline": "lira_offline",
    "offline_fixed": "lira_offline_fixed",
    "global": "ablation_global_phi_all",
}


@pytest.mark.parametrize("tile", [300, 37])
@pytest.mark.parametrize("key", list(CARLINI))
def test_the_preset_is_the_reference_code(
    golden: dict[str, npt.NDArray[Any]], experiment: Experiment, exact: Experiment, key: str, tile: int
) -> None:
    attack = named(CARLINI[key], preset="carlini-code")
    agree(scores(attack, experiment, tile), golden, f"carlini_{key}", FLOAT32)
    agree(scores(attack, exact, tile), golden, f"carlini_{key}", FLOAT64)


# --- the preset where the golden experiment, which is balanced, does not reach ------------------


def reference(experiment: Experiment, target: int, *, fixed: bool, offline: bool) -> npt.NDArray[np.float64]:
    """(E,): mi_lira_2021 plot.py's generate_ours and generate_ours_offline in a few lines, negated."""
    phi = experiment.signals["carlini_score"].astype(np.float64)
    keep, others = np.delete(experiment.member, target, 0), np.delete(phi, target, 0)
    examples = range(keep.shape[1])
    rows_in = [others[keep[:, j], j] for j in examples]
    rows_out = [others[~keep[:, j], j] for j in examples]
    sizes = [min(map(len, rows)) for rows in (rows_in, rows_out)]
    if experiment.options.get("equal_counts"):
        sizes = [min(sizes)] * 2
    dat_in, dat_out = (
        np.array([row[:n] for row in rows]) for n, rows in zip(sizes, (rows_in, rows_out), strict=True)
    )
    std_in, std_out = (np.std(dat_in), np.std(dat_in)) if fixed else (np.std(dat_in, 1), np.std(dat_out, 1))
    if fixed and offline:
        std_out = np.std(dat_out)
    log_out = norm.logpdf(phi[target], np.median(dat_out, 1), std_out + 1e-30)
    if offline:
        return -log_out.mean(1)
    return (norm.logpdf(phi[target], np.median(dat_in, 1), std_in + 1e-30) - log_out).mean(1)


def attack_of(fixed: bool, offline: bool) -> Attack:
    return named(f"lira_{'offline' if offline else 'online'}{'_fixed' * fixed}", preset="carlini-code")


@pytest.mark.parametrize("equal_counts", [False, True], ids=["cut", "equal-counts"])
@pytest.mark.parametrize("share", [0.35, 0.5, 0.65])
@pytest.mark.parametrize("offline", [False, True], ids=["online", "offline"])
@pytest.mark.parametrize("fixed", [False, True], ids=["example", "fixed"])
def test_every_target_of_unbalanced_designs(
    fixed: bool, offline: bool, share: float, equal_counts: bool
) -> None:
    """Every target has its own cuts: the smallest counts of this design differ between targets."""
    rng = np.random.default_rng(int(100 * share))
    member = rng.random((21, 50)) < share
    phi = (rng.normal(0, 3, (1, 50, 1)) + member[:, :, None] + rng.normal(size=(21, 50, 2))).astype(
        np.float32
    )
    phi[:, 7] = 103.6
    experiment = Experiment(member, {"carlini_score": phi}).with_options(equal_counts=equal_counts)
    found = scores(attack_of(fixed, offline), experiment, tile=13)
    for target in range(21):
        expected = reference(experiment, target, fixed=fixed, offline=offline)
        np.testing.assert_allclose(found[target], expected, rtol=1e-9, atol=1e-9)


def test_examples_that_are_exempt_do_not_count() -> None:
    """Canary designs: an example that is in every model would cut the OUT rows of all to none."""
    rng = np.random.default_rng(6)
    member = rng.random((15, 40)) < 0.5
    member[:, ::4] = True
    mask = np.arange(40) % 4 != 0
    phi = rng.normal(size=(15, 40, 2)).astype(np.float32)
    whole = Experiment(member, {"carlini_score": phi}, mask)
    part = Experiment(member[:, mask], {"carlini_score": phi[:, mask]})
    for fixed in (False, True):
        attack = attack_of(fixed, offline=False)
        found = scores(attack, whole, tile=9)[:, mask]
        np.testing.assert_allclose(found, scores(attack, part, tile=30), rtol=1e-11, atol=1e-11)


# --- tensorflow/privacy's advanced_mia.py, as far as the algebra says it ------------------------


@pytest.mark.parametrize("centre", ["mean", "median"])
@pytest.mark.parametrize(
    ("key", "test"),
    [("online", "gaussian-in-out"), ("offset_both", "in-out-mean"), ("offset_out", "out-mean")],
)
def test_points_of_the_algebra_are_the_tf_library(
    golden: dict[str, npt.NDArray[Any]],
    experiment: Experiment,
    exact: Experiment,
    key: str,
    test: str,
    centre: str,
) -> None:
    attack = compose("peer", signal="scaled_logit", test=test, centre=centre)  # type: ignore[arg-type]
    agree(scores(attack, experiment), golden, f"tf_library_{key}_{centre}", FLOAT32)
    agree(scores(attack, exact), golden, f"tf_library_{key}_{centre}", FLOAT64)


def test_global_variance_of_one_query_is_the_tf_library_s(
    golden: dict[str, npt.NDArray[Any]], exact: Experiment
) -> None:
    """The library pools over queries too; with queries stacked as further examples, global variance does the
    same.

    Not with its median, where it takes the standard deviation of the deviations from medians; ours are from
    means."""
    phi = exact.signals["scaled_logit"]
    stacked = Experiment(
        np.concatenate([exact.member, exact.member], axis=1),
        {"scaled_logit": np.concatenate([phi[:, :, :1], phi[:, :, 1:]], axis=1)},
    )
    attack = compose("peer", signal="scaled_logit", test="gaussian-in-out", variance="global")
    found = scores(attack, stacked).reshape(16, 2, 300).mean(axis=1)
    agree(found, golden, "tf_library_online_mean_fixed", FLOAT64)
