"""The report as one self-contained HTML page: nothing is loaded from anywhere, nothing foreign can run."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from importlib import resources
from string import Template

from lirastore.report import bounds, curves, lookup, people, power, record, scripts, summary, tables
from lirastore.report.content import ReportData
from lirastore.report.formats import moment
from lirastore.report.markup import Markup, element, join, raw_block

__all__ = ["page"]


def page(data: ReportData) -> str:
    """The whole document. Every text that comes from the store is escaped."""
    style, early, late = scripts.style(curves.rules(data)), scripts.early(), scripts.late()
    loaded = lookup.cargo(data)
    parts = list(_sections(data, loaded))
    template = resources.files("lirastore.report").joinpath("page.html").read_text("utf-8")
    return Template(template).substitute(
        policy=html.escape(scripts.policy(style, early, late)),
        title=html.escape(f"{data.facts.title}: membership inference report"),
        style=raw_block("style", style),
        early=raw_block("script", early),
        header=summary.header(data),
        contents=_contents([(anchor, title) for anchor, title, _ in parts if title]),
        sections=join(part for _, _, part in parts),
        footer=_footer(data),
        data=loaded.block,
        late=raw_block("script", late, type="module"),
    )


def _sections(data: ReportData, loaded: lookup.Cargo) -> Iterator[tuple[str, str, Markup]]:
    """Anchor, short title for the contents, and the section itself."""
    if not data.attacks:
        yield "", "", record.nothing_yet(data)
        yield "record", "Record", record.record(data)
        return
    found = (
        ("roc", "ROC", curves.roc(data)),
        ("paper", "Paper", tables.paper(data)),
        ("ablation", "Ablation", tables.ablation(data)),
        ("power", "Power", power.power(data)),
        ("metrics", "Metrics", tables.metrics(data)),
        ("classes", "Classes", people.classes(data)),
        ("exposed", "Exposed", people.exposed(data)),
        ("lookup", "Look up", lookup.lookup(data, loaded)),
        ("outputs", "Outputs", people.outputs(data)),
        ("bounds", "DP bounds", bounds.bounds(data)),
        ("record", "Record", record.record(data)),
    )
    yield from ((anchor, title, part) for anchor, title, part in found if part is not None)


def _contents(titles: Iterable[tuple[str, str]]) -> Markup:
    """Stays at the top of the window."""
    links = [element("li", element("a", title, href=f"#{anchor}")) for anchor, title in titles]
    button = element("button", type="button", id="theme", class_="button scripted")
    return element(
        "div", element("nav", element("ul", links), aria_label="Contents"), button, class_="bar-top"
    )


def _footer(data: ReportData) -> Markup:
    written = f"Written by lirastore {data.versions['lirastore']}, {moment(data.written_at)}."
    return element("footer", written)
