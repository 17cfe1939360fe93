"""Plots as inline SVG whose colours are classes, so that they follow the reader's theme and need no style.

Sizes are in the units of the figure's `viewBox`; a figure is as wide as its container.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lirastore.report.content import Floats
from lirastore.report.markup import Markup, element

__all__ = [
    "DASHES",
    "SERIES",
    "Scale",
    "decades",
    "figure",
    "floor_of",
    "frame",
    "line",
    "path",
    "rate_scale",
    "staircase",
]

SERIES = 7  # colours and
DASHES = 4  # dashes without a common divisor: 28 curves that all look different


@dataclass(frozen=True)
class Scale:
    """Takes [low, high] to [first, last] of a figure, evenly or by powers; what lies beyond, to an end."""

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        low, high = self._even(self.low), self._even(self.high)
        share = (self._even(min(max(value, self.low), self.high)) - low) / (high - low)
        return self.first + share * (self.last - self.first)

    def places(self, values: Floats) -> Floats:
        """Where many values lie."""
        clipped = np.clip(values, self.low, self.high)
        low, high = self._even(self.low), self._even(self.high)
        share = ((np.log10(clipped) if self.log else clipped) - low) / (high - low)
        return self.first + share * (self.last - self.first)

    def _even(self, value: float) -> float:
        return math.log10(value) if self.log else value


def floor_of(non_members: int) -> float:
    """The power of ten at or below one false positive among `non_members`, from 0.001 to 1e-6."""
    power = math.floor(-math.log10(max(non_members, 1)) + 1e-9)
    return float(10.0 ** min(-3, max(-6, power)))


def rate_scale(floor: float, first: float, last: float) -> Scale:
    """Rates from `floor`, a power of ten, to 1."""
    return Scale(floor, 1.0, first, last, log=True)


def decades(floor: float) -> list[tuple[float, str]]:
    """The powers of ten from `floor` to 1, and how they are written."""
    lowest = round(math.log10(floor))
    return [(10.0**power, f"{100 * 10.0**power:.6g}%") for power in range(lowest, 1)]


def figure(width: float, height: float, description: str, *content: object, class_: str = "") -> Markup:
    """A figure with its description; an empty one marks it as decoration beside numbers that say the same."""
    described = {"role": "img", "aria_label": description} if description else {"aria_hidden": "true"}
    return element("svg", *content, viewBox=f"0 0 {width:g} {height:g}", class_=class_ or None, **described)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=_(x1), y1=_(y1), x2=_(x2), y2=_(y2), class_=class_)


def path(x: Sequence[float] | Floats, y: Sequence[float] | Floats, class_: str, **more: str | int) -> Markup:
    """A line through points."""
    points = "L".join(f"{_(a)} {_(b)}" for a, b in zip(x, y, strict=True))
    return element("path", d=f"M{points}", class_=class_, **more)


def staircase(x: Floats, y: Floats, class_: str, **more: str | int) -> Markup:
    """A line that keeps its height until the next point; points that would not be seen are left out."""
    steps = [f"M{_(x[0])} {_(y[0])}"]
    at, height = _(x[0]), _(y[0])
    for right, up in zip(map(_, x[1:]), map(_, y[1:]), strict=True):
        if up != height:
            steps.append(f"H{right}" * (right != at) + f"V{up}")
            at, height = right, up
    steps.append(f"H{_(x[-1])}")
    return element("path", d="".join(steps), class_=class_, **more)


def frame(
    across: Scale,
    up: Scale,
    columns: Iterable[tuple[float, str]],
    levels: Iterable[tuple[float, str]],
    names: tuple[str, str],
) -> Markup:
    """Grid, ticks and the names of both axes; `columns`, `levels`: where a line has which label."""
    left, right, bottom, top = across.first, across.last, up.first, up.last
    grid: list[Markup] = []
    for value, label in columns:
        x = across(value)
        grid.append(line(x, bottom, x, top, "grid"))
        grid.append(element("text", label, x=_(x), y=_(bottom + 16), class_="tick middle"))
    for value, label in levels:
        y = up(value)
        grid.append(line(left, y, right, y, "grid"))
        grid.append(element("text", label, x=_(left - 6), y=_(y + 4), class_="tick end"))
    below = element("text", names[0], x=_((left + right) / 2), y=_(bottom + 34), class_="name middle")
    beside = element(
        "text",
        names[1],
        x=0,
        y=0,
        class_="name middle",
        transform=f"translate({_(left - 43)} {_((top + bottom) / 2)}) rotate(-90)",
    )
    axes = [line(left, bottom, right, bottom, "axis"), line(left, bottom, left, top, "axis")]
    return element("g", grid, axes, below, beside, class_="frame", aria_hidden="true")


def _(value: float) -> str:
    """A coordinate, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")
