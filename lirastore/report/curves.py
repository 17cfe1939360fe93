"""The section with the ROC: all curves on log-log axes, and a table that reads them at one FPR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lirastore.catalog import HEADLINE, OPERATING_POINTS
from lirastore.errors import name_some
from lirastore.report import chart
from lirastore.report.content import AttackRow, Curve, ReportData
from lirastore.report.formats import NOTHING, percent
from lirastore.report.formats import number as digits
from lirastore.report.markup import Markup, element
from lirastore.report.parts import head, looks, name_cell, note, section, swatch, table

__all__ = ["PLOT", "numbered", "roc", "rules"]

PLOT = {"left": 52.0, "right": 392.0, "top": 8.0, "bottom": 348.0, "width": 400.0, "height": 386.0}
_AT = OPERATING_POINTS[HEADLINE]


def numbered(data: ReportData) -> list[tuple[AttackRow, Curve]]:
    """Attacks with their curves, the main ones first, so that these get the most different looks."""
    curves = {curve.attack: curve for curve in data.curves}
    rows = sorted((row for row in data.attacks if row.attack in curves), key=lambda row: not row.main)
    return [(row, curves[row.attack]) for row in rows]


def rules(data: ReportData) -> str:
    """Style that shows a curve while its box is ticked, and lifts it while its name is pointed at."""
    return "\n".join(
        f".roc:has(#draw-{number}:not(:checked)) .n{number}{{display:none}}"
        f".roc:has(.r{number}:is(:hover,:focus-within)) .curve.n{number}{{stroke-width:3.4}}"
        for number in range(len(data.curves))
    )


def roc(data: ReportData) -> Markup | None:
    """The figure, the false positive rate it is read at, and the reading; None without any curve."""
    found = numbered(data)
    if not found:
        return None
    floor = chart.floor_of(data.non_members)
    main = [number for number, (row, _) in enumerate(found) if row.main]
    others = [number for number in range(len(found)) if number not in set(main)]
    readings = [_reading(found, main)]
    if others:
        title = f"{len(others)} more, not drawn unless ticked"
        readings.append(element("details", element("summary", title), _reading(found, others), class_="more"))
    return section(
        "roc",
        "True positives at low false positive rates",
        element(
            "p",
            "Each curve shows the share of members that an attack recognises (true positives) when it may "
            "take a given share of non-members for members (false positives). Both axes are logarithmic: "
            "what matters for privacy happens on the left, where an attack is nearly always right.",
        ),
        element(
            "div",
            element(
                "div", element("div", _figure(found, floor), class_="plot", id="roc-plot"), _controls(floor)
            ),
            element("div", readings, class_="readings"),
            class_="roc",
        ),
        note(
            "Read off the points that are drawn, at the largest threshold whose false positive rate is at "
            "most the one above: exact at 10, 1, 0.1, 0.01 and 0.001%, elsewhere at most a fortieth of a "
            "decade to the left. Precision: how many of those who are called members were, if the given "
            "share of those who are tested are members; where no false positive was seen, it allows for "
            "three (95% confidence). Attacks that gave the same scores are drawn once."
        ),
    )


# --- figure ---------------------------------------------------------------------------------------


def _figure(found: Sequence[tuple[AttackRow, Curve]], floor: float) -> Markup:
    across = chart.rate_scale(floor, PLOT["left"], PLOT["right"])
    up = chart.rate_scale(floor, PLOT["bottom"], PLOT["top"])
    ticks = chart.decades(floor)
    names = name_some([row.attack for row, _ in found if row.main])
    drawn = [_curve(number, curve, across, up) for number, (_, curve) in enumerate(found)]
    return chart.figure(
        PLOT["width"],
        PLOT["height"],
        f"ROC curves on logarithmic axes: {names}, and chance; the table beside it has the numbers",
        chart.frame(across, up, ticks, ticks, ("False positive rate", "True positive rate")),
        chart.line(across(floor), up(floor), across(1), up(1), "chance"),
        element("line", x1=across(_AT), x2=across(_AT), y1=PLOT["top"], y2=PLOT["bottom"], class_="cursor"),
        reversed(drawn),  # the strongest is drawn last, on top
        element("g", class_="dots"),
    )


def _curve(number: int, curve: Curve, across: chart.Scale, up: chart.Scale) -> Markup:
    """From the left end of the axes, where points with fewer false positives lie."""
    left = curve.fpr <= across.low
    fpr = np.concatenate([[across.low], curve.fpr[~left]])
    tpr = np.concatenate([[curve.tpr[left].max(initial=0.0)], curve.tpr[~left]])
    classes = f"curve n{number} {looks(number, number)}" + (" first" if number == 0 else "")
    return chart.staircase(across.places(fpr), up.places(tpr), classes)


def _controls(floor: float) -> Markup:
    """Where to read the curves; only useful to, and shown by, the script."""
    slider = element(
        "input",
        type="range",
        id="roc-slider",
        min=f"{np.log10(floor):g}",
        max=0,
        step=0.025,
        value=f"{np.log10(_AT):g}",
        aria_label="False positive rate, logarithmic",
    )
    rate = element("input", type="number", id="roc-fpr", min=0, max=100, step="any", value=f"{100 * _AT:g}")
    prior = element("input", type="number", id="roc-prior", min=0, max=100, step="any", value=50)
    return element(
        "div",
        element("label", "False positive rate ", element("span", rate, " %")),
        slider,
        element("label", "Members among those tested ", element("span", prior, " %")),
        class_="controls scripted",
        role="group",
        aria_label="Where to read the curves",
    )


# --- reading --------------------------------------------------------------------------------------


def _reading(found: Sequence[tuple[AttackRow, Curve]], chosen: Sequence[int]) -> Markup:
    return table(
        "The curves at one false positive rate",
        [head(["Attack", "TPR", "Precision", "Threshold"])],
        element("tbody", [_reading_row(number, *found[number]) for number in chosen]),
        class_="reading",
    )


def _reading_row(number: int, row: AttackRow, curve: Curve) -> Markup:
    box = element(
        "input",
        type="checkbox",
        id=f"draw-{number}",
        checked=row.main,
        autocomplete="off",
        aria_label=f"Draw {row.attack}",
    )
    tpr, fpr, threshold = _at(curve, _AT)
    return element(
        "tr",
        name_cell(row, box, swatch(looks(number, number)), aliases=False),
        element("td", element("b", percent(tpr)), element("small", f"{percent(fpr)} FPR")),
        element("td", precision(tpr, fpr, 0.5, row.non_members)),
        element("td", NOTHING if np.isinf(threshold) else digits(threshold)),
        class_=f"r{number}",
        data_curve=number,
    )


def _at(curve: Curve, rate: float) -> tuple[float, float, float]:
    """TPR, FPR and threshold of the last point that has at most this FPR."""
    place = int(np.searchsorted(curve.fpr, rate, side="right")) - 1
    return float(curve.tpr[place]), float(curve.fpr[place]), float(curve.threshold[place])


def precision(tpr: float, fpr: float, prior: float, non_members: int) -> str:
    """The share of members among those called members; without any false positive, at least how much."""
    seen = fpr > 0
    bound = fpr if seen else min(1.0, 3 / max(non_members, 1))
    called = prior * tpr + (1 - prior) * bound
    if not tpr or not called:
        return NOTHING
    return ("" if seen else "≥ ") + percent(prior * tpr / called)
