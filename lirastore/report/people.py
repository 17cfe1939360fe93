"""The sections about whom it concerns: classes, the most exposed examples, and what gives them away."""

from __future__ import annotations

from lirastore.report.chart import floor_of
from lirastore.report.content import ClassRow, Exposed, Outputs, ReportData
from lirastore.report.formats import NOTHING, number, percent, three
from lirastore.report.histogram import histogram
from lirastore.report.markup import Markup, element
from lirastore.report.parts import (
    head,
    label_name,
    note,
    rate_cell,
    section,
    strip,
    strip_head,
    table,
    value_cell,
)
from lirastore.report.pictures import data_uri

__all__ = ["classes", "exposed", "outputs"]


# --- classes --------------------------------------------------------------------------------------


def classes(data: ReportData) -> Markup | None:
    """Class by class, as the strongest attack sees them; with the script, as any main one does."""
    lead = data.lead
    rows = data.classes.get(lead.attack, ()) if lead else ()
    if lead is None or not data.facts.labelled or len(rows) < 2:
        return None
    floor = max(1e-4, floor_of(lead.non_members))
    names = ["Class", "TPR", strip_head(floor, ""), "FPR within", "AUC", "Members", "Non-members"]
    options = [element("option", name, value=name, selected=name == lead.attack) for name in data.classes]
    chosen = element("select", options, id="class-attack", autocomplete="off")
    return section(
        "classes",
        "Class by class",
        element(
            "p",
            "One threshold for all, that of 0.1% false positives over the whole data, as an attacker would "
            "set it. ",
            "A class whose own false positive rate is far above 0.1% is one in which non-members look like "
            "members.",
        ),
        element("p", element("label", "Attack ", chosen), class_="scripted choice"),
        element("p", "As ", element("code", lead.attack), f" ({lead.preset}) sees them.", id="class-caption"),
        table(
            "Class by class",
            [head(names)],
            element("tbody", [_class_row(row, floor) for row in rows], id="class-rows"),
            class_="sortable",
        ),
        note(
            "Small print: 95% bootstrap interval of this class’s examples, with the threshold left where "
            "it is. Ring: the false positive rate within the class; dashed: what it is over the whole "
            "data. Members and non-members: pairs of a model and an example."
        ),
    )


def _class_row(row: ClassRow, floor: float) -> Markup:
    name = str(row.label) if row.label >= 0 else "none"
    link = element("a", name, href="#lookup", data_class=row.label)
    return element(
        "tr",
        element("th", link, scope="row", data_value=row.label),
        rate_cell(row.rate),
        strip(floor, row.rate, fpr=row.fpr),
        value_cell(percent(row.fpr), row.fpr),
        value_cell(three(row.auc), row.auc),
        value_cell(f"{row.members:,}", row.members),
        value_cell(f"{row.non_members:,}", row.non_members),
    )


# --- the most exposed -----------------------------------------------------------------------------


def exposed(data: ReportData) -> Markup:
    """The examples that the strongest attack recognises best, with their pictures if the store has any."""
    lead = data.lead
    return section(
        "exposed",
        "Most exposed examples",
        element(
            "p",
            "The examples that ",
            element("code", lead.attack if lead else ""),
            " recognises in the largest share of the models trained on them, at the threshold of 0.1% "
            "false positives; below each picture, in how many of them. Whoever contributed one of these is "
            "at risk, whatever the average says.",
        ),
        element("ol", [_exposed_item(shown) for shown in data.exposed], class_="gallery"),
    )


def _exposed_item(shown: Exposed) -> Markup:
    scores = f"mean score in {number(shown.score_in)}, out {number(shown.score_out)}"
    link = element("a", f"#{shown.example}", href="#lookup", data_example=shown.example)
    caption = element(
        "figcaption",
        element("strong", link),
        element("span", label_name(shown.label)),
        element("span", _detected(shown), title=scores),
    )
    picture = _picture(shown)
    return element("li", element("figure", picture, caption, class_=None if picture else "unseen"))


def _detected(shown: Exposed) -> str:
    return NOTHING if shown.detected is None else f"{shown.detected} of {shown.held}"


def _picture(shown: Exposed) -> Markup | None:
    uri = None if shown.picture is None else data_uri(shown.picture)
    if uri is None:
        return None
    return element(
        "img", src=uri, alt=f"Example {shown.example}, {label_name(shown.label)}", class_="picture"
    )


# --- outputs --------------------------------------------------------------------------------------


def outputs(data: ReportData) -> Markup:
    """Histograms of a few examples' scaled logits, with and without the example in training."""
    return section(
        "outputs",
        "What gives them away",
        element(
            "p",
            "The scaled logit φ = log p/(1 − p) of the label’s probability p, first query, for models that "
            "were trained on the example and for those that were not. The lines are the Gaussians fitted to "
            "each side; the further apart they are, the more surely a single model tells whether it has seen "
            "the example.",
        ),
        keys(),
        element("div", [_panel(shown) for shown in data.outputs], class_="panels"),
    )


def keys() -> Markup:
    """What the two colours of a histogram mean."""
    inside = element("li", element("i", class_="member"), "models trained on the example")
    outside = element("li", element("i", class_="non-member"), "models trained without it")
    return element("ul", inside, outside, class_="keys")


def _panel(outputs: Outputs) -> Markup:
    shown = outputs.shown
    inside, outside = outputs.sketch.counts[outputs.row].sum(axis=1).tolist()
    counts = f"{inside} models trained on it, {outside} not"
    description = f"Histograms of the scaled logit of example {shown.example}: {counts}"
    caption = element(
        "figcaption",
        _picture(shown),
        element(
            "div",
            element("h3", outputs.title),
            element("span", f"#{shown.example}, {label_name(shown.label)}"),
            element("span", f"recognised in {_detected(shown)}"),
        ),
    )
    figure = histogram(outputs.sketch, outputs.row, description)
    return element("figure", caption, element("div", figure, class_="plot"), class_="panel")
