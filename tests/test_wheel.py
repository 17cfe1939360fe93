"""The wheel alone is enough: built from the checkout, installed aside, run from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, put before everything else on the path."""
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in tracked:
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True,
        capture_output=True,
        timeout=200,
    )
    (wheel,) = out.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(out / "site")
    return out / "site"


def run(site: Path, cwd: Path, *argv: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, *argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_no_stray_top_level_packages(site: Path) -> None:
    assert {path.name.split("-")[0] for path in site.iterdir()} == {"lirastore"}


def test_sql_and_pipelines_are_found_in_the_wheel(site: Path, tmp_path: Path) -> None:
    code = "import lirastore, lirastore.pipelines.digits as p; print(lirastore.__file__, p.__file__)"
    for file in run(site, tmp_path, "-c", code).split():
        assert file.startswith(str(site)), file


def test_demo_runs_from_the_wheel(site: Path, tmp_path: Path) -> None:
    table = run(site, tmp_path, "-m", "lirastore", "demo", "out", "--models", "8")
    assert "lira_online" in table
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert "tpr_at_0_1pct" in run(
        site, tmp_path, "-m", "lirastore", "query", "out/digits.lira", "metrics", "--format", "csv"
    )
