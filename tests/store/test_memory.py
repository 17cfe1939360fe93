"""Creation and verification hold a few pieces of 8 MB, however many pictures there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MEASURED = """
import re, sys
from pathlib import Path
import numpy as np, tqdm, zarr
from lirastore.store import create, verify_store

def peak():  # of this program: ru_maxrss would begin with that of the process it was forked from
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

E = 62_000
plan = {"labels": np.zeros(E, int), "membership": np.ones((2, E), bool), "augmentations": 1, "classes": 2}
create(sys.argv[1] + ".small", preview=np.zeros((E, 1, 1, 3), np.uint8), **plan)  # what zarr itself takes
before = peak()
pictures = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None], (E, 32, 32, 3))
store = create(sys.argv[1], preview=pictures, **plan)
created = peak()
assert verify_store(store).ok
print(created - before, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures with Linux's /proc")
def test_memory_does_not_grow_with_the_pictures(fast_path):
    command = [sys.executable, "-c", MEASURED, str(fast_path / "s.lira")]
    measured = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200).stdout
    created, verified = map(int, measured.split())
    assert created < 48 * 2**20  # of 190 MB
    assert verified < 64 * 2**20
