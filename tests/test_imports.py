"""Start-up stays light, and a training job needs no analysis packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from lirastore import parameters
from lirastore.attacks import presets

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

BLOCK = """
import importlib.abc, importlib.util, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {blocked}: raise ImportError('blocked: ' + name)
sys.meta_path.insert(0, Block())
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in {blocked} else find_spec(name, *rest)
"""


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


def test_the_command_line_knows_every_preset_without_importing_them() -> None:
    assert tuple(presets.PRESETS) == parameters.PRESETS


def test_training_job_writes_without_analysis_packages(tmp_path: Path) -> None:
    python(
        f"{BLOCK.format(blocked=ANALYSIS)}\n"
        "import numpy as np, lirastore\n"
        "store = lirastore.create(sys.argv[1] + '/a.lira', labels=np.arange(12) % 3, classes=3, models=2,"
        " augmentations=['identity'])\n"
        "with store.writer(model=1) as w:\n"
        "    w.write(np.ones((12, 1, 3), 'f4'), examples=slice(0, 12))\n"
        "assert lirastore.open(store.path).committed().tolist() == [1]\n",
        str(tmp_path),
    )


def test_pipelines_use_the_public_api_only() -> None:
    for file in (Path(__file__).parent.parent / "pipelines").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "."]
            private = [name for name in names if name.startswith(("lirastore.", "."))]
            private = [name for name in private if not name.startswith("lirastore.pipelines")]
            assert set(private) <= {"lirastore.errors"}, f"{file.name}:{node.lineno}"


def test_an_auditor_needs_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    """init, write, attack, query, report and export with only the core's packages; the others are named."""
    blocked = {"matplotlib", "pandas", "sklearn", "torch", "torchvision"}
    python(
        f"{BLOCK.format(blocked=blocked)}\n"
        "import numpy as np, lirastore\n"
        "from click.testing import CliRunner\n"
        "from lirastore.cli import cli\n"
        "from lirastore.errors import MissingDependency\n"
        "path = sys.argv[1] + '/a.lira'\n"
        "store = lirastore.create(path, labels=np.arange(12) % 3, classes=3, models=6, augmentations=1)\n"
        "for m in range(6):\n"
        "    with store.writer(m) as w:\n"
        "        w.write(np.random.default_rng(m).normal(size=(12, 3)).astype('f4'), examples=slice(0, 12))\n"
        "for command in (['attack', path, 'lira_online', 'loss'], ['query', path, 'metrics'],\n"
        "                ['verify', path], ['report', path, '-o', path + '.html'],\n"
        "                ['export', path, path + '.npz'], ['ingest', path + '2', path + '.npz']):\n"
        "    done = CliRunner().invoke(cli, command, catch_exceptions=False)\n"
        "    assert done.exit_code == 0, (command, done.output)\n"
        "for command in (['report', path, '-o', path + '2.html', '--png', path + '.png'],\n"
        "                ['demo', sys.argv[1] + '/demo']):\n"
        "    error = CliRunner().invoke(cli, command).exception\n"
        "    assert isinstance(error, MissingDependency) and 'pip install' in str(error), error\n",
        str(tmp_path),
    )
