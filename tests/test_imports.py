"""Start-up stays light, and a training job needs no analysis packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "dask",
    "distributed",
    "duckdb",
    "matplotlib",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "torch",
    "xarray",
    "zarr",
}
ANALYSIS = HEAVY - {"numpy", "torch", "zarr"}


def python(code: str, *argv: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["attack", "--help"], ["query", "--help"]])
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    loaded = python(
        "import sys\n"
        "from lirastore.cli import cli\n"
        "try: cli(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0, end\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})",
        *argv,
    )
    assert not HEAVY & set(loaded.rpartition("LOADED")[2].split())


def test_training_job_writes_without_analysis_packages(tmp_path: object) -> None:
    python(
        "import importlib.abc, sys\n"
        f"blocked = {ANALYSIS!r}\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in blocked: raise ImportError(f'blocked: {name}')\n"
        "sys.meta_path.insert(0, Block())\n"
        "import numpy as np, lirastore\n"
        "store = lirastore.create(sys.argv[1] + '/a.lira', labels=np.arange(12) % 3, classes=3, models=2,"
        " augmentations=['identity'])\n"
        "with store.writer(model=1) as w:\n"
        "    w.write(np.ones((12, 1, 3), 'f4'), examples=slice(0, 12))\n"
        "assert lirastore.open(store.path).committed().tolist() == [1]\n",
        str(tmp_path),
    )
