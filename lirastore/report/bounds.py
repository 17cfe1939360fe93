"""The section with lower bounds on ε: what they are, what each needs, and why others are refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lirastore.errors import name_some
from lirastore.report.content import AttackRow, Bound, ReportData
from lirastore.report.formats import NOTHING
from lirastore.report.markup import Markup, element
from lirastore.report.parts import head, name_cell, note, prose, section, table, value_cell

__all__ = ["bounds"]

_METHODS = {
    "one_run": "Many examples of one model",
    "clopper_pearson": "One example in many models",
}


def bounds(data: ReportData) -> Markup | None:
    """By method; of all targets together, those of single ones are left to the view."""
    names = {row.attack for row in data.attacks}
    shown = [bound for bound in data.bounds if bound.model is None and bound.attack in names]
    if not shown:
        return None
    methods = dict.fromkeys(bound.method for bound in shown)
    return section(
        "bounds",
        "Differential privacy: lower bounds on ε",
        element(
            "p",
            "If the training were (ε, δ)-differentially private, no attack could guess better than ε "
            "allows. So well as the attacks did guess rules out every smaller ε, if what the method needs "
            "is true.",
        ),
        [
            _method(data.attacks, method, [bound for bound in shown if bound.method == method])
            for method in methods
        ],
        note(
            "0 is evidence of nothing. The confidence is that of each attack by itself: the largest of "
            "many bounds holds with less. Bounds of single models are in the view epsilon_lower_bound."
        ),
    )


def _method(attacks: Sequence[AttackRow], method: str, found: Sequence[Bound]) -> Markup:
    needs = dict.fromkeys(bound.assumption for bound in found if bound.assumption)
    confidence = next((bound.confidence for bound in found if bound.confidence is not None), None)
    given = [bound for bound in found if bound.refused is None]
    return element(
        "div",
        element(
            "h3",
            _METHODS.get(method, method),
            element("small", f" {method}{_confidence(confidence)}"),
        ),
        [element("p", element("b", "Needs: "), f"{text}.") for text in needs],
        _table(attacks, method, given) if given else None,
        [element("p", element("b", "No bound: "), prose(text)) for text in _refusals(found)],
        class_="method",
    )


def _refusals(found: Sequence[Bound]) -> Iterator[str]:
    """Each reason once, with the attacks that it is given for."""
    for reason in dict.fromkeys(bound.refused for bound in found if bound.refused):
        attacks = dict.fromkeys(bound.attack for bound in found if bound.refused == reason)
        yield f"{name_some(list(attacks), most=6)}: {reason}."


def _table(attacks: Sequence[AttackRow], method: str, given: Sequence[Bound]) -> Markup:
    """A row per attack, a column per δ."""
    deltas = sorted({bound.delta for bound in given if bound.delta is not None})
    names = [
        "Attack",
        *(f"ε at least, δ = {_short(delta)}" for delta in deltas),
        "Guesses",
        "Right",
        "Example",
    ]
    by_attack = {row.attack: [bound for bound in given if bound.attack == row.attack] for row in attacks}
    rows = [_row(row, by_attack[row.attack], deltas) for row in attacks if by_attack[row.attack]]
    return table(f"Lower bounds on ε, {method}", [head(names)], element("tbody", rows), class_="sortable")


def _confidence(level: float | None) -> str:
    return "" if level is None else f", {100 * level:g}% confidence"


def _short(delta: float) -> str:
    return f"{delta:g}".replace("e-0", "e-")


def _row(row: AttackRow, found: Sequence[Bound], deltas: Sequence[float]) -> Markup:
    epsilons = {bound.delta: bound.epsilon for bound in found}
    first = found[0]
    counts = [first.guesses, first.correct, first.example]
    return element(
        "tr",
        name_cell(row),
        [_epsilon(epsilons.get(delta)) for delta in deltas],
        [value_cell(NOTHING if count is None else f"{count:,}", count) for count in counts],
    )


def _epsilon(value: float | None) -> Markup:
    return value_cell(NOTHING if value is None else f"{value:.2f}", value)
