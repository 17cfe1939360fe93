"""The section that shows how much an attack gains from more shadow models and queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lirastore.report import chart
from lirastore.report.content import PowerPoint, ReportData
from lirastore.report.formats import three
from lirastore.report.markup import Markup, element
from lirastore.report.parts import command, head, looks, note, rate_cell, section, swatch, table

__all__ = ["power"]

_WIDTH, _HEIGHT = 400.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 388.0, 8.0, 258.0


@dataclass(frozen=True)
class _Line:
    """An attack with so many queries, fewest models first; `looks`: colour by attack, dash by queries."""

    points: tuple[PowerPoint, ...]
    looks: str


def power(data: ReportData) -> Markup:
    """A line per attack and number of queries; without such results, how to get them."""
    title = "How many shadow models it takes"
    if not data.power:
        return section(
            "power",
            title,
            command(
                "Nothing to show yet. For the same attack with fewer shadow models, drawn from the stored "
                "ones: ",
                "lirastore attack STORE lira_online --models 4,8,16,32,64",
            ),
        )
    lines = _lines(data.power)
    return section(
        "power",
        title,
        element(
            "p",
            "The true positive rate at 0.1% false positives when an attack may use only so many shadow "
            "models per target and example, half of them trained on it, and only the first queries. Lines "
            "that still rise on the right say that more models would find more.",
        ),
        element(
            "div",
            element("div", _figure(lines), class_="plot"),
            element("ul", [_entry(line) for line in lines], class_="legend"),
            class_="side",
        ),
        element("details", element("summary", "The same as a table"), _table(data.power)),
        note(
            "Whiskers and small print: 95% bootstrap intervals over examples. Where IN and OUT models are "
            "drawn in equal numbers, the counts of models say nothing about membership."
        ),
    )


def _lines(found: Sequence[PowerPoint]) -> list[_Line]:
    attacks = list(dict.fromkeys((point.attack, point.preset) for point in found))
    queries = sorted({point.queries for point in found})
    return [
        _Line(
            tuple(
                point for point in found if (point.attack, point.preset, point.queries) == (*attack, count)
            ),
            looks(number, place),
        )
        for number, attack in enumerate(attacks)
        for place, count in enumerate(queries)
        if any((point.attack, point.preset, point.queries) == (*attack, count) for point in found)
    ]


def _entry(line: _Line) -> Markup:
    first, last = line.points[0], line.points[-1]
    several = f"{first.models} to {last.models} models" if len(line.points) > 1 else f"{first.models} models"
    about = element("span", f"{_queries(first)}, {several}, {first.preset}")
    return element("li", swatch(line.looks), element("div", element("b", first.attack), about))


def _queries(point: PowerPoint) -> str:
    return "1 query" if point.queries == 1 else f"{point.queries} queries"


def _figure(lines: Sequence[_Line]) -> Markup:
    points = [point for line in lines for point in line.points]
    counts = sorted({point.models for point in points})
    across = chart.Scale(counts[0] / 1.2, counts[-1] * 1.2, _LEFT, _RIGHT, log=True)
    floor = _floor(points)
    up = chart.rate_scale(floor, _BOTTOM, _TOP)
    names = ("Shadow models", "TPR at 0.1% FPR")
    columns = [(float(count), f"{count}") for count in counts]
    drawn = [_line(line, across, up) for line in lines]
    description = (
        "True positive rate by number of shadow models, logarithmic; the table below has the numbers"
    )
    chance = chart.line(_LEFT, up(0.001), _RIGHT, up(0.001), "chance")
    axes = chart.frame(across, up, columns, chart.decades(floor), names)
    return chart.figure(_WIDTH, _HEIGHT, description, axes, chance, reversed(drawn))


def _floor(points: Sequence[PowerPoint]) -> float:
    """The power of ten below the least that is drawn, from 1% down to 1e-5."""
    least = min(
        (value for point in points for value in (point.rate.value, point.rate.low) if value), default=1e-3
    )
    return float(10.0 ** max(-5, min(-3, int(np.floor(np.log10(least))))))


def _line(line: _Line, across: chart.Scale, up: chart.Scale) -> Markup:
    known = [point for point in line.points if point.rate.value is not None]
    x = [across(point.models) for point in known]
    rates = [point.rate.value or 0.0 for point in known]
    y = [up(rate) for rate in rates]
    marks = [
        element(
            "circle", cx=a, cy=b, r=3.2, class_=f"mark {line.looks}" + (" below" if rate < up.low else "")
        )
        for a, b, rate in zip(x, y, rates, strict=True)
    ]
    whiskers = [
        chart.line(a, up(point.rate.low), a, up(point.rate.high), f"whisker {line.looks}")
        for a, point in zip(x, known, strict=True)
        if point.rate.low is not None and point.rate.high is not None
    ]
    return element("g", whiskers, chart.path(x, y, f"curve {line.looks}") if known else None, marks)


def _table(points: Sequence[PowerPoint]) -> Markup:
    return table(
        "Power by number of shadow models",
        [head(["Attack", "Queries", "Shadow models", "TPR at 0.1% FPR", "AUC"])],
        element("tbody", [_row(point) for point in points]),
    )


def _row(point: PowerPoint) -> Markup:
    return element(
        "tr",
        element("th", element("b", point.attack), element("small", point.preset), scope="row"),
        element("td", point.queries),
        element("td", point.models),
        rate_cell(point.rate),
        element("td", three(point.auc)),
    )
