from __future__ import annotations

import pytest
from report_stores import MODELS, commit, make_store

import lirastore


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> lirastore.Store:
    store = make_store(tmp_path_factory.mktemp("report") / "leaky.lira", name="leaky pictures")
    commit(store, range(MODELS))
    store.attack("loss", "lira_online", progress=False)
    return store


@pytest.fixture(scope="session")
def varied(tmp_path_factory: pytest.TempPathFactory) -> lirastore.Store:
    """With more attacks than are drawn at first, two of them the same, memorization, and power."""
    store = make_store(tmp_path_factory.mktemp("report") / "varied.lira", name="CIFAR-10, a piece", models=16)
    commit(store, range(16))
    store.attack(
        *("loss", "watson", "sablayrolles", "ye", "lira_online", "lira_offline", "lira_online_fixed"),
        *("ablation_global_loss", "ablation_global_phi", "ablation_global_phi_all", "ablation_inout_phi"),
        "memorization",
        progress=False,
    )
    store.attack("lira_online", models=[4, 6], queries=[1, "all"], progress=False)
    return store
