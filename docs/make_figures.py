"""Draws the figures of the README anew, from the demo's own store: python docs/make_figures.py [DEMO_DIR]

Without DEMO_DIR the demo is run in a temporary folder, which takes about half a minute.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import lirastore
from lirastore import demo

DOCS = Path(__file__).parent


def main(directory: Path) -> None:
    """Runs the demo in `directory`, or takes up the one that is there; writes docs/roc.svg."""
    demo.run(directory)
    lirastore.open(directory / "digits.lira").report(directory / "report.html", svg=DOCS / "roc.svg")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
