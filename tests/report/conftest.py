from __future__ import annotations

import pytest
from report_stores import MODELS, commit, make_store

import lirastore

pytest.importorskip("matplotlib", reason="the report draws with matplotlib")


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> lirastore.Store:
    store = make_store(tmp_path_factory.mktemp("report") / "leaky.lira", name="leaky pictures")
    commit(store, range(MODELS))
    store.attack("loss", "lira_online", progress=False)
    return store
