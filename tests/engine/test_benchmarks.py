"""The benchmark of the attacks at toy size: its rows, and no process takes more memory than was projected."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lirastore.attacks import registered

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "attacks.py"
SIZES = ["--models", "8", "--examples", "120", "--queries", "2", "--classes", "4", "--population", "30"]


def bench(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *argv], capture_output=True, text=True, timeout=120)


def test_a_row_each_one_for_all_and_one_with_a_population(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    asked = ["--attack", "lira_online_fixed", "rmia", "--all", "--repeats", "1"]
    done = bench(*SIZES, *asked, "--work", str(tmp_path), "--json", str(out))
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert [row["row"] for row in report["rows"]] == [
        "lira_online_fixed",
        "rmia",
        "--all",
        "rmia, population",
    ]
    assert all(len(row["seconds"]) == 1 and min(row["seconds"]) > 0 for row in report["rows"])
    assert all(0 < row["peak"] <= row["projected"] for row in report["rows"])
    every = set(report["rows"][2]["attacks"])
    assert every | set(report["skipped"]) == set(registered())
    assert {"merlin", "morgan"} <= every  # the experiment holds Merlin's aggregate
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_an_attack_that_does_not_exist_is_an_error_that_names_it(tmp_path: Path) -> None:
    done = bench(*SIZES, "--attack", "lira_onlin", "--work", str(tmp_path))
    assert done.returncode != 0
    assert "lira_onlin" in done.stderr
    assert not list(tmp_path.iterdir())
