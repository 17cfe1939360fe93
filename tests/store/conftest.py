from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import actors
import pytest


@pytest.fixture(scope="session", autouse=True)
def nursery_ends_with_the_session():
    yield
    if actors.nursery.cache_info().currsize:
        actors.nursery().close()


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


@pytest.fixture(scope="module")
def template(memory):
    """An empty store, and one with model 0 in it."""
    root = memory / "template"
    actors.make_store(root / "empty.lira")
    shutil.copytree(root / "empty.lira", root / "one.lira")
    actors.write(root / "one.lira", 0)
    return root


@pytest.fixture
def path_of(memory, template):
    """Makes a copy of a template, gone after the test."""
    path = memory / "s.lira"

    def copy(name, method="link"):
        shutil.copytree(template / name, path)
        actors.set_method(path, method)
        return path

    yield copy
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def processes_end_with_their_test():
    yield
    actors.end_all()
