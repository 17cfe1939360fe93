"""Figures and the HTML report: what leaked, about whom, and what exactly was run."""

from __future__ import annotations

from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from lirastore.errors import InputError, MissingDependency
from lirastore.store.fsio import write_atomic

if TYPE_CHECKING:
    from lirastore.report.content import ReportData
    from lirastore.store import LogitStore

__all__ = ["require_matplotlib", "write_report"]


def require_matplotlib() -> None:
    """Raises MissingDependency if figures for papers cannot be drawn; cheap, for finding out before work."""
    if find_spec("matplotlib") is None:
        raise MissingDependency("PNG and SVG figures need matplotlib: pip install 'lirastore[report]'")


def write_report(
    store: LogitStore,
    output: str | PathLike[str],
    *,
    png: str | PathLike[str] | None = None,
    svg: str | PathLike[str] | None = None,
    memory: int | None = None,
    threads: int | None = None,
) -> None:
    """Writes one self-contained HTML file that opens offline; `png` and `svg`: the ROC alone, for papers.

    Works before any attack has run, and on a read-only store. Each file appears whole or not at all.
    memory: what the queries over the scores may take, in bytes (default: a quarter of the machine's); more is
    spilled to a temporary folder. threads: default one per core.
    Raises MissingDependency for `png` or `svg` without matplotlib, InputError for an output folder that is
    not there or limits below 1, DamagedStore or ResultError for what cannot be read, MemoryBudgetError if
    that memory is too little.
    """
    page, *figures = (None if target is None else _target(target) for target in (output, png, svg))
    if any(figures):
        require_matplotlib()
    from lirastore.report import gather, html

    gathered = gather.gather(store, memory=memory, threads=threads)
    if page:
        write_atomic(page, html.page(gathered).encode())
    if any(figures):
        _write_figures(gathered, *figures)


def _write_figures(gathered: ReportData, png: Path | None, svg: Path | None) -> None:
    """The curves that the page shows at first."""
    from lirastore.report import figures

    main = {row.attack for row in gathered.attacks if row.main}
    curves = [curve for curve in gathered.curves if curve.attack in main]
    drawn = figures.roc(curves, gathered.non_members)
    if png:
        write_atomic(png, figures.png_bytes(drawn))
    if svg:
        write_atomic(svg, figures.svg_bytes(drawn))


def _target(path: str | PathLike[str]) -> Path:
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist; create it, or choose another")
    if target.is_dir():
        raise InputError(f"{target} is a folder; expected the name of a file to write")
    return target
