"""What is recorded of every model beside its results: seed, device, versions, the git revision."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import lirastore
from lirastore.pipelines.core import Trainer, torch

__all__ = ["facts", "git_revision"]


def facts(store: lirastore.Store, trainer: Trainer, device: torch.device) -> dict[str, Any]:
    training = store.info.training or {}
    return {
        "pipeline": training.get("pipeline"),
        "recipe": training.get("recipe"),
        "seed": store.info.design.get("seed"),
        "device": _describe(device),
        "versions": _versions(device),
        "git_revision": git_revision(_source(trainer)),
    }


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return str(device)


def _versions(device: torch.device) -> dict[str, str]:
    found = {
        "lirastore": lirastore.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    for name in ("torchvision", "tokenizers"):
        if name in sys.modules:
            found[name] = sys.modules[name].__version__
    return found | ({"cuda": str(torch.version.cuda)} if device.type == "cuda" else {})


def _source(trainer: Trainer) -> Path:
    """The file that defines a trainer; of one that was typed in, the name of none."""
    return Path(getattr(sys.modules[type(trainer).__module__], "__file__", None) or "")


def git_revision(file: Path) -> str | None:
    """The commit of the checkout that `file` is tracked in, `-dirty` if anything there differs; or None."""

    def git(*arguments: str) -> str | None:
        command: Sequence[str] = ["git", "-C", str(file.parent), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):  # no git here
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", file.name) is None:  # a virtual environment within a checkout
        return None
    revision, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return None if revision is None else revision + ("-dirty" if changed else "")
