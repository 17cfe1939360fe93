"""The sections that compare attacks: the talk's table, its ablation, and all metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from lirastore.catalog import HEADLINE, OPERATING_POINTS
from lirastore.report.chart import floor_of
from lirastore.report.content import AblationStep, AttackRow, PaperRow, ReportData, Spread
from lirastore.report.formats import NOTHING, percent, points, three
from lirastore.report.markup import Markup, element
from lirastore.report.parts import (
    breakable,
    head,
    name_cell,
    note,
    rate_cell,
    section,
    strip,
    strip_head,
    table,
    value_cell,
)

__all__ = ["ablation", "metrics", "paper"]

_BOOTSTRAP = (
    "Small print under a rate: its 95% bootstrap interval. Examples are drawn anew, with all models’ "
    "outputs of them, and the threshold is found anew each time."
)


_DATA_SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "wikitext103": "WikiText-103"}


def _published(names: Iterable[str | None]) -> str | None:
    """What the data set is called whose published values there are."""
    return next((_DATA_SETS.get(name, name) for name in names if name), None)


def _floor(data: ReportData) -> float:
    """Where the drawn scales begin: not below 0.01%, so that there is room for what differs."""
    return max(1e-4, floor_of(data.non_members))


# --- the talk's table -----------------------------------------------------------------------------


def paper(data: ReportData) -> Markup | None:
    """Measured, and published where the data set is one of the paper's; None if no row of it has run."""
    shown = [row for row in data.paper if row.preset is not None]
    if not shown:
        return None
    published = _published(row.data_set for row in data.paper)
    missing = [f"{row.row} ({row.attack})" for row in data.paper if row.preset is None]
    return section(
        "paper",
        "The paper’s table",
        element("p", _paper_lead(published)),
        table(
            "The paper’s table",
            _paper_head(published, _floor(data)),
            element("tbody", [_paper_row(row, published, _floor(data)) for row in shown]),
        ),
        note(
            _BOOTSTRAP,
            " Dashed: chance. ",
            "Diamond: the published value. " if published else None,
            f"Not run here: {'; '.join(missing)}." if missing else None,
        ),
    )


def _paper_lead(published: str | None) -> str:
    lead = (
        "The table of “Membership Inference Attacks From First Principles” (Carlini et al. 2022), measured "
        "here; after LiRA come other forms of it and newer attacks. "
    )
    if published:
        return lead + (
            f"Beside it what was published for {published} with 256 shadow models. Other models, data and "
            "training give other numbers; what should agree is the order."
        )
    return f"{lead}Stores of CIFAR-10, CIFAR-100 and WikiText-103 show the published values too."


def _paper_head(published: str | None, floor: float) -> list[Markup]:
    names = ["TPR at 0.1%", "TPR at 0.001%", "Balanced accuracy"]
    if not published:
        return [head(["Attack", names[0], strip_head(floor, ""), *names[1:]])]
    groups = ("Measured here", f"Published, {published}")
    measured, theirs = (element("th", text, scope="colgroup", colspan=3) for text in groups)
    first = element("th", "Attack", scope="col", rowspan=2, class_="first")
    columns = [element("th", name, scope="col") for name in (*names, *names)]
    return [
        element("tr", first, measured, strip_head(floor, "TPR at 0.1%", rowspan=2), theirs),
        element("tr", columns),
    ]


def _paper_row(row: PaperRow, published: str | None, floor: float) -> Markup:
    name = element(
        "th", element("b", row.row), element("small", breakable(row.attack), f" · {row.preset}"), scope="row"
    )
    drawn = strip(floor, row.rate, published=row.published_rate)
    rate, finest = rate_cell(row.rate), element("td", percent(row.finest))
    accuracy = element("td", percent(row.balanced_accuracy))
    if not published:
        return element("tr", name, rate, drawn, finest, accuracy)
    theirs = (row.published_rate, row.published_finest, row.published_balanced_accuracy)
    cells = [element("td", _brief(value)) for value in theirs]
    return element("tr", name, rate, finest, accuracy, drawn, cells)


def _brief(share: float | None) -> str:
    """A published share, with the one or two decimals that it was published with."""
    return NOTHING if share is None else f"{100 * share:.2f}".removesuffix("0") + "%"


# --- ablation -------------------------------------------------------------------------------------


def ablation(data: ReportData) -> Markup | None:
    """What each step from LOSS to LiRA adds; None if none of the steps has run."""
    if not any(step.preset for step in data.ablation):
        return None
    published = _published(step.data_set for step in data.ablation)
    names = ["Step", "TPR at 0.1% FPR", strip_head(_floor(data), ""), *([published] if published else [])]
    chains = groupby(data.ablation, key=lambda step: step.chain)
    bodies = [_chain(name, list(steps), published, _floor(data)) for name, steps in chains]
    return section(
        "ablation",
        "What each step adds",
        element(
            "p",
            "From one threshold on the loss to the likelihood-ratio attack, one step at a time: without a "
            "threshold per example, with shadow models trained without the example (OUT), and with models "
            "of both kinds.",
        ),
        table("What each step adds", [head(names)], bodies),
        note(_BOOTSTRAP, " Diamond: the published value." if published else None),
    )


