"""The sections of the report's page, each a function of what was gathered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from lirastore.catalog import HEADLINE, OPERATING_POINTS
from lirastore.errors import name_some
from lirastore.report import figures
from lirastore.report.data import AttackRow, Exposed, Outputs, Rate, ReportData
from lirastore.report.formats import NOTHING, interval, moment, number, percent, size
from lirastore.report.markup import Markup, element, join
from lirastore.report.pictures import data_uri
from lirastore.results import Result

__all__ = ["distributions", "exposed", "metrics", "nothing_yet", "record", "roc"]


def _section(anchor: str, title: str, *content: object) -> Markup:
    heading = element("h2", title, id=f"{anchor}-title")
    return element("section", heading, *content, id=anchor, aria_labelledby=f"{anchor}-title")


def nothing_yet(data: ReportData) -> Markup:
    """What to do before there is anything to show."""
    missing = data.info.models - data.committed
    pending = f" {missing:,} of the planned models are missing; they can be added later." if missing else ""
    return element(
        "section",
        element("h2", "No attack has run yet"),
        element("p", f"Score every committed model, then write this report again.{pending}"),
        element("p", element("code", "lirastore attack STORE --all")),
        class_="empty",
    )


# --- ROC ----------------------------------------------------------------------------------------


def roc(data: ReportData) -> Markup:
    """The ROC of all attacks on log-log axes, with a legend beside or, on a phone, below it."""
    figure = figures.roc(data.curves, data.non_members, figures.PAGE, legend=False)
    names = name_some([row.attack for row in data.attacks])
    picture = figures.inline_svg(figure, "roc-figure", f"ROC curves on logarithmic axes: {names}, and chance")
    entries = [_legend_entry(rank, row) for rank, row in enumerate(data.attacks)]
    chance = element("li", _swatch("var(--muted)", (1, 1.5)), element("div", "chance"))
    return _section(
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
            element("div", picture, class_="plot"),
            element("ul", entries, chance, class_="legend", aria_label="Attacks"),
            class_="roc",
        ),
    )


def _legend_entry(rank: int, row: AttackRow) -> Markup:
    colour = f"var(--series-{rank % len(figures.PAGE.series)})"
    numbers = f"{percent(row.rates[HEADLINE].value)} at 0.1% · AUC {_three(row.auc)}"
    text = element("div", element("b", row.attack), element("span", numbers))
    return element("li", _swatch(colour, figures.DASHES[rank % len(figures.DASHES)]), text)


def _swatch(colour: str, dash: Iterable[float] | None) -> Markup:
    pattern = None if dash is None else " ".join(f"{2 * length:g}" for length in dash)
    style = f"stroke: {colour}; stroke-width: 3" + (f"; stroke-dasharray: {pattern}" if pattern else "")
    return element(
        "svg", element("line", x1=0, y1=6, x2=42, y2=6, style=style), viewBox="0 0 42 12", aria_hidden="true"
    )


def _three(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


# --- metrics ------------------------------------------------------------------------------------


def metrics(data: ReportData) -> Markup:
    """The table of all attacks, strongest first, and what its intervals mean."""
    return _section(
        "metrics",
        "Metrics",
        element(
            "div",
            element("table", _metrics_head(), element("tbody", [_metrics_row(row) for row in data.attacks])),
            class_="scroll",
            role="region",
            aria_labelledby="metrics-title",
            tabindex=0,
        ),
        element(
            "p",
            "Small print under a rate: its 95% Clopper–Pearson interval, in percent. It is conditional on "
            "these examples, these models and the threshold found on them; it is not an interval for how "
            "much such training leaks in general, because trials share examples and the threshold is itself "
            "an estimate. “No interval”: the false positive rate is finer than the data resolves.",
            class_="note",
        ),
        element("p", _resolution(data), class_="note"),
    )


def _resolution(data: ReportData) -> str:
    counts = [row.non_members for row in data.attacks]
    low, high = min(counts), max(counts)
    pairs = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    one = percent(1 / low) if low else NOTHING
    return (
        f"All targets are pooled: {pairs} scored pairs of a model and an example that it was not trained on. "
        f"One false positive among {low:,} is {one}: a rate at a false positive rate finer than that is what "
        "is found before the first false positive; it has no interval. The last column allows "
        "no false positive at all. Balanced accuracy is the best over all thresholds."
    )


def _metrics_head() -> Markup:
    rates = [f"{100 * rate:.6g}%" if rate else "none" for rate in OPERATING_POINTS.values()]
    above = element(
        "th", "True positive rate at a false positive rate of", scope="colgroup", colspan=len(rates)
    )
    names = [
        element("th", name, scope="col", rowspan=2, class_="first" if name == "Attack" else None)
        for name in ("Attack", "AUC", "Balanced accuracy")
    ]
    return element(
        "thead",
        element("tr", names, above),
        element("tr", [element("th", rate, scope="col") for rate in rates]),
    )


def _metrics_row(row: AttackRow) -> Markup:
    return element(
        "tr",
        element("th", row.attack, scope="row"),
        element("td", _three(row.auc)),
        element("td", percent(row.balanced_accuracy)),
        [_rate_cell(row.rates[name]) for name in OPERATING_POINTS],
    )


def _rate_cell(rate: Rate) -> Markup:
    """Without members or non-members there is no rate; without an interval the data does not resolve it."""
    if rate.value is None:
        return element("td", NOTHING)
    small = "no interval" if rate.low is None or rate.high is None else interval(rate.low, rate.high)
    return element("td", percent(rate.value), element("small", small))


# --- examples -----------------------------------------------------------------------------------


def exposed(data: ReportData) -> Markup:
    """The examples that the strongest attack recognises best, with their pictures if the store has any."""
    return _section(
        "exposed",
        "Most exposed examples",
        element(
            "p",
            "The examples that ",
            element("code", data.lead),
            " recognises in the largest share of the models trained on them, at the threshold of 0.1% "
            "false positives; below each picture, in how many of them. Whoever contributed one of these is "
            "at risk, whatever the average says.",
        ),
        element("ol", [_exposed_item(shown) for shown in data.exposed], class_="gallery"),
    )


def _exposed_item(shown: Exposed) -> Markup:
    scores = f"mean score in {number(shown.score_in)}, out {number(shown.score_out)}"
    caption = element(
        "figcaption",
        element("strong", f"#{shown.example}"),
        element("span", _label(shown)),
        element("span", _detected(shown), title=scores),
    )
    picture = _picture(shown)
    return element("li", element("figure", picture, caption, class_=None if picture else "unseen"))


def _label(shown: Exposed) -> str:
    return f"labelled {shown.label}" if shown.label >= 0 else "without a label"


def _detected(shown: Exposed) -> str:
    if shown.detected is None:
        return NOTHING
    return f"{round(shown.detected * shown.held)} of {shown.held}"


def _picture(shown: Exposed) -> Markup | None:
    uri = None if shown.picture is None else data_uri(shown.picture)
    if uri is None:
        return None
    return element("img", src=uri, alt=f"Example {shown.example}, {_label(shown)}", class_="picture")


# --- outputs ------------------------------------------------------------------------------------


def distributions(data: ReportData) -> Markup:
    """Histograms of a few examples' scaled logits, with and without the example in training."""
    inside = element("li", element("i", class_="member"), "models trained on the example")
    outside = element("li", element("i", class_="non-member"), "models trained without it")
    return _section(
        "outputs",
        "What gives them away",
        element(
            "p",
            "The scaled logit φ = log p/(1 − p) of the label’s probability p, first query, for models that "
            "were trained on the example and for those that were not. The lines are the Gaussians fitted to "
            "each side; the further apart they are, the more surely a single model tells whether it has seen "
            "the example.",
        ),
        element("ul", inside, outside, class_="keys"),
        element("div", [_panel(rank, outputs) for rank, outputs in enumerate(data.outputs)], class_="panels"),
    )


