"""The wheel alone is enough: built from the checkout, installed in a new environment, run from elsewhere."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def tracked_files() -> list[str]:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    return subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")[
        :-1
    ]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    for name in tracked_files():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(build, check=True, capture_output=True, timeout=200)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new virtual environment that holds the wheel.

    It borrows the dependencies of this one by a plain path, which leaves out the checkout: an editable
    installation works through a .pth file, and those of a borrowed folder are not read.
    """
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, timeout=100)
    install = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--no-deps"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=100)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def run(cwd: Path, *argv: str | Path) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_stray_top_level_packages(wheel: Path) -> None:
    tops = {name.split("/")[0].split("-")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"lirastore"}


def test_sql_and_pipelines_come_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    code = (
        "import lirastore, lirastore.queries, lirastore.pipelines as p; print(lirastore.__file__, p.__file__)"
    )
    for file in run(tmp_path, environment / "python", "-c", code).split():
        assert file.startswith(str(environment.parent)), file


# Most of a demo's time goes into training to the end and into a hundred noisy queries of each example.
SHORT_DEMO = """
from lirastore import cli
from lirastore.pipelines import digits
digits.NOISE_QUERIES = 5
digits.RECIPES["demo"] = digits.Recipe(epochs=10)
cli.main()
"""


def test_demo_runs_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    demo = run(tmp_path, environment / "python", "-c", SHORT_DEMO, "demo", "out", "--models", "8")
    assert "lira_online" in demo
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    lirastore = environment / "lirastore"
    metrics = run(tmp_path, lirastore, "query", "out/digits.lira", "metrics", "--format", "csv")
    assert "tpr_at_0_1pct" in metrics.splitlines()[0]
