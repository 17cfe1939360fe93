"""The head of the page: what was found, in words that somebody who must decide can use."""

from __future__ import annotations

from collections.abc import Iterator

from lirastore.catalog import HEADLINE
from lirastore.errors import name_some
from lirastore.report.content import AttackRow, ReportData
from lirastore.report.formats import percent, points
from lirastore.report.markup import Markup, element
from lirastore.report.parts import prose

__all__ = ["header"]


def header(data: ReportData) -> Markup:
    """Title, finding, what it means, the store in numbers, and warnings."""
    return element(
        "header",
        element("p", "Membership inference report", class_="eyebrow"),
        element("h1", data.facts.title),
        element("p", _headline(data), class_="lead"),
        _meaning(data),
        _facts(data),
        _notices(data),
    )


def _headline(data: ReportData) -> Iterator[object]:
    """What was found, in a sentence or two."""
    row, facts = data.lead, data.facts
    if row is None:
        yield f"{facts.committed:,} of {facts.info.models:,} models are in the store; no attack has run yet."
        return
    rate = row.rates[HEADLINE]
    yield "At a false positive rate of 0.1%, the strongest attack, "
    yield element("code", row.attack)
    yield ", recognises "
    yield element("strong", percent(rate.value))
    yield " of the training examples"
    if rate.low is not None and rate.high is not None:
        yield f" (95% bootstrap interval {points(rate.low)} to {percent(rate.high)})"
    yield ". Guessing would recognise 0.1%."
    if row.non_members < 1000:
        yield (
            f" One false positive among {row.non_members:,} non-members is more than 0.1% already: there is "
            "too little data for this number to mean much."
        )


# --- what it means --------------------------------------------------------------------------------


def _meaning(data: ReportData) -> Markup | None:
    row = data.lead
    if row is None:
        return None
    cards = [card for card in (_accusation(data), _people(data), _models(data, row), _choice(data)) if card]
    return element("ul", cards, class_="meaning", aria_label="What it means")


def _card(title: str, number: object, *text: object) -> Markup:
    return element("li", element("h3", title), element("p", number, class_="number"), element("p", *text))


def _accusation(data: ReportData) -> Markup | None:
    """What a single “member” is worth: it depends on how likely membership was before."""
    found = data.calibrated
    if found is None or found.precision(0.5) is None:
        return None
    return _card(
        "One accusation",
        percent(found.precision(0.5)),
        "of those it calls members were members, if one in two of those tested is one; "
        f"{percent(found.precision(0.1))} if one in ten; {percent(found.precision(0.01))} if one in a "
        "hundred. Each model’s threshold comes from the others, which realises a false positive rate of "
        f"{percent(found.fpr)}; for a single model, of {percent(found.fpr_least)} to "
        f"{percent(found.fpr_most)}.",
    )


def _people(data: ReportData) -> Markup | None:
    examples = data.examples
    if examples is None:
        return None
    rest = f"{examples.never:,} are recognised in none."
    if examples.often:
        often = (
            f"of {examples.total:,} examples are recognised in at least half of the models trained on them; "
        )
    else:
        often = f"of {examples.total:,} examples is recognised in half of the models trained on it; "
    return _card("Who is exposed", f"{examples.often:,}", often, rest)


def _models(data: ReportData, row: AttackRow) -> Markup | None:
    spread = data.spreads[row.attack][HEADLINE]
    if spread.mean is None or spread.std is None:
        return None
    return _card(
        "From model to model",
        f"{points(spread.mean)} ± {percent(spread.std)}",
        f"is the same rate one model at a time: mean and standard deviation over {row.targets:,} targets.",
    )


def _choice(data: ReportData) -> Markup | None:
    """The strongest of many, chosen on the same data: say so."""
    ran = len(data.attacks)
    if ran < 2:
        return None
    return _card(
        "A grain of salt",
        f"1 of {ran:,}",
        "different attacks is the one named above, chosen because it did best on these very data. That "
        "flatters it a little; a better attack that nobody ran would find more.",
    )


# --- the store ------------------------------------------------------------------------------------


def _facts(data: ReportData) -> Markup:
    facts, info = data.facts, data.facts.info
    names = sum(1 + len(row.aliases) for row in data.attacks)
    planned = f"of {info.models:,} planned" if facts.committed < info.models else ""
    found = [
        ("Models", f"{facts.committed:,}", planned),
        ("Examples", f"{info.examples:,}", f"{info.classes:,} classes" if info.classes else ""),
        ("Queries per example", f"{len(info.augmentations):,}", ""),
        ("Attacks", f"{len(data.attacks):,}", f"under {names:,} names" if names > len(data.attacks) else ""),
    ]
    accuracies = {"members": facts.train_accuracy, "others": facts.test_accuracy}
    found += [
        (f"Accuracy, {group}", percent(accuracy), "mean over models")
        for group, accuracy in accuracies.items()
        if accuracy is not None
    ]
    return element("dl", [_fact(*fact) for fact in found], class_="facts")


def _fact(name: str, value: str, more: str) -> Markup:
    content = element("dd", value, element("small", more) if more else None)
    return element("div", element("dt", name), content)


def _notices(data: ReportData) -> Markup | None:
    """Each thing to know once, with the attacks that it is about."""
    about: dict[str, list[str]] = {}
    for run in data.runs:
        if run.attack in data.stale:
            about.setdefault(_stale(len(run.models)), []).append(run.attack)
        for warning in run.warnings:
            about.setdefault(warning, []).append(run.attack)
    if not about:
        return None
    notes = [element("p", f"{name_some(attacks)}: ", prose(text)) for text, attacks in about.items()]
    return element("aside", notes, class_="notice", aria_label="Warnings")


def _stale(models: int) -> str:
    return (
        f"stale, computed from {models:,} models; the store has changed since. Run `lirastore attack` again "
        "to bring it up to date."
    )
