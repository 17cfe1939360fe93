"""What sections are made of: headings, tables, cells with intervals, and rates drawn on one scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from lirastore.catalog import HEADLINE, OPERATING_POINTS
from lirastore.report.chart import DASHES, SERIES, Scale, decades, figure, line, rate_scale
from lirastore.report.content import AttackRow, Rate
from lirastore.report.formats import NOTHING, interval, percent, points
from lirastore.report.markup import Markup, element, join

__all__ = [
    "breakable",
    "command",
    "head",
    "label_name",
    "looks",
    "name_cell",
    "note",
    "prose",
    "rate_cell",
    "section",
    "strip",
    "strip_head",
    "swatch",
    "table",
    "value_cell",
]

Write = Callable[[float], str]

CHANCE = OPERATING_POINTS[HEADLINE]  # what guessing finds at the rate by which attacks are compared

_STRIP = (210.0, 34.0)


def section(anchor: str, title: str, *content: object) -> Markup:
    """A part of the page that the contents can link to."""
    heading = element("h2", title, id=f"{anchor}-title")
    return element("section", heading, *content, id=anchor, aria_labelledby=f"{anchor}-title")


def note(*content: object) -> Markup:
    """Small print."""
    return element("p", *content, class_="note")


def prose(text: str) -> Markup:
    """A sentence of this library's own, in which what stands between backticks is to be typed."""
    pieces = text.split("`")
    return join([element("code", piece) if number % 2 else piece for number, piece in enumerate(pieces)])


def command(before: str, text: str, after: str = "") -> Markup:
    """A sentence with a command to be typed."""
    return element("p", before, element("code", text), after, class_="hint")


def table(label: str, headings: Iterable[Markup], *bodies: object, class_: str | None = None) -> Markup:
    """A table that scrolls by itself where the page is narrow; class `sortable`: by a press on a heading."""
    caption = element("caption", label, class_="hidden")
    made = element("table", caption, element("thead", headings), bodies, class_=class_)
    return element("div", made, class_="scroll", role="region", aria_label=label, tabindex=0)


def head(names: Sequence[str | Markup], text: Iterable[int] = (0,)) -> Markup:
    """A row of column headings; `text` are the columns that are not numbers."""
    cells = [
        name
        if isinstance(name, Markup)
        else element("th", name, scope="col", class_="first" if number in set(text) else None)
        for number, name in enumerate(names)
    ]
    return element("tr", cells)


def name_cell(row: AttackRow, *before: object, aliases: bool = True) -> Markup:
    """The attack, in whose numerics, and which others gave the same scores."""
    name = element("b", breakable(row.attack))
    return element(
        "th", *before, name, element("small", _about(row, aliases)), scope="row", data_value=row.attack
    )


def breakable(name: str) -> Markup:
    """A name that may be broken after an underscore."""
    first, *others = name.split("_")
    return join(first, [join("_", element("wbr"), other) for other in others])


def _about(row: AttackRow, aliases: bool) -> str:
    parts = [row.preset]
    if row.aliases and aliases:
        parts.append(f"same scores: {', '.join(row.aliases)}")
    if row.stale:
        parts.append("stale")
    return " · ".join(parts)


def value_cell(text: str, value: float | None, *more: object) -> Markup:
    """A number with what it is sorted by; what is missing comes last."""
    return element("td", text, *more, data_value="" if value is None else f"{value:.9g}")


def rate_cell(rate: Rate, write: Write = percent, ends: Write = points) -> Markup:
    """A rate over its intervals; a dash without members or non-members."""
    if rate.value is None:
        return element("td", NOTHING, data_value="")
    return value_cell(write(rate.value), rate.value, *_intervals(rate, ends))


def _intervals(rate: Rate, write: Write) -> Iterator[Markup]:
    """The bootstrap interval, and hidden until somebody asks for it, in italics, the Clopper–Pearson one.

    That one stands alone where no bootstrap was computed; and its upper end does where nothing was found, so
    that the bootstrap had nothing to vary. Without either the data does not resolve the rate.
    """
    exact = None
    if rate.exact_low is not None and rate.exact_high is not None:
        exact = element("i", interval(rate.exact_low, rate.exact_high, write))
    if rate.low is not None and rate.high:
        yield element("small", interval(rate.low, rate.high, write))
        if exact:
            yield element("small", exact, class_="exact")
    elif rate.high == 0 and rate.exact_high is not None:
        yield element("small", element("i", "≤ ", write(rate.exact_high)))
    else:
        yield element("small", exact or "no interval")


def label_name(label: int) -> str:
    """How a class is called."""
    return f"labelled {label}" if label >= 0 else "without a label"


def swatch(appearance: str) -> Markup:
    """A piece of a curve, for a legend."""
    return figure(42, 12, "", line(0, 6, 42, 6, f"curve {appearance}"), class_="swatch")


def looks(colour: int, dash: int) -> str:
    """The classes that give a curve its colour and its dash."""
    return f"k{colour % SERIES} d{dash % DASHES}"


# --- rates on one scale ---------------------------------------------------------------------------


def _strip_scale(floor: float) -> Scale:
    return rate_scale(floor, 6, _STRIP[0] - 6)


def strip_head(floor: float, name: str, **more: int) -> Markup:
    """The heading over `strip`s: their scale."""
    scale = _strip_scale(floor)
    labels = [
        element(
            "text",
            label if value == 1 else label.removesuffix("%"),
            x=f"{scale(value):.1f}",
            y=10,
            class_=f"tick {_anchor(value, floor)}",
        )
        for value, label in decades(floor)
    ]
    axis = figure(_STRIP[0], 14, f"Scale from {percent(floor)} to 100%, logarithmic", labels)
    return element("th", name, axis, scope="col", class_="strip", **more)


def _anchor(value: float, floor: float) -> str:
    if value == 1:
        return "end"
    return "start" if value == floor else "middle"


def strip(floor: float, rate: Rate, *, published: float | None = None, fpr: float | None = None) -> Markup:
    """A rate and its bootstrap interval as point and line; a published value as a diamond, an FPR as a ring.

    Decoration beside the same numbers; what lies below the scale is drawn hollow at its end.
    """
    scale, (width, height) = _strip_scale(floor), _STRIP
    middle = height / 2
    marks: list[Markup] = [line(scale(value), 0, scale(value), height, "grid") for value, _ in decades(floor)]
    if floor < CHANCE:
        marks.append(line(scale(CHANCE), 0, scale(CHANCE), height, "chance"))
    if rate.low is not None and rate.high is not None:
        marks.append(line(scale(rate.low), middle, scale(rate.high), middle, "whisker"))
    if fpr is not None:
        marks.append(element("circle", cx=f"{scale(fpr):.1f}", cy=middle, r=3.5, class_="ring"))
    if rate.value is not None:
        hollow = " hollow" if rate.value < floor else ""
        marks.append(element("circle", cx=f"{scale(rate.value):.1f}", cy=middle, r=4, class_=f"dot{hollow}"))
    if published is not None:
        at = f"translate({scale(published):.1f} {middle:g})"
        marks.append(element("path", d="M0-5.5 5.5 0 0 5.5-5.5 0Z", transform=at, class_="published"))
    return element("td", figure(width, height, "", marks), class_="strip")
