"""The benchmark of the bootstrap at toy size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bootstrap.py"


def test_a_row_per_shape_and_coverage(tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, str(SCRIPT), "--shapes", "4x150", "--repeats", "2", "--coverage", "1"]
    done = subprocess.run(
        [*command, "--work", str(tmp_path), "--json", str(out)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert [(row["models"], row["examples"]) for row in report["rows"]] == [(4, 150)]
    for row in report["rows"]:
        for what in ("intervals", "everything"):
            assert len(row[what]["seconds"]) == 2 and min(row[what]["seconds"]) > 0
            assert row[what]["grown"] > 0
    assert all(found["covered"] + found["below"] + found["above"] == 1 for found in report["coverage"])
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert len(done.stdout.splitlines()) == 2 + len(report["coverage"])
