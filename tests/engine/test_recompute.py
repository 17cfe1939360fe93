"""The benchmark runs, at toy size, and agrees with the plain code that it is compared with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "recompute.py"


def test_the_benchmark_at_toy_size(tmp_path: Path) -> None:
    sizes = ["--models", "16", "--examples", "200", "--queries", "2", "--classes", "4"]
    command = [sys.executable, str(SCRIPT), *sizes, "--repeats", "1", "--work", str(tmp_path)]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "out.json")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "logits / plain" in done.stdout
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["agrees_with_plain"] < 1e-3
    assert set(report["median"]) == {"logits", "scaled_logit", "plain", "read logits", "read scaled_logit"}
    assert all(found["peak"] <= found["projected"] for found in report["memory"].values())
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
