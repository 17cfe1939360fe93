"""The section in which one example, or a class, is looked up, and the numbers that its script needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lirastore.report import chart
from lirastore.report.content import Curve, Examples, ReportData, Seen
from lirastore.report.curves import PLOT, numbered
from lirastore.report.exposure import BINS
from lirastore.report.markup import Markup, data_block, element
from lirastore.report.packing import PRECISION, Pack
from lirastore.report.parts import command, note, section
from lirastore.report.people import keys
from lirastore.report.pictures import Sheet, sheet

__all__ = ["Cargo", "cargo", "lookup"]

PACKED = 4_000_000  # characters of packed numbers in a page, at most
PICTURED = 600_000  # and of pictures beside them


@dataclass(frozen=True)
class Cargo:
    """What the page's script works with: `block` goes into the page; the rest says what is in it."""

    block: Markup
    pictures: int
    left_out: tuple[str, ...]


def cargo(data: ReportData) -> Cargo:
    """Curves, classes and examples; of the attacks per example as many as fit, the strongest first."""
    pack = Pack()
    curves = [_pack_curve(pack, number, curve) for number, (_, curve) in enumerate(numbered(data))]
    document: dict[str, Any] = {
        "roc": {
            "plot": PLOT,
            "floor": chart.floor_of(data.non_members),
            "attacks": _legend(data),
            "curves": curves,
        },
        "classes": _classes(data),
    }
    left_out: list[str] = []
    pictures = None
    if data.examples is not None:
        pictures = None if data.pictures is None else sheet(data.pictures, PICTURED)
        document["examples"] = _examples(data, data.examples, pack, pictures, left_out)
    document |= {"columns": pack.header, "bodies": pack.text()}
    return Cargo(data_block("report-data", document), pictures.count if pictures else 0, tuple(left_out))


# --- what is packed -------------------------------------------------------------------------------


def _pack_curve(pack: Pack, number: int, curve: Curve) -> str:
    """Under the name that is returned."""
    for column in ("fpr", "tpr", "threshold"):
        pack.floats(f"roc.{number}.{column}", getattr(curve, column))
    return f"roc.{number}"


def _legend(data: ReportData) -> list[dict[str, Any]]:
    return [{"name": row.attack, "nonMembers": row.non_members} for row, _ in numbered(data)]


def _classes(data: ReportData) -> dict[str, Any]:
    """Per attack the rows of its table: label, TPR and its interval, FPR, AUC, members, non-members."""
    presets = {row.attack: row.preset for row in data.attacks}
    lead = data.lead
    return {
        "floor": max(1e-4, chart.floor_of(lead.non_members)) if lead else 1e-4,
        "attacks": {
            attack: {
                "preset": presets[attack],
                "rows": [
                    [
                        row.label,
                        *map(_short, (row.rate.value, row.rate.low, row.rate.high, row.fpr, row.auc)),
                        row.members,
                        row.non_members,
                    ]
                    for row in rows
                ],
            }
            for attack, rows in data.classes.items()
        },
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _examples(
    data: ReportData, examples: Examples, pack: Pack, pictures: Sheet | None, left_out: list[str]
) -> dict[str, Any]:
    _pack_examples(pack, examples)
    shown = []
    presets = {row.attack: row.preset for row in data.attacks}
    for number, seen in enumerate(examples.seen):
        columns = _pack_seen(number, seen)
        if number and pack.size + columns.size > PACKED:
            left_out.append(seen.attack)
            continue
        pack.take(columns)
        shown.append({"name": seen.attack, "preset": presets[seen.attack], "columns": f"seen.{number}"})
    return {
        "total": examples.total,
        "count": len(examples.ids),
        "attacks": shown,
        "bins": BINS,
        "correct": examples.correct is not None,
        "above": examples.percentile is not None,
        "sheet": None if pictures is None else vars(pictures),
    }


def _pack_examples(pack: Pack, examples: Examples) -> None:
    pack.integers("id", examples.ids)
    pack.integers("label", examples.labels)
    sketch = examples.sketch
    for name, values in {"low": sketch.low, "high": sketch.high}.items():
        pack.reals(f"phi.{name}", values)
    for side, name in enumerate(("in", "out")):
        pack.reals(f"phi.mean.{name}", sketch.mean[:, side])
        pack.reals(f"phi.std.{name}", sketch.std[:, side])
        pack.integers(f"phi.counts.{name}", sketch.counts[:, side])
    if examples.correct is not None:
        pack.floats("correct.in", examples.correct[:, 0])
        pack.floats("correct.out", examples.correct[:, 1])
    if examples.percentile is not None:  # what is above matters, and must not be lost by rounding
        pack.reals("above.mean", 1 - examples.percentile[:, 0])
        pack.reals("above.std", examples.percentile[:, 1])


def _pack_seen(number: int, seen: Seen) -> Pack:
    pack = Pack()
    pack.reals(f"seen.{number}.in", seen.score_in)
    pack.reals(f"seen.{number}.out", seen.score_out)
    pack.integers(f"seen.{number}.detected", seen.detected)
    pack.integers(f"seen.{number}.held", seen.held)
    return pack


# --- section --------------------------------------------------------------------------------------


def lookup(data: ReportData, loaded: Cargo) -> Markup | None:
    """Where to search, and the card of the example that was found."""
    if data.examples is None:
        return None
    return section(
        "lookup",
        "Look up an example",
        element(
            "div",
            command(
                "The search needs JavaScript. Without it, ask the store: ",
                'lirastore query STORE "from exposure where example = 17"',
            ),
            class_="unscripted",
        ),
        element("div", _search(), _card(), class_="lookup scripted"),
        note(*_limits(data, data.examples, loaded)),
    )


def _search() -> Markup:
    label = element("label", "An example’s number, or a class", for_="lookup-query")
    field = element(
        "input",
        type="search",
        id="lookup-query",
        placeholder="17, or class 3",
        autocomplete="off",
        spellcheck="false",
        aria_controls="lookup-results",
    )
    more = element("button", "Show more", type="button", id="lookup-more", class_="button", hidden=True)
    return element(
        "div",
        label,
        field,
        element("p", id="lookup-count", class_="note", role="status"),
        element("ol", id="lookup-results", class_="results"),
        more,
        class_="search",
    )


def _card() -> Markup:
    return element(
        "article",
        keys(),
        element("div", id="lookup-card", tabindex=-1),
        class_="card",
        aria_label="The chosen example",
    )


def _limits(data: ReportData, examples: Examples, loaded: Cargo) -> Iterable[str]:
    """What the page holds and what it does not."""
    yield f"Numbers are rounded, most to within {100 * PRECISION / 2:.2g}%, to keep this file small. "
    if len(examples.ids) < examples.total:
        yield f"It holds the {len(examples.ids):,} most exposed of {examples.total:,} examples. "
    if data.pictures is not None and loaded.pictures < len(examples.ids):
        yield f"Pictures are of the {loaded.pictures:,} most exposed. "
    shown = {seen.attack for seen in examples.seen} - set(loaded.left_out)
    missing = [row.attack for row in data.attacks if row.attack not in shown]
    if missing:
        yield f"Attacks that are left out here: {', '.join(missing)}. "
    yield "Everything is in the store: views exposure, stability, memorization; was_member(model, example)."
