"""Draws the figures of the README anew: python docs/make_figures.py STORE FOLDER

STORE: an attacked store, such as the demo's (demo/digits.lira); it is only read. FOLDER: where roc.svg goes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import lirastore


def main(store: Path, folder: Path) -> None:
    """Writes `folder`/roc.svg."""
    with tempfile.TemporaryDirectory() as aside:
        lirastore.open(store).report(Path(aside, "report.html"), svg=folder / "roc.svg")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
