"""A store for each test: made once, then copied, which takes no fsync."""

from __future__ import annotations

import shutil
from pathlib import Path

import engine_stores as stores
import pytest

from lirastore.store import LogitStore, open_store


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> LogitStore:
    """8 models × 300 examples × 2 queries × 5 classes."""
    return stores.make(tmp_path_factory.mktemp("engine") / "a.lira")


@pytest.fixture
def store(made_once: LogitStore, tmp_path: Path) -> LogitStore:
    """A copy of it, to be attacked and damaged."""
    return open_store(Path(shutil.copytree(made_once.path, tmp_path / "a.lira")))
