from __future__ import annotations

import numpy as np
import pytest
from sql_stores import make_store, put_memorization, put_power, put_scores

MODELS, EXAMPLES = 8, 300


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def members():
    return np.random.default_rng(7).random((MODELS, EXAMPLES)) < 0.5


@pytest.fixture(scope="session")
def empty(tmp_path_factory, members):
    """Nothing committed, nothing attacked."""
    return make_store(tmp_path_factory.mktemp("empty") / "empty.lira", members, committed=())


@pytest.fixture(scope="session")
def attacked(tmp_path_factory, members):
    """Two attacks, one full of ties, one also with few models, and memorization. Tests do not change it."""
    rng = np.random.default_rng(8)
    metadata = {
        0: {
            "train_accuracy": 0.75,
            "test_accuracy": "high",
            "seed": 41,
            "source_id": 17,
            "epochs": [1, 2],
            "loss_curve": [2.5, 1],
            "pipeline": "mine",
            "recipe": "fast",
            "seconds": 2.5,
            "device": "abacus",
        },
        1: {"loss_curve": "steep"},
    }
    store = make_store(tmp_path_factory.mktemp("attacked") / "attacked.lira", members, metadata=metadata)
    put_scores(store, "alpha", np.round(rng.normal(size=members.shape) + members, 1))
    put_scores(
        store, "beta", 100 + rng.normal(size=members.shape) + 2 * members, preset="carlini-code", seed=5
    )
    put_power(store, "beta", 4, 1, rng.normal(size=members.shape) + members)
    put_memorization(store, np.linspace(0, 1, EXAMPLES), np.linspace(0, 0.5, EXAMPLES))
    return store