def _panel(rank: int, outputs: Outputs) -> Markup:
    shown = outputs.shown
    counts = f"{len(outputs.inside)} models trained on it, {len(outputs.outside)} not"
    description = f"Histograms of the scaled logit of example {shown.example}: {counts}"
    caption = element(
        "figcaption",
        _picture(shown),
        element(
            "div",
            element("h3", outputs.title),
            element("span", f"#{shown.example}, {_label(shown)}"),
            element("span", f"recognised in {_detected(shown)}"),
        ),
    )
    figure = figures.inline_svg(figures.histogram(outputs, figures.PAGE), f"outputs-{rank}", description)
    return element("figure", caption, element("div", figure, class_="plot"), class_="panel")


# --- what was run -------------------------------------------------------------------------------


def record(data: ReportData) -> Markup:
    """Everything needed to tell exactly what this report is about, and to do it again."""
    facts = [join(element("dt", name), element("dd", value)) for name, value in _facts(data).items()]
    return _section(
        "record",
        "What was run",
        element("dl", facts, class_="record"),
        _runs(data) if data.runs else None,
    )


def _facts(data: ReportData) -> dict[str, object]:
    info = data.info
    augmentations = name_some(info.augmentations, most=24)
    return {
        "Set digest": element("code", data.set_digest),
        "Data set": [info.name or NOTHING, ", fingerprint ", element("code", info.fingerprint)],
        "Models": f"{data.committed:,} committed of {info.models:,} planned",
        "Examples": f"{info.examples:,}",
        "Queries": element("code", augmentations),
        "Subset design": element("code", _settings(info.design)),
        "Stored as": f"{info.dtype}, format {info.format}",
        "Store created": f"{moment(info.created_at)} by lirastore {info.library_version}",
        "Software": ", ".join(f"{name} {version}" for name, version in data.versions.items()),
    }


def _runs(data: ReportData) -> Markup:
    names = ("Attack", "Preset", "Models", "Shadows", "Finished", "Seconds", "Read", "Parameters")
    numeric = ("Models", "Seconds", "Read")
    head = [element("th", name, scope="col", class_=None if name in numeric else "first") for name in names]
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", head)),
            element("tbody", [_run_row(run, stale=run.attack in data.stale) for run in data.runs]),
        ),
        class_="scroll",
        role="region",
        aria_label="Attacks that were run",
        tabindex=0,
    )


def _run_row(run: Result, *, stale: bool) -> Markup:
    parameters = {name: value for name, value in run.parameters.items() if name != "preset"}
    return element(
        "tr",
        element("th", run.attack, element("small", " (stale)") if stale else None, scope="row"),
        element("td", run.preset, class_="text"),
        element("td", f"{len(run.models):,}"),
        element("td", f"equal counts, seed {run.seed}" if run.equal_counts else "all others", class_="text"),
        element("td", moment(run.finished_at), class_="text"),
        element("td", f"{run.seconds:.1f}"),
        element("td", size(run.bytes_read)),
        element("td", element("code", _settings(parameters)), class_="long"),
    )


def _settings(values: Mapping[str, Any]) -> str:
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in values.items()
    }
    return ", ".join(f"{name}={text}" for name, text in texts.items())
