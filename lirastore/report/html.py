"""The report as one self-contained HTML page: no script, nothing loaded from anywhere."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from string import Template
from typing import Any

from lirastore.errors import name_some
from lirastore.report import figures
from lirastore.report.data import HEADLINE, OPERATING_POINTS, AttackRow, Exposed, Outputs, Rate, ReportData
from lirastore.report.markup import Markup, element, join
from lirastore.report.pictures import data_uri

__all__ = ["page"]

def page(data: ReportData) -> str:
    """The whole document. Every text that comes from the store is escaped."""
    here = resources.files("lirastore.report")
    sections = [*_results(data), _record(data)] if data.attacks else [_nothing_yet(data), _record(data)]
    return Template(here.joinpath("page.html").read_text("utf-8")).substitute(
        title=html.escape(f"{data.title}: membership inference report"),
        style=here.joinpath("page.css").read_text("utf-8"),
        header=_header(data),
        sections=join(_notices(data), sections),
        footer=_footer(data),
    )


def _results(data: ReportData) -> Iterator[Markup]:
    yield _roc(data)
    yield _metrics(data)
    yield _exposed(data)
    yield _distributions(data)


def _section(anchor: str, title: str, *content: object) -> Markup:
    heading = element("h2", title, id=f"{anchor}-title")
    return element("section", heading, *content, id=anchor, aria_labelledby=f"{anchor}-title")


# --- head and foot ------------------------------------------------------------------------------


def _header(data: ReportData) -> Markup:
    return element(
        "header",
        element("p", "Membership inference report", class_="eyebrow"),
        element("h1", data.title),
        element("p", *_headline(data), class_="lead"),
        _facts(data),
        _contents(data),
    )


def _headline(data: ReportData) -> Iterator[object]:
    """What was found, in a sentence or two."""
    row = data.headline
    if row is None:
        yield f"{data.committed:,} of {data.info.models:,} models are in the store; no attack has run yet."
        return
    rate = row.rates[HEADLINE]
    yield "At a false positive rate of 0.1%, the strongest attack, "
    yield element("code", row.attack)
    yield ", recognises "
    yield element("strong", percent(rate.value))
    yield " of the training examples; guessing would recognise 0.1%."
    if rate.low is None:
        yield f" One false positive among {data.non_members:,} is more than 0.1%: read this number with care."


def _facts(data: ReportData) -> Markup:
    info = data.info
    facts: list[tuple[str, str, str]] = [
        ("Models", f"{data.committed:,}", f"of {info.models:,} planned" if data.committed < info.models else ""),
        ("Examples", f"{info.examples:,}", f"{info.classes:,} classes" if info.classes else ""),
        ("Queries per example", f"{len(info.augmentations):,}", ""),
        ("Attacks", f"{len(data.runs):,}", ""),
    ]
    if data.train_accuracy is not None and data.test_accuracy is not None:
        accuracies = f"{percent(data.train_accuracy)} / {percent(data.test_accuracy)}"
        facts.append(("Accuracy on members / others", accuracies, "mean over models"))
    return element(
        "dl",
        [
            element("div", element("dt", name), element("dd", value, element("small", note) if note else None))
            for name, value, note in facts
        ],
        class_="facts",
    )


def _contents(data: ReportData) -> Markup:
    anchors = {"roc": "ROC", "metrics": "Metrics", "exposed": "Most exposed", "outputs": "Outputs"}
    shown = {**(anchors if data.attacks else {}), "record": "What was run"}
    links = [element("a", title, href=f"#{anchor}") for anchor, title in shown.items()]
    return element("nav", links, class_="contents", aria_label="Contents")


def _notices(data: ReportData) -> Markup | None:
    notes = [
        f"{run.attack}: computed from {len(run.models):,} models before the store changed. "
        f"Run “lirastore attack” again to bring it up to date."
        for run in data.stale
    ]
    notes += [f"{run.attack}: {warning}" for run in data.runs for warning in run.warnings]
    if not notes:
        return None
    return element("aside", [element("p", note) for note in notes], class_="notice", aria_label="Warnings")


def _nothing_yet(data: ReportData) -> Markup:
    return element(
        "section",
        element("h2", "No attack has run yet"),
        element("p", "Score every committed model with all attacks, then write the report again:"),
        element("p", element("code", "lirastore attack STORE --all")),
        class_="empty",
    )


def _footer(data: ReportData) -> Markup:
    written = f"{data.written_at:%Y-%m-%d %H:%M} UTC"
    return element("footer", f"Written by lirastore {data.versions['lirastore']} on {written}.")


