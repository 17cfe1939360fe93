"""`lirastore attack STORE --all`: each attack has a result or a stated reason, and the tables answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import lirastore
from lirastore.attacks import presets
from lirastore.cli import cli

MODELS, EXAMPLES, QUERIES, CLASSES = 8, 200, 2, 4
PAPER = presets.attacks("paper")
NEED_LOGITS = {"shokri", "modified_entropy", "long", "quantile", "memorization", "influence"}
NEED_NOISE = {"merlin", "morgan"}


@dataclass(frozen=True)
class Ran:
    """What `attack --all` said of a store: the attacks that it ran, and why the others could not."""

    store: lirastore.Store
    done: list[str]
    skipped: dict[str, str]

    def kinds(self, *kinds: str) -> set[str]:
        return {name for name in self.done if PAPER[name].kind in kinds}


def run_all(store: lirastore.Store, *options: str) -> Ran:
    command = ["attack", str(store.path), "--all", "--threads", "1", *options]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    skipped = {}
    for names, why in re.findall(r"^skipped (.*?): (.+)$", result.stderr, re.MULTILINE):
        skipped |= dict.fromkeys(names.split(", "), why)
    return Ran(store, [line.split("\t")[0] for line in result.stdout.splitlines()], skipped)


def made_up(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """labels (E,), and logits (M, E, A, C) float32 of models that remember nothing yet."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, EXAMPLES)
    logits = rng.standard_normal((MODELS, EXAMPLES, QUERIES, CLASSES)).astype(np.float32)
    logits[:, np.arange(EXAMPLES), :, labels] += rng.normal(1, 1, EXAMPLES).astype("f4")[:, None, None]
    return labels, logits


def store_of_logits(path: Path) -> lirastore.Store:
    """Logits and Merlin's shares; models are surer of their members."""
    labels, logits = made_up()
    store = lirastore.create(
        path,
        labels=labels,
        classes=CLASSES,
        models=MODELS,
        augmentations=QUERIES,
        signals=[("merlin", ("model", "example"))],
        name="CIFAR-10, or so",
    )
    rows = np.arange(EXAMPLES)
    for model, member in enumerate(store.membership):
        logits[model][rows, :, labels] += 3 * member[:, None]
        share = np.random.default_rng(model).binomial(100, 0.4 + 0.3 * member) / 100
        with store.writer(model) as writer:
            writer.write(logits[model], examples=slice(0, EXAMPLES), merlin=share.astype("f4"))
    return store


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A store of logits after --all."""
    return run_all(store_of_logits(tmp_path_factory.mktemp("all") / "s.lira"))


@pytest.fixture(scope="module")
def for_presets(tmp_path_factory: pytest.TempPathFactory) -> lirastore.Store:
    """The same store, which one preset after the other runs on."""
    return store_of_logits(tmp_path_factory.mktemp("presets") / "s.lira")


@pytest.fixture(scope="module")
def confidences(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A store that was given the confidence in the label, of one query, and nothing else."""
    labels, logits = made_up(1)
    store = lirastore.create(
        tmp_path_factory.mktemp("signal") / "s.lira",
        labels=labels,
        classes=None,
        models=MODELS,
        augmentations=1,
    )
    for model, member in enumerate(store.membership):
        values = logits[model, np.arange(EXAMPLES), :1, labels] + 3 * member[:, None]
        confidence = 1 / (1 + np.exp(-values))
        with store.writer(model) as writer:
            writer.write(scaled_logit=np.log(confidence / (1 - confidence)), examples=slice(0, EXAMPLES))
    return run_all(store)


def test_every_attack_runs_where_its_data_is(attacked: Ran) -> None:
    assert attacked.skipped == {}
    assert sorted(attacked.done) == sorted(PAPER)


def test_every_score_is_there_once_and_finite(attacked: Ran) -> None:
    found = attacked.store.sql(
        "select attack, count(*), count(distinct model * 100000 + example), bool_and(isfinite(score)) "
        "from scores group by attack"
    ).fetchall()
    every = MODELS * EXAMPLES
    assert sorted(found) == [(name, every, every, True) for name in sorted(attacked.kinds("scores"))]


def test_results_of_examples_are_finite(attacked: Ran) -> None:
    ask = attacked.store.sql
    assert ask("select count(*), bool_and(isfinite(memorization)) from memorization").fetchall() == [
        (EXAMPLES, True)
    ]
    ((influenced, finite, of_itself),) = ask(
        "select count(distinct other), bool_and(isfinite(influence)), bool_or(example = other) from influence"
    ).fetchall()
    assert EXAMPLES / 2 < influenced <= EXAMPLES  # none helps those that all models get right
    assert (finite, of_itself) == (True, False)


def test_every_score_is_higher_for_members(attacked: Ran) -> None:
    aucs = dict(attacked.store.sql("select attack, auc from metrics").fetchall())
    assert set(aucs) == attacked.kinds("scores")
    # `long` attacks few examples only: all others of its scores are one tie
    assert {name: auc for name, auc in aucs.items() if auc < (0.52 if name == "long" else 0.55)} == {}


def test_the_tables_of_the_talk_are_filled(attacked: Ran) -> None:
    rows = attacked.store.sql(
        "select attack, preset, balanced_accuracy, tpr_at_0_1pct, published_balanced_accuracy, data_set "
        "from paper_table"
    ).fetchall()
    assert {attack for attack, *_ in rows} <= set(PAPER)
    assert all(
        preset == "paper" and 0.5 <= accuracy <= 1 and 0 <= tpr <= 1 for _, preset, accuracy, tpr, *_ in rows
    )
    published = {attack: accuracy for attack, *_, accuracy, data_set in rows if data_set == "cifar10"}
    assert len(published) >= 9
    assert published["lira_online"] == 0.638
    steps = attacked.store.sql("select attack, tpr_at_0_1pct from ablation_table").fetchall()
    assert {name for name, _ in steps} == {name for name in PAPER if name.startswith("ablation_")}
    assert len(steps) == 3 + 5 + 5  # the LOSS attack begins each chain
    assert all(0 <= rate <= 1 for _, rate in steps)


def test_a_store_of_confidences_gives_what_needs_no_logits(confidences: Ran) -> None:
    assert set(confidences.skipped) == NEED_LOGITS | NEED_NOISE
    assert sorted(confidences.done) == sorted(PAPER.keys() - confidences.skipped.keys())
    assert all("logits" in confidences.skipped[name] for name in NEED_LOGITS)
    assert all("noise" in confidences.skipped[name] for name in NEED_NOISE)
    finite = confidences.store.sql("select bool_and(isfinite(score)) from scores").fetchall()
    assert finite == [(True,)]


@pytest.mark.parametrize("preset", [name for name in presets.PRESETS if name != presets.DEFAULT])
def test_each_preset_runs_whole(preset: str, for_presets: lirastore.Store) -> None:
    ran = run_all(for_presets, "--preset", preset)
    assert ran.skipped == {}
    assert sorted(ran.done) == sorted(presets.attacks(preset))
    found = for_presets.sql(
        f"select attack, bool_and(isfinite(score)) from scores join attacks using (attack) "
        f"where preset = '{preset}' group by attack"
    ).fetchall()
    assert sorted(found) == [(name, True) for name in sorted(ran.done)]


def test_a_store_of_confidences_says_why_a_preset_cannot_run(confidences: Ran) -> None:
    ran = run_all(confidences.store, "--preset", "tf-library")
    assert ran.done == []
    assert set(ran.skipped) == set(presets.attacks("tf-library"))
    assert all("logits" in why for why in ran.skipped.values())
