"""The README's code runs, in the order in which it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lirastore.attacks import registry
from lirastore.cli import cli

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^    (lirastore .*)$", README, re.MULTILINE)


def prelude() -> dict[str, Any]:
    """What the README leaves to its reader: data, and a training that remembers the examples it keeps."""
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.normal(size=(64, 1, 4, 4)).astype("f4")), rng.integers(0, 10, 64)

    def train(x: torch.Tensor, y: Any, keep: Any) -> Any:
        weight = torch.from_numpy(rng.normal(size=(16, 10)).astype("f4"))
        seen = x[torch.from_numpy(keep)].flatten(1)
        target = torch.nn.functional.one_hot(torch.from_numpy(y[keep]), 10).float()
        weight = weight + torch.linalg.lstsq(seen, 8 * target - seen @ weight).solution
        return lambda batch: batch.flatten(1) @ weight

    def batches(count: int, size: int) -> list[slice]:
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    return {"x": x, "y": y, "train": train, "batches": batches, "torch": torch}


def test_python_blocks_and_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_user_attacks", {})
    names = prelude()
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert len(COMMANDS) >= 4
    for command in COMMANDS:
        name, *arguments = shlex.split(command, comments=True)[1:]
        if name == "train":  # for hours, on data that are not here: it is understood, at least
            cli.commands[name].make_context(name, arguments)
            continue
        done = CliRunner().invoke(cli, [name, *arguments], catch_exceptions=False)
        assert done.exit_code == 0, (command, done.output)
    assert names["store"].sql("select count(*) from metrics where attack = 'ratio'").fetchall() == [(1,)]
