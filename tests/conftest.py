"""For all tests."""

from __future__ import annotations

import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ROOM = 6 << 30  # bytes; the tests write about 4 GB
# Modules of ten seconds and more which would else come last, and be waited for by one worker alone.
FIRST = {"test_engine_processes", "test_wheel", "test_readme", "test_cli"}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Shells start background jobs with SIGINT ignored, and children inherit that; some tests send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.basetemp is None and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
        write_in_memory(config)


def write_in_memory(config: pytest.Config) -> None:
    """Temporary directories in memory, gone at the end: stores call fsync for everything, and disks are slow.

    What is tested is killed processes, not lost disks. `--basetemp DIR` keeps the files, on disk.
    """
    config.option.basetemp = tempfile.mkdtemp(dir=MEMORY, prefix="lirastore-tests-")
    config.add_cleanup(partial(shutil.rmtree, config.option.basetemp, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in FIRST)
