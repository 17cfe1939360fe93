from __future__ import annotations

import tempfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def memory():
    """A directory in memory, where there is one: what is tested in it is killed processes, not lost disks."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None, prefix="lirastore-") as path:
        yield Path(path)
