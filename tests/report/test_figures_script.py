"""The script that draws the README's figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lirastore

SCRIPT = Path(__file__).parents[2] / "docs" / "make_figures.py"


def names(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_it_draws_into_the_folder_and_only_reads_the_store(attacked: lirastore.Store, tmp_path: Path) -> None:
    before = names(attacked.path)
    subprocess.run([sys.executable, SCRIPT, attacked.path, tmp_path], check=True, timeout=120)
    assert [path.name for path in tmp_path.iterdir()] == ["roc.svg"]
    assert names(attacked.path) == before


def test_it_says_how_it_is_called() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "make_figures.py STORE FOLDER" in done.stderr