def _chain(name: str, steps: Sequence[AblationStep], published: str | None, floor: float) -> Markup:
    columns = 4 if published else 3
    title = element("tr", element("th", name, scope="rowgroup", colspan=columns, class_="group"))
    return element("tbody", title, [_step(step, published, floor) for step in steps])


def _step(step: AblationStep, published: str | None, floor: float) -> Markup:
    return element(
        "tr",
        element(
            "th",
            element("b", step.adds if step.step == 1 or step.adds.startswith("+") else f"+ {step.adds}"),
            element("small", breakable(step.attack), f" · {step.preset or 'not run'}"),
            scope="row",
        ),
        rate_cell(step.rate),
        strip(floor, step.rate, published=step.published),
        element("td", _brief(step.published)) if published else None,
    )


# --- metrics --------------------------------------------------------------------------------------


def metrics(data: ReportData) -> Markup:
    """The table of all attacks, strongest first, and what its intervals mean."""
    exact = element("input", type="checkbox", id="exact-intervals", autocomplete="off")
    return section(
        "metrics",
        "All metrics",
        element("p", element("label", exact, " show Clopper–Pearson intervals too", class_="choice")),
        table(
            "All metrics",
            _metrics_head(),
            element("tbody", [_metrics_row(row) for row in data.attacks]),
            class_="sortable",
        ),
        note(
            _BOOTSTRAP,
            " In italics the Clopper–Pearson interval, which is conditional on these examples, these "
            "models and the threshold found on them; it is not an interval for how much such training "
            "leaks in general. It stands alone where no bootstrap was computed, and its upper end (≤) "
            "where nothing was found, so that the bootstrap had nothing to vary. “No interval”: the false "
            "positive rate is finer than the data resolves.",
        ),
        note(_resolution(data)),
        _spreads(data),
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


def _metrics_head() -> list[Markup]:
    rates = [f"{100 * rate:.6g}%" if rate else "none" for rate in OPERATING_POINTS.values()]
    above = element(
        "th", "True positive rate at a false positive rate of", scope="colgroup", colspan=len(rates)
    )
    names = [
        element("th", name, scope="col", rowspan=2, class_="first" if name == "Attack" else None)
        for name in ("Attack", "AUC", "Balanced accuracy")
    ]
    strongest = list(OPERATING_POINTS).index(HEADLINE)
    columns = [
        element("th", rate, scope="col", aria_sort="descending" if number == strongest else None)
        for number, rate in enumerate(rates)
    ]
    return [element("tr", names, above), element("tr", columns)]


def _metrics_row(row: AttackRow) -> Markup:
    return element(
        "tr",
        name_cell(row),
        rate_cell(row.auc, three, three),
        rate_cell(row.balanced_accuracy),
        [rate_cell(row.rates[name]) for name in OPERATING_POINTS],
    )


# --- over targets ---------------------------------------------------------------------------------

_COLUMNS = {
    "auc": "AUC",
    "balanced_accuracy": "Balanced accuracy",
    "tpr_at_1pct": "TPR at 1% FPR",
    "tpr_at_0_1pct": "TPR at 0.1% FPR",
}


def _spreads(data: ReportData) -> Markup:
    """Mean ± standard deviation over the targets, each with its own thresholds."""
    shown = [row for row in data.attacks if row.attack in data.spreads]
    rows = [
        element("tr", name_cell(row), value_cell(f"{row.targets:,}", row.targets), _spread_cells(data, row))
        for row in shown
    ]
    more = (
        "" if len(shown) == len(data.attacks) else " The other attacks are in the view metrics_over_models."
    )
    return element(
        "details",
        element("summary", "One target at a time: mean ± standard deviation over the models"),
        table(
            "Mean and standard deviation over the models",
            [head(["Attack", "Targets", *_COLUMNS.values()])],
            element("tbody", rows),
            class_="sortable",
        ),
        note(f"Each model is attacked by itself, with the thresholds that are best for it.{more}"),
    )


def _spread_cells(data: ReportData, row: AttackRow) -> Iterator[Markup]:
    for name in _COLUMNS:
        spread = data.spreads[row.attack][name]
        yield value_cell(_spread_text(spread, percents=name != "auc"), spread.mean)


def _spread_text(spread: Spread, *, percents: bool) -> str:
    if spread.mean is None:
        return NOTHING
    wide = "" if spread.std is None else f" ± {points(spread.std) if percents else three(spread.std)}"
    return f"{percent(spread.mean) if percents else three(spread.mean)}{wide}"
