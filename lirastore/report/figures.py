"""The ROC as a file for papers: fixed colours, text as outlines, the same bytes for the same data.

Drawn with matplotlib's objects, without pyplot and its state. The page draws its own figures, see `chart`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lirastore.report.chart import floor_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lirastore.report.content import Curve

__all__ = ["DASHES", "SERIES", "png_bytes", "roc", "svg_bytes"]

INK, MUTED, GRID = "#111111", "#555555", "#dddddd"
# To be told apart by everybody: Okabe & Ito; the last: Tol.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#332288")
# Seven colours and four dashes have no common divisor: 28 attacks that all look different.
DASHES: tuple[tuple[float, ...] | None, ...] = (None, (5, 1.5), (1.2, 1.4), (6, 1.5, 1.2, 1.5))

# Any, because the stubs type the keys as a Literal of all of matplotlib's parameters
_STYLE: Any = {"font.size": 9.5, "axes.linewidth": 0.7, "axes.labelsize": 10, "svg.hashsalt": "lirastore"}


def roc(curves: Sequence[Curve], non_members: int) -> Figure:
    """All attacks on log-log axes, down to the decade in which one false positive lies; dashed grey: chance.

    The order of `curves` decides colour and dash. Points at rate 0 are drawn at the axes' end.
    """
    floor = floor_of(non_members)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.9, 4.6), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
        axes = figure.add_subplot()
        _frame(axes)
        diagonal = axes.plot([floor, 1], [floor, 1], label="chance")[0]
        diagonal.set(color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
        for number, curve in reversed(list(enumerate(curves))):  # the strongest is drawn last, on top
            _draw_curve(axes, curve, number, floor)
        _log_axes(axes, floor)
        _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    """Strongest first, chance last; beside the axes if there are too many to fit below the diagonal."""
    handles, labels = axes.get_legend_handles_labels()
    chance, *curves = zip(handles, labels, strict=True)
    entries = [*reversed(curves), chance]
    inside = len(entries) <= 9
    (axes if inside else figure).legend(
        [handle for handle, _ in entries],
        [label for _, label in entries],
        loc="lower right" if inside else "outside right upper",
        frameon=False,
        fontsize=8,
        handlelength=3,
    )


def _draw_curve(axes: Axes, curve: Curve, number: int, floor: float) -> None:
    right = curve.fpr > floor
    fpr = np.concatenate([[floor], curve.fpr[right]])
    tpr = np.concatenate([[curve.tpr[~right].max(initial=0.0)], curve.tpr[right]])
    pattern = DASHES[number % len(DASHES)]
    axes.plot(
        fpr,
        np.maximum(tpr, floor),
        color=SERIES[number % len(SERIES)],
        linewidth=1.9 if number == 0 else 1.4,
        linestyle="solid" if pattern is None else (0, pattern),
        drawstyle="steps-post",
        solid_capstyle="butt",
        label=curve.attack,
    )


def _log_axes(axes: Axes, floor: float) -> None:
    ticks = [10.0**decade for decade in range(round(np.log10(floor)), 1)]
    for axis, name in ((axes.xaxis, "False positive rate"), (axes.yaxis, "True positive rate")):
        axis.set_label_text(name)
    axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}%"))


def _frame(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_color(MUTED)
        spine.set_visible(side in ("left", "bottom"))
    axes.tick_params(colors=INK, width=0.7, length=3)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.patch.set_visible(False)


# --- rendering ----------------------------------------------------------------------------------


def svg_bytes(figure: Figure) -> bytes:
    """The figure as an SVG file, on white."""
    buffer = io.BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({**_STYLE, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata=metadata)
    return buffer.getvalue()


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file at 300 dpi, on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=300, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
