"""The report's figures: the ROC on log-log axes, and one example's IN/OUT histograms with fitted Gaussians.

Drawn with matplotlib's objects, without pyplot and its state. In the page, figures are inline SVG whose
colours are CSS variables, so that they follow the reader's light or dark theme; files for papers have fixed
colours and their text as outlines.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lirastore.report.markup import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lirastore.report.data import Curve, Floats, Outputs

__all__ = ["DASHES", "PAGE", "PAPER", "Palette", "histogram", "inline_svg", "png_bytes", "roc", "svg_bytes"]


@dataclass(frozen=True)
class Palette:
    """Colours by role; `series` can be told apart by everybody (Okabe & Ito; the last: Tol)."""

    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]
    member: str
    non_member: str


PAPER = Palette(
    ink="#111111",
    muted="#555555",
    grid="#dddddd",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#332288"),
    member="#d55e00",
    non_member="#0072b2",
)
# Colours that occur nowhere else stand for CSS variables, and are replaced by them in the SVG.
PAGE = Palette(
    ink="#fe0001",
    muted="#fe0002",
    grid="#fe0003",
    series=tuple(f"#fe001{number}" for number in range(7)),
    member="#fe0021",
    non_member="#fe0022",
)
_VARIABLES = {
    PAGE.ink: "var(--ink)",
    PAGE.muted: "var(--muted)",
    PAGE.grid: "var(--grid)",
    PAGE.member: "var(--member)",
    PAGE.non_member: "var(--non-member)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(PAGE.series)},
}
# Seven colours and four dashes have no common divisor: 28 attacks that all look different.
DASHES: tuple[tuple[float, ...] | None, ...] = (None, (5, 1.5), (1.2, 1.4), (6, 1.5, 1.2, 1.5))

# Any, because the stubs type the keys as a Literal of all of matplotlib's parameters
_STYLE: Any = {"font.size": 9.5, "axes.linewidth": 0.7, "axes.labelsize": 10, "svg.hashsalt": "lirastore"}


def roc(curves: Sequence[Curve], non_members: int, palette: Palette, *, legend: bool) -> Figure:
    """All attacks on log-log axes, down to the decade in which one false positive lies; dashed grey: chance.

    The order of `curves` decides colour and dash. Points at rate 0 are drawn at the axes' end.
    """
    floor = _floor(non_members)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.9, 4.6), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
        axes = figure.add_subplot()
        _frame(axes, palette)
        diagonal = axes.plot([floor, 1], [floor, 1], label="chance")[0]
        diagonal.set(color=palette.muted, linewidth=0.9, linestyle=(0, (2, 3)))
        for number, curve in reversed(list(enumerate(curves))):  # the strongest is drawn last, on top
            _draw_curve(axes, curve, number, floor, palette)
        _log_axes(axes, floor)
        if legend:
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


def _floor(non_members: int) -> float:
    """The power of ten at or below one false positive among `non_members`, from 0.001 to 1e-6."""
    decade = int(np.floor(-np.log10(max(non_members, 1)) + 1e-9))
    return float(10.0 ** min(-3, max(-6, decade)))


def _draw_curve(axes: Axes, curve: Curve, number: int, floor: float, palette: Palette) -> None:
    right = curve.fpr > floor
    fpr = np.concatenate([[floor], curve.fpr[right]])
    tpr = np.concatenate([[curve.tpr[~right].max(initial=0.0)], curve.tpr[right]])
    pattern = DASHES[number % len(DASHES)]
    axes.plot(
        fpr,
        np.maximum(tpr, floor),
        color=palette.series[number % len(palette.series)],
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


def _frame(axes: Axes, palette: Palette) -> None:
    axes.grid(color=palette.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_color(palette.muted)
        spine.set_visible(side in ("left", "bottom"))
    axes.tick_params(colors=palette.ink, width=0.7, length=3)
    axes.xaxis.label.set_color(palette.ink)
    axes.yaxis.label.set_color(palette.ink)
    axes.patch.set_visible(False)


# --- histograms ---------------------------------------------------------------------------------


def histogram(outputs: Outputs, palette: Palette) -> Figure:
    """Densities of the scaled logits where the example was a member and where not, with fitted Gaussians.

    A side's Gaussian (mean, standard deviation with ddof 0) is drawn if it has two values that differ.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.4, 1.9), layout="constrained")
        axes = figure.add_subplot()
        _frame(axes, palette)
        low, high = _span(np.concatenate([outputs.inside, outputs.outside]))
        bins = np.linspace(low, high, 25)
        for values, colour, dash in (
            (outputs.outside, palette.non_member, (0, (4, 1.5))),
            (outputs.inside, palette.member, "solid"),
        ):
            _draw_side(axes, values, bins, colour, dash)
        axes.set(xlim=(low, high), xlabel="scaled logit φ", yticks=[])
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
    return figure


def _span(values: Floats) -> tuple[float, float]:
    if not len(values):
        return -1.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.12 * (high - low) or max(1.0, 0.05 * abs(high))
    return low - margin, high + margin


def _draw_side(axes: Axes, values: Floats, bins: Floats, colour: str, dash: Any) -> None:
    if not len(values):
        return
    axes.hist(values, bins=bins.tolist(), density=True, color=colour, alpha=0.35, linewidth=0)
    mean, deviation = float(values.mean()), float(values.std())
    if deviation > 0:
        x = np.linspace(bins[0], bins[-1], 200)
        density = np.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
        axes.plot(x, density, color=colour, linewidth=1.4, linestyle=dash)


# --- rendering ----------------------------------------------------------------------------------


def svg_bytes(figure: Figure) -> bytes:
    """The figure as an SVG file, the same bytes for the same data; text as outlines, on white."""
    return _svg(figure, facecolor="white", fonttype="path")


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file at 300 dpi, on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=300, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def inline_svg(figure: Figure, prefix: str, description: str) -> Markup:
    """The figure for a page: themed by CSS, ids made unique by `prefix`, sized by its container."""
    text = _svg(figure, facecolor="none", fonttype="none").decode()
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None  # matplotlib always writes one
    content = text[text.index(">", view.end()) + 1 :]
    content = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", content, flags=re.DOTALL)
    content = re.sub(r'\bid="', f'id="{prefix}-', content)
    content = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", content)
    for colour, variable in _VARIABLES.items():
        content = content.replace(colour, variable)
    return Markup(f'<svg {view[0]} role="img" aria-label="{html.escape(description)}">{content}')


def _svg(figure: Figure, *, facecolor: str, fonttype: str) -> bytes:
    buffer = io.BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({**_STYLE, "svg.fonttype": fonttype}):
        figure.savefig(buffer, format="svg", facecolor=facecolor, metadata=metadata)
    return buffer.getvalue()
