"""The report as one self-contained HTML page: no script, nothing loaded from anywhere."""

from __future__ import annotations

import html
from collections.abc import Iterator
from importlib import resources
from string import Template

from lirastore.catalog import HEADLINE
from lirastore.report import sections
from lirastore.report.data import ReportData
from lirastore.report.formats import moment, percent
from lirastore.report.markup import Markup, element, join

__all__ = ["page"]


def page(data: ReportData) -> str:
    """The whole document. Every text that comes from the store is escaped."""
    here = resources.files("lirastore.report")
    return Template(here.joinpath("page.html").read_text("utf-8")).substitute(
        title=html.escape(f"{data.title}: membership inference report"),
        style=here.joinpath("page.css").read_text("utf-8"),
        header=_header(data),
        sections=join(_sections(data)),
        footer=_footer(data),
    )


def _sections(data: ReportData) -> Iterator[Markup]:
    if data.attacks:
        yield sections.roc(data)
        yield sections.metrics(data)
        yield sections.exposed(data)
        yield sections.distributions(data)
    else:
        yield sections.nothing_yet(data)
    yield sections.record(data)


def _header(data: ReportData) -> Markup:
    return element(
        "header",
        element("p", "Membership inference report", class_="eyebrow"),
        element("h1", data.title),
        element("p", _headline(data), class_="lead"),
        _facts(data),
        _notices(data),
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
    yield " of the training examples. Guessing would recognise 0.1%."
    if rate.low is None:
        yield (
            f" One false positive among {row.non_members:,} non-members is more than 0.1% already: there is "
            "too little data for this number to mean much."
        )


def _facts(data: ReportData) -> Markup:
    info = data.info
    planned = f"of {info.models:,} planned" if data.committed < info.models else ""
    facts = [
        ("Models", f"{data.committed:,}", planned),
        ("Examples", f"{info.examples:,}", f"{info.classes:,} classes" if info.classes else ""),
        ("Queries per example", f"{len(info.augmentations):,}", ""),
        ("Attacks", f"{len(data.attacks):,}", ""),
    ]
    accuracies = {"members": data.train_accuracy, "others": data.test_accuracy}
    facts += [
        (f"Accuracy, {group}", percent(accuracy), "mean over models")
        for group, accuracy in accuracies.items()
        if accuracy is not None
    ]
    return element("dl", [_fact(*fact) for fact in facts], class_="facts")


def _fact(name: str, value: str, note: str) -> Markup:
    content = element("dd", value, element("small", note) if note else None)
    return element("div", element("dt", name), content)


def _notices(data: ReportData) -> Markup | None:
    notes = [
        f"{run.attack} is stale: it was computed from {len(run.models):,} models, and the store has changed "
        "since. Run “lirastore attack” again to bring it up to date."
        for run in data.runs
        if run.attack in data.stale
    ]
    notes += [f"{run.attack}: {warning}" for run in data.runs for warning in run.warnings]
    if not notes:
        return None
    return element("aside", [element("p", note) for note in notes], class_="notice", aria_label="Warnings")


def _contents(data: ReportData) -> Markup:
    results = {"roc": "ROC", "metrics": "Metrics", "exposed": "Most exposed", "outputs": "Outputs"}
    shown = {**(results if data.attacks else {}), "record": "What was run"}
    links = [element("a", title, href=f"#{anchor}") for anchor, title in shown.items()]
    return element("nav", links, class_="contents", aria_label="Contents")


def _footer(data: ReportData) -> Markup:
    written = f"Written by lirastore {data.versions['lirastore']}, {moment(data.written_at)}."
    return element("footer", written)
