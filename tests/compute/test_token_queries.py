"""Queries that stand aside: noise, and the tokens of a sequence, which attacks on sequences do not take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import attack_harness as harness
import numpy as np
import pytest
from attack_harness import Array, Experiment

import lirastore
from lirastore import attacks, engine
from lirastore.attacks import Attack, Block, registry
from lirastore.attacks.block import is_noise, stands_aside
from lirastore.attacks.power import power, query_counts
from lirastore.engine.planning import BASE_BYTES
from lirastore.errors import MissingData
from lirastore.moments import Loo

TOKENS = 6
NAMES = ("identity", *(f"token({place})" for place in range(TOKENS)))
NEED_NO_LOGITS = [
    "loss",
    "sablayrolles",
    "watson",
    "ye",
    "lira_online",
    "lira_offline",
    "lira_online_fixed",
    "lira_offline_fixed",
    "lira_online_full",
    "rmia",
    "rmia_offline",
]


def sequences(models: int = 8, examples: int = 40, seed: int = 0) -> Experiment:
    """log p of tokens, (M, E, 1 + T), their mean first, which is higher for members; and φ of each."""
    rng = np.random.default_rng(seed)
    member = harness.membership("balanced", models, examples, seed)
    t = -rng.exponential(2.0, (models, examples, TOKENS)) / (1 + member[:, :, None])
    t = np.concatenate([t.mean(axis=2, keepdims=True), t], axis=2)
    phi = t - np.log(-np.expm1(t))
    signals = {"token_logprob": t.astype("f4"), "scaled_logit": phi.astype("f4"), "loss": t}
    arrays = frozenset({"token_logprob", "scaled_logit"})
    return Experiment(member, signals, augmentations=NAMES, arrays=arrays)


def without_tokens(of: Experiment) -> Experiment:
    signals = {name: values[:, :, :1].copy() for name, values in of.signals.items()}
    return replace(of, signals=signals, augmentations=("identity",))


def one_block(of: Experiment) -> Block:
    (block,) = of.blocks(10_000, {}, set(of.signals))
    return block


# --- which stand aside ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["noise(0.01)#3", "noise(1)", "token(0)", "token(511)"])
def test_noise_and_tokens_stand_aside(name: str) -> None:
    assert stands_aside(name)
    assert is_noise(name) == name.startswith("noise")


@pytest.mark.parametrize(
    "name", ["identity", "flip", "tokens", "token", "noisy(1)", "shift(+2,0)", "my token(0)"]
)
def test_all_others_do_not(name: str) -> None:
    assert not stands_aside(name)


def test_a_block_gives_what_it_is_asked_for() -> None:
    of = sequences()
    mixed = ("identity", "token(0)", "noise(1)#0", "token(1)", "flip", "noise(1)#1", "token(2)")
    block, values = one_block(replace(of, augmentations=mixed)), of.signals["token_logprob"]
    chosen = {"first": [0], "all": [0, 4], "noise": [2, 5], "tokens": [1, 3, 6], "every": list(range(7))}
    for queries, places in chosen.items():
        np.testing.assert_array_equal(block.signal("token_logprob", queries=queries), values[:, :, places])


def test_tokens_that_there_are_not_are_named() -> None:
    of = sequences()
    with pytest.raises(MissingData, match=r"the queries here are identity; .*--tokens"):
        one_block(without_tokens(of)).signal("token_logprob", queries="tokens")
    whole = replace(of, signals={**of.signals, "merlin": of.signals["loss"][:, :, :1]})
    with pytest.raises(MissingData, match="'merlin' has no values per token"):
        one_block(whole).signal("merlin", queries="tokens")
    with pytest.raises(MissingData, match="not limited"):
        one_block(of).limited(4, 1).signal("token_logprob", queries="tokens")


# --- named attacks stay attacks on sequences ------------------------------------------------------


@pytest.mark.parametrize("name", NEED_NO_LOGITS)
def test_named_attacks_are_the_same_to_the_bit_with_and_without_tokens(name: str) -> None:
    of = sequences()
    found = harness.scores(attacks.named(name), of)
    np.testing.assert_array_equal(found, harness.scores(attacks.named(name), without_tokens(of)))
    assert len(np.unique(found)) > 1


@pytest.mark.parametrize("name", ["lira_online", "lira_online_fixed"])
def test_limits_leave_tokens_out_too(name: str) -> None:
    of, attack = sequences(), power(attacks.named(name), 4, 1)
    np.testing.assert_array_equal(harness.scores(attack, of), harness.scores(attack, without_tokens(of)))
    assert query_counts(["first", "all"], NAMES) == [1]


# --- an attack on tokens --------------------------------------------------------------------------


def naive_min_k_lira(of: Experiment, share: float = 0.25) -> Array:
    tokens = np.sort(of.signals["token_logprob"][:, :, 1:].astype(np.float64), axis=2)
    least = tokens[:, :, : max(1, round(share * TOKENS))].mean(axis=2)
    scores = np.empty(least.shape)
    for target, example in np.ndindex(least.shape):
        others = np.arange(len(least)) != target
        density = []
        for side in (of.member[:, example], ~of.member[:, example]):
            values = least[others & side, example]
            z = (least[target, example] - values.mean()) / values.std()
            density.append(-0.5 * z**2 - np.log(values.std()))
        scores[target, example] = density[0] - density[1]
    return scores


def test_an_attack_of_ones_own_sees_every_token(min_k: Attack) -> None:
    of = sequences()
    found = min_k.function(one_block(of))
    np.testing.assert_allclose(found, naive_min_k_lira(of), rtol=1e-5)
    assert (found != harness.scores(attacks.named("lira_online"), of)).any()


# --- memory ---------------------------------------------------------------------------------------

CHILD = """
import json, sys
from lirastore import attacks, engine
from lirastore.memory import peak_rss
from lirastore.store import open_store
sys.path.insert(0, sys.argv[2])
import test_token_queries as here
store = open_store(sys.argv[1])
own = {"per_token": here.PER_TOKEN, "min_k": attacks.resolve(f"{here.MIN_K}:min_k")}
chosen = [own[name] if name in own else attacks.named(name) for name in sys.argv[3].split(",")]
budget = here.least(store, chosen) + (8 << 20)
options = engine.Options(threads=1, progress=False, force=True, memory=budget)
plan = engine.plan(store, chosen, options)
engine.run(store, chosen, options)
print(json.dumps({"peak": peak_rss(), "projected": plan.projected, "blocks": len(plan.blocks)}))
"""


def least(store: Any, chosen: list[Attack]) -> int:
    """The smallest budget for one thread."""
    with pytest.raises(lirastore.errors.MemoryBudgetError) as caught:
        engine.plan(store, chosen, engine.Options(memory=1, threads=1))
    return int(str(caught.value).partition("--memory ")[2].split()[0])


def per_token(block: Block) -> Array:
    """LiRA online of each token by itself; the mean over them."""
    x = block.signal("token_logprob", queries="tokens")
    loo = Loo(x, block.member, others=block.others())
    inside = (x - loo.mean_in) ** 2 / (loo.var_in + 1e-9) + np.log(loo.var_in + 1e-9)
    outside = (x - loo.mean_out) ** 2 / (loo.var_out + 1e-9) + np.log(loo.var_out + 1e-9)
    return np.asarray((outside - inside).mean(axis=2))


PER_TOKEN = Attack("per_token", per_token, signals=("token_logprob",))
MIN_K = Path(__file__).parents[2] / "pipelines" / "examples" / "min_k.py"


@pytest.fixture
def min_k(monkeypatch: pytest.MonkeyPatch) -> Attack:
    """The example, for this test only: an attack of a file is known by its name from then on."""
    monkeypatch.setattr(registry, "_user_attacks", {})
    return attacks.resolve(f"{MIN_K}:min_k")


@pytest.fixture(scope="module")
def long_sequences(tmp_path_factory: pytest.TempPathFactory) -> lirastore.Store:
    """32 models × 1,200 sequences of 128 tokens, both signals: 40 MB."""
    examples, queries = 1200, ["identity", *(f"token({place})" for place in range(128))]
    store = lirastore.create(
        tmp_path_factory.mktemp("tokens") / "a.lira",
        labels=np.full(examples, -1),
        classes=None,
        models=32,
        augmentations=queries,
        signals=["token_logprob"],
    )
    for model, member in enumerate(store.membership):
        rng = np.random.default_rng(model)
        t = -rng.exponential(1.0, (examples, len(queries))).astype("f4") - 0.01 + 0.005 * member[:, None]
        with store.writer(model) as writer:
            writer.write(examples=slice(0, examples), scaled_logit=t, token_logprob=t)
    return store


@pytest.mark.parametrize("names", ["loss,watson,lira_online,lira_online_fixed", "per_token", "min_k"])
def test_memory_stays_within_what_the_plan_projects(long_sequences: lirastore.Store, names: str) -> None:
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(long_sequences.path), folder, names],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": folder},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["peak"] <= found["projected"]
    assert found["projected"] > BASE_BYTES


def test_tokens_do_not_make_named_attacks_dear(long_sequences: lirastore.Store) -> None:
    """They are read and held, not worked on; for a function of one's own they count like any other query."""
    named = least(long_sequences.logits, [attacks.named("lira_online")])
    own = least(long_sequences.logits, [PER_TOKEN])
    assert named - BASE_BYTES < (own - BASE_BYTES) / 2
