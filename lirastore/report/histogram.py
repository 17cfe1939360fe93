"""One example's scaled logits with and without it in training, as `drawing.js` draws them too."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lirastore.report import chart
from lirastore.report.content import Floats, Sketch
from lirastore.report.markup import Markup, element

__all__ = ["histogram"]

WIDTH, HEIGHT = 260.0, 132.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 6.0, 254.0, 8.0, 98.0
_SIDES = ("member", "non-member")


def histogram(sketch: Sketch, row: int, description: str) -> Markup:
    """Densities of both sides over the same bins, and the Gaussian fitted to each.

    A side's Gaussian (mean, standard deviation with ddof 0) is drawn if it has two values that differ. It is
    cut off a quarter above the highest bar.
    """
    low, high = _span(float(sketch.low[row]), float(sketch.high[row]))
    across = chart.Scale(low, high, _LEFT, _RIGHT)
    width = float(sketch.high[row] - sketch.low[row]) / sketch.counts.shape[2] or (high - low) / 24
    totals = sketch.counts[row].sum(axis=1, keepdims=True)
    density = sketch.counts[row] / np.maximum(totals, 1) / width
    up = chart.Scale(0.0, 1.25 * float(density.max(initial=0)) or 1.0, _BOTTOM, _TOP)
    sides: list[Markup] = []
    for side in (1, 0):
        sides.append(_bars(density[side], float(sketch.low[row]), width, across, up, _SIDES[side]))
        sides += _gaussian(
            float(sketch.mean[row, side]), float(sketch.std[row, side]), across, up, _SIDES[side]
        )
    return chart.figure(WIDTH, HEIGHT, description, sides, _axis(across))


def _span(low: float, high: float) -> tuple[float, float]:
    """With some room on both sides; around 0 if there is nothing."""
    if not low <= high:
        return -1.0, 1.0
    margin = 0.08 * (high - low) or max(1.0, 0.05 * abs(high))
    return low - margin, high + margin


def _bars(
    density: Floats, low: float, width: float, across: chart.Scale, up: chart.Scale, side: str
) -> Markup:
    outline = []
    for number in np.flatnonzero(density).tolist():
        left, right = across(low + number * width), across(low + (number + 1) * width)
        outline.append(f"M{left:.1f} {_BOTTOM:g}V{up(density[number]):.1f}H{right:.1f}V{_BOTTOM:g}Z")
    return element("path", d="".join(outline), class_=f"bars {side}")


def _gaussian(mean: float, std: float, across: chart.Scale, up: chart.Scale, side: str) -> Iterator[Markup]:
    if std > 0:
        x = np.linspace(max(across.low, mean - 4 * std), min(across.high, mean + 4 * std), 61)
        density = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
        yield chart.path(across.places(x), up.places(density), f"fit {side}")


def _axis(across: chart.Scale) -> Markup:
    ticks = [
        element(
            "text",
            f"{value:.6g}".replace("-", "−"),
            x=f"{across(value):.1f}",
            y=_BOTTOM + 14,
            class_="tick middle",
        )
        for value in ticks_of(across.low, across.high)
    ]
    name = element("text", "scaled logit φ", x=WIDTH / 2, y=_BOTTOM + 30, class_="name middle")
    base = chart.line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis")
    return element("g", base, ticks, name, aria_hidden="true")


def ticks_of(low: float, high: float) -> list[float]:
    """Three to six round numbers within [low, high]."""
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw))
    first = int(np.ceil(low / step))
    return [number * step for number in range(first, int(np.floor(high / step)) + 1)]
