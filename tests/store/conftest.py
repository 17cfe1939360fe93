from __future__ import annotations

import tempfile
from pathlib import Path

import actors
import pytest


@pytest.fixture(scope="module")
def memory():
    """A directory in memory, where there is one: what is tested in it is killed processes, not lost disks."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None, prefix="lirastore-") as path:
        yield Path(path)


@pytest.fixture
def fast_path(memory):
    """A directory of the test's own within `memory`."""
    with tempfile.TemporaryDirectory(dir=memory) as path:
        yield Path(path)


@pytest.fixture(autouse=True)
def processes_end_with_their_test():
    yield
    actors.end_all()
